package postgres

import (
	"context"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// PutCACertificate implements registration.GroupStore.
func (s *Store) PutCACertificate(ctx context.Context, scope string, ca registration.CACertificate, expect *uint64, audit registration.Audit) (registration.CACertificate, registration.Verdict, error) {
	var stored registration.CACertificate
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if err := lockGroups(c, scope); err != nil {
			return 0, err
		}
		was, verdict, err := judgeEntry(c, `SELECT revision, created FROM ca_certificates WHERE scope = $1 AND folded = $2`, scope, dps.FoldID(ca.Name), expect)
		if err != nil || verdict != registration.Applied {
			return verdict, err
		}
		stored = ca
		if was.revision != 0 {
			stored.Created = was.created
		}
		if stored.Revision, err = moveGroups(c, scope); err != nil {
			return 0, err
		}
		var b batch
		b.add(`INSERT INTO ca_certificates (scope, folded, name, revision, der, verified, created, updated)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (scope, folded) DO UPDATE SET name = excluded.name, revision = excluded.revision, der = excluded.der,
				verified = excluded.verified, updated = excluded.updated`,
			scope, dps.FoldID(ca.Name), ca.Name, stored.Revision, ca.DER, ca.Verified, stored.Created, ca.Updated)
		b.audit(scope, audit)
		stored.Created, stored.Updated = rounded(stored.Created), rounded(stored.Updated)
		return registration.Applied, c.send(&b)
	})
	if err != nil || verdict != registration.Applied {
		return registration.CACertificate{}, verdict, err
	}
	return stored, verdict, nil
}

// DeleteCACertificate implements registration.GroupStore.
func (s *Store) DeleteCACertificate(ctx context.Context, scope, name string, expect *uint64, audit registration.Audit) (registration.Verdict, error) {
	folded := dps.FoldID(name)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if err := lockGroups(c, scope); err != nil {
			return 0, err
		}
		verdict, err := judgeDelete(c, `SELECT revision FROM ca_certificates WHERE scope = $1 AND folded = $2`, scope, folded, expect)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		if _, err := moveGroups(c, scope); err != nil {
			return 0, err
		}
		var b batch
		b.add(`DELETE FROM ca_certificates WHERE scope = $1 AND folded = $2`, scope, folded)
		b.audit(scope, audit)
		return registration.Applied, c.send(&b)
	})
}

// CACertificates implements registration.GroupStore.
func (s *Store) CACertificates(ctx context.Context, scope, after string, limit int) ([]registration.CACertificate, error) {
	var page []registration.CACertificate
	err := s.read(ctx, func(c *conn) error {
		page = page[:0]
		return c.each(func(r *row) {
			page = append(page, registration.CACertificate{Name: r.text(), Revision: r.uint(), DER: r.blob(), Verified: r.bool(), Created: r.time(), Updated: r.time()})
		}, `SELECT name, revision, der, verified, created, updated FROM ca_certificates
			WHERE scope = $1 AND folded > $2 ORDER BY folded LIMIT $3`, scope, after, limit)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}
