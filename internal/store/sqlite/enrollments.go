package sqlite

import (
	"context"
	"fmt"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// nextRevision gives out the next revision of a scope. A refused transition gives it back with its savepoint.
func nextRevision(c *conn, scope string) (uint64, error) {
	var rev uint64
	_, err := c.one(func(r *row) { rev = r.uint() },
		`INSERT INTO revisions (scope, last) VALUES (?1, 1)
		ON CONFLICT (scope) DO UPDATE SET last = last + 1 RETURNING last`, scope)
	return rev, err
}

// PutEnrollment implements registration.EnrollmentStore.
func (s *Store) PutEnrollment(ctx context.Context, scope string, e registration.Enrollment, expect *uint64,
	audit registration.Audit, order registration.HubOrder,
) (registration.Enrollment, registration.Verdict, error) {
	stored := new(registration.Enrollment) // the writer's until it answers
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		verdict, err := putEnrollment(c, scope, e, expect, audit, stored)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		return verdict, orderDevice(c, scope, dps.FoldID(e.ID), order, audit, s.now())
	})
	if err != nil || verdict != registration.Applied {
		return registration.Enrollment{}, verdict, err
	}
	return *stored, verdict, nil
}

// PutEnrollments implements registration.EnrollmentStore. A row is judged before anything of it is written, so that a refused one has nothing
// to undo; one that the database itself will not take ends the whole job with its savepoint.
func (s *Store) PutEnrollments(ctx context.Context, scope string, puts []registration.EnrollmentPut) ([]registration.Verdict, error) {
	if len(puts) > registration.MaxPuts {
		return nil, fmt.Errorf("%d enrollments in one transition, the limit is %d", len(puts), registration.MaxPuts)
	}
	verdicts := make([]registration.Verdict, len(puts)) // the writer's until it answers
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		var stored registration.Enrollment
		for i, put := range puts {
			verdict, err := putEnrollment(c, scope, put.Enrollment, put.Expect, put.Audit, &stored)
			if err != nil {
				return 0, err
			}
			verdicts[i] = verdict
		}
		return registration.Applied, nil
	})
	if err != nil {
		return nil, err
	}
	return verdicts, nil
}

// PutAllEnrollments implements registration.EnrollmentStore. A refusal is the job's, and its savepoint undoes what the other rows wrote.
func (s *Store) PutAllEnrollments(ctx context.Context, scope string, puts []registration.EnrollmentPut) ([]registration.Verdict, error) {
	if len(puts) > registration.MaxAtomic {
		return nil, fmt.Errorf("%d enrollments in one transition, the limit is %d", len(puts), registration.MaxAtomic)
	}
	verdicts := make([]registration.Verdict, len(puts)) // the writer's until it answers
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		var stored registration.Enrollment
		whole := registration.Applied
		for i, put := range puts {
			verdict, err := putEnrollment(c, scope, put.Enrollment, put.Expect, put.Audit, &stored)
			if err != nil {
				return 0, err
			}
			if verdicts[i] = verdict; verdict != registration.Applied {
				whole = verdict
			}
		}
		return whole, nil
	})
	if err != nil {
		return nil, err
	}
	return verdicts, nil
}

func putEnrollment(c *conn, scope string, e registration.Enrollment, expect *uint64, audit registration.Audit,
	stored *registration.Enrollment,
) (registration.Verdict, error) {
	var revision uint64
	var created time.Time
	certified := false // it had certificates
	found, err := c.one(func(r *row) { revision, created, certified = r.uint(), r.time(), r.bool() },
		`SELECT revision, created, certificates <> x'' FROM enrollments WHERE scope = ?1 AND folded = ?2`, scope, dps.FoldID(e.ID))
	if err != nil {
		return 0, err
	}
	if verdict := judge(found, revision, expect); verdict != registration.Applied {
		return verdict, nil
	}
	if found {
		e.Created = created
	}
	if certified || len(e.Certificates) > 0 {
		if taken, err := claimCertificates(c, scope, ownEntry, e.ID, e.Certificates); taken || err != nil {
			return registration.Taken, err
		}
	}
	if e.Revision, err = nextRevision(c, scope); err != nil {
		return 0, err
	}
	if err := writeEnrollment(c, scope, e); err != nil {
		return 0, err
	}
	if err := noteIdle(c, scope, e.ID, audit.At); err != nil {
		return 0, err
	}
	if found {
		if _, err := c.exec(`DELETE FROM offers WHERE scope = ?1 AND folded = ?2 AND ek_key_id <> ?3`, scope, dps.FoldID(e.ID), e.EKKeyID[:]); err != nil {
			return 0, err
		}
	}
	e.Created, e.Updated = rounded(e.Created), rounded(e.Updated)
	*stored = e
	return registration.Applied, appendAudit(c, scope, audit)
}

// rounded is the time as it will be read back.
func rounded(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

// judge compares a row, if there is one, with what a put expects.
func judge(found bool, revision uint64, expect *uint64) registration.Verdict {
	switch {
	case expect == nil && found:
		return registration.Exists
	case expect != nil && !found:
		return registration.Missing
	case found && !expected(expect, revision):
		return registration.Conflict
	}
	return registration.Applied
}

func expected(expect *uint64, revision uint64) bool {
	return expect == nil || *expect == registration.AnyRevision || *expect == revision
}

// writeEnrollment keeps the row's place when it replaces, so that a listing by place goes on over it.
func writeEnrollment(c *conn, scope string, e registration.Enrollment) error {
	_, err := c.exec(`INSERT INTO enrollments
		(scope, folded, id, revision, mechanism, ek, ek_key_id, pinned_srk, sealed_primary, sealed_secondary, certificates, device_id, disabled,
			document, created, updated)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
		ON CONFLICT (scope, folded) DO UPDATE SET
			id = excluded.id, revision = excluded.revision, mechanism = excluded.mechanism, ek = excluded.ek, ek_key_id = excluded.ek_key_id,
			pinned_srk = excluded.pinned_srk, sealed_primary = excluded.sealed_primary, sealed_secondary = excluded.sealed_secondary,
			certificates = excluded.certificates, device_id = excluded.device_id, disabled = excluded.disabled,
			document = excluded.document, updated = excluded.updated`,
		scope, dps.FoldID(e.ID), e.ID, e.Revision, string(e.Mechanism), e.EK, e.EKKeyID[:], e.PinnedSRK, e.Keys.Primary, e.Keys.Secondary, joined(e.Certificates), e.DeviceID, e.Disabled,
		e.Document, e.Created, e.Updated)
	return err
}

// DeleteEnrollment implements registration.EnrollmentStore.
func (s *Store) DeleteEnrollment(ctx context.Context, scope, id string, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	folded := dps.FoldID(id)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		verdict, err := deleteRow(c, scope, folded, expect,
			`SELECT revision FROM enrollments WHERE scope = ?1 AND folded = ?2`,
			`DELETE FROM enrollments WHERE scope = ?1 AND folded = ?2`)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		if err := freeCertificates(c, scope, ownEntry, folded); err != nil {
			return 0, err
		}
		if err := orderDevice(c, scope, folded, order, audit, s.now()); err != nil {
			return 0, err
		}
		for _, table := range []string{"registrations", "offers"} {
			if _, err = c.exec(`DELETE FROM `+table+` WHERE scope = ?1 AND folded = ?2`, scope, folded); err != nil {
				return 0, err
			}
		}
		return registration.Applied, afterDelete(c, scope, folded, audit)
	})
}

// DeleteRegistration implements registration.EnrollmentStore.
func (s *Store) DeleteRegistration(ctx context.Context, scope, id string, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	folded := dps.FoldID(id)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if err := orderDevice(c, scope, folded, order, audit, s.now()); err != nil { // which a refusal undoes
			return 0, err
		}
		verdict, err := deleteRow(c, scope, folded, expect,
			`SELECT revision FROM registrations WHERE scope = ?1 AND folded = ?2`,
			`DELETE FROM registrations WHERE scope = ?1 AND folded = ?2`)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		return registration.Applied, afterDelete(c, scope, folded, audit)
	})
}

// deleteRow deletes the row of an id if its revision is as expected.
func deleteRow(c *conn, scope, folded string, expect *uint64, selectSQL, deleteSQL string) (registration.Verdict, error) {
	var revision uint64
	found, err := c.one(func(r *row) { revision = r.uint() }, selectSQL, scope, folded)
	switch {
	case err != nil:
		return 0, err
	case !found:
		return registration.Missing, nil
	case !expected(expect, revision):
		return registration.Conflict, nil
	}
	_, err = c.exec(deleteSQL, scope, folded)
	return registration.Applied, err
}

// afterDelete removes the operations of an id whose registration is gone and lets its generation age.
func afterDelete(c *conn, scope, folded string, audit registration.Audit) error {
	if _, err := c.exec(`DELETE FROM operations WHERE scope = ?1 AND folded = ?2`, scope, folded); err != nil {
		return err
	}
	if err := noteIdle(c, scope, folded, audit.At); err != nil {
		return err
	}
	return appendAudit(c, scope, audit)
}

// noteIdle starts the age of an id's generation at the given time, or stops it if the id has an enrollment or a registration.
func noteIdle(c *conn, scope, id string, at time.Time) error {
	_, err := c.exec(`UPDATE generations SET idle_since = iif(
			EXISTS (SELECT 1 FROM enrollments WHERE scope = ?1 AND folded = ?2) OR
			EXISTS (SELECT 1 FROM registrations WHERE scope = ?1 AND folded = ?2), NULL, ?3)
		WHERE scope = ?1 AND folded = ?2`, scope, dps.FoldID(id), at)
	return err
}
