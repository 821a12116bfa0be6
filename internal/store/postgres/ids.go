package postgres

import (
	"time"
)

// lockRounds bounds how often rows that others remove are made again.
const lockRounds = 8

// lockID locks the row of an id, making it if there is none, and returns the count of its redemptions. Every transition of an id
// begins here: what it reads afterwards is current until its commit. The row made for a transition that is then refused goes
// with its rollback.
func lockID(c *conn, scope, folded string) (generation uint64, err error) {
	for range lockRounds {
		found, err := c.one(func(r *row) { generation = r.uint() },
			`SELECT generation FROM generations WHERE scope = $1 AND folded = $2 FOR UPDATE`, scope, folded)
		if found || err != nil {
			return generation, err
		}
		made, err := c.exec(`INSERT INTO generations (scope, folded, generation) VALUES ($1, $2, 0)
			ON CONFLICT (scope, folded) DO NOTHING`, scope, folded)
		if made == 1 || err != nil {
			return 0, err
		}
	}
	return 0, errAgain
}

// lockIDs is lockID for several ids, which must be sorted so that two such calls do not wait for each other in a ring. It returns those that it
// had to make.
func lockIDs(c *conn, scope string, folded []string) (made []string, err error) {
	for range lockRounds {
		held := map[string]bool{}
		err := c.each(func(r *row) { held[r.text()] = true },
			`SELECT folded FROM generations WHERE scope = $1 AND folded = ANY($2) ORDER BY folded FOR UPDATE`, scope, folded)
		if err != nil || len(held) == len(folded) {
			return made, err
		}
		var missing []string
		for _, id := range folded {
			if !held[id] {
				missing = append(missing, id)
			}
		}
		err = c.each(func(r *row) { made = append(made, r.text()) }, `INSERT INTO generations (scope, folded, generation)
			SELECT $1, id, 0 FROM unnest($2::text[]) AS ids (id) ORDER BY id
			ON CONFLICT (scope, folded) DO NOTHING RETURNING folded`, scope, missing)
		if err != nil || len(made) == len(folded) {
			return made, err
		}
	}
	return nil, errAgain
}

// dropID removes the row of an id that was never redeemed and has no rows any more; else it starts the age of its generation.
func dropID(b *batch, scope, folded string, at time.Time) {
	b.add(`DELETE FROM generations WHERE scope = $1 AND folded = $2 AND generation = 0`, scope, folded)
	b.add(`UPDATE generations SET idle_since = $3 WHERE scope = $1 AND folded = $2`, scope, folded, at)
}
