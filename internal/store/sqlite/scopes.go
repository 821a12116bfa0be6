package sqlite

import (
	"context"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// CreateScope implements registration.ScopeStore.
func (s *Store) CreateScope(ctx context.Context, scope registration.Scope, audit registration.Audit) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		taken, err := c.insert(`INSERT INTO scopes (id, folded, sealed_root, created) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT (folded) DO NOTHING`, scope.ID, dps.FoldID(scope.ID), scope.SealedRoot, scope.Created)
		if taken || err != nil {
			return registration.Exists, err
		}
		for _, host := range scope.Hosts {
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
		return registration.Applied, appendAudit(c, scope.ID, audit)
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
		scopes = append(scopes, registration.Scope{ID: r.text(), SealedRoot: r.blob(), Created: r.time()})
	}, `SELECT id, sealed_root, created FROM scopes ORDER BY id`)
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
