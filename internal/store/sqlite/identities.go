package sqlite

import (
	"context"

	"latchkey.example/latchkey/internal/registration"
)

// PutIdentity implements embedded.Identities.
func (s *Store) PutIdentity(ctx context.Context, scope string, put registration.IdentityPut, audit registration.Audit) (registration.Verdict, error) {
	if err := put.Check(); err != nil {
		return 0, err
	}
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if owns, err := c.mayWrite(put.Owner); !owns || err != nil {
			return registration.OtherOwner, err
		}
		write := updateIdentity
		if put.Was == 0 {
			write = insertIdentity
		}
		if verdict, err := write(c, scope, put); verdict != registration.Applied || err != nil {
			return verdict, err
		}
		if put.Twin != nil {
			twin := *put.Twin
			twin.Hub, twin.DeviceID = put.Hub, put.DeviceID
			if verdict, err := putTwin(c, scope, twin, s.now()); verdict != registration.Applied || err != nil {
				return verdict, err
			}
		}
		if put.Purge {
			for _, sql := range []string{`DELETE FROM hub_messages`, `UPDATE hub_queues SET listens = 0`} {
				if _, err := c.exec(sql+` WHERE scope = ?1 AND hub = ?2 AND device_id = ?3`, scope, put.Hub, put.DeviceID); err != nil {
					return 0, err
				}
			}
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

// mayWrite says whether the owner that a write names, if it does, has the hub.
func (c *conn) mayWrite(owner *string) (bool, error) {
	if owner == nil {
		return true, nil
	}
	return ownsHub(c, *owner)
}

func updateIdentity(c *conn, scope string, put registration.IdentityPut) (registration.Verdict, error) {
	n, err := c.exec(`UPDATE identities SET sealed_key = ?4, generation = ?5, updated = ?6, cutting = ?7, version = version + 1,
			disabled = ?10, status_reason = ?11, status_updated = ?12, iot_edge = ?13
		WHERE scope = ?1 AND hub = ?2 AND device_id = ?3 AND generation = ?8 AND generation <= ?5 AND (?9 = 0 OR version = ?9)`,
		scope, put.Hub, put.DeviceID, put.SealedKey, put.Generation, put.Updated, put.Cutting, put.Was, put.WasVersion,
		put.Disabled, put.StatusReason, put.StatusUpdated, put.IoTEdge)
	if n == 0 || err != nil {
		return registration.Conflict, err
	}
	return registration.Applied, nil
}

// insertIdentity takes up what one that was deleted has left behind.
func insertIdentity(c *conn, scope string, put registration.IdentityPut) (registration.Verdict, error) {
	if put.WasVersion != 0 {
		return registration.Conflict, nil
	}
	var generation, version uint64
	_, err := c.one(func(r *row) { generation, version = r.uint(), r.uint() },
		`DELETE FROM identity_generations WHERE scope = ?1 AND hub = ?2 AND device_id = ?3 RETURNING generation, version`, scope, put.Hub, put.DeviceID)
	if generation > put.Generation || err != nil {
		return registration.Superseded, err
	}
	taken, err := c.insert(`INSERT INTO identities (scope, hub, device_id, sealed_key, generation, updated, cutting, version, created,
			disabled, status_reason, status_updated, iot_edge)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (scope, hub, device_id) DO NOTHING`,
		scope, put.Hub, put.DeviceID, put.SealedKey, put.Generation, put.Updated, put.Cutting, version+1, put.Created,
		put.Disabled, put.StatusReason, put.StatusUpdated, put.IoTEdge)
	if taken || err != nil {
		return registration.Conflict, err
	}
	return registration.Applied, nil
}

const identityColumns = `device_id, sealed_key, generation, version, created, updated, cutting, disabled, status_reason, status_updated, iot_edge`

func (r *row) identity(hub string) registration.Identity {
	return registration.Identity{Hub: hub, DeviceID: r.text(), SealedKey: r.blob(), Generation: r.uint(), Version: r.uint(), Created: r.time(), Updated: r.time(),
		Cutting: r.bool(), Disabled: r.bool(), StatusReason: r.text(), StatusUpdated: r.time(), IoTEdge: r.bool()}
}

// Identity implements embedded.Identities.
func (s *Store) Identity(ctx context.Context, scope, hub, deviceID string) (id registration.Identity, err error) {
	err = s.read(ctx, func(c *conn) error {
		found, err := c.one(func(r *row) { id = r.identity(hub) },
			`SELECT `+identityColumns+` FROM identities WHERE scope = ?1 AND hub = ?2 AND device_id = ?3`, scope, hub, deviceID)
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

// Identities implements embedded.Identities.
func (s *Store) Identities(ctx context.Context, scope, hub, after string, limit int) (list []registration.Identity, err error) {
	err = s.read(ctx, func(c *conn) error {
		list = nil
		return c.each(func(r *row) { list = append(list, r.identity(hub)) }, `SELECT `+identityColumns+` FROM identities
			WHERE scope = ?1 AND hub = ?2 AND device_id > ?3 ORDER BY device_id LIMIT ?4`, scope, hub, after, limit)
	})
	return list, err
}

// IdentityGeneration implements embedded.Identities.
func (s *Store) IdentityGeneration(ctx context.Context, scope, hub, deviceID string) (generation uint64, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) { generation = r.uint() }, `SELECT generation FROM identities WHERE scope = ?1 AND hub = ?2 AND device_id = ?3
			UNION ALL SELECT generation FROM identity_generations WHERE scope = ?1 AND hub = ?2 AND device_id = ?3`, scope, hub, deviceID)
		return err
	})
	return generation, err
}

// DeleteIdentity implements embedded.Identities.
func (s *Store) DeleteIdentity(ctx context.Context, scope string, d registration.IdentityDelete, audit registration.Audit) (registration.Verdict, error) {
	if err := d.Check(); err != nil {
		return 0, err
	}
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if owns, err := c.mayWrite(d.Owner); !owns || err != nil {
			return registration.OtherOwner, err
		}
		version, verdict, err := removeIdentity(c, scope, d)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		older, err := c.insert(`INSERT INTO identity_generations (scope, hub, device_id, generation, version, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
			ON CONFLICT (scope, hub, device_id) DO UPDATE SET generation = excluded.generation, at = excluded.at
			WHERE identity_generations.generation <= excluded.generation`, scope, d.Hub, d.DeviceID, d.Generation, version, d.At)
		if older || err != nil {
			return registration.Superseded, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

// removeIdentity removes the identity that was read, with all that hangs on it, and returns its version.
func removeIdentity(c *conn, scope string, d registration.IdentityDelete) (version uint64, verdict registration.Verdict, err error) {
	var generation uint64
	found, err := c.one(func(r *row) { generation, version = r.uint(), r.uint() },
		`SELECT generation, version FROM identities WHERE scope = ?1 AND hub = ?2 AND device_id = ?3`, scope, d.Hub, d.DeviceID)
	switch {
	case err != nil:
		return 0, 0, err
	case !found && d.Was != 0:
		return 0, registration.Missing, nil
	case generation != d.Was || d.WasVersion != 0 && version != d.WasVersion:
		return 0, registration.Conflict, nil
	case !found:
		return 0, registration.Applied, nil
	}
	for _, table := range []string{"identities", "twins", "hub_messages", "hub_queues"} {
		if _, err := c.exec(`DELETE FROM `+table+` WHERE scope = ?1 AND hub = ?2 AND device_id = ?3`, scope, d.Hub, d.DeviceID); err != nil {
			return 0, 0, err
		}
	}
	return version, registration.Applied, nil
}
