package postgres

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// auditLimit is the most rows that AuditByTrackingID returns.
const auditLimit = 100

// audit adds the audit row of a transition.
func (b *batch) audit(scope string, a registration.Audit) {
	b.add(`INSERT INTO audit (scope, at, actor, address, action, object, outcome, reason, tracking_id, detail)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		scope, a.At, clean(a.Actor), clean(a.Address), clean(a.Action), clean(a.Object), clean(a.Outcome), int(a.Reason), clean(a.TrackingID), clean(a.Detail))
}

// appendAudit writes the audit row of a transition, inside it.
func appendAudit(c *conn, scope string, a registration.Audit) error {
	var b batch
	b.audit(scope, a)
	return c.send(&b)
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
			FROM audit WHERE scope = $1 AND tracking_id = $2 ORDER BY n LIMIT $3`, scope, clean(trackingID), auditLimit)
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// ExpireAudit implements registration.AuditStore. The boundary is written first: it is the lock of those who expire, and the trigger that
// keeps rows lets none go that is not before it.
func (s *Store) ExpireAudit(ctx context.Context, scope string, before time.Time, limit int, audit *registration.Audit) (int, error) {
	removed := 0
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		var err error
		if removed, err = expireAudit(c, scope, before, limit, audit); removed == 0 || err != nil {
			return registration.Missing, err
		}
		return registration.Applied, nil
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

func expireAudit(c *conn, scope string, before time.Time, limit int, audit *registration.Audit) (int, error) {
	_, err := c.exec(`INSERT INTO audit_retention (scope, before) VALUES ($1, $2)
		ON CONFLICT (scope) DO UPDATE SET before = greatest(audit_retention.before, excluded.before)`, scope, before)
	if err != nil {
		return 0, err
	}
	var old []int64
	young := false // rows are in order of time, nearly; the first young one ends the walk
	err = c.each(func(r *row) {
		n, at := r.int64(), r.time()
		if young = young || !at.Before(before); !young {
			old = append(old, n)
		}
	}, `SELECT n, at FROM audit WHERE scope = $1 ORDER BY n LIMIT $2`, scope, limit)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	if audit != nil {
		if err := appendAudit(c, scope, *audit); err != nil {
			return 0, err
		}
	}
	return c.exec(`DELETE FROM audit WHERE scope = $1 AND n = ANY($2)`, scope, old)
}

func scanAudit(r *row) registration.Audit {
	return registration.Audit{
		At: r.time(), Actor: r.text(), Address: r.text(), Action: r.text(), Object: r.text(), Outcome: r.text(),
		Reason: registration.Reason(r.int()), TrackingID: r.text(), Detail: r.text(),
	}
}
