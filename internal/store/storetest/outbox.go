package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func advance(operation string) *registration.Outbox {
	return &registration.Outbox{Kind: registration.OutboxAdvance, Object: operation}
}

// advances are the kinds that advance an operation.
var advances = []registration.OutboxKind{registration.OutboxAdvance, registration.OutboxAdvanceRemote}

// Stores keep the time of the outbox by their own clock: a lease of no length has run out when it is given, a long one outlives every test.
const (
	shortLease = time.Duration(0)
	longLease  = 30 * time.Minute
)

// order redeems a proof of the id with an outbox row.
func (w *world) order(scope, id, operation string) registration.Outbox {
	w.Helper()
	w.enroll(scope, id)
	r := redemption(id, w.device(scope, id), operation, epoch)
	r.Outbox = advance(operation)
	w.redeemed(w.store.Redeem(w.ctx, scope, r))
	return *r.Outbox
}

// claim takes due rows, without their ages, which are checked.
func (w *world) claim(id string, lease time.Duration, limit int) []registration.OutboxRow {
	w.Helper()
	rows, err := w.store.ClaimOutbox(w.ctx, registration.OutboxClaim{ID: id, Kind: registration.OutboxAdvance, Lease: lease, Limit: limit})
	w.ok(err)
	for i := range rows {
		if rows[i].Age < 0 || rows[i].Age > time.Hour {
			w.Fatalf("a row of this test has the age %s", rows[i].Age)
		}
		rows[i].Age = 0
	}
	return rows
}

func (w *world) claimed(got []registration.OutboxRow, want ...string) {
	w.Helper()
	objects := []string{}
	for _, row := range got {
		objects = append(objects, row.Object)
	}
	w.same("claimed", objects, want)
}

func (w *world) waiting(want int) {
	w.Helper()
	backlog, err := w.store.OutboxBacklog(w.ctx)
	w.ok(err)
	if backlog.Waiting != want {
		w.Fatalf("%d rows wait, want %d", backlog.Waiting, want)
	}
}

func outboxComesWithItsTransition(w *world) {
	w.enroll(scope, "dev")
	stale := redemption("dev", w.device(scope, "dev"), "op-stale", epoch)
	stale.Outbox, stale.EnrollmentRevision = advance("op-stale"), stale.EnrollmentRevision+1
	_, verdict, err := w.store.Redeem(w.ctx, scope, stale)
	w.verdict(registration.Conflict)(verdict, err)
	w.waiting(0)
	w.redeem(scope, "dev", "op-local", epoch)
	w.waiting(0)
	w.order(scope, "other", "op-1")
	again := redemption("other", w.device(scope, "other"), "op-1", epoch)
	again.Outbox = advance("op-2")
	if _, _, err := w.store.Redeem(w.ctx, scope, again); err == nil { // fails in the middle: the operation's id is taken
		w.Fatal("an operation id was given twice")
	}
	w.waiting(1)
	w.same("rows", w.claim("c", longLease, 10), []registration.OutboxRow{{Scope: scope, Outbox: *advance("op-1"), Attempts: 1}})
}

func outboxClaimedInOrder(w *world) {
	for i := range 5 {
		w.order([]string{scope, otherScope}[i%2], numbered("dev", i), numbered("op", i))
	}
	other, err := w.store.ClaimOutbox(w.ctx, registration.OutboxClaim{ID: "k", Kind: "another kind", Lease: longLease, Limit: 10})
	w.ok(err)
	w.claimed(other)
	rows := w.claim("a", longLease, 2)
	slices.SortFunc(rows, byObject)
	w.claimed(rows, "op-000", "op-001")
	w.same("scopes", []string{rows[0].Scope, rows[1].Scope}, []string{scope, otherScope})
	rows = w.claim("b", longLease, 10)
	slices.SortFunc(rows, byObject)
	w.claimed(rows, "op-002", "op-003", "op-004")
	w.claimed(w.claim("c", longLease, 10))
	w.waiting(5)
}

func byObject(a, b registration.OutboxRow) int {
	return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Scope, b.Scope))
}

// outboxOneClaim lets many claim at once: every row is given out, none twice.
func outboxOneClaim(w *world) {
	const rows = 30
	for i := range rows {
		w.order(scope, numbered("dev", i), numbered("op", i))
	}
	var mu sync.Mutex
	by := map[string][]string{}
	var done sync.WaitGroup
	for i := range 10 {
		done.Go(func() {
			for n := 0; ; n++ {
				claim := fmt.Sprintf("claim %d %d", i, n)
				got, err := w.store.ClaimOutbox(w.ctx, registration.OutboxClaim{ID: claim, Kind: registration.OutboxAdvance, Lease: longLease, Limit: 2})
				if err != nil || len(got) > 2 {
					w.Errorf("%d rows, %v", len(got), err)
					return
				}
				mu.Lock()
				for _, row := range got {
					by[row.Object] = append(by[row.Object], claim)
				}
				left := rows - len(by)
				mu.Unlock()
				if len(got) == 0 && left == 0 {
					return
				}
			}
		})
	}
	done.Wait()
	for object, claims := range by {
		if len(claims) != 1 {
			w.Errorf("%s was given to %q", object, claims)
		}
		w.verdict(registration.Conflict)(w.store.SettleOutbox(w.ctx, scope, *advance(object), claims[0]+" not"))
		w.applied(w.store.SettleOutbox(w.ctx, scope, *advance(object), claims[0]))
	}
	w.waiting(0)
}

// outboxTakenOver: who claimed the row is dead, or slow; then he is too late.
func outboxTakenOver(w *world) {
	work := w.order(scope, "dev", "op")
	w.claimed(w.claim("dead", shortLease, 10), "op")
	w.wantClaimed(work, false)
	w.same("taken over", w.claim("heir", longLease, 10), []registration.OutboxRow{{Scope: scope, Outbox: work, Attempts: 2}})
	w.claimed(w.claim("third", longLease, 10))
	w.verdict(registration.Conflict)(w.store.SettleOutbox(w.ctx, scope, work, "dead"))
	w.verdict(registration.Conflict)(w.store.PostponeOutbox(w.ctx, scope, work, "dead", 0, "too late"))
	w.claimed(w.claim("third", longLease, 10))
	w.wantClaimed(work, true)
	w.wantClaimed(registration.Outbox{Kind: registration.OutboxAdvanceRemote, Object: work.Object}, false)
	w.applied(w.store.SettleOutbox(w.ctx, scope, work, "heir"))
	w.wantClaimed(work, false)
	w.waiting(0)
}

func (w *world) wantClaimed(work registration.Outbox, want bool) {
	w.Helper()
	claimed, err := w.store.OutboxClaimed(w.ctx, scope, work)
	w.ok(err)
	if claimed != want {
		w.Fatalf("%s is claimed: %t, want %t", work.Object, claimed, want)
	}
}

func outboxEndedByItsClaim(w *world) {
	work := w.order(scope, "dev", "op")
	other := w.order(otherScope, "dev", "op") // the same name in another scope
	for _, claim := range []string{"", "nobody's"} {
		w.verdict(registration.Conflict)(w.store.SettleOutbox(w.ctx, scope, work, claim))
		w.verdict(registration.Conflict)(w.store.PostponeOutbox(w.ctx, scope, work, claim, 0, ""))
	}
	w.verdict(registration.Missing)(w.store.SettleOutbox(w.ctx, scope, *advance("absent"), "c"))
	w.verdict(registration.Missing)(w.store.PostponeOutbox(w.ctx, scope, *advance("absent"), "c", 0, ""))
	w.claim("c", shortLease, 10)
	// Its lease has run out, but nobody has taken the row: the work is done.
	w.applied(w.store.SettleOutbox(w.ctx, scope, work, "c"))
	w.verdict(registration.Missing)(w.store.SettleOutbox(w.ctx, scope, work, "c"))
	w.waiting(1)
	w.applied(w.store.PostponeOutbox(w.ctx, otherScope, other, "c", 0, ""))
	w.verdict(registration.Conflict)(w.store.SettleOutbox(w.ctx, otherScope, other, "c"))
	w.waiting(1)
}

func outboxPostponed(w *world) {
	work := w.order(scope, "dev", "op")
	w.claim("first", longLease, 1)
	w.applied(w.store.PostponeOutbox(w.ctx, scope, work, "first", 0, "hub down\x00\xff, möglich"))
	rows := w.claim("second", longLease, 1)
	if len(rows) != 1 || rows[0].Attempts != 2 || len(rows[0].Failure) < len("hub down, möglich") {
		w.Fatalf("postponed: %+v", rows)
	}
	w.applied(w.store.PostponeOutbox(w.ctx, scope, work, "second", longLease, "still down"))
	w.wantClaimed(work, false)
	w.claimed(w.claim("third", longLease, 1))
	w.waiting(1)
}

func outboxGoesWithFinish(w *world) {
	for _, id := range []string{"assigned", "failed", "claimed", "superseded", "deleted"} {
		w.order(scope, id, "op-"+id)
	}
	elsewhere := w.order(otherScope, "assigned", "op-assigned")
	w.claim("c", longLease, 10)
	w.finish(scope, "assigned", "op-assigned", registration.Assigned)
	w.finish(scope, "failed", "op-failed", registration.Failed)
	w.finish(scope, "claimed", "op-claimed", registration.Assigned)
	w.waiting(3)
	w.verdict(registration.Missing)(w.store.SettleOutbox(w.ctx, scope, *advance("op-claimed"), "c"))
	// Those of operations that will never be finished stay until somebody has looked at them.
	w.redeem(scope, "superseded", "op-newer", epoch)
	w.finish(scope, "superseded", "op-newer", registration.Assigned)
	w.applied(w.store.DeleteRegistration(w.ctx, scope, "deleted", nil, audit("d", epoch), ""))
	w.applied(w.store.SettleOutbox(w.ctx, scope, *advance("op-superseded"), "c"))
	w.applied(w.store.SettleOutbox(w.ctx, scope, *advance("op-deleted"), "c"))
	w.applied(w.store.SettleOutbox(w.ctx, otherScope, elsewhere, "c"))
	w.waiting(0)
}

func outboxBacklog(w *world) {
	empty, err := w.store.OutboxBacklog(w.ctx)
	w.ok(err)
	w.same("backlog of nothing", empty, registration.OutboxBacklog{})
	w.order(scope, "dev", "op")
	before, err := w.store.OutboxBacklog(w.ctx)
	w.ok(err)
	w.order(scope, "younger", "op-2")
	w.claim("c", longLease, 10)
	backlog, err := w.store.OutboxBacklog(w.ctx)
	w.ok(err)
	if backlog.Waiting != 2 || backlog.Oldest <= before.Oldest || backlog.Oldest > time.Hour {
		w.Fatalf("backlog %+v after %+v", backlog, before)
	}
}
