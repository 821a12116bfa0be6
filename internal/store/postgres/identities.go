package postgres

import (
	"context"

	"latchkey.example/latchkey/internal/registration"
)

// PutIdentity writes a device identity of a hub. Conflict if the stored generation is higher.
func (s *Store) PutIdentity(ctx context.Context, scope string, id registration.Identity, audit registration.Audit) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		n, err := c.exec(`INSERT INTO identities (scope, hub, device_id, sealed_key, generation, updated)
			VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (scope, hub, device_id) DO UPDATE SET
				sealed_key = excluded.sealed_key, generation = excluded.generation, updated = excluded.updated
			WHERE identities.generation <= excluded.generation`,
			scope, id.Hub, id.DeviceID, id.SealedKey, id.Generation, id.Updated)
		if n == 0 || err != nil {
			return registration.Conflict, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

// Identity reads a device identity of a hub; registration.ErrNotFound if there is none.
func (s *Store) Identity(ctx context.Context, scope, hub, deviceID string) (registration.Identity, error) {
	id := registration.Identity{Hub: hub, DeviceID: deviceID}
	err := s.read(ctx, func(c *conn) error {
		found, err := c.one(func(r *row) { id.SealedKey, id.Generation, id.Updated = r.blob(), r.uint(), r.time() },
			`SELECT sealed_key, generation, updated FROM identities
			WHERE scope = $1 AND hub = $2 AND device_id = $3`, scope, hub, deviceID)
		if err == nil && !found {
			err = registration.ErrNotFound
		}
		return err
	})
	if err != nil {
		return registration.Identity{}, err
	}
	return id, nil
}
