package sqlite

import (
	"context"

	"latchkey.example/latchkey/internal/registration"
)

// PutIdentity writes a device identity of a hub. Conflict if the stored generation is not the one that was read, or the new one is smaller; OtherOwner
// if an owner is named that does not have the hub.
func (s *Store) PutIdentity(ctx context.Context, scope string, put registration.IdentityPut, audit registration.Audit) (registration.Verdict, error) {
	if put.Generation == 0 {
		return 0, registration.ErrNoGeneration
	}
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if put.Owner != nil {
			if owns, err := ownsHub(c, *put.Owner); !owns || err != nil {
				return registration.OtherOwner, err
			}
		}
		sql := `UPDATE identities SET sealed_key = ?4, generation = ?5, updated = ?6, cutting = ?7
			WHERE scope = ?1 AND hub = ?2 AND device_id = ?3 AND generation = ?8 AND generation <= ?5`
		args := []any{scope, put.Hub, put.DeviceID, put.SealedKey, put.Generation, put.Updated, put.Cutting, put.Was}
		if put.Was == 0 {
			sql, args = `INSERT INTO identities (scope, hub, device_id, sealed_key, generation, updated, cutting)
				VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (scope, hub, device_id) DO NOTHING`, args[:7]
		}
		n, err := c.exec(sql, args...)
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
		found, err := c.one(func(r *row) {
			id.SealedKey, id.Generation, id.Updated, id.Cutting = r.blob(), r.uint(), r.time(), r.bool()
		},
			`SELECT sealed_key, generation, updated, cutting FROM identities
			WHERE scope = ?1 AND hub = ?2 AND device_id = ?3`, scope, hub, deviceID)
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
