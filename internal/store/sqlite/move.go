package sqlite

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
		hub, verdict, err := judgeMoving(c, scope, folded, a.OperationID)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		if hub != "" {
			return registration.Conflict, nil
		}
		if taken, err := deviceTaken(c, scope, folded, a.Hub, a.DeviceID); taken || err != nil {
			return registration.Taken, err
		}
		if err := writeAllocated(c, scope, a); err != nil {
			return 0, err
		}
		if a.Outbox == nil {
			return registration.Applied, nil
		}
		if err := dropAdvance(c, scope, a.OperationID); err != nil {
			return 0, err
		}
		return registration.Applied, order(c, scope, a.Outbox, s.now())
	})
}

func writeAllocated(c *conn, scope string, a registration.Allocated) error {
	_, err := c.exec(`UPDATE operations SET hub = ?3, device_id = ?4, substatus = ?5, plan = ?6, updated = ?7 WHERE scope = ?1 AND id = ?2`,
		scope, a.OperationID, a.Hub, a.DeviceID, a.Substatus, a.Plan, a.At)
	if err != nil {
		return err
	}
	revision, err := nextRevision(c, scope)
	if err != nil {
		return err
	}
	_, err = c.exec(`UPDATE registrations SET revision = ?3, hub = ?4, device_id = ?5, leaving = ?6, updated = ?7 WHERE scope = ?1 AND folded = ?2`,
		scope, dps.FoldID(a.RegistrationID), revision, a.Hub, a.DeviceID, strings.Join(a.Leaving, " "), a.At)
	return err
}

// SaveMove implements registration.DeviceStore. The revision moves: a redemption that has read the registration before must not write over it.
func (s *Store) SaveMove(ctx context.Context, scope string, m registration.SavedMove) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		folded := dps.FoldID(m.RegistrationID)
		_, verdict, err := judgeMoving(c, scope, folded, m.OperationID)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		revision, err := nextRevision(c, scope)
		if err != nil {
			return 0, err
		}
		_, err = c.exec(`UPDATE registrations SET revision = ?3, saved = ?4, updated = ?5 WHERE scope = ?1 AND folded = ?2`, scope, folded, revision, m.Data, m.At)
		return registration.Applied, err
	})
}
