package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"latchkey.example/latchkey/internal/registration"
)

// oneOfHundredRedeems lets 100 goroutines redeem one challenge, each with its own operation.
func oneOfHundredRedeems(w *world) {
	for round := range 3 {
		id := numbered("dev", round)
		w.enroll(scope, id)
		before := w.device(scope, id)
		var wins, others atomic.Int32
		var winner atomic.Value
		var start, done sync.WaitGroup
		start.Add(1)
		for i := range 100 {
			done.Go(func() {
				r := redemption(id, before, numbered("op-"+id, i), epoch)
				start.Wait()
				_, verdict, err := w.store.Redeem(w.ctx, scope, r)
				switch {
				case err != nil:
					w.Error(err)
				case verdict == registration.Applied:
					wins.Add(1)
					winner.Store(r.Operation.ID)
				case verdict == registration.Conflict:
					others.Add(1)
				}
			})
		}
		start.Done()
		done.Wait()
		if wins.Load() != 1 || others.Load() != 99 {
			w.Fatalf("%d applied, %d conflicts, want 1 and 99", wins.Load(), others.Load())
		}
		d := w.device(scope, id)
		if d.Generation != 1 || d.Operation == nil || d.Operation.ID != winner.Load() || d.Registration.OperationID != winner.Load() {
			w.Fatalf("after operation %v won: %+v", winner.Load(), d)
		}
		for i := range 100 {
			op := numbered("op-"+id, i)
			if op != winner.Load() {
				w.noOperation(scope, op)
				w.audited(scope, "redeem "+op, 0)
			} else {
				w.audited(scope, "redeem "+op, 1)
			}
		}
	}
}

// manyWriters mixes transitions that succeed, are refused and fail: each caller gets its own outcome and not a neighbour's.
func manyWriters(w *world) {
	const devices = 40
	w.enroll(scope, "taken")
	w.redeem(scope, "taken", "op-taken", epoch)
	var done sync.WaitGroup
	for i := range devices {
		done.Go(func() {
			id, op := numbered("dev", i), numbered("op", i)
			e, verdict, err := w.store.PutEnrollment(w.ctx, scope, enrollment(id, id), nil, audit(id, epoch), "")
			if verdict != registration.Applied || err != nil || e.ID != id {
				w.Errorf("put %s: %+v, %d, %v", id, e, verdict, err)
				return
			}
			d := registration.Device{Enrollment: &e}
			failing := redemption(id, d, "op-taken", epoch)
			failing.Registration.DeviceID = id
			if _, _, err := w.store.Redeem(w.ctx, scope, failing); err == nil {
				w.Errorf("%s took an operation id that exists", id)
			}
			refused := redemption(id, d, op+"-refused", epoch)
			refused.EnrollmentRevision++
			if _, verdict, err := w.store.Redeem(w.ctx, scope, refused); verdict != registration.Conflict || err != nil {
				w.Errorf("stale redemption of %s: %d, %v", id, verdict, err)
			}
			if _, verdict, err := w.store.Redeem(w.ctx, scope, redemption(id, d, op, epoch)); verdict != registration.Applied || err != nil {
				w.Errorf("redemption of %s: %d, %v", id, verdict, err)
			}
			if verdict, err := w.store.Finish(w.ctx, scope, finish(id, op, registration.Assigned, epoch)); verdict != registration.Applied || err != nil {
				w.Errorf("finish of %s: %d, %v", id, verdict, err)
			}
		})
	}
	done.Wait()
	revisions := map[uint64]bool{}
	for i := range devices {
		id := numbered("dev", i)
		d := w.device(scope, id)
		if d.Generation != 1 || d.Operation == nil || d.Operation.Status != registration.Assigned || d.Registration.Status != registration.Assigned {
			w.Fatalf("%s: %+v", id, d)
		}
		for _, revision := range []uint64{d.Enrollment.Revision, d.Registration.Revision} {
			if revisions[revision] {
				w.Fatalf("revision %d was given twice", revision)
			}
			revisions[revision] = true
		}
		w.audited(scope, id, 1)
		w.audited(scope, "redeem "+numbered("op", i), 1)
	}
}

// snapshotConsistent reads a device while it is redeemed, finished, deleted and enrolled again: the parts of every answer are of one moment.
func snapshotConsistent(w *world) {
	stop := make(chan struct{})
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				d, err := w.store.Device(w.ctx, scope, "dev")
				if err != nil {
					w.Error(err)
					return
				}
				if why := torn(d); why != "" {
					w.Errorf("%s: %+v", why, d)
					return
				}
			}
		})
	}
	for i := range 60 {
		if i%6 == 0 {
			w.enroll(scope, "dev")
		}
		op := numbered("op", i)
		w.redeem(scope, "dev", op, epoch)
		w.finish(scope, "dev", op, registration.Assigned)
		if i%6 == 5 {
			w.applied(w.store.DeleteEnrollment(w.ctx, scope, "dev", nil, audit("d", epoch), ""))
		}
	}
	close(stop)
	done.Wait()
}

// torn says what in a snapshot cannot have been true at one moment.
func torn(d registration.Device) string {
	r, o := d.Registration, d.Operation
	switch {
	case r == nil && o != nil:
		return "operation without registration"
	case r != nil && d.Enrollment == nil:
		return "registration without enrollment"
	case r == nil:
		return ""
	case o == nil:
		return "registration without its operation"
	case o.ID != r.OperationID:
		return "operation of another registration"
	case o.Generation != d.Generation || r.HubKeyGeneration != d.Generation:
		return "parts of different generations"
	case o.Status != r.Status:
		return "parts in different states"
	}
	return ""
}

func cancelledBefore(w *world) {
	e := w.enroll(scope, "dev")
	before := w.device(scope, "dev")
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	_, _, err := w.store.Redeem(ctx, scope, redemption("dev", before, "op-1", epoch))
	if !errors.Is(err, context.Canceled) {
		w.Fatalf("%v, want context canceled", err)
	}
	if _, err := w.store.Device(ctx, scope, "dev"); !errors.Is(err, context.Canceled) {
		w.Fatalf("%v, want context canceled", err)
	}
	w.same("device", w.device(scope, "dev"), registration.Device{Enrollment: &e})
	w.audited(scope, "redeem op-1", 0)
}

func closedRefuses(w *world) {
	w.enroll(scope, "dev")
	before := w.device(scope, "dev")
	w.ok(w.store.Close())
	if _, err := w.store.Device(w.ctx, scope, "dev"); err == nil {
		w.Error("read on a closed store")
	}
	if _, _, err := w.store.Redeem(w.ctx, scope, redemption("dev", before, "op-1", epoch)); err == nil {
		w.Error("transition on a closed store")
	}
	if err := w.store.RememberOwner(w.ctx, scope, "dev", nil, epoch); err == nil {
		w.Error("owner remembered by a closed store")
	}
}
