package sqlite

import (
	"context"
	"math"
	"sync/atomic"
	"time"

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

// AuditPage implements registration.AuditStore. There is one writer, and the newest row never leaves, so sequences rise in the order of
// commits.
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

// ExpireAudit implements registration.AuditStore. The boundary is written first: the trigger that keeps rows lets none go that is not before it.
func (s *Store) ExpireAudit(ctx context.Context, scope string, before time.Time, limit int, audit *registration.Audit) (int, error) {
	var removed atomic.Int64 // the transition may still run after write has given up waiting for it
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		n, err := expireAudit(c, scope, before, limit, audit)
		removed.Store(int64(n))
		return registration.Applied, err
	})
	if err != nil {
		return 0, err
	}
	return int(removed.Load()), nil
}

func expireAudit(c *conn, scope string, before time.Time, limit int, audit *registration.Audit) (int, error) {
	last, count := int64(0), 0
	young := false // rows are in order of time, nearly; the first young one ends the walk
	err := c.each(func(r *row) {
		seq, at := int64(r.int()), r.time()
		if young = young || !at.Before(before); !young {
			last, count = seq, count+1
		}
	}, `SELECT seq, at FROM audit WHERE scope = ?1 AND seq < (SELECT max(seq) FROM audit) ORDER BY seq LIMIT ?2`, scope, limit)
	if err != nil || count == 0 {
		return 0, err
	}
	if audit != nil {
		if err := appendAudit(c, scope, *audit); err != nil {
			return 0, err
		}
	}
	_, err = c.exec(`INSERT INTO audit_retention (scope, before) VALUES (?1, ?2)
		ON CONFLICT (scope) DO UPDATE SET before = max(before, excluded.before)`, scope, before)
	if err != nil {
		return 0, err
	}
	return c.exec(`DELETE FROM audit WHERE scope = ?1 AND seq <= ?2`, scope, last)
}

func scanAudit(r *row) registration.Audit {
	return registration.Audit{
		At: r.time(), Actor: r.text(), Address: r.text(), Action: r.text(), Object: r.text(), Outcome: r.text(),
		Reason: registration.Reason(r.int()), TrackingID: r.text(), Detail: r.text(),
	}
}
