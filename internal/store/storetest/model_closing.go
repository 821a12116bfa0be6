package storetest

import (
	"context"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// closings is what devices that went have left behind.
type closings struct {
	closures map[key]registration.Closure // without Awaited
	awaited  map[key]map[outboxKey]time.Time
	offers   map[key]registration.Offer
}

func newClosings() closings {
	return closings{map[key]registration.Closure{}, map[key]map[outboxKey]time.Time{}, map[key]registration.Offer{}}
}

// CloseRegistration implements registration.ClosingStore.
func (m *Model) CloseRegistration(ctx context.Context, scope string, c registration.Closing) (uint64, registration.Verdict, error) {
	if err := c.Check(); err != nil {
		return 0, 0, err
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer leave()
	k := fold(scope, c.ID)
	e, enrolled := m.enrollments[k]
	if !enrolled || e.Revision != c.Enrollment.Revision || m.registrations[k].Revision != c.RegistrationBefore || m.generations[k].count != c.Generation {
		return 0, registration.Conflict, nil
	}
	closed := c.Enrollment
	closed.Created, closed.Revision = e.Created, m.next(scope)
	m.enrollments[k] = closed
	m.generations[k] = generation{c.Generation + 1, c.Audit.At}
	m.leaveHubs(k, k, c.Audit.At, func(r registration.Registration) []registration.Outbox { return c.Orders(r, closed.Revision) })
	m.closures[k] = registration.Closure{Generation: c.Generation + 1, TokenDigest: c.TokenDigest, TrackingID: c.Audit.TrackingID, At: c.Audit.At}
	return closed.Revision, m.note(scope, c.Audit), nil
}

// leaveHubs removes a registration, and writes the orders that this is, and who awaits them.
func (m *Model) leaveHubs(k, to key, at time.Time, orders func(registration.Registration) []registration.Outbox) {
	if r, registered := m.registrations[k]; registered {
		rows := orders(r)
		m.orderAll(k.scope, rows)
		for _, work := range rows {
			m.await(to, outboxKey{k.scope, work}, at)
		}
	}
	m.forget(k, at)
}

func (m *Model) await(k key, order outboxKey, at time.Time) {
	if m.awaited[k] == nil {
		m.awaited[k] = map[outboxKey]time.Time{}
	}
	order.Kind = "" // it may be passed on under another
	if _, known := m.awaited[k][order]; !known {
		m.awaited[k][order] = at
	}
}

// isOrdered says whether an order that somebody awaits is in the outbox.
func (m *Model) isOrdered(order outboxKey) bool {
	for _, kind := range []registration.OutboxKind{registration.OutboxDeviceOrder, registration.OutboxDeviceOrderEmbedded} {
		if m.outbox[outboxKey{order.scope, registration.Outbox{Kind: kind, Object: order.Object}}] != nil {
			return true
		}
	}
	return false
}

// Closure implements registration.ClosingStore.
func (m *Model) Closure(ctx context.Context, scope, id string) (registration.Closure, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Closure{}, err
	}
	defer leave()
	k := fold(scope, id)
	closure := m.closures[k]
	for order := range m.awaited[k] {
		if m.isOrdered(order) {
			closure.Awaited++
		}
	}
	return closure, nil
}

// PutOffer implements registration.TransferStore.
func (m *Model) PutOffer(ctx context.Context, scope string, o registration.Offer, revision uint64, a registration.Audit) (registration.Verdict, error) {
	if err := o.Check(); err != nil {
		return 0, err
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := fold(scope, o.ID)
	if verdict := judge(&revision, m.enrollments[k].Revision); verdict != registration.Applied {
		return verdict, nil
	}
	if old, found := m.offers[k]; found && old.Expires.After(o.Created) {
		return registration.Exists, nil
	}
	m.offers[k] = o
	return m.note(scope, a), nil
}

// DeleteOffer implements registration.TransferStore.
func (m *Model) DeleteOffer(ctx context.Context, scope, id string, a registration.Audit) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := fold(scope, id)
	if _, found := m.offers[k]; !found {
		return registration.Missing, nil
	}
	delete(m.offers, k)
	return m.note(scope, a), nil
}

// Offers implements registration.TransferStore.
func (m *Model) Offers(ctx context.Context, scope, after string, limit int) ([]registration.Offer, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return paged(m.offers, scope, after, limit, func(registration.Offer) bool { return true }), nil
}

// Offered implements registration.TransferStore.
func (m *Model) Offered(ctx context.Context, target string, code [32]byte) (registration.Offered, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Offered{}, err
	}
	defer leave()
	for k, o := range m.offers {
		if o.Target == target && o.Code == code {
			return registration.Offered{Source: k.scope, Offer: o, Device: m.device(k.scope, k.id)}, nil
		}
	}
	return registration.Offered{}, registration.ErrNotFound
}

// AcceptOffer implements registration.TransferStore.
func (m *Model) AcceptOffer(ctx context.Context, target string, a registration.Acceptance) (registration.Accepted, registration.Verdict, error) {
	if err := a.Check(target); err != nil {
		return registration.Accepted{}, 0, err
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Accepted{}, 0, err
	}
	defer leave()
	k, to := fold(a.Source, a.ID), fold(target, a.Enrollment.ID)
	o, offered := m.offers[k]
	_, there := m.enrollments[to]
	switch {
	case !offered || o.Target != target || o.Code != a.Code:
		return registration.Accepted{}, registration.Missing, nil
	case m.enrollments[k].Revision != a.EnrollmentBefore || m.registrations[k].Revision != a.RegistrationBefore:
		return registration.Accepted{}, registration.Conflict, nil
	case there:
		return registration.Accepted{}, registration.Exists, nil
	case m.keysTaken(target, a.Enrollment):
		return registration.Accepted{}, registration.Taken, nil
	}
	m.put(target, registration.EnrollmentPut{Enrollment: a.Enrollment, Audit: a.Audit})
	accepted := registration.Accepted{Enrollment: m.enrollments[to], Left: m.next(a.Source)}
	m.leaveHubs(k, to, a.Audit.At, func(r registration.Registration) []registration.Outbox { return a.Orders(r, accepted.Left) })
	for order := range m.awaited[k] {
		m.await(to, order, a.Audit.At)
	}
	delete(m.enrollments, k)
	delete(m.offers, k)
	m.forget(k, a.SourceAudit.At)
	m.note(a.Source, a.SourceAudit)
	return accepted, registration.Applied, nil
}

// keysTaken says whether an enrollment of a scope has one of the EKs of another.
func (m *Model) keysTaken(scope string, wanted registration.Enrollment) bool {
	for k, e := range m.enrollments {
		if k.scope == scope && e.EKKeyID == wanted.EKKeyID {
			return true
		}
	}
	return false
}

// pruneClosings removes what nobody asks for any more.
func (m *Model) pruneClosings(before time.Time, limit int) (removed int) {
	removed = oldest(m.closures, limit, func(_ key, c registration.Closure) (time.Time, bool) { return c.At, c.At.Before(before) })
	type row struct {
		key
		order outboxKey
		at    time.Time
	}
	var done []row
	for k, orders := range m.awaited {
		for order, at := range orders {
			if at.Before(before) && !m.isOrdered(order) {
				done = append(done, row{k, order, at})
			}
		}
	}
	slices.SortFunc(done, func(a, b row) int { return a.at.Compare(b.at) })
	for _, r := range done[:min(limit, len(done))] {
		delete(m.awaited[r.key], r.order)
		removed++
	}
	return removed + oldest(m.offers, limit, func(_ key, o registration.Offer) (time.Time, bool) { return o.Expires, o.Expires.Before(before) })
}
