package sqlite

import (
	"context"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// PutHub implements registration.HubStore.
func (s *Store) PutHub(ctx context.Context, scope string, hub registration.LinkedHub, expect *uint64, audit registration.Audit) (registration.LinkedHub, registration.Verdict, error) {
	stored := new(registration.LinkedHub) // the writer's until it answers
	verdict, err := s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		hub.Name = dps.FoldID(hub.Name)
		if verdict, err := hubMayBePut(c, scope, hub.Name); err != nil || verdict != registration.Applied {
			return verdict, err
		}
		was, verdict, err := judgeEntry(c, `SELECT revision, created FROM linked_hubs WHERE scope = ?1 AND name = ?2`, scope, hub.Name, expect)
		if err != nil || verdict != registration.Applied {
			return verdict, err
		}
		if was.revision != 0 {
			hub.Created = was.created
		}
		if hub.Revision, err = nextRevision(c, scope); err != nil {
			return 0, err
		}
		if err := writeHub(c, scope, hub); err != nil {
			return 0, err
		}
		hub.Created, hub.Updated = rounded(hub.Created), rounded(hub.Updated)
		*stored = hub
		return registration.Applied, appendAudit(c, scope, audit)
	})
	if err != nil || verdict != registration.Applied {
		return registration.LinkedHub{}, verdict, err
	}
	return *stored, verdict, nil
}

// hubMayBePut says whether the scope is there and no other has the name.
func hubMayBePut(c *conn, scope, name string) (registration.Verdict, error) {
	found, err := c.one(func(*row) {}, `SELECT 1 FROM scopes WHERE id = ?1`, scope)
	if !found || err != nil {
		return registration.Missing, err
	}
	taken, err := c.one(func(*row) {}, `SELECT 1 FROM linked_hubs WHERE name = ?2 AND scope <> ?1
		UNION ALL SELECT 1 FROM scope_hosts WHERE host = ?2 AND scope <> ?1`, scope, name)
	if taken || err != nil {
		return registration.Taken, err
	}
	return registration.Applied, nil
}

// writeHub keeps the row's place when it replaces, so that a listing of sealed values goes on over it.
func writeHub(c *conn, scope string, h registration.LinkedHub) error {
	_, err := c.exec(`INSERT INTO linked_hubs (scope, name, kind, weight, allocate, draining, region, settings, sealed_secret, revision, created, updated)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
		ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, weight = excluded.weight, allocate = excluded.allocate, draining = excluded.draining,
			region = excluded.region, settings = excluded.settings, sealed_secret = excluded.sealed_secret, revision = excluded.revision,
			updated = excluded.updated`,
		scope, h.Name, string(h.Kind), h.Weight, h.Allocate, h.Draining, h.Region, h.Settings, h.SealedSecret, h.Revision, h.Created, h.Updated)
	return err
}

// DeleteHub implements registration.HubStore.
func (s *Store) DeleteHub(ctx context.Context, scope, name string, expect *uint64, audit registration.Audit) (registration.Verdict, error) {
	return s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		verdict, err := deleteRow(c, scope, dps.FoldID(name), expect,
			`SELECT revision FROM linked_hubs WHERE scope = ?1 AND name = ?2`,
			`DELETE FROM linked_hubs WHERE scope = ?1 AND name = ?2`)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

// PutAllocation implements registration.HubStore.
func (s *Store) PutAllocation(ctx context.Context, scope string, settings registration.AllocationSettings, expect *uint64, audit registration.Audit) (registration.AllocationSettings, registration.Verdict, error) {
	return s.putAllocation(ctx, scope, expect, audit, func(stored registration.AllocationSettings) registration.AllocationSettings {
		settings.SealedWebhookKey = stored.SealedWebhookKey
		return settings
	})
}

// PutWebhookKey implements registration.HubStore.
func (s *Store) PutWebhookKey(ctx context.Context, scope string, sealed []byte, expect *uint64, audit registration.Audit) (registration.AllocationSettings, registration.Verdict, error) {
	return s.putAllocation(ctx, scope, expect, audit, func(stored registration.AllocationSettings) registration.AllocationSettings {
		stored.SealedWebhookKey, stored.Updated = sealed, audit.At
		return stored
	})
}

func (s *Store) putAllocation(ctx context.Context, scope string, expect *uint64, audit registration.Audit,
	change func(registration.AllocationSettings) registration.AllocationSettings,
) (registration.AllocationSettings, registration.Verdict, error) {
	stored := new(registration.AllocationSettings) // the writer's until it answers
	verdict, err := s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		there, err := c.one(func(*row) {}, `SELECT 1 FROM scopes WHERE id = ?1`, scope)
		if !there || err != nil {
			return registration.Missing, err
		}
		was, err := readAllocation(c, scope)
		if err != nil {
			return 0, err
		}
		if verdict := judge(was.Revision != 0, was.Revision, expect); verdict != registration.Applied {
			return verdict, nil
		}
		now := change(was)
		if now.Revision, err = nextRevision(c, scope); err != nil {
			return 0, err
		}
		if err := writeAllocation(c, scope, now); err != nil {
			return 0, err
		}
		now.Updated = rounded(now.Updated)
		*stored = now
		return registration.Applied, appendAudit(c, scope, audit)
	})
	if err != nil || verdict != registration.Applied {
		return registration.AllocationSettings{}, verdict, err
	}
	return *stored, verdict, nil
}

func readAllocation(c *conn, scope string) (a registration.AllocationSettings, err error) {
	var regions []byte
	found, err := c.one(func(r *row) {
		a, regions = registration.AllocationSettings{Default: r.text()}, r.blob()
		a.SealedWebhookKey, a.Revision, a.Updated = r.blob(), r.uint(), r.time()
	}, `SELECT default_policy, regions, sealed_webhook_key, revision, updated FROM scope_allocations WHERE scope = ?1`, scope)
	if !found || err != nil {
		return registration.AllocationSettings{}, err
	}
	a.Regions, err = registration.DecodeRegions(regions)
	return a, err
}

func writeAllocation(c *conn, scope string, a registration.AllocationSettings) error {
	regions, err := registration.EncodeRegions(a.Regions)
	if err != nil {
		return err
	}
	_, err = c.exec(`INSERT INTO scope_allocations (scope, default_policy, regions, sealed_webhook_key, revision, updated)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6)
		ON CONFLICT (scope) DO UPDATE SET default_policy = excluded.default_policy, regions = excluded.regions,
			sealed_webhook_key = excluded.sealed_webhook_key, revision = excluded.revision, updated = excluded.updated`,
		scope, a.Default, regions, a.SealedWebhookKey, a.Revision, a.Updated)
	return err
}

// HubDevices implements registration.HubStore.
func (s *Store) HubDevices(ctx context.Context, scope string) (map[string]registration.HubCount, error) {
	devices := map[string]registration.HubCount{}
	err := s.read(ctx, func(c *conn) error {
		clear(devices)
		return c.snapshot(func() error { return countHubs(c, scope, devices) })
	})
	if err != nil {
		return nil, err
	}
	return devices, nil
}

func countHubs(c *conn, scope string, devices map[string]registration.HubCount) error {
	err := c.each(func(r *row) {
		hub := r.text()
		devices[hub] = registration.HubCount{Devices: r.uint()}
	}, `SELECT hub, count(*) FROM registrations WHERE scope = ?1 AND hub <> '' GROUP BY hub`, scope)
	if err != nil {
		return err
	}
	err = c.each(func(r *row) {
		hub := r.text()
		count := devices[hub]
		count.Assigning = r.uint()
		devices[hub] = count
	}, `SELECT hub, count(*) FROM registrations WHERE scope = ?1 AND status = 'assigning' AND hub <> '' GROUP BY hub`, scope)
	if err != nil {
		return err
	}
	// Who is assigned has left.
	return c.each(func(r *row) {
		leaving, n := strings.Fields(r.text()), r.uint()
		for _, hub := range leaving {
			count := devices[hub]
			count.Leaving += n
			devices[hub] = count
		}
	}, `SELECT leaving, count(*) FROM registrations WHERE scope = ?1 AND status IN ('assigning', 'failed') AND leaving <> '' GROUP BY leaving`, scope)
}

// readHubs reads the linked hubs of a scope in order of their names.
func readHubs(c *conn, scope string) (hubs []registration.LinkedHub, err error) {
	err = c.each(func(r *row) {
		hubs = append(hubs, registration.LinkedHub{
			Name: r.text(), Kind: registration.HubKind(r.text()), Weight: r.int(), Allocate: r.bool(), Draining: r.bool(), Region: r.text(),
			Settings: r.blob(), SealedSecret: r.blob(), Revision: r.uint(), Created: r.time(), Updated: r.time(),
		})
	}, `SELECT name, kind, weight, allocate, draining, region, settings, sealed_secret, revision, created, updated FROM linked_hubs
		WHERE scope = ?1 ORDER BY name`, scope)
	return hubs, err
}
