package sqlite

import (
	"context"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// PutOffer implements registration.TransferStore.
func (s *Store) PutOffer(ctx context.Context, scope string, o registration.Offer, revision uint64, audit registration.Audit) (registration.Verdict, error) {
	if err := o.Check(); err != nil {
		return 0, err
	}
	folded := dps.FoldID(o.ID)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		enrolled, _, err := revisionsOf(c, scope, folded)
		switch {
		case err != nil:
			return 0, err
		case enrolled == 0:
			return registration.Missing, nil
		case enrolled != revision:
			return registration.Conflict, nil
		}
		var expires time.Time
		found, err := c.one(func(r *row) { expires = r.time() }, `SELECT expires FROM offers WHERE scope = ?1 AND folded = ?2`, scope, folded)
		if err != nil {
			return 0, err
		}
		if found && expires.After(rounded(o.Created)) {
			return registration.Exists, nil
		}
		_, err = c.exec(`INSERT INTO offers (scope, folded, id, target, code, ek_key_id, keys, enrolled, policy, created, expires)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
			ON CONFLICT (scope, folded) DO UPDATE SET id = excluded.id, target = excluded.target, code = excluded.code, ek_key_id = excluded.ek_key_id,
				keys = excluded.keys, enrolled = excluded.enrolled, policy = excluded.policy, created = excluded.created, expires = excluded.expires`,
			scope, folded, o.ID, o.Target, o.Code[:], o.EKKeyID[:], o.Keys[:], o.Enrolled, o.Policy, o.Created, o.Expires)
		if err != nil {
			return 0, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

// DeleteOffer implements registration.TransferStore.
func (s *Store) DeleteOffer(ctx context.Context, scope, id string, audit registration.Audit) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		n, err := c.exec(`DELETE FROM offers WHERE scope = ?1 AND folded = ?2`, scope, dps.FoldID(id))
		if n == 0 || err != nil {
			return registration.Missing, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

const offerColumns = `id, target, code, ek_key_id, keys, enrolled, policy, created, expires`

func scanOffer(r *row) registration.Offer {
	return registration.Offer{ID: r.text(), Target: r.text(), Code: r.hash(), EKKeyID: r.hash(), Keys: r.hash(), Enrolled: r.time(), Policy: r.text(), Created: r.time(), Expires: r.time()}
}

// Offers implements registration.TransferStore.
func (s *Store) Offers(ctx context.Context, scope, after string, limit int) (page []registration.Offer, err error) {
	err = s.read(ctx, func(c *conn) error {
		page = nil
		return c.each(func(r *row) { page = append(page, scanOffer(r)) },
			`SELECT `+offerColumns+` FROM offers WHERE scope = ?1 AND folded > ?2 ORDER BY folded LIMIT ?3`, scope, after, limit)
	})
	return page, err
}

// Offered implements registration.TransferStore. One statement reads all parts, so they are of one snapshot.
func (s *Store) Offered(ctx context.Context, target string, code [32]byte) (found registration.Offered, err error) {
	err = s.read(ctx, func(c *conn) error {
		there, err := c.one(func(r *row) {
			found.Source, found.Offer = r.text(), scanOffer(r)
			found.Device = scanDevice(r)
		}, `SELECT f.scope, f.id, f.target, f.code, f.ek_key_id, f.keys, f.enrolled, f.policy, f.created, f.expires, `+deviceColumns+`
			FROM (SELECT * FROM offers WHERE target = ?1 AND code = ?2) AS f
			CROSS JOIN (SELECT scope, folded FROM offers WHERE target = ?1 AND code = ?2) AS k `+deviceJoins, target, code[:])
		if err == nil && !there {
			err = registration.ErrNotFound
		}
		return err
	})
	return found, err
}

// AcceptOffer implements registration.TransferStore.
func (s *Store) AcceptOffer(ctx context.Context, target string, a registration.Acceptance) (registration.Accepted, registration.Verdict, error) {
	if err := a.Check(target); err != nil {
		return registration.Accepted{}, 0, err
	}
	accepted := new(registration.Accepted) // the writer's until it answers
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) { return acceptOffer(c, target, a, accepted, s.now()) })
	if err != nil || verdict != registration.Applied {
		return registration.Accepted{}, verdict, err
	}
	return *accepted, verdict, nil
}

func acceptOffer(c *conn, target string, a registration.Acceptance, accepted *registration.Accepted, now time.Time) (registration.Verdict, error) {
	source, folded := a.Source, dps.FoldID(a.ID)
	if verdict, err := judgeAcceptance(c, target, a); verdict != registration.Applied || err != nil {
		return verdict, err
	}
	verdict, err := putEnrollment(c, target, a.Enrollment, nil, a.Audit, &accepted.Enrollment)
	if verdict != registration.Applied || err != nil {
		return verdict, err
	}
	if accepted.Left, err = nextRevision(c, source); err != nil {
		return 0, err
	}
	to := owed{target, dps.FoldID(a.Enrollment.ID), a.Audit.At}
	if err := leaveHubs(c, source, folded, to, now, func(r registration.Registration) []registration.Outbox { return a.Orders(r, accepted.Left) }); err != nil {
		return 0, err
	}
	_, err = c.exec(`INSERT INTO awaited (scope, folded, origin, object, at) SELECT ?3, ?4, origin, object, ?5 FROM awaited WHERE scope = ?1 AND folded = ?2
		ON CONFLICT (scope, folded, origin, object) DO NOTHING`, source, folded, to.scope, to.folded, to.at)
	if err != nil {
		return 0, err
	}
	for _, table := range []string{"offers", "enrollments"} {
		if _, err := c.exec(`DELETE FROM `+table+` WHERE scope = ?1 AND folded = ?2`, source, folded); err != nil {
			return 0, err
		}
	}
	return registration.Applied, afterDelete(c, source, folded, a.SourceAudit)
}

// judgeAcceptance looks whether all is as it was read, and whether there is room in the target.
func judgeAcceptance(c *conn, target string, a registration.Acceptance) (registration.Verdict, error) {
	folded := dps.FoldID(a.ID)
	offered, err := c.one(func(*row) {}, `SELECT 1 FROM offers WHERE scope = ?1 AND folded = ?2 AND target = ?3 AND code = ?4`, a.Source, folded, target, a.Code[:])
	if !offered || err != nil {
		return registration.Missing, err
	}
	enrolled, registered, err := revisionsOf(c, a.Source, folded)
	if err != nil || enrolled != a.EnrollmentBefore || registered != a.RegistrationBefore {
		return registration.Conflict, err
	}
	if there, _, err := revisionsOf(c, target, dps.FoldID(a.Enrollment.ID)); there != 0 || err != nil {
		return registration.Exists, err
	}
	if taken, err := keysTaken(c, target, a.Enrollment); taken || err != nil {
		return registration.Taken, err
	}
	return registration.Applied, nil
}

// keysTaken says whether an enrollment of a scope has one of the EKs of another.
func keysTaken(c *conn, scope string, e registration.Enrollment) (bool, error) {
	return c.one(func(*row) {}, `SELECT 1 FROM enrollments WHERE scope = ?1 AND ek_key_id = ?2`, scope, e.EKKeyID[:])
}
