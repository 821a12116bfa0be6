package postgres

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
		if _, err := lockID(c, scope, folded); err != nil {
			return 0, err
		}
		is, err := readEntry(c, scope, folded)
		switch {
		case err != nil:
			return 0, err
		case is.enrollment == 0:
			return registration.Missing, nil
		case is.enrollment != revision:
			return registration.Conflict, nil
		}
		var expires time.Time
		found, err := c.one(func(r *row) { expires = r.time() }, `SELECT expires FROM offers WHERE scope = $1 AND folded = $2`, scope, folded)
		if err != nil {
			return 0, err
		}
		if found && expires.After(rounded(o.Created)) {
			return registration.Exists, nil
		}
		var b batch
		b.add(`INSERT INTO offers (scope, folded, id, target, code, ek_key_id, keys, enrolled, policy, created, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
			ON CONFLICT (scope, folded) DO UPDATE SET id = excluded.id, target = excluded.target, code = excluded.code, ek_key_id = excluded.ek_key_id,
				keys = excluded.keys, enrolled = excluded.enrolled, policy = excluded.policy, created = excluded.created, expires = excluded.expires`,
			scope, folded, o.ID, o.Target, o.Code[:], o.EKKeyID[:], o.Keys[:], o.Enrolled, o.Policy, o.Created, o.Expires)
		b.audit(scope, audit)
		return registration.Applied, c.send(&b)
	})
}

// DeleteOffer implements registration.TransferStore.
func (s *Store) DeleteOffer(ctx context.Context, scope, id string, audit registration.Audit) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		n, err := c.exec(`DELETE FROM offers WHERE scope = $1 AND folded = $2`, scope, dps.FoldID(id))
		if n == 0 || err != nil {
			return registration.Missing, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

const offerColumns = `f.id, f.target, f.code, f.ek_key_id, f.keys, f.enrolled, f.policy, f.created, f.expires`

func scanOffer(r *row) registration.Offer {
	return registration.Offer{ID: r.text(), Target: r.text(), Code: r.hash(), EKKeyID: r.hash(), Keys: r.hash(), Enrolled: r.time(), Policy: r.text(), Created: r.time(), Expires: r.time()}
}

// Offers implements registration.TransferStore.
func (s *Store) Offers(ctx context.Context, scope, after string, limit int) (page []registration.Offer, err error) {
	err = s.read(ctx, func(c *conn) error {
		page = nil
		return c.each(func(r *row) { page = append(page, scanOffer(r)) },
			`SELECT `+offerColumns+` FROM offers AS f WHERE f.scope = $1 AND f.folded > $2 ORDER BY f.folded LIMIT $3`, scope, after, limit)
	})
	return page, err
}

// Offered implements registration.TransferStore.
func (s *Store) Offered(ctx context.Context, target string, code [32]byte) (found registration.Offered, err error) {
	err = s.snapshot(ctx, func(c *conn) error {
		there, err := c.one(func(r *row) { found.Source, found.Offer = r.text(), scanOffer(r) },
			`SELECT f.scope, `+offerColumns+` FROM offers AS f WHERE f.target = $1 AND f.code = $2`, target, code[:])
		if err != nil || !there {
			return errNone(err)
		}
		_, err = c.one(func(r *row) { found.Device = scanDevice(r) }, deviceSQL, found.Source, dps.FoldID(found.Offer.ID))
		return err
	})
	return found, err
}

// errNone is the error of a read that found nothing.
func errNone(err error) error {
	if err == nil {
		err = registration.ErrNotFound
	}
	return err
}

// AcceptOffer implements registration.TransferStore.
func (s *Store) AcceptOffer(ctx context.Context, target string, a registration.Acceptance) (registration.Accepted, registration.Verdict, error) {
	if err := a.Check(target); err != nil {
		return registration.Accepted{}, 0, err
	}
	var accepted registration.Accepted
	verdict, err := s.write(ctx, func(c *conn) (verdict registration.Verdict, err error) {
		accepted, verdict, err = acceptOffer(c, target, a)
		return verdict, err
	})
	if err != nil || verdict != registration.Applied {
		return registration.Accepted{}, verdict, err
	}
	return accepted, verdict, nil
}

// acceptOffer locks the two ids in order of their scopes, so that two that go opposite ways do not wait for each other; everybody else locks ids of one
// scope alone.
func acceptOffer(c *conn, target string, a registration.Acceptance) (accepted registration.Accepted, verdict registration.Verdict, err error) {
	source, folded := a.Source, dps.FoldID(a.ID)
	if source < target {
		if _, err := lockID(c, source, folded); err != nil {
			return accepted, 0, err
		}
	}
	p, err := judgePuts(c, target, []registration.EnrollmentPut{{Enrollment: a.Enrollment, Audit: a.Audit}})
	if err != nil {
		return accepted, 0, err
	}
	if source > target {
		if _, err := lockID(c, source, folded); err != nil {
			return accepted, 0, err
		}
	}
	if verdict, err := judgeAcceptance(c, target, a); verdict != registration.Applied || err != nil {
		return accepted, verdict, err
	}
	if verdict := p.verdicts[0]; verdict != registration.Applied {
		return accepted, verdict, nil
	}
	if taken, err := keysTaken(c, target, a.Enrollment); taken || err != nil {
		return accepted, registration.Taken, err
	}
	if accepted.Left, err = nextRevision(c); err != nil {
		return accepted, 0, err
	}
	accepted.Enrollment = p.rows[dps.FoldID(a.Enrollment.ID)].enrollment
	accepted.Enrollment.Created, accepted.Enrollment.Updated = rounded(accepted.Enrollment.Created), rounded(accepted.Enrollment.Updated)
	if err := leaveScope(c, target, a, accepted.Left); err != nil {
		return accepted, 0, err
	}
	return accepted, registration.Applied, p.write(c)
}

// leaveScope removes all of a device at its source, and tells who awaits what is to be done there.
func leaveScope(c *conn, target string, a registration.Acceptance, revision uint64) error {
	source, folded := a.Source, dps.FoldID(a.ID)
	to := owed{target, dps.FoldID(a.Enrollment.ID), a.Audit.At}
	var b batch
	err := leaveHubs(c, &b, source, folded, to, func(r registration.Registration) []registration.Outbox { return a.Orders(r, revision) })
	if err != nil {
		return err
	}
	b.add(`INSERT INTO awaited (scope, folded, origin, object, at) SELECT $3, $4, origin, object, $5::bigint FROM awaited WHERE scope = $1 AND folded = $2
		ON CONFLICT (scope, folded, origin, object) DO NOTHING`, source, folded, to.scope, to.folded, to.at)
	b.add(`DELETE FROM offers WHERE scope = $1 AND folded = $2`, source, folded)
	b.add(`DELETE FROM enrollments WHERE scope = $1 AND folded = $2`, source, folded)
	dropID(&b, source, folded, a.SourceAudit.At)
	b.audit(source, a.SourceAudit)
	return c.send(&b)
}

// judgeAcceptance looks whether all is at the source as it was read.
func judgeAcceptance(c *conn, target string, a registration.Acceptance) (registration.Verdict, error) {
	folded := dps.FoldID(a.ID)
	offered, err := c.one(func(*row) {}, `SELECT 1 FROM offers WHERE scope = $1 AND folded = $2 AND target = $3 AND code = $4`, a.Source, folded, target, a.Code[:])
	if !offered || err != nil {
		return registration.Missing, err
	}
	is, err := readEntry(c, a.Source, folded)
	if err != nil || is.enrollment != a.EnrollmentBefore || is.registration != a.RegistrationBefore {
		return registration.Conflict, err
	}
	return registration.Applied, nil
}

// keysTaken says whether an enrollment of a scope has one of the EKs of another.
func keysTaken(c *conn, scope string, e registration.Enrollment) (bool, error) {
	return c.one(func(*row) {}, `SELECT 1 FROM enrollments WHERE scope = $1 AND ek_key_id = $2`, scope, e.EKKeyID[:])
}
