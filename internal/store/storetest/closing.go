package storetest

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// tpmEnrollment is one that a device can close, or another scope take over.
func tpmEnrollment(id, salt string) registration.Enrollment {
	e := enrollment(id, salt)
	e.Mechanism, e.Keys, e.Disabled = registration.TPM, registration.SealedKeys{}, false
	return e
}

func (w *world) enrollTPM(scope, id string) registration.Enrollment {
	w.Helper()
	e, verdict, err := w.store.PutEnrollment(w.ctx, scope, tpmEnrollment(id, id+" of "+scope), nil, audit("enroll", epoch), "")
	w.applied(verdict, err)
	return e
}

// closing is that of a device as it is.
func closing(id string, d registration.Device, at time.Time) registration.Closing {
	c := registration.Closing{ID: id, Generation: d.Generation, Enrollment: *d.Enrollment, TokenDigest: sha256.Sum256([]byte("close " + id)), Audit: audit("closing "+id, at)}
	c.Enrollment.Disabled, c.Enrollment.Document, c.Enrollment.Updated = true, []byte(`{"closed":true}`), at
	if d.Registration != nil {
		c.RegistrationBefore = d.Registration.Revision
	}
	return c
}

func (w *world) closure(scope, id string) registration.Closure {
	w.Helper()
	closure, err := w.store.Closure(w.ctx, scope, id)
	w.ok(err)
	return closure
}

func (w *world) close(scope, id string, at time.Time) (closed registration.Closing, revision uint64) {
	w.Helper()
	closed = closing(id, w.device(scope, id), at)
	revision, verdict, err := w.store.CloseRegistration(w.ctx, scope, closed)
	w.applied(verdict, err)
	return closed, revision
}

func registrationClosed(w *world) {
	w.enrollTPM(scope, "Dev")
	w.same("closure before", w.closure(scope, "dev"), registration.Closure{})
	w.redeem(scope, "dev", "op", epoch)
	d := w.device(scope, "dev")
	for name, change := range map[string]func(*registration.Closing){
		"another generation":         func(c *registration.Closing) { c.Generation++ },
		"an enrollment that changed": func(c *registration.Closing) { c.Enrollment.Revision++ },
		"a registration that moved":  func(c *registration.Closing) { c.RegistrationBefore++ },
		"no registration":            func(c *registration.Closing) { c.RegistrationBefore = 0 },
	} {
		c := closing("dev", d, epoch)
		change(&c)
		if _, verdict, err := w.store.CloseRegistration(w.ctx, scope, c); err != nil || verdict != registration.Conflict {
			w.Fatalf("%s: verdict %d, %v", name, verdict, err)
		}
	}
	for name, change := range map[string]func(*registration.Closing){
		"who lets the device in again": func(c *registration.Closing) { c.Enrollment.Disabled = false },
		"of another id":                func(c *registration.Closing) { c.ID = "other" },
		"not a TPM's":                  func(c *registration.Closing) { c.Enrollment.Mechanism = registration.X509 },
	} {
		c := closing("dev", d, epoch)
		change(&c)
		if _, _, err := w.store.CloseRegistration(w.ctx, scope, c); err == nil {
			w.Fatalf("a closing %s is taken", name)
		}
	}
	w.same("what refused closings left", w.device(scope, "dev"), d)
	w.waiting(0)
	w.audited(scope, "closing dev", 0)

	at := epoch.Add(time.Hour)
	c := closing("DEV", d, at)
	c.After = []string{"before-1", "op"}
	revision, verdict, err := w.store.CloseRegistration(w.ctx, scope, c)
	w.applied(verdict, err)
	is := w.device(scope, "dev")
	if revision <= d.Registration.Revision {
		w.Fatalf("the closing has revision %d, the registration before it %d", revision, d.Registration.Revision)
	}
	want := c.Enrollment
	want.Revision, want.Created = revision, d.Enrollment.Created
	w.same("device", is, registration.Device{Enrollment: &want, Generation: d.Generation + 1})
	if _, err := w.store.Operation(w.ctx, scope, "op"); !isNotFound(err) {
		w.Fatalf("the operation is still answered: %v", err)
	}
	rows := c.Orders(*d.Registration, revision)
	if len(rows) != 1+len(d.Registration.Leaving) {
		w.Fatalf("%d orders", len(rows))
	}
	w.same("closure", w.closure(scope, "dev"), registration.Closure{Generation: d.Generation + 1, TokenDigest: c.TokenDigest, TrackingID: "closing DEV", At: at, Awaited: len(rows)})
	slices.SortFunc(rows, func(a, b registration.Outbox) int {
		return byObject(registration.OutboxRow{Outbox: a}, registration.OutboxRow{Outbox: b})
	})
	w.same("orders", w.ordered(registration.OutboxDeviceOrder), rows)
	if left := w.closure(scope, "dev").Awaited; left != 0 {
		w.Fatalf("%d orders are awaited that are carried out", left)
	}
	w.audited(scope, "closing DEV", 1)
}

func oneOfManyCloses(w *world) {
	w.enrollTPM(scope, "dev")
	w.redeem(scope, "dev", "op", epoch)
	d := w.device(scope, "dev")
	var mu sync.Mutex
	var all sync.WaitGroup
	met := map[registration.Verdict]int{}
	for range 50 {
		all.Go(func() {
			_, verdict, err := w.store.CloseRegistration(w.ctx, scope, closing("dev", d, epoch))
			mu.Lock()
			defer mu.Unlock()
			if met[verdict]++; err != nil {
				w.Error(err)
			}
		})
		all.Go(func() {
			_, verdict, err := w.store.Redeem(w.ctx, scope, redemption("dev", d, "op-2", epoch))
			mu.Lock()
			defer mu.Unlock()
			if met[verdict]++; err != nil {
				w.Error(err)
			}
		})
	}
	all.Wait()
	if met[registration.Applied] != 1 || met[registration.Conflict] != 99 {
		w.Fatalf("verdicts %v, want one applied and 99 conflicts", met)
	}
	if is := w.device(scope, "dev"); is.Generation != d.Generation+1 || is.Enrollment.Disabled == (is.Registration != nil && is.Registration.OperationID == "op-2") {
		w.Fatalf("neither closed nor registered, or both: %+v", is)
	}
}

func closingsAwaited(w *world) {
	w.enrollTPM(scope, "dev")
	w.redeem(scope, "dev", "op-1", epoch)
	w.close(scope, "dev", epoch)
	first := w.closure(scope, "dev").Awaited
	e := *w.device(scope, "dev").Enrollment
	e.Disabled = false
	_, verdict, err := w.store.PutEnrollment(w.ctx, scope, e, anyRevision, audit("let in", epoch), "")
	w.applied(verdict, err)
	w.redeem(scope, "dev", "op-2", epoch.Add(time.Minute))
	w.close(scope, "dev", epoch.Add(2*time.Minute))
	if is := w.closure(scope, "dev"); is.Awaited != 2*first || is.Generation != 4 {
		w.Fatalf("closure %+v, want all orders of both closings, %d", is, 2*first)
	}
	// One is passed on to the process that has the embedded hub: it is awaited as before.
	row := w.claimKind(registration.OutboxDeviceOrder)
	w.applied(w.store.PassOutbox(w.ctx, scope, row.Outbox, "kind", []registration.Outbox{{Kind: registration.OutboxDeviceOrderEmbedded, Object: row.Object}}))
	if is := w.closure(scope, "dev"); is.Awaited != 2*first {
		w.Fatalf("%d awaited when one was passed on, want %d", is.Awaited, 2*first)
	}
	w.applied(w.store.SettleOutbox(w.ctx, scope, w.claimKind(registration.OutboxDeviceOrderEmbedded).Outbox, "kind"))
	if is := w.closure(scope, "dev"); is.Awaited != 2*first-1 {
		w.Fatalf("%d awaited when one was carried out, want %d", is.Awaited, 2*first-1)
	}
	// A closing of what is closed adds nothing.
	w.close(scope, "dev", epoch.Add(3*time.Minute))
	if is := w.closure(scope, "dev"); is.Awaited != 2*first-1 || is.Generation != 5 {
		w.Fatalf("closure %+v", is)
	}
	w.same("closure of another scope", w.closure(otherScope, "dev"), registration.Closure{})
}

// claimKind takes one row of a kind.
func (w *world) claimKind(kind registration.OutboxKind) registration.OutboxRow {
	w.Helper()
	rows, err := w.store.ClaimOutbox(w.ctx, registration.OutboxClaim{ID: "kind", Kind: kind, Lease: longLease, Limit: 1})
	w.ok(err)
	if len(rows) != 1 {
		w.Fatalf("%d rows of kind %s", len(rows), kind)
	}
	return rows[0]
}

func pruneClosings(w *world) {
	for i, id := range []string{"a", "b", "c"} {
		w.enrollTPM(scope, id)
		w.redeem(scope, id, "op-"+id, epoch.Add(time.Duration(i)*time.Hour))
		w.close(scope, id, epoch.Add(time.Duration(i)*time.Hour))
	}
	prune := func(before time.Time, limit, want int) {
		w.Helper()
		n, err := w.store.Prune(w.ctx, before, epoch.Add(-time.Hour), limit)
		w.ok(err)
		if n != want {
			w.Fatalf("%d rows removed, want %d", n, want)
		}
	}
	awaited := w.closure(scope, "a").Awaited
	prune(epoch, 1000, 0) // not that of this very moment
	prune(epoch.Add(time.Hour), 1000, 1)
	w.same("closure of which orders are left", w.closure(scope, "a"), registration.Closure{Awaited: awaited})
	w.ordered(registration.OutboxDeviceOrder) // all are carried out
	prune(epoch.Add(time.Hour), 1, 1)
	prune(epoch.Add(time.Hour), 1000, awaited-1)
	if is := w.closure(scope, "b"); is.Generation == 0 {
		w.Fatal("a closing that is younger was removed")
	}
	prune(epoch.Add(3*time.Hour), 1, 2) // one closing, one order
	prune(epoch.Add(3*time.Hour), 1000, 1+2*awaited-1)

	w.offer(scope, "a", otherScope, epoch)
	prune(offer("a", otherScope, registration.Enrollment{}, epoch).Expires, 1000, 0)
	prune(offer("a", otherScope, registration.Enrollment{}, epoch).Expires.Add(time.Microsecond), 1000, 1)
}
