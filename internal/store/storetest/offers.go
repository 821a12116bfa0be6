package storetest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func offer(id, target string, e registration.Enrollment, at time.Time) registration.Offer {
	return registration.Offer{ID: id, Target: target, Code: sha256.Sum256([]byte("code " + id + target)), EKKeyID: e.EKKeyID, Keys: sha256.Sum256([]byte("keys " + id)),
		Enrolled: e.Created, Policy: "policy " + id, Created: at, Expires: at.Add(24 * time.Hour)}
}

// offer makes one of an enrollment as it is.
func (w *world) offer(scope, id, target string, at time.Time) registration.Offer {
	w.Helper()
	e := *w.device(scope, id).Enrollment
	o := offer(id, target, e, at)
	w.applied(w.store.PutOffer(w.ctx, scope, o, e.Revision, audit("offer "+id, at)))
	return o
}

func (w *world) offers(scope string) []registration.Offer {
	w.Helper()
	page, err := w.store.Offers(w.ctx, scope, "", 1000)
	w.ok(err)
	return page
}

// acceptance takes an offer of a device as it is.
func (w *world) acceptance(source string, o registration.Offer) registration.Acceptance {
	w.Helper()
	d := w.device(source, o.ID)
	a := registration.Acceptance{Source: source, ID: o.ID, Code: o.Code, EnrollmentBefore: d.Enrollment.Revision, Enrollment: tpmEnrollment(o.ID, "at "+o.Target),
		SourceAudit: audit("left "+o.ID, epoch.Add(time.Hour)), Audit: audit("accepted "+o.ID, epoch.Add(time.Hour))}
	a.Enrollment.EKKeyID = d.Enrollment.EKKeyID
	if d.Registration != nil {
		a.RegistrationBefore = d.Registration.Revision
	}
	return a
}

func offersMade(w *world) {
	e := w.enrollTPM(scope, "Dev")
	o := offer("dev", otherScope, e, epoch)
	w.verdict(registration.Missing)(w.store.PutOffer(w.ctx, scope, offer("absent", otherScope, e, epoch), e.Revision, audit("refused", epoch)))
	w.verdict(registration.Conflict)(w.store.PutOffer(w.ctx, scope, o, e.Revision+1, audit("refused", epoch)))
	for name, change := range map[string]func(*registration.Offer){
		"for nobody":                 func(o *registration.Offer) { o.Target = "" },
		"without a code":             func(o *registration.Offer) { o.Code = [32]byte{} },
		"that ends before it begins": func(o *registration.Offer) { o.Expires = o.Created },
	} {
		bad := o
		change(&bad)
		if _, err := w.store.PutOffer(w.ctx, scope, bad, e.Revision, audit("refused", epoch)); err == nil {
			w.Fatalf("an offer %s is taken", name)
		}
	}
	w.applied(w.store.PutOffer(w.ctx, scope, o, e.Revision, audit("made", epoch)))
	w.same("offers", w.offers(scope), []registration.Offer{o})
	found, err := w.store.Offered(w.ctx, otherScope, o.Code)
	w.ok(err)
	w.same("offered", found, registration.Offered{Source: scope, Offer: o, Device: w.device(scope, "dev")})
	for target, code := range map[string][32]byte{otherScope: sha256.Sum256([]byte("another")), scope: o.Code} {
		if _, err := w.store.Offered(w.ctx, target, code); !isNotFound(err) {
			w.Fatalf("another code, or another scope, reads the offer: %v", err)
		}
	}
	second := offer("DEV", "third", e, o.Expires.Add(-time.Microsecond))
	w.verdict(registration.Exists)(w.store.PutOffer(w.ctx, scope, second, e.Revision, audit("refused", epoch)))
	w.same("offers", w.offers(scope), []registration.Offer{o})
	second = offer("DEV", "third", e, o.Expires)
	w.applied(w.store.PutOffer(w.ctx, scope, second, e.Revision, audit("made again", epoch)))
	w.same("offers", w.offers(scope), []registration.Offer{second})
	w.verdict(registration.Missing)(w.store.DeleteOffer(w.ctx, otherScope, "dev", audit("refused", epoch)))
	w.applied(w.store.DeleteOffer(w.ctx, scope, "dEv", audit("withdrawn", epoch)))
	w.verdict(registration.Missing)(w.store.DeleteOffer(w.ctx, scope, "dev", audit("refused", epoch)))
	for tracking, want := range map[string]int{"made": 1, "made again": 1, "withdrawn": 1, "refused": 0} {
		w.audited(scope, tracking, want)
	}
}

func offersListed(w *world) {
	var want []registration.Offer
	for _, id := range []string{"a", "B", "c"} {
		w.enrollTPM(scope, id)
		want = append(want, w.offer(scope, id, otherScope, epoch))
	}
	w.enrollTPM(otherScope, "b2")
	w.offer(otherScope, "b2", scope, epoch)
	page, err := w.store.Offers(w.ctx, scope, "", 2)
	w.ok(err)
	w.same("first page", page, want[:2])
	page, err = w.store.Offers(w.ctx, scope, "b", 2)
	w.ok(err)
	w.same("second page", page, want[2:])
}

func offersGo(w *world) {
	w.enrollTPM(scope, "dev")
	o := w.offer(scope, "dev", otherScope, epoch)
	same := *w.device(scope, "dev").Enrollment
	same.DeviceID = "another"
	_, verdict, err := w.store.PutEnrollment(w.ctx, scope, same, anyRevision, audit("put", epoch), "")
	w.applied(verdict, err)
	w.same("offers after another change", w.offers(scope), []registration.Offer{o})
	changed := same
	changed.EKKeyID = sha256.Sum256([]byte("another chip"))
	verdicts, err := w.store.PutAllEnrollments(w.ctx, scope, []registration.EnrollmentPut{{Enrollment: changed, Expect: anyRevision, Audit: audit("put", epoch)}, {Enrollment: changed, Audit: audit("put", epoch)}})
	w.ok(err)
	w.same("verdicts", verdicts, []registration.Verdict{registration.Applied, registration.Exists})
	w.same("offers after a change that was not made", w.offers(scope), []registration.Offer{o})
	_, verdict, err = w.store.PutEnrollment(w.ctx, scope, changed, anyRevision, audit("put", epoch), "")
	w.applied(verdict, err)
	w.same("offers after another EK", w.offers(scope), []registration.Offer{})
	w.offer(scope, "dev", otherScope, epoch)
	w.applied(w.store.DeleteEnrollment(w.ctx, scope, "dev", nil, audit("delete", epoch), ""))
	w.same("offers after a delete", w.offers(scope), []registration.Offer{})
}

func offerAccepted(w *world) {
	w.enrollTPM(scope, "Dev")
	w.redeem(scope, "dev", "op-1", epoch)
	w.close(scope, "dev", epoch) // which is awaited still
	first := w.closure(scope, "dev").Awaited
	open := *w.device(scope, "dev").Enrollment
	open.Disabled = false
	_, verdict, err := w.store.PutEnrollment(w.ctx, scope, open, anyRevision, audit("let in", epoch), "")
	w.applied(verdict, err)
	w.redeem(scope, "dev", "op-2", epoch)
	o := w.offer(scope, "Dev", otherScope, epoch)
	before := w.device(scope, "dev")
	a := w.acceptance(scope, o)
	a.Enrollment.ID, a.After = "Bought", []string{"before"}
	accepted, verdict, err := w.store.AcceptOffer(w.ctx, otherScope, a)
	w.applied(verdict, err)

	want := a.Enrollment
	want.Revision = accepted.Enrollment.Revision
	w.same("enrollment", accepted.Enrollment, want)
	w.same("target", w.device(otherScope, "bought"), registration.Device{Enrollment: &want})
	w.same("source", w.device(scope, "dev"), registration.Device{Generation: before.Generation})
	w.same("offers", w.offers(scope), []registration.Offer{})
	if _, err := w.store.Operation(w.ctx, scope, "op-2"); !isNotFound(err) {
		w.Fatalf("the operation is still answered: %v", err)
	}
	if accepted.Left <= before.Registration.Revision {
		w.Fatalf("the device left with revision %d, its registration had %d", accepted.Left, before.Registration.Revision)
	}
	orders := a.Orders(*before.Registration, accepted.Left)
	if is := w.closure(otherScope, "bought"); is.Awaited != first+len(orders) || is.Generation != 0 {
		w.Fatalf("closure %+v, want the %d orders of the closing and the %d of the transfer", is, first, len(orders))
	}
	rows := w.ordered(registration.OutboxDeviceOrder)
	for _, row := range orders {
		if !slices.Contains(rows, row) {
			w.Fatalf("the order %+v is missing in %+v", row, rows)
		}
	}
	if is := w.closure(otherScope, "bought"); is.Awaited != 0 {
		w.Fatalf("%d orders are awaited that are carried out", is.Awaited)
	}
	w.audited(scope, "left Dev", 1)
	w.audited(otherScope, "accepted Dev", 1)
	w.audited(scope, "accepted Dev", 0)
	w.audited(otherScope, "left Dev", 0)
	// The generation at the source ages from now on, as after a delete.
	n, err := w.store.Prune(w.ctx, epoch.Add(-time.Hour), epoch.Add(time.Hour).Add(time.Microsecond), 1000)
	w.ok(err)
	if n != 1 || w.device(scope, "dev").Generation != 0 {
		w.Fatalf("%d rows pruned, generation %d", n, w.device(scope, "dev").Generation)
	}
}

func offerRefused(w *world) {
	w.enrollTPM(scope, "dev")
	w.redeem(scope, "dev", "op", epoch)
	o := w.offer(scope, "dev", otherScope, epoch)
	w.enrollTPM(otherScope, "taken")
	same := tpmEnrollment("same-chip", "chip")
	same.EKKeyID = sha256.Sum256([]byte("some chip"))
	_, verdict, err := w.store.PutEnrollment(w.ctx, otherScope, same, nil, audit("enroll", epoch), "")
	w.applied(verdict, err)
	source, target := w.device(scope, "dev"), w.device(otherScope, "dev")
	for name, c := range map[string]struct {
		want   registration.Verdict
		change func(*registration.Acceptance)
	}{
		"another code":               {registration.Missing, func(a *registration.Acceptance) { a.Code[0]++ }},
		"another id":                 {registration.Missing, func(a *registration.Acceptance) { a.ID = "other" }},
		"another source":             {registration.Missing, func(a *registration.Acceptance) { a.Source = "third" }},
		"an enrollment that changed": {registration.Conflict, func(a *registration.Acceptance) { a.EnrollmentBefore++ }},
		"a registration that moved":  {registration.Conflict, func(a *registration.Acceptance) { a.RegistrationBefore++ }},
		"an id that is taken":        {registration.Exists, func(a *registration.Acceptance) { a.Enrollment.ID = "TAKEN" }},
		"an EK that is there":        {registration.Taken, func(a *registration.Acceptance) { a.Enrollment.EKKeyID = same.EKKeyID }},
	} {
		a := w.acceptance(scope, o)
		c.change(&a)
		if _, verdict, err := w.store.AcceptOffer(w.ctx, otherScope, a); err != nil || verdict != c.want {
			w.Fatalf("%s: verdict %d, %v; want %d", name, verdict, err, c.want)
		}
	}
	third := w.acceptance(scope, o)
	if _, verdict, err := w.store.AcceptOffer(w.ctx, "third", third); err != nil || verdict != registration.Missing {
		w.Fatalf("a scope that it was not made to: verdict %d, %v", verdict, err)
	}
	if _, _, err := w.store.AcceptOffer(w.ctx, scope, third); err == nil {
		w.Fatal("a scope takes its own offer")
	}
	w.same("source", w.device(scope, "dev"), source)
	w.same("target", w.device(otherScope, "dev"), target)
	w.same("offers", w.offers(scope), []registration.Offer{o})
	w.audited(scope, "left dev", 0)
	w.audited(otherScope, "accepted dev", 0)
	w.waiting(0)
}

func oneOfManyAccepts(w *world) {
	w.enrollTPM(scope, "dev")
	o := w.offer(scope, "dev", otherScope, epoch)
	a := w.acceptance(scope, o)
	met := map[registration.Verdict]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			own := a
			own.Enrollment.ID = fmt.Sprintf("dev-%d", i)
			_, verdict, err := w.store.AcceptOffer(w.ctx, otherScope, own)
			mu.Lock()
			defer mu.Unlock()
			if met[verdict]++; err != nil {
				w.Error(err)
			}
		})
	}
	all.Wait()
	if met[registration.Applied] != 1 || met[registration.Missing] != 49 {
		w.Fatalf("verdicts %v, want one applied and 49 missing", met)
	}
	page, err := w.store.Enrollments(w.ctx, otherScope, "", 1000)
	w.ok(err)
	if len(page) != 1 {
		w.Fatalf("%d enrollments in the target", len(page))
	}
}

func offersCrosswise(w *world) {
	type one struct {
		target string
		a      registration.Acceptance
	}
	var acceptances []one
	for i := range 20 {
		for _, way := range [][2]string{{scope, otherScope}, {otherScope, scope}} {
			id := fmt.Sprintf("dev-%d-of-%s", i, way[0])
			w.enrollTPM(way[0], id)
			acceptances = append(acceptances, one{way[1], w.acceptance(way[0], w.offer(way[0], id, way[1], epoch))})
		}
	}
	var all sync.WaitGroup
	for _, x := range acceptances {
		all.Go(func() {
			if _, verdict, err := w.store.AcceptOffer(w.ctx, x.target, x.a); err != nil || verdict != registration.Applied {
				w.Errorf("%s: verdict %d, %v", x.a.ID, verdict, err)
			}
		})
	}
	all.Wait()
}
