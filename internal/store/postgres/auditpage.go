package postgres

import (
	"context"
	"math"
	"slices"

	"latchkey.example/latchkey/internal/registration"
)

// A row's number is taken when it is written and says nothing of when it is seen: the transaction that took the greater may commit first.
// To give out numbers in the order of commits, all transitions of a scope would have to wait for each other's flush. So the log
// is put in order by those who read it: under the lock of the scope's log, rows that are committed and have no place yet get
// one, in the order of their numbers. Places rise with every such pass, and a row is seen only once it has one: what comes later is
// greater. Of two transitions that did not overlap the earlier has the lower number, and a pass that sees the later
// sees the earlier.

// AuditPage implements registration.AuditStore.
func (s *Store) AuditPage(ctx context.Context, scope string, after uint64, limit int) ([]registration.AuditLine, error) {
	if after > math.MaxInt64 || limit < 1 {
		return nil, nil
	}
	page, err := s.placed(ctx, scope, after, limit)
	if err != nil || len(page) == limit {
		return page, err
	}
	given, err := s.givePlaces(ctx, scope, limit)
	if given == 0 || err != nil {
		return page, err
	}
	return s.placed(ctx, scope, after, limit)
}

// placed reads rows that have a place.
func (s *Store) placed(ctx context.Context, scope string, after uint64, limit int) ([]registration.AuditLine, error) {
	var page []registration.AuditLine
	err := s.read(ctx, func(c *conn) error {
		page = page[:0]
		return c.each(func(r *row) {
			page = append(page, registration.AuditLine{Seq: r.uint(), Audit: scanAudit(r)})
		}, `SELECT place, at, actor, address, action, object, outcome, reason, tracking_id, detail
			FROM audit WHERE scope = $1 AND place > $2 ORDER BY place LIMIT $3`, scope, after, limit)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// givePlaces gives a place to at most limit rows that have none, and returns to how many.
func (s *Store) givePlaces(ctx context.Context, scope string, limit int) (given int, err error) {
	_, err = s.write(ctx, func(c *conn) (registration.Verdict, error) {
		waiting, err := c.one(func(*row) {}, `SELECT 1 FROM audit WHERE scope = $1 AND place IS NULL LIMIT 1`, scope)
		if !waiting || err != nil {
			return registration.Missing, err
		}
		if err := lockLog(c, scope); err != nil {
			return 0, err
		}
		rows, places, err := waitingRows(c, scope, limit)
		if len(rows) == 0 || err != nil {
			return registration.Missing, err
		}
		given, err = c.exec(givePlacesSQL, scope, rows[0], rows[len(rows)-1], rows, places)
		return registration.Applied, err
	})
	return given, err
}

// givePlacesSQL gives each of the rows in $4 its place in $5. It is no join: the planner, who knows nothing of a log that has just grown, would
// look through all that waits for each row that gets a place. The bounds keep it to the part of the index that it is about.
const givePlacesSQL = `UPDATE audit SET place = ($5::bigint[])[array_position($4::bigint[], n)]
	WHERE scope = $1 AND n >= $2 AND n <= $3 AND n = ANY ($4::bigint[]) AND place IS NULL`

// waitingRows are at most limit rows without a place, in the order of their numbers, and as many new places, which rise.
func waitingRows(c *conn, scope string, limit int) (rows, places []int64, err error) {
	err = c.each(func(r *row) {
		rows, places = append(rows, r.int64()), append(places, r.int64())
	}, `SELECT n, nextval('audit_places') FROM (SELECT n FROM audit WHERE scope = $1 AND place IS NULL ORDER BY n LIMIT $2) AS waiting`, scope, limit)
	slices.Sort(rows)
	slices.Sort(places)
	return rows, places, err
}

// lockLog locks the log of a scope against others who give places. The row never leaves.
func lockLog(c *conn, scope string) error {
	const lock = `SELECT 1 FROM audit_heads WHERE scope = $1 FOR UPDATE`
	found, err := c.one(func(*row) {}, lock, scope)
	if found || err != nil {
		return err
	}
	made, err := c.exec(`INSERT INTO audit_heads (scope) VALUES ($1) ON CONFLICT (scope) DO NOTHING`, scope)
	if made == 1 || err != nil {
		return err
	}
	_, err = c.one(func(*row) {}, lock, scope)
	return err
}
