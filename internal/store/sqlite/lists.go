package sqlite

import (
	"context"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

const enrollmentsSQL = `SELECT
	e.id, e.revision, e.mechanism, e.ek, e.ek_key_id, e.pinned_srk, e.sealed_primary, e.sealed_secondary, e.certificates,
	e.device_id, e.disabled, e.document, e.created, e.updated,
	r.seq, r.id, r.revision, r.status, r.substatus, r.hub, r.device_id, r.mechanism, r.group_id, r.ek_key_id, r.srk, r.sealed_hub_key,
	r.hub_key_generation, r.operation_id, r.error_code, r.error_message, r.created, r.updated, r.leaving, r.saved, r.payload
FROM enrollments AS e
LEFT JOIN registrations AS r ON r.scope = e.scope AND r.folded = e.folded
WHERE e.scope = ?1 AND e.folded > ?2
ORDER BY e.folded
LIMIT ?3`

// Enrollments implements registration.ListStore.
func (s *Store) Enrollments(ctx context.Context, scope, after string, limit int) ([]registration.Listed, error) {
	var page []registration.Listed
	err := s.read(ctx, func(c *conn) error {
		page = page[:0]
		return c.each(func(r *row) {
			line := registration.Listed{Enrollment: scanEnrollment(r)}
			if !r.absent(registrationColumns) {
				reg := scanRegistration(r)
				line.Registration = &reg
			}
			page = append(page, line)
		}, enrollmentsSQL, scope, after, limit)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

const (
	registrationRows = `SELECT id, revision, status, substatus, hub, device_id, mechanism, group_id, ek_key_id, srk, sealed_hub_key,
	hub_key_generation, operation_id, error_code, error_message, created, updated, leaving, saved, payload
FROM registrations WHERE scope = ?1 `
	registrationList = registrationRows + `AND folded > ?2 `
	registrationSQL  = registrationRows + `AND folded = ?2`
)

// Registrations implements registration.ListStore.
func (s *Store) Registrations(ctx context.Context, scope, group, after string, limit int) ([]registration.Registration, error) {
	sql := registrationList + `ORDER BY folded LIMIT ?3`
	args := []any{scope, after, limit}
	if group != "" {
		sql = registrationList + `AND group_folded = ?4 AND group_folded <> '' ORDER BY folded LIMIT ?3`
		args = append(args, dps.FoldID(group))
	}
	var page []registration.Registration
	err := s.read(ctx, func(c *conn) error {
		page = page[:0]
		return c.each(func(r *row) { page = append(page, scanRegistration(r)) }, sql, args...)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// Holdings implements registration.ListStore. Each count walks an index and no row.
func (s *Store) Holdings(ctx context.Context, scope string) (registration.Holdings, error) {
	var h registration.Holdings
	err := s.read(ctx, func(c *conn) error {
		h = registration.Holdings{Enrollments: map[registration.Mechanism]uint64{}, Groups: map[registration.Mechanism]uint64{},
			Registrations: map[registration.Status]uint64{}}
		return c.snapshot(func() error { return count(c, scope, &h) })
	})
	return h, err
}

func count(c *conn, scope string, h *registration.Holdings) error {
	err := c.each(func(r *row) {
		mechanism, disabled, n := registration.Mechanism(r.text()), r.bool(), r.uint()
		if h.Enrollments[mechanism] += n; disabled {
			h.Disabled += n
		}
	}, `SELECT mechanism, disabled, count(*) FROM enrollments WHERE scope = ?1 GROUP BY mechanism, disabled`, scope)
	if err != nil {
		return err
	}
	err = c.each(func(r *row) { mechanism := registration.Mechanism(r.text()); h.Groups[mechanism] = r.uint() },
		`SELECT mechanism, count(*) FROM enrollment_groups WHERE scope = ?1 GROUP BY mechanism`, scope)
	if err != nil {
		return err
	}
	return c.each(func(r *row) { status := registration.Status(r.text()); h.Registrations[status] = r.uint() },
		`SELECT status, count(*) FROM registrations WHERE scope = ?1 GROUP BY status`, scope)
}
