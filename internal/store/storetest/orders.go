package storetest

import (
	"cmp"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func outboxPassedOn(w *world) {
	work := w.order(scope, "dev", "op")
	w.order(scope, "other", "there")
	next := []registration.Outbox{*advance("next"), *advance("there")}
	w.verdict(registration.Missing)(w.store.PassOutbox(w.ctx, scope, *advance("absent"), "c", next))
	w.claim("c", shortLease, 10)
	w.verdict(registration.Conflict)(w.store.PassOutbox(w.ctx, scope, work, "another", next))
	w.waiting(2)
	w.applied(w.store.PassOutbox(w.ctx, scope, work, "c", next))
	w.verdict(registration.Missing)(w.store.PassOutbox(w.ctx, scope, work, "c", next))
	w.waiting(2)
	rows := w.claim("d", longLease, 10)
	slices.SortFunc(rows, byObject)
	w.claimed(rows, "next", "there")
	w.applied(w.store.PassOutbox(w.ctx, scope, *advance("next"), "d", nil))
	w.waiting(1)
}

// ordered takes all orders of a kind out of the outbox.
func (w *world) ordered(kind registration.OutboxKind) (rows []registration.Outbox) {
	w.Helper()
	claimed, err := w.store.ClaimOutbox(w.ctx, registration.OutboxClaim{ID: "ordered", Kind: kind, Limit: 100})
	w.ok(err)
	for _, row := range claimed {
		rows = append(rows, row.Outbox)
		w.applied(w.store.SettleOutbox(w.ctx, row.Scope, row.Outbox, "ordered"))
	}
	slices.SortFunc(rows, func(a, b registration.Outbox) int { return cmp.Compare(a.Object, b.Object) })
	return rows
}

func ordersComeWithTheirTransition(w *world) {
	w.enroll(scope, "dev")
	_, verdict, err := w.store.PutEnrollment(w.ctx, scope, enrollment("dev", "2"), anyRevision, audit("nobody", epoch), registration.HubDisable)
	w.applied(verdict, err) // it is not registered: there is nothing to do
	w.waiting(0)
	w.redeem(scope, "dev", "op-1", epoch)
	r := *w.device(scope, "dev").Registration
	want := func(order registration.HubOrder, r registration.Registration, tracking string) {
		w.Helper()
		rows := registration.OrdersFor(order, r, 0, tracking)
		slices.SortFunc(rows, func(a, b registration.Outbox) int { return cmp.Compare(a.Object, b.Object) })
		if len(rows) != 1+len(r.Leaving) {
			w.Fatalf("%d orders for %d hubs", len(rows), 1+len(r.Leaving))
		}
		w.same("orders", w.ordered(registration.OutboxDeviceOrder), rows)
		w.waiting(0)
	}
	_, verdict, err = w.store.PutEnrollment(w.ctx, scope, enrollment("dev", "3"), nil, audit("refused", epoch), registration.HubDisable)
	w.verdict(registration.Exists)(verdict, err)
	w.verdict(registration.Conflict)(w.store.DeleteRegistration(w.ctx, scope, "dev", pointer(r.Revision+1), audit("refused", epoch), registration.HubRemove))
	w.waiting(0)
	_, verdict, err = w.store.PutEnrollment(w.ctx, scope, enrollment("dev", "3"), anyRevision, audit("put", epoch), registration.HubDisable)
	w.applied(verdict, err)
	want(registration.HubDisable, r, "put")
	w.applied(w.store.DeleteRegistration(w.ctx, scope, "dev", nil, audit("record", epoch), registration.HubDisable))
	want(registration.HubDisable, r, "record")
	w.redeem(scope, "dev", "op-2", epoch.Add(time.Minute))
	w.finish(scope, "dev", "op-2", registration.Assigned)
	r = *w.device(scope, "dev").Registration
	w.applied(w.store.DeleteEnrollment(w.ctx, scope, "dev", nil, audit("entry", epoch), registration.HubRemove))
	want(registration.HubRemove, r, "entry")

	g, verdict, err := w.store.PutGroup(w.ctx, scope, group("Line", "1"), nil, audit("group", epoch), registration.HubDisable)
	w.applied(verdict, err)
	w.same("group's order", w.ordered(registration.OutboxGroupOrder), registration.OrderForGroup(registration.HubDisable, "line", g.Revision, "group"))
	w.applied(w.store.DeleteGroup(w.ctx, scope, "LINE", nil, audit("no group", epoch), registration.HubRemove))
	revision, err := w.store.GroupsRevision(w.ctx, scope)
	w.ok(err)
	w.same("group's order", w.ordered(registration.OutboxGroupOrder), registration.OrderForGroup(registration.HubRemove, "line", revision, "no group"))
	w.waiting(0)
}
