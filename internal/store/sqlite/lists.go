package sqlite

import (
	"context"

	"latchkey.example/latchkey/internal/registration"
)

const enrollmentsSQL = `SELECT
	e.id, e.revision, e.ek, e.ek_key_id, e.pinned_srk, e.device_id, e.disabled, e.document, e.created, e.updated,
	r.seq, r.id, r.revision, r.status, r.substatus, r.hub, r.device_id, r.ek_key_id, r.srk, r.sealed_hub_key,
	r.hub_key_generation, r.operation_id, r.error_code, r.error_message, r.created, r.updated
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
