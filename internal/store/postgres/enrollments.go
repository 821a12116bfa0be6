package postgres

import (
	"context"
	"fmt"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// PutEnrollment implements registration.EnrollmentStore.
func (s *Store) PutEnrollment(ctx context.Context, scope string, e registration.Enrollment, expect *uint64,
	audit registration.Audit, order registration.HubOrder,
) (registration.Enrollment, registration.Verdict, error) {
	var p *puts
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		var err error
		p, err = judgePuts(c, scope, []registration.EnrollmentPut{{Enrollment: e, Expect: expect, Audit: audit}})
		if err != nil || p.verdicts[0] != registration.Applied {
			return registration.Conflict, err
		}
		var b batch
		if err := orderDevice(c, &b, scope, dps.FoldID(e.ID), order, audit); err != nil {
			return 0, err
		}
		if err := p.write(c); err != nil {
			return 0, err
		}
		return registration.Applied, c.send(&b)
	})
	if err != nil || verdict != registration.Applied {
		if err == nil {
			verdict = p.verdicts[0]
		}
		return registration.Enrollment{}, verdict, err
	}
	stored := p.rows[dps.FoldID(e.ID)].enrollment
	stored.Created, stored.Updated = rounded(stored.Created), rounded(stored.Updated)
	return stored, verdict, nil
}

// PutEnrollments implements registration.EnrollmentStore.
func (s *Store) PutEnrollments(ctx context.Context, scope string, rows []registration.EnrollmentPut) ([]registration.Verdict, error) {
	if len(rows) > registration.MaxPuts {
		return nil, fmt.Errorf("%d enrollments in one transition, the limit is %d", len(rows), registration.MaxPuts)
	}
	return s.putMany(ctx, scope, rows, false)
}

// PutAllEnrollments implements registration.EnrollmentStore.
func (s *Store) PutAllEnrollments(ctx context.Context, scope string, rows []registration.EnrollmentPut) ([]registration.Verdict, error) {
	if len(rows) > registration.MaxAtomic {
		return nil, fmt.Errorf("%d enrollments in one transition, the limit is %d", len(rows), registration.MaxAtomic)
	}
	return s.putMany(ctx, scope, rows, true)
}

// putMany writes what is applied of the rows or, if they stand or fall together, nothing unless all are.
func (s *Store) putMany(ctx context.Context, scope string, rows []registration.EnrollmentPut, together bool) ([]registration.Verdict, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	var verdicts []registration.Verdict
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		p, err := judgePuts(c, scope, rows)
		if err != nil {
			return 0, err
		}
		verdicts = p.verdicts
		if together && p.applied() < len(rows) || p.applied() == 0 {
			return registration.Conflict, nil
		}
		return registration.Applied, p.write(c)
	})
	if err != nil {
		return nil, err
	}
	return verdicts, nil
}

// DeleteEnrollment implements registration.EnrollmentStore.
func (s *Store) DeleteEnrollment(ctx context.Context, scope, id string, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	folded := dps.FoldID(id)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if _, err := lockID(c, scope, folded); err != nil {
			return 0, err
		}
		verdict, err := judgeDelete(c, `SELECT revision FROM enrollments WHERE scope = $1 AND folded = $2`, scope, folded, expect)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		var b batch
		if err := orderDevice(c, &b, scope, folded, order, audit); err != nil {
			return 0, err
		}
		b.add(`DELETE FROM enrollments WHERE scope = $1 AND folded = $2`, scope, folded)
		b.add(`DELETE FROM entry_certificates WHERE scope = $1 AND kind = $2 AND folded = $3`, scope, ownEntry, folded)
		b.add(`DELETE FROM offers WHERE scope = $1 AND folded = $2`, scope, folded)
		deleteRegistration(&b, scope, folded)
		dropID(&b, scope, folded, audit.At)
		b.audit(scope, audit)
		return registration.Applied, c.send(&b)
	})
}

// DeleteRegistration implements registration.EnrollmentStore.
func (s *Store) DeleteRegistration(ctx context.Context, scope, id string, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	folded := dps.FoldID(id)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if _, err := lockID(c, scope, folded); err != nil {
			return 0, err
		}
		verdict, err := judgeDelete(c, `SELECT revision FROM registrations WHERE scope = $1 AND folded = $2`, scope, folded, expect)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		enrolled, err := c.one(func(*row) {}, `SELECT 1 FROM enrollments WHERE scope = $1 AND folded = $2`, scope, folded)
		if err != nil {
			return 0, err
		}
		var b batch
		if err := orderDevice(c, &b, scope, folded, order, audit); err != nil {
			return 0, err
		}
		deleteRegistration(&b, scope, folded)
		if !enrolled {
			dropID(&b, scope, folded, audit.At)
		}
		b.audit(scope, audit)
		return registration.Applied, c.send(&b)
	})
}

// deleteRegistration removes the registration of an id, if there is one, with its operations and its claim to a device id.
func deleteRegistration(b *batch, scope, folded string) {
	b.add(`DELETE FROM device_ids AS d USING registrations AS r WHERE r.scope = $1 AND r.folded = $2
		AND d.scope = r.scope AND d.hub = r.hub AND d.device_id = r.device_id AND d.folded = r.folded`, scope, folded)
	b.add(`DELETE FROM registrations WHERE scope = $1 AND folded = $2`, scope, folded)
	b.add(`DELETE FROM operations WHERE scope = $1 AND folded = $2 AND revision > 0`, scope, folded)
}
