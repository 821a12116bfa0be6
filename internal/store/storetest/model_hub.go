package storetest

import (
	"context"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// HubOwner implements Store.
func (m *Model) HubOwner(ctx context.Context) (registration.HubOwner, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.HubOwner{}, err
	}
	defer leave()
	return m.hub, nil
}

// MoveHub implements Store.
func (m *Model) MoveHub(ctx context.Context, from, to registration.HubOwner) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	switch {
	case m.hub.ID != from.ID || m.hub.Beat != from.Beat:
		return registration.Conflict, nil
	case from.ID == to.ID:
		m.hub.Beat = to.Beat
	default:
		m.hub = to
	}
	return registration.Applied, nil
}

type outboxKey struct {
	scope string
	registration.Outbox
}

// waiting is a row of the outbox. Its times are the model's own clock's, as the contract says.
type waiting struct {
	claim        string
	written, due time.Time
	attempts     int
	failure      string
}

// order writes the row of a transition's outbox, if there is one.
func (m *Model) order(scope string, work *registration.Outbox) {
	if work != nil {
		now := time.Now()
		m.outbox[outboxKey{scope, *work}] = &waiting{written: now, due: now}
	}
}

// ClaimOutbox implements registration.OutboxStore.
func (m *Model) ClaimOutbox(ctx context.Context, claim registration.OutboxClaim) (rows []registration.OutboxRow, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	now := time.Now()
	var due []outboxKey
	for k, w := range m.outbox {
		if k.Kind == claim.Kind && !w.due.After(now) {
			due = append(due, k)
		}
	}
	slices.SortFunc(due, func(a, b outboxKey) int { return m.outbox[a].due.Compare(m.outbox[b].due) })
	for _, k := range due[:min(claim.Limit, len(due))] {
		w := m.outbox[k]
		w.claim, w.attempts, w.due = claim.ID, w.attempts+1, now.Add(registration.OutboxSpan(claim.Lease))
		rows = append(rows, registration.OutboxRow{Scope: k.scope, Outbox: k.Outbox, Attempts: w.attempts, Failure: w.failure, Age: now.Sub(w.written)})
	}
	return rows, nil
}

// ended judges who wants to end a row.
func (m *Model) ended(k outboxKey, claim string) registration.Verdict {
	switch w := m.outbox[k]; {
	case w == nil:
		return registration.Missing
	case claim == "" || w.claim != claim:
		return registration.Conflict
	}
	return registration.Applied
}

// SettleOutbox implements registration.OutboxStore.
func (m *Model) SettleOutbox(ctx context.Context, scope string, work registration.Outbox, claim string) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := outboxKey{scope, work}
	verdict := m.ended(k, claim)
	if verdict == registration.Applied {
		delete(m.outbox, k)
	}
	return verdict, nil
}

// PostponeOutbox implements registration.OutboxStore.
func (m *Model) PostponeOutbox(ctx context.Context, scope string, work registration.Outbox, claim string, by time.Duration, failure string) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := outboxKey{scope, work}
	verdict := m.ended(k, claim)
	if verdict == registration.Applied {
		w := m.outbox[k]
		w.claim, w.due, w.failure = "", time.Now().Add(registration.OutboxSpan(by)), failure
	}
	return verdict, nil
}

// PassOutbox implements registration.OutboxStore.
func (m *Model) PassOutbox(ctx context.Context, scope string, work registration.Outbox, claim string, next []registration.Outbox) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := outboxKey{scope, work}
	verdict := m.ended(k, claim)
	if verdict == registration.Applied {
		delete(m.outbox, k)
		m.orderAll(scope, next)
	}
	return verdict, nil
}

// orderAll writes rows, but for those that are there.
func (m *Model) orderAll(scope string, rows []registration.Outbox) {
	for _, work := range rows {
		if k := (outboxKey{scope, work}); m.outbox[k] == nil {
			now := time.Now()
			m.outbox[k] = &waiting{written: now, due: now}
		}
	}
}

// orderDevice writes what an order is for the device of an id.
func (m *Model) orderDevice(k key, order registration.HubOrder, a registration.Audit) {
	if r, registered := m.registrations[k]; registered {
		m.orderAll(k.scope, registration.OrdersFor(order, r, 0, a.TrackingID))
	}
}

// OutboxClaimed implements registration.OutboxStore.
func (m *Model) OutboxClaimed(ctx context.Context, scope string, work registration.Outbox) (bool, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	w := m.outbox[outboxKey{scope, work}]
	return w != nil && w.claim != "" && w.due.After(time.Now()), nil
}

// OutboxBacklog implements registration.OutboxStore.
func (m *Model) OutboxBacklog(ctx context.Context) (backlog registration.OutboxBacklog, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return backlog, err
	}
	defer leave()
	for _, w := range m.outbox {
		backlog.Waiting++
		backlog.Oldest = max(backlog.Oldest, time.Since(w.written))
	}
	return backlog, nil
}
