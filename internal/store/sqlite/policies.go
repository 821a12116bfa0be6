package sqlite

import (
	"bytes"
	"context"

	"latchkey.example/latchkey/internal/registration"
)

// PutPolicy implements registration.ScopeStore.
func (s *Store) PutPolicy(ctx context.Context, scope string, was *registration.AccessPolicy, policy registration.AccessPolicy,
	audit registration.Audit,
) (registration.Verdict, error) {
	return s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		verdict, err := putPolicy(c, scope, was, policy)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

func putPolicy(c *conn, scope string, was *registration.AccessPolicy, policy registration.AccessPolicy) (registration.Verdict, error) {
	if was == nil {
		return createPolicy(c, scope, policy)
	}
	stored, found, err := readPolicy(c, scope, policy.Name)
	switch {
	case err != nil:
		return 0, err
	case !found:
		return registration.Missing, nil
	case stored.Rights != was.Rights, !bytes.Equal(stored.SealedPrimary, was.SealedPrimary), !bytes.Equal(stored.SealedSecondary, was.SealedSecondary):
		return registration.Conflict, nil
	}
	if policy.Rights&registration.ServiceConfig == 0 {
		if last, err := lastManager(c, scope, stored); last || err != nil {
			return registration.LastOne, err
		}
	}
	// An update in place: listings of sealed values go on over it.
	_, err = c.exec(`UPDATE access_policies SET rights = ?3, sealed_primary = ?4, sealed_secondary = ?5 WHERE scope = ?1 AND name = ?2`,
		scope, policy.Name, int(policy.Rights), policy.SealedPrimary, policy.SealedSecondary)
	return registration.Applied, err
}

func createPolicy(c *conn, scope string, p registration.AccessPolicy) (registration.Verdict, error) {
	found, err := c.one(func(*row) {}, `SELECT 1 FROM scopes WHERE id = ?1`, scope)
	if !found || err != nil {
		return registration.Missing, err
	}
	taken, err := c.insert(`INSERT INTO access_policies (scope, name, rights, sealed_primary, sealed_secondary)
		VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (scope, name) DO NOTHING`,
		scope, p.Name, int(p.Rights), p.SealedPrimary, p.SealedSecondary)
	if taken || err != nil {
		return registration.Exists, err
	}
	return registration.Applied, nil
}

func readPolicy(c *conn, scope, name string) (p registration.AccessPolicy, found bool, err error) {
	found, err = c.one(func(r *row) {
		p = registration.AccessPolicy{Name: name, Rights: registration.Right(r.int()), SealedPrimary: r.blob(), SealedSecondary: r.blob()}
	}, `SELECT rights, sealed_primary, sealed_secondary FROM access_policies WHERE scope = ?1 AND name = ?2`, scope, name)
	return p, found, err
}

// lastManager reports whether a stored access policy is the only one of its scope that has ServiceConfig.
func lastManager(c *conn, scope string, p registration.AccessPolicy) (bool, error) {
	if p.Rights&registration.ServiceConfig == 0 {
		return false, nil
	}
	another, err := c.one(func(*row) {}, `SELECT 1 FROM access_policies WHERE scope = ?1 AND name <> ?2 AND rights & ?3 <> 0 LIMIT 1`,
		scope, p.Name, int(registration.ServiceConfig))
	return !another, err
}

// DeletePolicy implements registration.ScopeStore.
func (s *Store) DeletePolicy(ctx context.Context, scope, name string, audit registration.Audit) (registration.Verdict, error) {
	return s.writeScopes(ctx, func(c *conn) (registration.Verdict, error) {
		stored, found, err := readPolicy(c, scope, name)
		if !found || err != nil {
			return registration.Missing, err
		}
		if last, err := lastManager(c, scope, stored); last || err != nil {
			return registration.LastOne, err
		}
		if _, err := c.exec(`DELETE FROM access_policies WHERE scope = ?1 AND name = ?2`, scope, name); err != nil {
			return 0, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}
