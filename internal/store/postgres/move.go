package postgres

import (
	"context"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Allocate implements registration.DeviceStore.
func (s *Store) Allocate(ctx context.Context, scope string, a registration.Allocated) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		folded := dps.FoldID(a.RegistrationID)
		is, hub, verdict, err := judgeMoving(c, scope, folded, a.OperationID)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		if hub != "" {
			return registration.Conflict, nil
		}
		if taken, err := is.claimDevice(c, scope, folded, a.Hub, a.DeviceID); taken || err != nil {
			return registration.Taken, err
		}
		return registration.Applied, writeAllocated(c, scope, is, a)
	})
}

func writeAllocated(c *conn, scope string, is entry, a registration.Allocated) error {
	folded := dps.FoldID(a.RegistrationID)
	var b batch
	b.add(`UPDATE operations SET hub = $3, device_id = $4, substatus = $5, plan = $6, updated = $7 WHERE scope = $1 AND id = $2`,
		scope, a.OperationID, a.Hub, a.DeviceID, a.Substatus, a.Plan, a.At)
	b.add(`UPDATE registrations SET revision = nextval('revisions'), hub = $3, device_id = $4, leaving = $5, updated = $6 WHERE scope = $1 AND folded = $2`,
		scope, folded, a.Hub, a.DeviceID, strings.Join(a.Leaving, " "), a.At)
	is.freeDevice(&b, scope, folded, a.Hub, a.DeviceID)
	if a.Outbox != nil {
		dropAdvance(&b, scope, a.OperationID)
		order(&b, scope, a.Outbox)
	}
	return c.send(&b)
}

// SaveMove implements registration.DeviceStore. The revision moves: a redemption that has read the registration before must not write over it.
func (s *Store) SaveMove(ctx context.Context, scope string, m registration.SavedMove) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		folded := dps.FoldID(m.RegistrationID)
		_, _, verdict, err := judgeMoving(c, scope, folded, m.OperationID)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		_, err = c.exec(`UPDATE registrations SET revision = nextval('revisions'), saved = $3, updated = $4 WHERE scope = $1 AND folded = $2`, scope, folded, m.Data, m.At)
		return registration.Applied, err
	})
}
