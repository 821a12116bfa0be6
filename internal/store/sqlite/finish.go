package sqlite

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
	_, verdict, err := judgeMoving(c, scope, folded, f.OperationID)
	if verdict != registration.Applied || err != nil {
		return verdict, err
	}
	if f.Status == registration.Assigned {
		if taken, err := deviceTaken(c, scope, folded, f.Hub, f.DeviceID); taken || err != nil {
			return registration.Taken, err
		}
	}
	if err := writeFinish(c, scope, f); err != nil {
		return 0, err
	}
	return registration.Applied, appendAudit(c, scope, f.Audit)
}

// judgeMoving says whether an operation is its registration's current one and is assigning: what moves on is that alone. It gives its hub.
func judgeMoving(c *conn, scope, folded, operationID string) (hub string, verdict registration.Verdict, err error) {
	var current string
	_, err = c.one(func(r *row) { current = r.text() },
		`SELECT operation_id FROM registrations WHERE scope = ?1 AND folded = ?2`, scope, folded)
	if err != nil {
		return "", 0, err
	}
	if current != operationID {
		return "", registration.Superseded, nil
	}
	var status registration.Status
	found, err := c.one(func(r *row) { status, hub = registration.Status(r.text()), r.text() },
		`SELECT status, hub FROM operations WHERE scope = ?1 AND id = ?2`, scope, operationID)
	switch {
	case err != nil:
		return "", 0, err
	case !found:
		return "", registration.Missing, nil
	case status != registration.Assigning:
		return "", registration.Conflict, nil
	}
	return hub, registration.Applied, nil
}

func writeFinish(c *conn, scope string, f registration.Finish) error {
	_, err := c.exec(`UPDATE operations SET status = ?3, substatus = ?4, hub = ?5, device_id = ?6, error_code = ?7,
			error_message = ?8, updated = ?9, plan = x''
		WHERE scope = ?1 AND id = ?2`,
		scope, f.OperationID, f.Status, f.Substatus, f.Hub, f.DeviceID, f.ErrorCode, f.ErrorMessage, f.At)
	if err != nil {
		return err
	}
	revision, err := nextRevision(c, scope)
	if err != nil {
		return err
	}
	_, err = c.exec(`UPDATE registrations SET revision = ?3, status = ?4, error_code = ?5, error_message = ?6, updated = ?7, payload = ?8
		WHERE scope = ?1 AND folded = ?2`, scope, dps.FoldID(f.RegistrationID), revision, f.Status, f.ErrorCode, f.ErrorMessage, f.At, f.Payload)
	if err != nil {
		return err
	}
	if f.Status == registration.Assigned {
		_, err = c.exec(`UPDATE registrations SET substatus = ?3, hub = ?4, device_id = ?5, leaving = '', saved = x''
			WHERE scope = ?1 AND folded = ?2`, scope, dps.FoldID(f.RegistrationID), f.Substatus, f.Hub, f.DeviceID)
		if err != nil {
			return err
		}
	}
	return dropAdvance(c, scope, f.OperationID)
}

// dropAdvance removes the outbox row that was to advance an operation.
func dropAdvance(c *conn, scope, operationID string) error {
	_, err := c.exec(`DELETE FROM outbox WHERE scope = ?1 AND kind IN (?2, ?3) AND object = ?4`,
		scope, string(registration.OutboxAdvance), string(registration.OutboxAdvanceRemote), operationID)
	return err
}

// Unfinished implements registration.DeviceStore.
func (s *Store) Unfinished(ctx context.Context, createdBefore time.Time, after registration.Unfinished, limit int) ([]registration.Unfinished, error) {
	var list []registration.Unfinished
	err := s.read(ctx, func(c *conn) error {
		list = list[:0]
		return c.each(func(r *row) {
			list = append(list, registration.Unfinished{Scope: r.text(), Operation: scanOperation(r)})
		}, `SELECT o.scope, o.id, o.registration_id, o.status, o.substatus, o.generation, o.revision, o.mechanism, o.group_id, o.token_digest, o.sealed_key, o.ek, o.srk,
				o.sealed_hub_key, o.hub, o.device_id, o.error_code, o.error_message, o.tracking_id, o.created, o.updated, x''
			FROM operations AS o
			JOIN registrations AS r ON r.scope = o.scope AND r.folded = o.folded AND r.operation_id = o.id
			WHERE o.status = 'assigning' AND o.created < ?1 AND (o.created, o.scope, o.id) > (?2, ?3, ?4)
			ORDER BY o.created, o.scope, o.id LIMIT ?5`, createdBefore, after.Operation.Created, after.Scope, after.Operation.ID, limit)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Prune implements registration.DeviceStore.
func (s *Store) Prune(ctx context.Context, operationsBefore, idleBefore time.Time, limit int) (int, error) {
	removed := new(int) // the writer's until it answers
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		operations, err := c.exec(`DELETE FROM operations WHERE seq IN
			(SELECT o.seq FROM operations AS o WHERE o.created < ?1
				AND NOT (o.status = 'assigning' AND EXISTS (SELECT 1 FROM registrations AS r
					WHERE r.scope = o.scope AND r.folded = o.folded AND r.operation_id = o.id))
			ORDER BY o.created LIMIT ?2)`, operationsBefore, limit)
		if err != nil {
			return 0, err
		}
		generations, err := c.exec(`DELETE FROM generations WHERE seq IN
			(SELECT seq FROM generations WHERE idle_since < ?1 ORDER BY idle_since LIMIT ?2)`, idleBefore, limit)
		if err != nil {
			return 0, err
		}
		identities, err := c.exec(`DELETE FROM identity_generations WHERE seq IN
			(SELECT seq FROM identity_generations WHERE at < ?1 ORDER BY at LIMIT ?2)`, idleBefore, limit)
		if err != nil {
			return 0, err
		}
		closings, err := pruneClosings(c, operationsBefore, limit)
		*removed = operations + generations + identities + closings
		return registration.Applied, err
	})
	if err != nil {
		return 0, err
	}
	owners, err := s.owners.prune(ctx, idleBefore, limit)
	return *removed + owners, err
}
