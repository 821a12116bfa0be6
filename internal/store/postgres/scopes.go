package postgres

import (
	"context"
	"errors"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// writeScopes is write for a transition of what Scopes returns. It moves their revision first, so that of two at once the second sees what the first has done.
func (s *Store) writeScopes(ctx context.Context, run transition) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if err := moveScopes(c); err != nil {
			return 0, err
		}
		return run(c)
	})
}

func moveScopes(c *conn) error {
	n, err := c.exec(`UPDATE scopes_revision SET revision = revision + 1 WHERE one = 1`)
	if err == nil && n != 1 {
		err = errors.New("the row of scopes_revision is missing")
	}
	return err
}

// ScopesRevision implements registration.ScopeStore.
func (s *Store) ScopesRevision(ctx context.Context) (revision uint64, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) { revision = r.uint() }, `SELECT revision FROM scopes_revision WHERE one = 1`)
		return err
	})
	return revision, err
}

// CreateScope implements registration.ScopeStore.
func (s *Store) CreateScope(ctx context.Context, scope registration.Scope, audit registration.Audit) (registration.Verdict, error) {
	return s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		if scope.Home {
			home, err := c.one(func(*row) {}, `SELECT 1 FROM scopes WHERE home`)
			if home || err != nil {
				return registration.Exists, err
			}
		}
		n, err := c.exec(`INSERT INTO scopes (id, folded, sealed_root, created, home, certificate, sealed_certificate_key)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (folded) DO NOTHING`,
			scope.ID, dps.FoldID(scope.ID), scope.SealedRoot, scope.Created, scope.Home, scope.Certificate, scope.SealedCertificateKey)
		if n == 0 || err != nil {
			return registration.Exists, err
		}
		// Looked at once the id is ours: it may have been another's a moment ago.
		used, err := c.one(func(*row) {}, `SELECT 1 FROM deleted_scopes WHERE folded = $1`, dps.FoldID(scope.ID))
		if used || err != nil {
			return registration.Exists, err
		}
		for i, host := range scope.Hosts {
			linked, err := c.one(func(*row) {}, `SELECT 1 FROM linked_hubs WHERE name = $1`, dps.FoldID(host))
			if linked || err != nil {
				return registration.Exists, err
			}
			n, err := c.exec(`INSERT INTO scope_hosts (host, scope, place) VALUES ($1, $2, $3)
				ON CONFLICT (host) DO NOTHING`, dps.FoldID(host), scope.ID, i)
			if n == 0 || err != nil {
				return registration.Exists, err
			}
		}
		for _, p := range scope.Policies {
			_, err := c.exec(`INSERT INTO access_policies (scope, name, rights, sealed_primary, sealed_secondary)
				VALUES ($1, $2, $3, $4, $5)`, scope.ID, p.Name, int(p.Rights), p.SealedPrimary, p.SealedSecondary)
			if err != nil {
				return 0, err
			}
		}
		if err := appendAudit(c, scope.ID, audit); err != nil {
			return 0, err
		}
		return registration.Applied, tellHome(c, scope.ID, audit)
	})
}

// tellHome writes what became of a scope into the log of the home scope, if that is another.
func tellHome(c *conn, scope string, audit registration.Audit) error {
	var home string
	found, err := c.one(func(r *row) { home = r.text() }, `SELECT id FROM scopes WHERE home AND id <> $1`, scope)
	if !found || err != nil {
		return err
	}
	return appendAudit(c, home, audit)
}

// DeleteScope implements registration.ScopeStore.
func (s *Store) DeleteScope(ctx context.Context, id string, audit registration.Audit) (registration.Verdict, error) {
	return s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		home := false
		found, err := c.one(func(r *row) { home = r.bool() }, `SELECT home FROM scopes WHERE id = $1 FOR UPDATE`, id)
		switch {
		case err != nil:
			return 0, err
		case !found:
			return registration.Missing, nil
		case home:
			return registration.LastOne, nil
		}
		for _, sql := range []string{
			`DELETE FROM scopes WHERE id = $1`, `DELETE FROM scope_hosts WHERE scope = $1`, `DELETE FROM access_policies WHERE scope = $1`,
			`DELETE FROM linked_hubs WHERE scope = $1`, `DELETE FROM scope_allocations WHERE scope = $1`,
		} {
			if _, err := c.exec(sql, id); err != nil {
				return 0, err
			}
		}
		if _, err := c.exec(`INSERT INTO deleted_scopes (scope, folded, at, done) VALUES ($1, $2, $3, false)`, id, dps.FoldID(id), audit.At); err != nil {
			return 0, err
		}
		if err := appendAudit(c, id, audit); err != nil {
			return 0, err
		}
		return registration.Applied, tellHome(c, id, audit)
	})
}

// leftovers are the tables that hold rows of a scope, but for its log, and what their keys have beside the scope.
var leftovers = []struct {
	table string
	key   []string
}{
	{"enrollments", []string{"folded"}}, {"registrations", []string{"folded"}}, {"device_ids", []string{"hub", "device_id"}}, {"operations", []string{"id"}},
	{"closures", []string{"folded"}}, {"awaited", []string{"folded", "origin", "object"}}, {"offers", []string{"folded"}},
	{"generations", []string{"folded"}}, {"identities", []string{"hub", "device_id"}}, {"identity_generations", []string{"hub", "device_id"}},
	{"twins", []string{"hub", "device_id"}}, {"hub_messages", []string{"hub", "device_id", "n"}}, {"hub_queues", []string{"hub", "device_id"}},
	{"enrollment_groups", []string{"folded"}},
	{"ca_certificates", []string{"folded"}}, {"group_revisions", nil}, {"entry_certificates", []string{"sha256"}}, {"owners", []string{"folded", "digest"}},
	{"outbox", []string{"kind", "object"}},
	{"linked_hubs", []string{"name"}}, {"scope_allocations", nil}, // of a scope that an older release has deleted
}

// PruneScopes implements registration.ScopeStore. A scope that another node is at is left to it.
func (s *Store) PruneScopes(ctx context.Context, settledBefore time.Time, limit int) (int, error) {
	removed := 0
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		removed = 0
		var left []string
		err := c.each(func(r *row) { left = append(left, r.text()) }, `SELECT scope FROM deleted_scopes WHERE NOT done ORDER BY at FOR UPDATE SKIP LOCKED`)
		if err != nil {
			return 0, err
		}
		for _, scope := range left {
			n, err := pruneScope(c, scope, limit-removed)
			if err != nil {
				return 0, err
			}
			if removed += n; removed >= limit {
				return registration.Applied, nil
			}
			if _, err = c.exec(`UPDATE deleted_scopes SET done = true WHERE folded = $1 AND at < $2`, dps.FoldID(scope), settledBefore); err != nil {
				return 0, err
			}
		}
		return registration.Applied, nil
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

func pruneScope(c *conn, scope string, limit int) (removed int, err error) {
	for _, left := range leftovers {
		key, same := "scope", "t.scope = old.scope"
		for _, part := range left.key {
			key, same = key+", "+part, same+" AND t."+part+" = old."+part
		}
		n, err := c.exec(`WITH old AS MATERIALIZED (SELECT `+key+` FROM `+left.table+` WHERE scope = $1 LIMIT $2)
			DELETE FROM `+left.table+` AS t USING old WHERE `+same, scope, limit-removed)
		if err != nil {
			return 0, err
		}
		if removed += n; removed >= limit {
			break
		}
	}
	return removed, nil
}

// PutScopeCertificate implements registration.ScopeStore.
func (s *Store) PutScopeCertificate(ctx context.Context, id string, chain, sealedKey []byte, audit registration.Audit) (registration.Verdict, error) {
	return s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		n, err := c.exec(`UPDATE scopes SET certificate = $2, sealed_certificate_key = $3 WHERE id = $1`, id, chain, sealedKey)
		if n == 0 || err != nil {
			return registration.Missing, err
		}
		return registration.Applied, appendAudit(c, id, audit)
	})
}

// Scopes implements registration.ScopeStore.
func (s *Store) Scopes(ctx context.Context) (scopes []registration.Scope, err error) {
	err = s.snapshot(ctx, func(c *conn) error {
		scopes, err = readScopes(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return scopes, nil
}

func readScopes(c *conn) (scopes []registration.Scope, err error) {
	at := map[string]int{}
	err = c.each(func(r *row) {
		scope := registration.Scope{ID: r.text(), SealedRoot: r.blob(), Created: r.time(),
			Home: r.bool(), Certificate: r.blob(), SealedCertificateKey: r.blob()}
		at[scope.ID] = len(scopes)
		scopes = append(scopes, scope)
	}, `SELECT id, sealed_root, created, home, certificate, sealed_certificate_key FROM scopes ORDER BY id`)
	if err != nil {
		return nil, err
	}
	err = c.each(func(r *row) {
		if i, found := at[r.text()]; found {
			scopes[i].Hosts = append(scopes[i].Hosts, r.text())
		}
	}, `SELECT scope, host FROM scope_hosts ORDER BY scope, place`)
	if err != nil {
		return nil, err
	}
	err = c.each(func(r *row) {
		if i, found := at[r.text()]; found {
			scopes[i].Policies = append(scopes[i].Policies, registration.AccessPolicy{
				Name: r.text(), Rights: registration.Right(r.int()), SealedPrimary: r.blob(), SealedSecondary: r.blob(),
			})
		}
	}, `SELECT scope, name, rights, sealed_primary, sealed_secondary FROM access_policies ORDER BY scope, place`)
	if err != nil {
		return nil, err
	}
	return scopes, readLinked(c, scopes, at)
}
