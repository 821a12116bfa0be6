package sqlite

import (
	"context"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// PutCACertificate implements registration.GroupStore.
func (s *Store) PutCACertificate(ctx context.Context, scope string, ca registration.CACertificate, expect *uint64, audit registration.Audit) (registration.CACertificate, registration.Verdict, error) {
	stored := new(registration.CACertificate) // the writer's until it answers
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		was, verdict, err := judgeEntry(c, `SELECT revision, created FROM ca_certificates WHERE scope = ?1 AND folded = ?2`, scope, dps.FoldID(ca.Name), expect)
		if err != nil || verdict != registration.Applied {
			return verdict, err
		}
		if was.revision != 0 {
			ca.Created = was.created
		}
		if ca.Revision, err = moveGroups(c, scope); err != nil {
			return 0, err
		}
		_, err = c.exec(`INSERT INTO ca_certificates (scope, folded, name, revision, der, verified, created, updated)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
			ON CONFLICT (scope, folded) DO UPDATE SET name = excluded.name, revision = excluded.revision, der = excluded.der,
				verified = excluded.verified, updated = excluded.updated`,
			scope, dps.FoldID(ca.Name), ca.Name, ca.Revision, ca.DER, ca.Verified, ca.Created, ca.Updated)
		if err != nil {
			return 0, err
		}
		ca.Created, ca.Updated = rounded(ca.Created), rounded(ca.Updated)
		*stored = ca
		return registration.Applied, appendAudit(c, scope, audit)
	})
	if err != nil || verdict != registration.Applied {
		return registration.CACertificate{}, verdict, err
	}
	return *stored, verdict, nil
}

// DeleteCACertificate implements registration.GroupStore.
func (s *Store) DeleteCACertificate(ctx context.Context, scope, name string, expect *uint64, audit registration.Audit) (registration.Verdict, error) {
	folded := dps.FoldID(name)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		verdict, err := deleteRow(c, scope, folded, expect,
			`SELECT revision FROM ca_certificates WHERE scope = ?1 AND folded = ?2`,
			`DELETE FROM ca_certificates WHERE scope = ?1 AND folded = ?2`)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		if _, err := moveGroups(c, scope); err != nil {
			return 0, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
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
			WHERE scope = ?1 AND folded > ?2 ORDER BY folded LIMIT ?3`, scope, after, limit)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// Kinds of entries that certificates belong to.
const (
	ownEntry   = "enrollment"
	groupEntry = "group"
)

// claimCertificates makes certificates the entry's, in place of those it had; taken if one is another entry's.
func claimCertificates(c *conn, scope, kind, id string, certificates [][32]byte) (taken bool, err error) {
	folded := dps.FoldID(id)
	for _, sum := range certificates {
		taken, err := c.one(func(*row) {}, `SELECT 1 FROM entry_certificates WHERE scope = ?1 AND sha256 = ?2 AND (kind <> ?3 OR folded <> ?4)`,
			scope, sum[:], kind, folded)
		if taken || err != nil {
			return taken, err
		}
	}
	if err := freeCertificates(c, scope, kind, folded); err != nil {
		return false, err
	}
	for _, sum := range certificates { // the two of an entry may be one and the same
		_, err := c.exec(`INSERT INTO entry_certificates (scope, sha256, kind, folded) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT (scope, sha256) DO NOTHING`, scope, sum[:], kind, folded)
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

func freeCertificates(c *conn, scope, kind, folded string) error {
	_, err := c.exec(`DELETE FROM entry_certificates WHERE scope = ?1 AND kind = ?2 AND folded = ?3`, scope, kind, folded)
	return err
}

// joined is how a column holds fingerprints: one after the other.
func joined(certificates [][32]byte) []byte {
	b := make([]byte, 0, 32*len(certificates))
	for _, sum := range certificates {
		b = append(b, sum[:]...)
	}
	return b
}
