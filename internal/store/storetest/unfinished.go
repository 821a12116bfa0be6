package storetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// unfinishedOf is how Unfinished lists the operation of a redemption: without its plan.
func unfinishedOf(scope string, r registration.Redemption) registration.Unfinished {
	r.Operation.Plan = nil
	return registration.Unfinished{Scope: scope, Operation: r.Operation}
}

func (w *world) unfinished(createdBefore time.Time, limit int, want []registration.Unfinished) {
	w.Helper()
	got, err := w.store.Unfinished(w.ctx, createdBefore, registration.Unfinished{}, limit)
	w.ok(err)
	w.same("unfinished", got, want)
}

// unfinishedPages reads the list to its end, a page at a time.
func unfinishedPages(ctx context.Context, store registration.Store, createdBefore time.Time, limit int) (all []registration.Unfinished, err error) {
	var last registration.Unfinished
	for {
		page, err := store.Unfinished(ctx, createdBefore, last, limit)
		if err != nil || len(page) == 0 {
			return all, err
		}
		all, last = append(all, page...), page[len(page)-1]
	}
}

// unfinishedOrder is that of the list.
func unfinishedOrder(a, b registration.Unfinished) int {
	return cmp.Or(a.Operation.Created.Compare(b.Operation.Created), cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Operation.ID, b.Operation.ID))
}

// unfinishedListed: of all operations only those are listed that still wait for their end and that nothing has superseded.
func unfinishedListed(w *world) {
	minute := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }
	redeem := func(scope, id, op string, at time.Time) registration.Unfinished {
		return unfinishedOf(scope, w.redeem(scope, id, op, at))
	}
	w.unfinished(minute(60), 10, nil)
	for _, id := range []string{"late", "Early", "twice", "assigned", "failed", "retired", "deleted"} {
		w.enroll(scope, id)
	}
	w.enroll(otherScope, "twice")
	late := redeem(scope, "late", "op-late", minute(5))
	redeem(scope, "twice", "op-twice", minute(0))
	twice := redeem(scope, "twice", "op-again", minute(3))
	elsewhere := redeem(otherScope, "twice", "op-twice", minute(4)) // current here, superseded in the other scope
	redeem(scope, "assigned", "op-assigned", minute(0))
	w.finish(scope, "assigned", "op-assigned", registration.Assigned)
	redeem(scope, "failed", "op-failed", minute(0))
	w.finish(scope, "failed", "op-failed", registration.Failed)
	redeem(scope, "retired", "op-retired", minute(0))
	w.applied(w.store.DeleteRegistration(w.ctx, scope, "retired", nil, audit("retire", epoch), ""))
	redeem(scope, "deleted", "op-deleted", minute(0))
	w.applied(w.store.DeleteEnrollment(w.ctx, scope, "deleted", nil, audit("delete", epoch), ""))
	early := redeem(scope, "EARLY", "op-early", minute(1))

	all := []registration.Unfinished{early, twice, elsewhere, late}
	for limit := 1; limit <= len(all)+1; limit++ {
		w.unfinished(minute(60), limit, all[:min(limit, len(all))])
	}
	w.unfinished(minute(5), 10, all[:3]) // created at the bound: not before it
	w.unfinished(minute(5).Add(time.Microsecond), 10, all)
	w.unfinished(minute(1), 10, nil)

	w.finish(scope, "early", "op-early", registration.Assigned)
	redeem(otherScope, "twice", "op-newer", minute(9))
	w.unfinished(minute(9), 10, []registration.Unfinished{twice, late})
	w.prune(minute(60), time.Time{}, 100, 5) // the finished ones, early among them, and the superseded ones of either scope
	w.unfinished(minute(9), 10, []registration.Unfinished{twice, late})
}

// unfinishedPaged: pages of any size hold every operation once, though many are of one time, and though what ended a page has gone since.
func unfinishedPaged(w *world) {
	var all []registration.Unfinished
	for _, in := range []string{otherScope, scope} {
		for i, op := range []string{"op-b", "op-C", "op-a", "op-", "op-ä", "OP-z", "op-10", "op-9"} {
			w.enroll(in, "dev-"+op)
			at := epoch.Add(time.Duration(i%3) * time.Microsecond)
			all = append(all, unfinishedOf(in, w.redeem(in, "dev-"+op, op, at)))
		}
	}
	slices.SortFunc(all, unfinishedOrder)
	for limit := 1; limit <= len(all)+1; limit++ {
		got, err := unfinishedPages(w.ctx, w.store, epoch.Add(time.Minute), limit)
		w.ok(err)
		w.same(fmt.Sprint("pages of ", limit), got, all)
	}
	bound := all[len(all)-1].Operation.Created
	got, err := w.store.Unfinished(w.ctx, bound, all[3], len(all))
	w.ok(err)
	w.same("behind the fourth, before the newest", got, slices.DeleteFunc(slices.Clone(all[4:]), func(u registration.Unfinished) bool { return u.Operation.Created.Equal(bound) }))

	for i, last := range all {
		w.finish(last.Scope, last.Operation.RegistrationID, last.Operation.ID, registration.Failed)
		got, err := w.store.Unfinished(w.ctx, epoch.Add(time.Minute), last, len(all))
		w.ok(err)
		w.same(fmt.Sprint("behind one that is finished, ", i), got, all[i+1:])
	}
}

// pruneKeepsUnfinished: what is assigning and current stays whatever its age, and does not stand in the way of what goes.
func pruneKeepsUnfinished(w *world) {
	far := epoch.Add(1000 * time.Hour)
	for i, id := range []string{"waiting-1", "waiting-2", "superseded", "assigned", "failed"} {
		w.enroll(scope, id)
		w.redeem(scope, id, "op-"+id, epoch.Add(time.Duration(i)*time.Second)) // those that stay are the oldest
	}
	w.redeem(scope, "superseded", "op-newer", epoch.Add(time.Minute))
	w.enroll(otherScope, "superseded")
	w.redeem(otherScope, "superseded", "op-superseded", epoch) // current there, which helps the other scope's nothing
	w.finish(scope, "assigned", "op-assigned", registration.Assigned)
	w.finish(scope, "failed", "op-failed", registration.Failed)
	waiting := w.device(scope, "waiting-1")
	for _, gone := range []string{"op-superseded", "op-assigned", "op-failed"} {
		_, err := w.store.Operation(w.ctx, scope, gone)
		w.ok(err)
		w.prune(far, time.Time{}, 1, 1)
		w.noOperation(scope, gone)
	}
	for range 3 {
		w.prune(far, time.Time{}, 10, 0)
	}
	w.same("device that waits", w.device(scope, "waiting-1"), waiting)
	for _, op := range []string{"op-waiting-1", "op-waiting-2", "op-newer"} {
		_, err := w.store.Operation(w.ctx, scope, op)
		w.ok(err)
	}

	w.finish(scope, "waiting-1", "op-waiting-1", registration.Assigned)
	w.redeem(scope, "waiting-2", "op-next", epoch.Add(time.Minute))
	w.prune(far, time.Time{}, 10, 2) // now they are like others
	w.noOperation(scope, "op-waiting-1")
	w.noOperation(scope, "op-waiting-2")
}
