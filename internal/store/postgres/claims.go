package postgres

import (
	"latchkey.example/latchkey/internal/registration"
)

// Kinds of entries that certificates belong to.
const (
	ownEntry   = "enrollment"
	groupEntry = "group"
)

// claims are the owners of certificates while a transition judges its rows; write then makes the table say so.
type claims struct {
	scope, kind string
	before, now map[[32]byte]owner
}

type owner struct{ kind, folded string }

// readClaims reads to whom the certificates belong, and which belong to the entries.
func readClaims(c *conn, scope, kind string, folded []string, certificates [][32]byte) (*claims, error) {
	sums := make([][]byte, len(certificates))
	for i := range certificates {
		sums[i] = certificates[i][:]
	}
	l := &claims{scope: scope, kind: kind, before: map[[32]byte]owner{}, now: map[[32]byte]owner{}}
	err := c.each(func(r *row) {
		sum, by := r.hash(), owner{r.text(), r.text()}
		l.before[sum], l.now[sum] = by, by
	}, `SELECT sha256, kind, folded FROM entry_certificates WHERE scope = $1 AND sha256 = ANY($2)
		UNION SELECT sha256, kind, folded FROM entry_certificates WHERE scope = $1 AND kind = $3 AND folded = ANY($4)`,
		scope, sums, kind, folded)
	return l, err
}

// claim makes certificates the entry's, in place of those it had; false, and nothing is changed, if one is another entry's.
func (l *claims) claim(folded string, certificates [][32]byte) bool {
	me := owner{l.kind, folded}
	for _, sum := range certificates {
		if by, found := l.now[sum]; found && by != me {
			return false
		}
	}
	for sum, by := range l.now {
		if by == me {
			delete(l.now, sum)
		}
	}
	for _, sum := range certificates {
		l.now[sum] = me
	}
	return true
}

// write brings the table to what was claimed; errAgain if another transition was there first.
func (l *claims) write(c *conn) error {
	var freed, sums [][]byte
	var folded []string
	for sum, by := range l.before {
		if l.now[sum] != by {
			freed = append(freed, sum[:])
		}
	}
	for sum, by := range l.now {
		if l.before[sum] != by {
			sums, folded = append(sums, sum[:]), append(folded, by.folded)
		}
	}
	if len(freed) > 0 {
		if _, err := c.exec(`DELETE FROM entry_certificates WHERE scope = $1 AND sha256 = ANY($2)`, l.scope, freed); err != nil {
			return err
		}
	}
	if len(sums) == 0 {
		return nil
	}
	n, err := c.exec(`INSERT INTO entry_certificates (scope, sha256, kind, folded)
		SELECT $1, sum, $2, folded FROM unnest($3::bytea[], $4::text[]) AS claimed (sum, folded) ORDER BY sum
		ON CONFLICT (scope, sha256) DO NOTHING`, l.scope, l.kind, sums, folded)
	if err == nil && n != len(sums) {
		return errAgain
	}
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

// certificatesOf are all that the puts name.
func certificatesOf(puts []registration.EnrollmentPut) (all [][32]byte) {
	for _, put := range puts {
		all = append(all, put.Enrollment.Certificates...)
	}
	return all
}
