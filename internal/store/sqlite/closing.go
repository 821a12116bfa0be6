package sqlite

import (
	"context"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// CloseRegistration implements registration.ClosingStore.
func (s *Store) CloseRegistration(ctx context.Context, scope string, closing registration.Closing) (uint64, registration.Verdict, error) {
	if err := closing.Check(); err != nil {
		return 0, 0, err
	}
	var revision atomic.Uint64 // the transition may still run after write has given up waiting for it
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		given, verdict, err := closeRegistration(c, scope, closing, s.now())
		revision.Store(given)
		return verdict, err
	})
	if err != nil {
		return 0, 0, err
	}
	return revision.Load(), verdict, nil
}

func closeRegistration(c *conn, scope string, closing registration.Closing, now time.Time) (uint64, registration.Verdict, error) {
	folded, e := dps.FoldID(closing.ID), closing.Enrollment
	enrolled, before, err := revisionsOf(c, scope, folded)
	if err != nil {
		return 0, 0, err
	}
	if enrolled == 0 || enrolled != e.Revision || before != closing.RegistrationBefore {
		return 0, registration.Conflict, nil
	}
	if moved, err := moveGeneration(c, scope, folded, closing.Generation); !moved || err != nil {
		return 0, registration.Conflict, err
	}
	if e.Revision, err = nextRevision(c, scope); err != nil {
		return 0, 0, err
	}
	if err := writeEnrollment(c, scope, e); err != nil {
		return 0, 0, err
	}
	if err := leaveHubs(c, scope, folded, owed{scope, folded, closing.Audit.At}, now, func(r registration.Registration) []registration.Outbox {
		return closing.Orders(r, e.Revision)
	}); err != nil {
		return 0, 0, err
	}
	_, err = c.exec(`INSERT INTO closures (scope, folded, generation, token_digest, tracking_id, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
		ON CONFLICT (scope, folded) DO UPDATE SET generation = excluded.generation, token_digest = excluded.token_digest, tracking_id = excluded.tracking_id, at = excluded.at`,
		scope, folded, closing.Generation+1, closing.TokenDigest[:], closing.Audit.TrackingID, closing.Audit.At)
	if err != nil {
		return 0, 0, err
	}
	if _, err := c.exec(`DELETE FROM operations WHERE scope = ?1 AND folded = ?2`, scope, folded); err != nil {
		return 0, 0, err
	}
	return e.Revision, registration.Applied, appendAudit(c, scope, closing.Audit)
}

// revisionsOf reads the revisions of an id's enrollment and registration; 0: there is none.
func revisionsOf(c *conn, scope, folded string) (enrolled, registered uint64, err error) {
	_, err = c.one(func(r *row) { enrolled, registered = r.uint(), r.uint() },
		`SELECT coalesce((SELECT revision FROM enrollments WHERE scope = ?1 AND folded = ?2), 0), coalesce((SELECT revision FROM registrations WHERE scope = ?1 AND folded = ?2), 0)`,
		scope, folded)
	return enrolled, registered, err
}

// owed says who awaits orders.
type owed struct {
	scope, folded string
	at            time.Time
}

// leaveHubs removes the registration of an id, if there is one, and writes the orders that this is at its hubs, and who awaits them.
func leaveHubs(c *conn, scope, folded string, to owed, now time.Time, orders func(registration.Registration) []registration.Outbox) error {
	var r registration.Registration
	found, err := c.one(func(row *row) { r = scanRegistration(row) }, registrationSQL, scope, folded)
	if !found || err != nil {
		return err
	}
	rows := orders(r)
	if err := orderAll(c, scope, rows, now); err != nil {
		return err
	}
	for _, work := range rows {
		_, err := c.exec(`INSERT INTO awaited (scope, folded, origin, object, at) VALUES (?1, ?2, ?3, ?4, ?5)
			ON CONFLICT (scope, folded, origin, object) DO NOTHING`, to.scope, to.folded, scope, work.Object, to.at)
		if err != nil {
			return err
		}
	}
	_, err = c.exec(`DELETE FROM registrations WHERE scope = ?1 AND folded = ?2`, scope, folded)
	return err
}

// Closure implements registration.ClosingStore.
func (s *Store) Closure(ctx context.Context, scope, id string) (closure registration.Closure, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) {
			closure.Awaited = r.int()
			if !r.null() {
				closure.Generation, closure.TokenDigest, closure.TrackingID, closure.At = r.uint(), r.hash(), r.text(), r.time()
			}
		}, `SELECT (SELECT count(*) FROM awaited AS a WHERE a.scope = k.scope AND a.folded = k.folded AND `+stillOrdered+`),
				n.generation, n.token_digest, n.tracking_id, n.at
			FROM (SELECT ?1 AS scope, ?2 AS folded) AS k LEFT JOIN closures AS n ON n.scope = k.scope AND n.folded = k.folded`, scope, dps.FoldID(id))
		return err
	})
	return closure, err
}

// stillOrdered says of a row of awaited, called a, that its order is not carried out yet.
const stillOrdered = `EXISTS (SELECT 1 FROM outbox AS w WHERE w.scope = a.origin AND w.kind IN ('device.order', 'device.order.embedded') AND w.object = a.object)`

// pruneClosings removes what nobody asks for any more.
func pruneClosings(c *conn, before time.Time, limit int) (removed int, err error) {
	for _, sql := range []string{
		`DELETE FROM closures WHERE seq IN (SELECT seq FROM closures WHERE at < ?1 ORDER BY at LIMIT ?2)`,
		`DELETE FROM awaited WHERE seq IN (SELECT a.seq FROM awaited AS a WHERE a.at < ?1 AND NOT ` + stillOrdered + ` ORDER BY a.at LIMIT ?2)`,
		`DELETE FROM offers WHERE seq IN (SELECT seq FROM offers WHERE expires < ?1 ORDER BY expires LIMIT ?2)`,
	} {
		n, err := c.exec(sql, before, limit)
		if err != nil {
			return 0, err
		}
		removed += n
	}
	return removed, nil
}
