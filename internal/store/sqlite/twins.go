package sqlite

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Twin implements embedded.Twins.
func (s *Store) Twin(ctx context.Context, scope, hub, deviceID string) (registration.Twin, error) {
	t := registration.Twin{Hub: hub, DeviceID: deviceID}
	err := s.read(ctx, func(c *conn) error {
		found, err := c.one(func(r *row) {
			t.Tags, t.Desired, t.Reported, t.DesiredMetadata, t.ReportedMetadata = r.blob(), r.blob(), r.blob(), r.blob(), r.blob()
			t.DesiredVersion, t.ReportedVersion, t.Version, t.Updated = r.uint(), r.uint(), r.uint(), r.time()
		}, `SELECT tags, desired, reported, desired_metadata, reported_metadata, desired_version, reported_version, version, updated
			FROM twins WHERE scope = ?1 AND hub = ?2 AND device_id = ?3`, scope, hub, deviceID)
		if err == nil && !found {
			err = registration.ErrNotFound
		}
		return err
	})
	if err != nil {
		return registration.Twin{}, err
	}
	return t, nil
}

// PutTwin implements embedded.Twins.
func (s *Store) PutTwin(ctx context.Context, scope string, put registration.TwinPut) (registration.Verdict, error) {
	if err := put.Check(); err != nil {
		return 0, err
	}
	return s.write(ctx, func(c *conn) (registration.Verdict, error) { return putTwin(c, scope, put, s.now()) })
}

func putTwin(c *conn, scope string, t registration.TwinPut, now time.Time) (registration.Verdict, error) {
	known, err := c.one(func(*row) {}, `SELECT 1 FROM identities WHERE scope = ?1 AND hub = ?2 AND device_id = ?3`, scope, t.Hub, t.DeviceID)
	if !known || err != nil {
		return registration.Missing, err
	}
	sql := `UPDATE twins SET tags = ?4, desired = ?5, reported = ?6, desired_metadata = ?7, reported_metadata = ?8, desired_version = ?9,
			reported_version = ?10, version = ?11 + 1, updated = ?12
		WHERE scope = ?1 AND hub = ?2 AND device_id = ?3 AND version = ?11`
	if t.Was == 0 {
		sql = `INSERT INTO twins (scope, hub, device_id, tags, desired, reported, desired_metadata, reported_metadata, desired_version, reported_version, version, updated)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 + 1, ?12) ON CONFLICT (scope, hub, device_id) DO NOTHING`
	}
	n, err := c.exec(sql, scope, t.Hub, t.DeviceID, t.Tags, t.Desired, t.Reported, t.DesiredMetadata, t.ReportedMetadata, t.DesiredVersion, t.ReportedVersion, t.Was, t.Updated)
	if n == 0 || err != nil {
		return registration.Conflict, err
	}
	return registration.Applied, order(c, scope, t.Outbox, now)
}

// HubLeftovers names at most limit devices of scopes that are there, whose identity is gone while a twin or a message of it is left. It walks all of them.
func (s *Store) HubLeftovers(ctx context.Context, limit int) (list []registration.HubLeftover, err error) {
	err = s.read(ctx, func(c *conn) error {
		list = nil
		return c.each(func(r *row) {
			list = append(list, registration.HubLeftover{Scope: r.text(), Hub: r.text(), DeviceID: r.text()})
		},
			`SELECT DISTINCT t.scope, t.hub, t.device_id FROM (SELECT scope, hub, device_id FROM twins UNION ALL SELECT scope, hub, device_id FROM hub_messages
				UNION ALL SELECT scope, hub, device_id FROM hub_queues) AS t
			WHERE EXISTS (SELECT 1 FROM scopes AS s WHERE s.id = t.scope)
				AND NOT EXISTS (SELECT 1 FROM identities AS i WHERE i.scope = t.scope AND i.hub = t.hub AND i.device_id = t.device_id)
			LIMIT ?1`, limit)
	})
	return list, err
}
