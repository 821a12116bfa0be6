package postgres

import (
	"context"
	"fmt"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Finish implements registration.DeviceStore.
func (s *Store) Finish(ctx context.Context, scope string, f registration.Finish) (registration.Verdict, error) {
	if f.Status != registration.Assigned && f.Status != registration.Failed {
		return 0, fmt.Errorf("finish: %q is not a final status", f.Status)
	}
	return s.write(ctx, func(c *conn) (registration.Verdict, error) { return finish(c, scope, f) })
}

func finish(c *conn, scope string, f registration.Finish) (registration.Verdict, error) {
	folded := dps.FoldID(f.RegistrationID)
	is, _, verdict, err := judgeMoving(c, scope, folded, f.OperationID)
	if verdict != registration.Applied || err != nil {
		return verdict, err
	}
	if f.Status == registration.Assigned {
		if taken, err := is.claimDevice(c, scope, folded, f.Hub, f.DeviceID); taken || err != nil {
			return registration.Taken, err
		}
	}
	return registration.Applied, writeFinish(c, scope, is, f)
}

// judgeMoving locks the id and says whether an operation is its registration's current one and is assigning: what moves on is that alone. It gives
// its hub.
func judgeMoving(c *conn, scope, folded, operationID string) (is entry, hub string, verdict registration.Verdict, err error) {
	if _, err := lockID(c, scope, folded); err != nil {
		return is, "", 0, err
	}
	if is, err = readEntry(c, scope, folded); err != nil {
		return is, "", 0, err
	}
	if is.operation != operationID {
		return is, "", registration.Superseded, nil
	}
	var status registration.Status
	found, err := c.one(func(r *row) { status, hub = registration.Status(r.text()), r.text() },
		`SELECT status, hub FROM operations WHERE scope = $1 AND id = $2`, scope, operationID)
	switch {
	case err != nil:
		return is, "", 0, err
	case !found:
		return is, "", registration.Missing, nil
	case status != registration.Assigning:
		return is, "", registration.Conflict, nil
	}
	return is, hub, registration.Applied, nil
}

func writeFinish(c *conn, scope string, is entry, f registration.Finish) error {
	folded := dps.FoldID(f.RegistrationID)
	var b batch
	b.add(`UPDATE operations SET status = $3, substatus = $4, hub = $5, device_id = $6, error_code = $7,
			error_message = $8, updated = $9, plan = ''::bytea
		WHERE scope = $1 AND id = $2`,
		scope, f.OperationID, f.Status, f.Substatus, f.Hub, f.DeviceID, f.ErrorCode, f.ErrorMessage, f.At)
	if f.Status == registration.Assigned {
		b.add(`UPDATE registrations SET revision = nextval('revisions'), status = $3, error_code = $4, error_message = $5, updated = $6, payload = $7,
				substatus = $8, hub = $9, device_id = $10, leaving = '', saved = ''::bytea
			WHERE scope = $1 AND folded = $2`, scope, folded, f.Status, f.ErrorCode, f.ErrorMessage, f.At, f.Payload, f.Substatus, f.Hub, f.DeviceID)
		is.freeDevice(&b, scope, folded, f.Hub, f.DeviceID)
	} else {
		b.add(`UPDATE registrations SET revision = nextval('revisions'), status = $3, error_code = $4, error_message = $5, updated = $6, payload = $7
			WHERE scope = $1 AND folded = $2`, scope, folded, f.Status, f.ErrorCode, f.ErrorMessage, f.At, f.Payload)
	}
	dropAdvance(&b, scope, f.OperationID)
	b.audit(scope, f.Audit)
	return c.send(&b)
}

// dropAdvance removes the outbox row that was to advance an operation.
func dropAdvance(b *batch, scope, operationID string) {
	b.add(`DELETE FROM outbox WHERE scope = $1 AND kind IN ($2, $3) AND object = $4`,
		scope, string(registration.OutboxAdvance), string(registration.OutboxAdvanceRemote), operationID)
}

// Unfinished implements registration.DeviceStore.
func (s *Store) Unfinished(ctx context.Context, createdBefore time.Time, after registration.Unfinished, limit int) ([]registration.Unfinished, error) {
	var list []registration.Unfinished
	err := s.read(ctx, func(c *conn) error {
		list = list[:0]
		return c.each(func(r *row) {
			list = append(list, registration.Unfinished{Scope: r.text(), Operation: scanOperation(r)})
		}, `SELECT o.scope, o.id, o.registration_id, o.status, o.substatus, o.generation, o.revision, o.mechanism, o.group_id, o.token_digest, o.sealed_key, o.ek, o.srk,
				o.sealed_hub_key, o.hub, o.device_id, o.error_code, o.error_message, o.tracking_id, o.created, o.updated, ''::bytea
			FROM operations AS o
			JOIN registrations AS r ON r.scope = o.scope AND r.folded = o.folded AND r.operation_id = o.id
			WHERE o.status = 'assigning' AND o.created < $1 AND (o.created, o.scope, o.id) > ($2, $3, $4)
			ORDER BY o.created, o.scope, o.id LIMIT $5`, createdBefore, after.Operation.Created, after.Scope, after.Operation.ID, limit)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Prune implements registration.DeviceStore. Rows that others hold are left for the next time. The rows to go are chosen once, apart (MATERIALIZED): a
// plan that looked for them once for each row it deletes would skip what it has locked itself, and exceed the limit.
func (s *Store) Prune(ctx context.Context, operationsBefore, idleBefore time.Time, limit int) (int, error) {
	removed := 0
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		operations, err := c.exec(`WITH old AS MATERIALIZED (SELECT o.scope, o.id FROM operations AS o WHERE o.created < $1
				AND NOT (o.status = 'assigning' AND EXISTS (SELECT 1 FROM registrations AS r
					WHERE r.scope = o.scope AND r.folded = o.folded AND r.operation_id = o.id))
			ORDER BY o.created LIMIT $2 FOR UPDATE OF o SKIP LOCKED)
			DELETE FROM operations AS o USING old WHERE o.scope = old.scope AND o.id = old.id`, operationsBefore, limit)
		if err != nil {
			return 0, err
		}
		generations, err := c.exec(`WITH old AS MATERIALIZED (SELECT scope, folded FROM generations WHERE idle_since < $1
			ORDER BY idle_since LIMIT $2 FOR UPDATE SKIP LOCKED)
			DELETE FROM generations AS g USING old WHERE g.scope = old.scope AND g.folded = old.folded`, idleBefore, limit)
		if err != nil {
			return 0, err
		}
		owners, err := c.exec(`WITH old AS MATERIALIZED (SELECT scope, folded, digest FROM owners WHERE at < $1 AND place > 0
			ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)
			DELETE FROM owners AS o USING old WHERE o.scope = old.scope AND o.folded = old.folded AND o.digest = old.digest`, idleBefore, limit)
		if err != nil {
			return 0, err
		}
		identities, err := c.exec(`WITH old AS MATERIALIZED (SELECT scope, hub, device_id FROM identity_generations WHERE at < $1 AND generation > 0
			ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)
			DELETE FROM identity_generations AS g USING old WHERE g.scope = old.scope AND g.hub = old.hub AND g.device_id = old.device_id`, idleBefore, limit)
		if err != nil {
			return 0, err
		}
		closings, err := pruneClosings(c, operationsBefore, limit)
		removed = operations + generations + owners + identities + closings
		return registration.Applied, err
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}
