package sqlite

import (
	"context"
	"errors"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// writeScopes is write for a transition of what Scopes returns. It moves their revision, too.
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
		used, err := c.one(func(*row) {}, `SELECT 1 FROM deleted_scopes WHERE folded = ?1`, dps.FoldID(scope.ID))
		if used || err != nil {
			return registration.Exists, err
		}
		taken, err := c.insert(`INSERT INTO scopes (id, folded, sealed_root, created, home, certificate, sealed_certificate_key)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (folded) DO NOTHING`,
			scope.ID, dps.FoldID(scope.ID), scope.SealedRoot, scope.Created, scope.Home, scope.Certificate, scope.SealedCertificateKey)
		if taken || err != nil {
			return registration.Exists, err
		}
		for _, host := range scope.Hosts {
			linked, err := c.one(func(*row) {}, `SELECT 1 FROM linked_hubs WHERE name = ?1`, dps.FoldID(host))
			if linked || err != nil {
				return registration.Exists, err
			}
			taken, err := c.insert(`INSERT INTO scope_hosts (scope, host) VALUES (?1, ?2)
				ON CONFLICT (host) DO NOTHING`, scope.ID, dps.FoldID(host))
			if taken || err != nil {
				return registration.Exists, err
			}
		}
		for _, p := range scope.Policies {
			_, err := c.exec(`INSERT INTO access_policies (scope, name, rights, sealed_primary, sealed_secondary)
				VALUES (?1, ?2, ?3, ?4, ?5)`, scope.ID, p.Name, int(p.Rights), p.SealedPrimary, p.SealedSecondary)
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
	found, err := c.one(func(r *row) { home = r.text() }, `SELECT id FROM scopes WHERE home = 1 AND id <> ?1`, scope)
	if !found || err != nil {
		return err
	}
	return appendAudit(c, home, audit)
}

// DeleteScope implements registration.ScopeStore.
func (s *Store) DeleteScope(ctx context.Context, id string, audit registration.Audit) (registration.Verdict, error) {
	return s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		home := false
		found, err := c.one(func(r *row) { home = r.bool() }, `SELECT home FROM scopes WHERE id = ?1`, id)
		switch {
		case err != nil:
			return 0, err
		case !found:
			return registration.Missing, nil
		case home:
			return registration.LastOne, nil
		}
		for _, sql := range []string{
			`DELETE FROM scopes WHERE id = ?1`, `DELETE FROM scope_hosts WHERE scope = ?1`, `DELETE FROM access_policies WHERE scope = ?1`,
			`DELETE FROM linked_hubs WHERE scope = ?1`, `DELETE FROM scope_allocations WHERE scope = ?1`,
		} {
			if _, err := c.exec(sql, id); err != nil {
				return 0, err
			}
		}
		if _, err := c.exec(`INSERT INTO deleted_scopes (scope, folded, at, done) VALUES (?1, ?2, ?3, 0)`, id, dps.FoldID(id), audit.At); err != nil {
			return 0, err
		}
		if err := appendAudit(c, id, audit); err != nil {
			return 0, err
		}
		return registration.Applied, tellHome(c, id, audit)
	})
}

// leftovers are the tables that hold rows of a scope, but for its log.
var leftovers = []string{
	"enrollments", "registrations", "operations", "closures", "awaited", "offers", "generations", "identities", "identity_generations", "twins", "hub_messages", "hub_queues",
	"enrollment_groups", "ca_certificates", "group_revisions", "entry_certificates", "revisions", "outbox",
	"linked_hubs", "scope_allocations", // of a scope that an older release has deleted
}

// deleted is a scope of which rows may be left.
type deleted struct {
	seq   int
	scope string
}

func unsettled(c *conn) (left []deleted, err error) {
	err = c.each(func(r *row) { left = append(left, deleted{r.int(), r.text()}) }, `SELECT seq, scope FROM deleted_scopes WHERE done = 0 ORDER BY seq`)
	return left, err
}

// PruneScopes implements registration.ScopeStore. Remembered owners go first: once a scope has settled nobody looks for them again.
func (s *Store) PruneScopes(ctx context.Context, settledBefore time.Time, limit int) (int, error) {
	owners, err := s.pruneOwners(ctx, limit)
	if err != nil || owners >= limit {
		return owners, err
	}
	removed := new(int) // the writer's until it answers
	_, err = s.write(ctx, func(c *conn) (registration.Verdict, error) {
		left, err := unsettled(c)
		if err != nil {
			return 0, err
		}
		for _, d := range left {
			n, err := pruneScope(c, d.scope, limit-owners-*removed)
			if err != nil {
				return 0, err
			}
			if *removed += n; owners+*removed >= limit {
				return registration.Applied, nil
			}
			if _, err = c.exec(`UPDATE deleted_scopes SET done = 1 WHERE seq = ?1 AND at < ?2`, d.seq, settledBefore); err != nil {
				return 0, err
			}
		}
		return registration.Applied, nil
	})
	if err != nil {
		return 0, err
	}
	return owners + *removed, nil
}

// pruneOwners forgets owners of deleted scopes.
func (s *Store) pruneOwners(ctx context.Context, limit int) (removed int, err error) {
	var left []deleted
	err = s.read(ctx, func(c *conn) error {
		left, err = unsettled(c)
		return err
	})
	for _, d := range left {
		if err != nil || removed >= limit {
			break
		}
		var n int
		n, err = s.owners.pruneScope(ctx, d.scope, limit-removed)
		removed += n
	}
	return removed, err
}

func pruneScope(c *conn, scope string, limit int) (removed int, err error) {
	for _, table := range leftovers {
		n, err := c.exec(`DELETE FROM `+table+` WHERE rowid IN (SELECT rowid FROM `+table+` WHERE scope = ?1 LIMIT ?2)`, scope, limit-removed)
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
		n, err := c.exec(`UPDATE scopes SET certificate = ?2, sealed_certificate_key = ?3 WHERE id = ?1`, id, chain, sealedKey)
		if n == 0 || err != nil {
			return registration.Missing, err
		}
		return registration.Applied, appendAudit(c, id, audit)
	})
}

// insert runs an INSERT that does nothing if its key is taken.
func (c *conn) insert(sql string, args ...any) (taken bool, err error) {
	n, err := c.exec(sql, args...)
	return n == 0, err
}

// Scopes implements registration.ScopeStore.
func (s *Store) Scopes(ctx context.Context) ([]registration.Scope, error) {
	var scopes []registration.Scope
	err := s.read(ctx, func(c *conn) error {
		return c.snapshot(func() error {
			var err error
			scopes, err = readScopes(c)
			return err
		})
	})
	return scopes, err
}

func readScopes(c *conn) ([]registration.Scope, error) {
	var scopes []registration.Scope
	err := c.each(func(r *row) {
		scopes = append(scopes, registration.Scope{ID: r.text(), SealedRoot: r.blob(), Created: r.time(),
			Home: r.bool(), Certificate: r.blob(), SealedCertificateKey: r.blob()})
	}, `SELECT id, sealed_root, created, home, certificate, sealed_certificate_key FROM scopes ORDER BY id`)
	if err != nil {
		return nil, err
	}
	for i := range scopes {
		sc := &scopes[i]
		err := c.each(func(r *row) { sc.Hosts = append(sc.Hosts, r.text()) },
			`SELECT host FROM scope_hosts WHERE scope = ?1 ORDER BY seq`, sc.ID)
		if err != nil {
			return nil, err
		}
		err = c.each(func(r *row) {
			sc.Policies = append(sc.Policies, registration.AccessPolicy{
				Name: r.text(), Rights: registration.Right(r.int()), SealedPrimary: r.blob(), SealedSecondary: r.blob(),
			})
		}, `SELECT name, rights, sealed_primary, sealed_secondary FROM access_policies WHERE scope = ?1 ORDER BY seq`, sc.ID)
		if err != nil {
			return nil, err
		}
		if sc.Hubs, err = readHubs(c, sc.ID); err != nil {
			return nil, err
		}
		if sc.Allocation, err = readAllocation(c, sc.ID); err != nil {
			return nil, err
		}
	}
	return scopes, nil
}

// snapshot runs fn so that all its statements see the same state. The rollback ends a transaction that wrote nothing.
func (c *conn) snapshot(fn func() error) error {
	if err := c.db.Exec("BEGIN"); err != nil {
		return err
	}
	err := fn()
	if end := c.rollback(); err == nil {
		err = end
	}
	return err
}
