package storetest

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// AppendAudit implements registration.AuditStore.
func (m *Model) AppendAudit(ctx context.Context, scope string, a registration.Audit) error {
	leave, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	m.note(scope, a)
	return nil
}

// AuditByTrackingID implements registration.AuditStore.
func (m *Model) AuditByTrackingID(ctx context.Context, scope, trackingID string) (rows []registration.Audit, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	for i, line := range m.log {
		if m.logOf[i] == scope && line.TrackingID == trackingID && len(rows) < 100 {
			rows = append(rows, line.Audit)
		}
	}
	return rows, nil
}

// AuditPage implements registration.AuditStore.
func (m *Model) AuditPage(ctx context.Context, scope string, after uint64, limit int) (page []registration.AuditLine, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	for i, line := range m.log {
		if m.logOf[i] == scope && line.Seq > after && len(page) < limit {
			page = append(page, line)
		}
	}
	return page, nil
}

// ExpireAudit implements registration.AuditStore. Rows are looked at in the order of the log, and the first young one ends it.
func (m *Model) ExpireAudit(ctx context.Context, scope string, before time.Time, limit int, a *registration.Audit) (removed int, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	var log []registration.AuditLine
	var logOf []string
	young := false
	for i, line := range m.log {
		if m.logOf[i] == scope && !young && removed < limit && line.At.Before(before) {
			removed++
			continue
		}
		young = young || m.logOf[i] == scope
		log, logOf = append(log, line), append(logOf, m.logOf[i])
	}
	m.log, m.logOf = log, logOf
	if removed > 0 && a != nil {
		m.note(scope, *a)
	}
	return removed, nil
}
