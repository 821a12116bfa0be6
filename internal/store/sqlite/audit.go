package sqlite

import (
	"context"
	"math"

	"latchkey.example/latchkey/internal/registration"
)

// auditLimit is the most rows that AuditByTrackingID returns.
const auditLimit = 100

// appendAudit writes the audit row of a transition, inside it.
func appendAudit(c *conn, scope string, a registration.Audit) error {
	_, err := c.exec(`INSERT INTO audit (scope, at, actor, address, action, object, outcome, reason, tracking_id, detail)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)`,
		scope, a.At, a.Actor, a.Address, a.Action, a.Object, a.Outcome, int(a.Reason), a.TrackingID, a.Detail)
	return err
}

// AppendAudit implements registration.AuditStore.
func (s *Store) AppendAudit(ctx context.Context, scope string, a registration.Audit) error {
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) { return registration.Applied, appendAudit(c, scope, a) })
	return err
}

// AuditByTrackingID implements registration.AuditStore.
func (s *Store) AuditByTrackingID(ctx context.Context, scope, trackingID string) ([]registration.Audit, error) {
	var rows []registration.Audit
	err := s.read(ctx, func(c *conn) error {
		rows = rows[:0]
		return c.each(func(r *row) { rows = append(rows, scanAudit(r)) }, `SELECT at, actor, address, action, object, outcome, reason, tracking_id, detail
			FROM audit WHERE scope = ?1 AND tracking_id = ?2 ORDER BY seq LIMIT ?3`, scope, trackingID, auditLimit)
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// AuditPage implements registration.AuditStore. There is one writer, and no row ever leaves, so sequences rise in the order of commits.
func (s *Store) AuditPage(ctx context.Context, scope string, after uint64, limit int) ([]registration.AuditLine, error) {
	if after > math.MaxInt64 {
		return nil, nil
	}
	var page []registration.AuditLine
	err := s.read(ctx, func(c *conn) error {
		page = page[:0]
		return c.each(func(r *row) {
			page = append(page, registration.AuditLine{Seq: uint64(r.int()), Audit: scanAudit(r)})
		}, `SELECT seq, at, actor, address, action, object, outcome, reason, tracking_id, detail
			FROM audit WHERE scope = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3`, scope, int64(after), limit)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

func scanAudit(r *row) registration.Audit {
	return registration.Audit{
		At: r.time(), Actor: r.text(), Address: r.text(), Action: r.text(), Object: r.text(), Outcome: r.text(),
		Reason: registration.Reason(r.int()), TrackingID: r.text(), Detail: r.text(),
	}
}
