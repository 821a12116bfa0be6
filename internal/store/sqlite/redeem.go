package sqlite

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Redeem implements registration.DeviceStore.
func (s *Store) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	if err := r.Check(); err != nil {
		return 0, 0, err
	}
	var revision atomic.Uint64 // the transition may still run after write has given up waiting for it
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		given, verdict, err := redeem(c, scope, r, s.now())
		revision.Store(given)
		return verdict, err
	})
	if err != nil {
		return 0, 0, err
	}
	return revision.Load(), verdict, nil
}

func redeem(c *conn, scope string, r registration.Redemption, now time.Time) (uint64, registration.Verdict, error) {
	folded := dps.FoldID(r.ID)
	var enrollment, groups, before uint64
	var created time.Time
	_, err := c.one(func(row *row) { enrollment = row.uint() },
		`SELECT revision FROM enrollments WHERE scope = ?1 AND folded = ?2`, scope, folded)
	if err != nil {
		return 0, 0, err
	}
	if r.Registration.Group != "" {
		if groups, err = groupsRevision(c, scope); err != nil {
			return 0, 0, err
		}
	}
	replaces, err := c.one(func(row *row) { before, created = row.uint(), row.time() },
		`SELECT revision, created FROM registrations WHERE scope = ?1 AND folded = ?2`, scope, folded)
	if err != nil {
		return 0, 0, err
	}
	if !r.RestsOn(enrollment, groups) || before != r.RegistrationBefore {
		return 0, registration.Conflict, nil
	}
	if taken, err := deviceTaken(c, scope, folded, r.Registration.Hub, r.Registration.DeviceID); taken || err != nil {
		return 0, registration.Taken, err
	}
	if moved, err := moveGeneration(c, scope, folded, r.Generation); !moved || err != nil {
		return 0, registration.Conflict, err
	}
	if replaces {
		r.Registration.Created = created
	}
	revision, err := writeProof(c, scope, r)
	if err != nil {
		return 0, 0, err
	}
	if err := order(c, scope, r.Outbox, now); err != nil {
		return 0, 0, err
	}
	return revision, registration.Applied, appendAudit(c, scope, r.Audit)
}

// moveGeneration is the compare-and-set that spends a challenge. The id is taken for one in use; see noteIdle.
func moveGeneration(c *conn, scope, folded string, from uint64) (bool, error) {
	if from == 0 {
		n, err := c.exec(`INSERT INTO generations (scope, folded, generation) VALUES (?1, ?2, 1)
			ON CONFLICT (scope, folded) DO NOTHING`, scope, folded)
		return n == 1, err
	}
	n, err := c.exec(`UPDATE generations SET generation = generation + 1, idle_since = NULL
		WHERE scope = ?1 AND folded = ?2 AND generation = ?3`, scope, folded, from)
	return n == 1, err
}

// deviceTaken says whether another registration has the device id at that hub.
func deviceTaken(c *conn, scope, folded, hub, deviceID string) (bool, error) {
	return c.one(func(*row) {}, `SELECT 1 FROM registrations WHERE scope = ?1 AND hub = ?2 AND device_id = ?3 AND folded <> ?4`,
		scope, hub, deviceID, folded)
}

// writeProof writes operation and registration under one new revision.
func writeProof(c *conn, scope string, r registration.Redemption) (uint64, error) {
	revision, err := nextRevision(c, scope)
	if err != nil {
		return 0, err
	}
	r.Operation.Revision, r.Registration.Revision = revision, revision
	if err := insertOperation(c, scope, r.Operation); err != nil {
		return 0, err
	}
	return revision, writeRegistration(c, scope, r.Registration)
}

func insertOperation(c *conn, scope string, o registration.Operation) error {
	_, err := c.exec(`INSERT INTO operations (scope, id, folded, registration_id, status, substatus, generation,
			revision, token_digest, sealed_key, ek, srk, sealed_hub_key, hub, device_id, error_code, error_message, tracking_id,
			created, updated, mechanism, group_id, plan)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)`,
		scope, o.ID, dps.FoldID(o.RegistrationID), o.RegistrationID, o.Status, o.Substatus, o.Generation,
		o.Revision, o.TokenDigest[:], o.SealedKey, o.EK, o.SRK, o.SealedHubKey, o.Hub, o.DeviceID, o.ErrorCode, o.ErrorMessage,
		o.TrackingID, o.Created, o.Updated, string(o.Mechanism), o.Group, o.Plan)
	return err
}

// writeRegistration keeps the row's place when it replaces, so that a listing of sealed values goes on over it.
func writeRegistration(c *conn, scope string, r registration.Registration) error {
	_, err := c.exec(`INSERT INTO registrations (scope, folded, id, revision, status, substatus, hub, device_id,
			ek_key_id, srk, sealed_hub_key, hub_key_generation, operation_id, error_code, error_message, created, updated,
			mechanism, group_id, group_folded, leaving, saved, payload)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)
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
	return err
}

// Refuse implements registration.DeviceStore.
func (s *Store) Refuse(ctx context.Context, scope string, r registration.Refused) (registration.Verdict, error) {
	folded := dps.FoldID(r.ID)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if moved, err := moveGeneration(c, scope, folded, r.Generation); !moved || err != nil {
			return registration.Conflict, err
		}
		// The enrollment may have been deleted since the challenge was made.
		if err := noteIdle(c, scope, folded, r.Audit.At); err != nil {
			return 0, err
		}
		return registration.Applied, appendAudit(c, scope, r.Audit)
	})
}
