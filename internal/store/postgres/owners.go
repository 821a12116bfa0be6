package postgres

import (
	"context"
	"crypto/sha256"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// RememberOwner implements registration.OwnerMemory. One statement: it writes to the unlogged table only, so that its commit waits for no
// flush. It makes room for the newcomer first; two at once may leave one row too many, which Owners does not show and the next
// one removes.
func (s *Store) RememberOwner(ctx context.Context, scope, id string, srk []byte, at time.Time) error {
	digest := sha256.Sum256(srk)
	return s.read(ctx, func(c *conn) error { // may be repeated: to remember twice is to remember once
		_, err := c.exec(`WITH dropped AS (DELETE FROM owners WHERE scope = $1 AND folded = $2 AND digest IN
				(SELECT digest FROM owners WHERE scope = $1 AND folded = $2 AND digest <> $3
				ORDER BY place DESC OFFSET $6::bigint))
			INSERT INTO owners (scope, folded, digest, srk, at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (scope, folded, digest) DO UPDATE SET at = excluded.at, place = excluded.place`,
			scope, dps.FoldID(id), digest[:], srk, at, registration.MaxOwners-1)
		return err
	})
}

// Owners implements registration.OwnerMemory.
func (s *Store) Owners(ctx context.Context, scope, id string, since time.Time) ([][]byte, error) {
	var srks [][]byte
	err := s.read(ctx, func(c *conn) error {
		srks = srks[:0]
		return c.each(func(r *row) { srks = append(srks, r.blob()) },
			`SELECT srk FROM owners WHERE scope = $1 AND folded = $2 AND at >= $3 ORDER BY place DESC LIMIT $4`,
			scope, dps.FoldID(id), since, registration.MaxOwners)
	})
	if err != nil {
		return nil, err
	}
	return srks, nil
}
