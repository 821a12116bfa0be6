package postgres

import (
	"context"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// CloseRegistration implements registration.ClosingStore.
func (s *Store) CloseRegistration(ctx context.Context, scope string, closing registration.Closing) (uint64, registration.Verdict, error) {
	if err := closing.Check(); err != nil {
		return 0, 0, err
	}
	var revision uint64
	verdict, err := s.write(ctx, func(c *conn) (verdict registration.Verdict, err error) {
		revision, verdict, err = closeRegistration(c, scope, closing)
		return verdict, err
	})
	if err != nil {
		return 0, 0, err
	}
	return revision, verdict, nil
}

func closeRegistration(c *conn, scope string, closing registration.Closing) (uint64, registration.Verdict, error) {
	folded, e := dps.FoldID(closing.ID), closing.Enrollment
	generation, err := lockID(c, scope, folded)
	if err != nil {
		return 0, 0, err
	}
	is, err := readEntry(c, scope, folded)
	if err != nil {
		return 0, 0, err
	}
	if is.enrollment == 0 || is.enrollment != e.Revision || is.registration != closing.RegistrationBefore || generation != closing.Generation {
		return 0, registration.Conflict, nil
	}
	if e.Revision, err = nextRevision(c); err != nil {
		return 0, 0, err
	}
	var b batch
	writeEnrollment(&b, scope, folded, e)
	orders := func(r registration.Registration) []registration.Outbox { return closing.Orders(r, e.Revision) }
	if err := leaveHubs(c, &b, scope, folded, owed{scope, folded, closing.Audit.At}, orders); err != nil {
		return 0, 0, err
	}
	b.add(`UPDATE generations SET generation = $3, idle_since = NULL WHERE scope = $1 AND folded = $2`, scope, folded, generation+1)
	b.add(`INSERT INTO closures (scope, folded, generation, token_digest, tracking_id, at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (scope, folded) DO UPDATE SET generation = excluded.generation, token_digest = excluded.token_digest, tracking_id = excluded.tracking_id, at = excluded.at`,
		scope, folded, generation+1, closing.TokenDigest[:], closing.Audit.TrackingID, closing.Audit.At)
	b.audit(scope, closing.Audit)
	return e.Revision, registration.Applied, c.send(&b)
}

// owed says who awaits orders.
type owed struct {
	scope, folded string
	at            time.Time
}

// leaveHubs removes the registration of an id, which is locked, with its operations, and writes the orders that this is at its hubs, and who awaits them.
func leaveHubs(c *conn, b *batch, scope, folded string, to owed, orders func(registration.Registration) []registration.Outbox) error {
	var r registration.Registration
	found, err := c.one(func(row *row) { r = scanRegistration(row) }, registrationSQL, scope, folded)
	if err != nil {
		return err
	}
	if found {
		rows := orders(r)
		orderAll(b, scope, rows)
		for _, work := range rows {
			b.add(`INSERT INTO awaited (scope, folded, origin, object, at) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (scope, folded, origin, object) DO NOTHING`, to.scope, to.folded, scope, work.Object, to.at)
		}
	}
	deleteRegistration(b, scope, folded)
	return nil
}

// Closure implements registration.ClosingStore.
func (s *Store) Closure(ctx context.Context, scope, id string) (closure registration.Closure, err error) {
	err = s.read(ctx, func(c *conn) error {
		closure = registration.Closure{}
		_, err := c.one(func(r *row) {
			closure.Awaited = r.int()
			if !r.null() {
				closure.Generation, closure.TokenDigest, closure.TrackingID, closure.At = r.uint(), r.hash(), r.text(), r.time()
			}
		}, `SELECT (SELECT count(*) FROM awaited AS a WHERE a.scope = $1 AND a.folded = $2 AND `+stillOrdered+`), n.generation, n.token_digest, n.tracking_id, n.at
			FROM (SELECT) AS k LEFT JOIN closures AS n ON n.scope = $1 AND n.folded = $2`, scope, dps.FoldID(id))
		return err
	})
	return closure, err
}

// stillOrdered says of a row of awaited, called a, that its order is not carried out yet.
const stillOrdered = `EXISTS (SELECT FROM outbox AS w WHERE w.scope = a.origin AND w.kind IN ('device.order', 'device.order.embedded') AND w.object = a.object)`

// pruneClosings removes what nobody asks for any more.
func pruneClosings(c *conn, before time.Time, limit int) (removed int, err error) {
	for _, sql := range []string{
		`WITH old AS MATERIALIZED (SELECT scope, folded FROM closures WHERE at < $1 AND generation > 0 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)
			DELETE FROM closures AS n USING old WHERE n.scope = old.scope AND n.folded = old.folded`,
		`WITH old AS MATERIALIZED (SELECT a.scope, a.folded, a.origin, a.object FROM awaited AS a WHERE a.at < $1 AND a.object <> '' AND NOT ` + stillOrdered + `
				ORDER BY a.at LIMIT $2 FOR UPDATE SKIP LOCKED)
			DELETE FROM awaited AS a USING old WHERE a.scope = old.scope AND a.folded = old.folded AND a.origin = old.origin AND a.object = old.object`,
		`WITH old AS MATERIALIZED (SELECT scope, folded FROM offers WHERE expires < $1 AND expires > 0 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED)
			DELETE FROM offers AS o USING old WHERE o.scope = old.scope AND o.folded = old.folded`,
	} {
		n, err := c.exec(sql, before, limit)
		if err != nil {
			return 0, err
		}
		removed += n
	}
	return removed, nil
}
