package postgres

import (
	"context"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Redeem implements registration.DeviceStore.
func (s *Store) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	if err := r.Check(); err != nil {
		return 0, 0, err
	}
	var revision uint64
	verdict, err := s.write(ctx, func(c *conn) (verdict registration.Verdict, err error) {
		revision, verdict, err = redeem(c, scope, r)
		return verdict, err
	})
	if err != nil {
		return 0, 0, err
	}
	return revision, verdict, nil
}

func redeem(c *conn, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	folded := dps.FoldID(r.ID)
	generation, err := lockID(c, scope, folded)
	if err != nil {
		return 0, 0, err
	}
	is, err := readEntry(c, scope, folded)
	if err != nil {
		return 0, 0, err
	}
	var groups uint64
	if r.Registration.Group != "" {
		if groups, err = holdGroups(c, scope); err != nil {
			return 0, 0, err
		}
	}
	if !r.RestsOn(is.enrollment, groups) || is.registration != r.RegistrationBefore {
		return 0, registration.Conflict, nil
	}
	if taken, err := is.claimDevice(c, scope, folded, r.Registration.Hub, r.Registration.DeviceID); taken || err != nil {
		return 0, registration.Taken, err
	}
	if generation != r.Generation {
		return 0, registration.Conflict, nil
	}
	if is.registration != 0 {
		r.Registration.Created = is.created
	}
	revision, err := writeProof(c, scope, is, r)
	return revision, registration.Applied, err
}

// entry is what a transition of a device must know of its id.
type entry struct {
	enrollment, registration uint64 // revisions; 0: there is none
	created                  time.Time
	hub, device, operation   string // of the registration
}

// readEntry reads it; the id is locked.
func readEntry(c *conn, scope, folded string) (is entry, err error) {
	_, err = c.one(func(r *row) {
		is.enrollment = r.uint()
		if r.null() {
			return
		}
		is.registration, is.created, is.hub, is.device, is.operation = r.uint(), r.time(), r.text(), r.text(), r.text()
	}, `SELECT coalesce(e.revision, 0), r.revision, r.created, r.hub, r.device_id, r.operation_id
		FROM (SELECT) AS k
		LEFT JOIN enrollments   AS e ON e.scope = $1 AND e.folded = $2
		LEFT JOIN registrations AS r ON r.scope = $1 AND r.folded = $2`, scope, folded)
	return is, err
}

// holdGroups reads the revision of the scope's groups and keeps it what it is until the commit. Redemptions hold it together.
func holdGroups(c *conn, scope string) (revision uint64, err error) {
	_, err = c.one(func(r *row) { revision = r.uint() }, `SELECT revision FROM group_revisions WHERE scope = $1 FOR SHARE`, scope)
	return revision, err
}

// claimDevice makes a device id at a hub the registration's; taken if it is another's. What the registration had before is freed
// by freeDevice.
func (is entry) claimDevice(c *conn, scope, folded, hub, device string) (taken bool, err error) {
	if is.holds(hub, device) {
		return false, nil
	}
	n, err := c.exec(`INSERT INTO device_ids (scope, hub, device_id, folded) VALUES ($1, $2, $3, $4)
		ON CONFLICT (scope, hub, device_id) DO NOTHING`, scope, hub, device, folded)
	return n == 0, err
}

func (is entry) holds(hub, device string) bool {
	return is.registration != 0 && is.hub == hub && is.device == device
}

// freeDevice gives back the device id that the registration had, if it has another now.
func (is entry) freeDevice(b *batch, scope, folded, hub, device string) {
	if is.registration != 0 && !is.holds(hub, device) {
		b.add(`DELETE FROM device_ids WHERE scope = $1 AND hub = $2 AND device_id = $3 AND folded = $4`, scope, is.hub, is.device, folded)
	}
}

// writeProof spends the challenge and writes operation and registration under one new revision, taken once all that the registration claims is its
// own: whoever has the device id next gets a greater one.
func writeProof(c *conn, scope string, is entry, r registration.Redemption) (revision uint64, err error) {
	folded := dps.FoldID(r.ID)
	_, err = c.one(func(row *row) { revision = row.uint() }, `UPDATE generations SET generation = $3, idle_since = NULL
		WHERE scope = $1 AND folded = $2 RETURNING nextval('revisions')`, scope, folded, r.Operation.Generation)
	if err != nil {
		return 0, err
	}
	r.Operation.Revision, r.Registration.Revision = revision, revision
	var b batch
	insertOperation(&b, scope, r.Operation)
	writeRegistration(&b, scope, r.Registration)
	is.freeDevice(&b, scope, folded, r.Registration.Hub, r.Registration.DeviceID)
	order(&b, scope, r.Outbox)
	b.audit(scope, r.Audit)
	return revision, c.send(&b)
}

func insertOperation(b *batch, scope string, o registration.Operation) {
	b.add(`INSERT INTO operations (scope, id, folded, registration_id, status, substatus, generation,
			revision, token_digest, sealed_key, ek, srk, sealed_hub_key, hub, device_id, error_code, error_message, tracking_id,
			created, updated, mechanism, group_id, plan)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)`,
		scope, o.ID, dps.FoldID(o.RegistrationID), o.RegistrationID, o.Status, o.Substatus, o.Generation,
		o.Revision, o.TokenDigest[:], o.SealedKey, o.EK, o.SRK, o.SealedHubKey, o.Hub, o.DeviceID, o.ErrorCode, o.ErrorMessage,
		o.TrackingID, o.Created, o.Updated, string(o.Mechanism), o.Group, o.Plan)
}

func writeRegistration(b *batch, scope string, r registration.Registration) {
	b.add(`INSERT INTO registrations (scope, folded, id, revision, status, substatus, hub, device_id,
			ek_key_id, srk, sealed_hub_key, hub_key_generation, operation_id, error_code, error_message, created, updated,
			mechanism, group_id, group_folded, leaving, saved, payload)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)
		ON CONFLICT (scope, folded) DO UPDATE SET
			id = excluded.id, revision = excluded.revision, status = excluded.status, substatus = excluded.substatus,
			hub = excluded.hub, device_id = excluded.device_id, ek_key_id = excluded.ek_key_id, srk = excluded.srk,
			sealed_hub_key = excluded.sealed_hub_key, hub_key_generation = excluded.hub_key_generation,
			operation_id = excluded.operation_id, error_code = excluded.error_code,
			error_message = excluded.error_message, created = excluded.created, updated = excluded.updated,
			mechanism = excluded.mechanism, group_id = excluded.group_id, group_folded = excluded.group_folded,
			leaving = excluded.leaving, saved = excluded.saved, payload = excluded.payload`,
		scope, dps.FoldID(r.ID), r.ID, r.Revision, r.Status, r.Substatus, r.Hub, r.DeviceID, r.EKKeyID[:], r.SRK,
		r.SealedHubKey, r.HubKeyGeneration, r.OperationID, r.ErrorCode, r.ErrorMessage, r.Created, r.Updated,
		string(r.Mechanism), r.Group, dps.FoldID(r.Group), strings.Join(r.Leaving, " "), r.Saved, r.Payload)
}

// Refuse implements registration.DeviceStore.
func (s *Store) Refuse(ctx context.Context, scope string, r registration.Refused) (registration.Verdict, error) {
	folded := dps.FoldID(r.ID)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		generation, err := lockID(c, scope, folded)
		if err != nil || generation != r.Generation {
			return registration.Conflict, err
		}
		is, err := readEntry(c, scope, folded)
		if err != nil {
			return 0, err
		}
		var b batch
		b.add(`UPDATE generations SET generation = $3, idle_since = NULL WHERE scope = $1 AND folded = $2`, scope, folded, generation+1)
		if is.enrollment == 0 && is.registration == 0 { // deleted since the challenge was made
			dropID(&b, scope, folded, r.Audit.At)
		}
		b.audit(scope, r.Audit)
		return registration.Applied, c.send(&b)
	})
}
