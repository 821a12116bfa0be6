package storetest

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func groupRoundTrip(w *world) {
	for _, g := range []registration.Group{group("Full", "odd"), {ID: "bare", Created: epoch, Updated: epoch}} {
		stored, verdict, err := w.store.PutGroup(w.ctx, scope, g, nil, audit("put "+g.ID, epoch), "")
		w.applied(verdict, err)
		g.Revision = stored.Revision
		w.same("returned", stored, g)
		read, err := w.store.Group(w.ctx, scope, g.ID)
		w.ok(err)
		w.same("read", read, g)
		w.audited(scope, "put "+g.ID, 1)
		w.same("revision that devices see", w.device(scope, "anybody").GroupsRevision, g.Revision)
	}
	_, err := w.store.Group(w.ctx, otherScope, "Full")
	if !isNotFound(err) {
		w.Fatalf("another scope's group: %v", err)
	}
	w.same("revision that another scope's devices see", w.device(otherScope, "anybody").GroupsRevision, uint64(0))
}

// groupsMoveTheirRevision: what is applied moves it, and nothing else does.
func groupsMoveTheirRevision(w *world) {
	last := uint64(0)
	revision := func() uint64 {
		w.Helper()
		now, err := w.store.GroupsRevision(w.ctx, scope)
		w.ok(err)
		w.same("revision in a device's snapshot", w.device(scope, "dev").GroupsRevision, now)
		return now
	}
	step := func(name string, moves bool) {
		w.Helper()
		now := revision()
		if moves != (now > last) || now < last {
			w.Fatalf("%s: revision %d after %d", name, now, last)
		}
		last = now
	}
	put := func(want registration.Verdict, g registration.Group, expect *uint64) {
		w.Helper()
		_, verdict, err := w.store.PutGroup(w.ctx, scope, g, expect, audit("g", epoch), "")
		w.verdict(want)(verdict, err)
	}
	step("nothing", false)
	put(registration.Applied, group("line", "a"), nil)
	step("created", true)
	put(registration.Exists, group("LINE", "b"), nil)
	put(registration.Missing, group("other", "b"), anyRevision)
	put(registration.Conflict, group("line", "b"), pointer(last+1))
	step("refused", false)
	put(registration.Applied, group("LINE", "b"), pointer(last))
	step("replaced", true)
	w.verdict(registration.Conflict)(w.store.DeleteGroup(w.ctx, scope, "line", pointer(last+1), audit("d", epoch), ""))
	w.verdict(registration.Missing)(w.store.DeleteGroup(w.ctx, scope, "none", nil, audit("d", epoch), ""))
	w.verdict(registration.Missing)(w.store.DeleteGroup(w.ctx, otherScope, "line", nil, audit("d", epoch), ""))
	step("not deleted", false)
	w.applied(w.store.DeleteGroup(w.ctx, scope, "Line", pointer(last), audit("gone", epoch), ""))
	w.audited(scope, "gone", 1)
	step("deleted", true)
	ca, verdict, err := w.store.PutCACertificate(w.ctx, scope, caCertificate("Plant", "a"), nil, audit("ca", epoch))
	w.applied(verdict, err)
	step("CA added", true)
	_, verdict, err = w.store.PutCACertificate(w.ctx, scope, caCertificate("plant", "b"), nil, audit("ca", epoch))
	w.verdict(registration.Exists)(verdict, err)
	step("CA refused", false)
	changed := caCertificate("Plant", "changed")
	_, verdict, err = w.store.PutCACertificate(w.ctx, scope, changed, pointer(ca.Revision), audit("ca", epoch))
	w.applied(verdict, err)
	step("CA changed", true)
	w.verdict(registration.Conflict)(w.store.DeleteCACertificate(w.ctx, scope, "plant", pointer(ca.Revision), audit("ca", epoch)))
	step("CA not deleted", false)
	w.applied(w.store.DeleteCACertificate(w.ctx, scope, "PLANT", nil, audit("ca gone", epoch)))
	w.audited(scope, "ca gone", 1)
	step("CA deleted", true)
	w.enroll(scope, "dev")
	w.redeem(scope, "dev", "op", epoch)
	step("a device registered", false)
}

func groupReplacedKeepsItsCreation(w *world) {
	first := w.group(scope, "line")
	next := group("Line", "another")
	next.Created = epoch.Add(time.Hour)
	stored, verdict, err := w.store.PutGroup(w.ctx, scope, next, pointer(first.Revision), audit("r", epoch), "")
	w.applied(verdict, err)
	next.Created, next.Revision = first.Created, stored.Revision
	w.same("returned", stored, next)
	ca, verdict, err := w.store.PutCACertificate(w.ctx, scope, caCertificate("plant", "a"), nil, audit("ca", epoch))
	w.applied(verdict, err)
	again := caCertificate("plant", "bb")
	again.Created = epoch.Add(time.Hour)
	kept, verdict, err := w.store.PutCACertificate(w.ctx, scope, again, anyRevision, audit("ca", epoch))
	w.applied(verdict, err)
	again.Created, again.Revision = ca.Created, kept.Revision
	w.same("CA returned", kept, again)
}

// listsOfGroupsAndCAs are paged like all lists.
func listsOfGroupsAndCAs(w *world) {
	names := []string{"_x", "a-1", "b-1", "c:3"}
	var groups []registration.Group
	var cas []registration.CACertificate
	for _, name := range names {
		groups = append(groups, w.group(scope, name))
		ca, verdict, err := w.store.PutCACertificate(w.ctx, scope, caCertificate(name, name), nil, audit("ca", epoch))
		w.applied(verdict, err)
		cas = append(cas, ca)
		w.group(otherScope, name+"-other")
	}
	for limit := 1; limit <= len(names)+1; limit++ {
		var gotGroups []registration.Group
		var gotCAs []registration.CACertificate
		after := ""
		for range len(names)/limit + 1 {
			page, err := w.store.Groups(w.ctx, scope, after, limit)
			w.ok(err)
			list, err := w.store.CACertificates(w.ctx, scope, after, limit)
			w.ok(err)
			gotGroups, gotCAs = append(gotGroups, page...), append(gotCAs, list...)
			if len(gotGroups) > 0 {
				after = gotGroups[len(gotGroups)-1].ID
			}
		}
		w.same("groups", gotGroups, groups)
		w.same("CA certificates", gotCAs, cas)
	}
}

// certificatesAreOfOneEntry of the scope, enrollment or group.
func certificatesAreOfOneEntry(w *world) {
	sum := sha256.Sum256([]byte("certificate"))
	other := sha256.Sum256([]byte("another"))
	e := enrollment("dev", "a")
	e.Certificates = [][32]byte{sum}
	put := func(want registration.Verdict, id string, expect *uint64, sums ...[32]byte) {
		w.Helper()
		next := enrollment(id, id)
		next.Certificates = sums
		_, verdict, err := w.store.PutEnrollment(w.ctx, scope, next, expect, audit("e", epoch), "")
		w.verdict(want)(verdict, err)
	}
	putGroup := func(want registration.Verdict, id string, expect *uint64, sums ...[32]byte) {
		w.Helper()
		g := group(id, id)
		g.Certificates = sums
		_, verdict, err := w.store.PutGroup(w.ctx, scope, g, expect, audit("g", epoch), "")
		w.verdict(want)(verdict, err)
	}
	put(registration.Applied, "dev", nil, sum, sum) // twice in one entry is once
	put(registration.Taken, "other", nil, sum)
	putGroup(registration.Taken, "group", nil, other, sum)
	if d := w.device(scope, "other"); d.Enrollment != nil {
		w.Fatal("a refused enrollment was stored")
	}
	verdicts, err := w.store.PutEnrollments(w.ctx, scope, []registration.EnrollmentPut{{Enrollment: registration.Enrollment{ID: "many", Certificates: [][32]byte{sum}, Created: epoch, Updated: epoch}, Audit: audit("m", epoch)}})
	w.ok(err)
	w.same("verdicts", verdicts, []registration.Verdict{registration.Taken})
	put(registration.Applied, "DEV", anyRevision, sum, other) // its own
	put(registration.Taken, "other", nil, other)
	put(registration.Applied, "dev", anyRevision, other) // sum is free
	putGroup(registration.Applied, "group", nil, sum)
	putGroup(registration.Applied, "GROUP", anyRevision, sum)
	w.applied(w.store.DeleteEnrollment(w.ctx, scope, "dev", nil, audit("d", epoch), ""))
	put(registration.Applied, "other", nil, other)
	w.applied(w.store.DeleteGroup(w.ctx, scope, "group", nil, audit("d", epoch), ""))
	put(registration.Applied, "third", nil, sum)
	foreign := enrollment("dev", "foreign")
	foreign.Certificates = [][32]byte{sum, other}
	_, verdict, err := w.store.PutEnrollment(w.ctx, otherScope, foreign, nil, audit("e", epoch), "")
	w.applied(verdict, err)
}

// certificatesMoveWithinATransition: each row of a transition meets certificates as the rows before it left them.
func certificatesMoveWithinATransition(w *world) {
	type putMany = func(context.Context, string, []registration.EnrollmentPut) ([]registration.Verdict, error)
	row := func(id string, expect *uint64, sums ...[32]byte) registration.EnrollmentPut {
		p := put(id, id, expect)
		p.Enrollment.Certificates = sums
		return p
	}
	for name, puts := range map[string]putMany{"put": w.store.PutEnrollments, "all": w.store.PutAllEnrollments} {
		a, b, c := "a "+name, "b "+name, "c "+name
		sum, next, free := sha256.Sum256([]byte("sum "+name)), sha256.Sum256([]byte("next "+name)), sha256.Sum256([]byte("free "+name))
		many := func(want []registration.Verdict, rows ...registration.EnrollmentPut) {
			w.Helper()
			verdicts, err := puts(w.ctx, scope, rows)
			w.ok(err)
			w.same(name, verdicts, want)
		}
		both := []registration.Verdict{registration.Applied, registration.Applied}
		second := []registration.Verdict{registration.Applied, registration.Taken}
		many([]registration.Verdict{registration.Applied}, row(a, nil, sum))
		many(both, row(a, anyRevision, next), row(b, nil, sum)) // a gives up what b takes
		w.same(name, w.device(scope, a).Enrollment.Certificates, [][32]byte{next})
		w.same(name, w.device(scope, b).Enrollment.Certificates, [][32]byte{sum})
		many(second, row(a, anyRevision, next), row(c, nil, sum)) // and it is b's now
		many(second, row(a, anyRevision, free), row(c, nil, free))
		if w.device(scope, c).Enrollment != nil {
			w.Fatalf("%s: a refused enrollment was stored", name)
		}
		// Of a transition that is refused as a whole nothing is kept, and what it would have taken is free. Else its first row stays.
		was, is := next, free
		if name == "all" {
			was, is = free, next
		}
		w.same(name, w.device(scope, a).Enrollment.Certificates, [][32]byte{is})
		_, verdict, err := w.store.PutEnrollment(w.ctx, scope, row(c, nil, is).Enrollment, nil, audit("e", epoch), "")
		w.verdict(registration.Taken)(verdict, err)
		_, verdict, err = w.store.PutEnrollment(w.ctx, scope, row(c, nil, was).Enrollment, nil, audit("e", epoch), "")
		w.applied(verdict, err)
	}
}

// groupRedemption is a redemption of a device that a group let in.
func groupRedemption(w *world, id, groupID, operationID string) registration.Redemption {
	w.Helper()
	d := w.device(scope, id)
	r := redemption(id, d, operationID, epoch)
	r.Registration.Group, r.Operation.Group, r.GroupsRevision = groupID, groupID, d.GroupsRevision
	return r
}

func groupDevicesRedeem(w *world) {
	w.group(scope, "Line")
	r := groupRedemption(w, "Dev", "Line", "op-1")
	stale := r
	stale.GroupsRevision++
	_, verdict, err := w.store.Redeem(w.ctx, scope, stale)
	w.verdict(registration.Conflict)(verdict, err)
	revision := w.redeemed(w.store.Redeem(w.ctx, scope, r))
	r.Operation.Revision, r.Registration.Revision = revision, revision
	d := w.device(scope, "dev")
	w.same("registration", *d.Registration, r.Registration)
	w.same("operation", *d.Operation, r.Operation)

	// A change of any group in between is a conflict; so is an enrollment of the device's own.
	next := groupRedemption(w, "dev", "Line", "op-2")
	w.group(scope, "other")
	_, verdict, err = w.store.Redeem(w.ctx, scope, next)
	w.verdict(registration.Conflict)(verdict, err)
	next = groupRedemption(w, "dev", "Line", "op-2")
	w.enroll(scope, "dev")
	_, verdict, err = w.store.Redeem(w.ctx, scope, next)
	w.verdict(registration.Conflict)(verdict, err)

	// A scope that never had a group lets none in.
	lone := redemption("lone", registration.Device{}, "op-3", epoch)
	lone.Registration.Group = "ghost"
	_, verdict, err = w.store.Redeem(w.ctx, otherScope, lone)
	w.verdict(registration.Conflict)(verdict, err)
}

// registrationsOfAGroup: all of the scope, or one group's, which they outlive; and a group device's generation is in use.
func registrationsOfAGroup(w *world) {
	w.group(scope, "Line")
	w.enroll(scope, "own")
	w.redeem(scope, "own", "op-own", epoch)
	var line []registration.Registration
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		r := groupRedemption(w, id, "Line", "op-"+id)
		w.redeemed(w.store.Redeem(w.ctx, scope, r))
		line = append(line, *w.device(scope, id).Registration)
	}
	w.applied(w.store.DeleteGroup(w.ctx, scope, "line", nil, audit("d", epoch), ""))
	all := append(append([]registration.Registration{}, line...), *w.device(scope, "own").Registration)
	for limit := 1; limit <= len(all)+1; limit++ {
		for name, want := range map[string][]registration.Registration{"LINE": line, "": all, "nobody": nil} {
			var got []registration.Registration
			for after := ""; ; {
				page, err := w.store.Registrations(w.ctx, scope, name, after, limit)
				w.ok(err)
				got = append(got, page...)
				if len(page) < limit {
					break
				}
				after = page[len(page)-1].ID
			}
			w.same("registrations of "+name, got, want)
		}
	}
	page, err := w.store.Registrations(w.ctx, otherScope, "", "", 10)
	w.ok(err)
	w.same("registrations of another scope", page, []registration.Registration(nil))
	before := w.device(scope, "a").Generation
	_, err = w.store.Prune(w.ctx, time.Time{}, epoch.Add(time.Hour), 100)
	w.ok(err)
	w.same("generation of a group's device", w.device(scope, "a").Generation, before)
}

func holdingsAreCounted(w *world) {
	none, err := w.store.Holdings(w.ctx, scope)
	w.ok(err)
	w.same("nothing", none, registration.Holdings{Enrollments: map[registration.Mechanism]uint64{}, Groups: map[registration.Mechanism]uint64{}, Registrations: map[registration.Status]uint64{}})
	for i, mechanism := range []registration.Mechanism{registration.TPM, registration.TPM, registration.X509} {
		e := enrollment(numbered("dev", i), "x")
		e.Mechanism, e.Disabled = mechanism, i == 1
		_, verdict, err := w.store.PutEnrollment(w.ctx, scope, e, nil, audit("e", epoch), "")
		w.applied(verdict, err)
		w.enroll(otherScope, numbered("dev", i))
	}
	g := group("line", "x")
	g.Mechanism = registration.SymmetricKey
	_, verdict, err := w.store.PutGroup(w.ctx, scope, g, nil, audit("g", epoch), "")
	w.applied(verdict, err)
	for i, status := range []registration.Status{registration.Assigned, registration.Failed} {
		w.redeem(scope, numbered("dev", i), numbered("op", i), epoch)
		w.finish(scope, numbered("dev", i), numbered("op", i), status)
	}
	held, err := w.store.Holdings(w.ctx, scope)
	w.ok(err)
	w.same("holdings", held, registration.Holdings{
		Enrollments: map[registration.Mechanism]uint64{registration.TPM: 2, registration.X509: 1}, Disabled: 1,
		Groups:        map[registration.Mechanism]uint64{registration.SymmetricKey: 1},
		Registrations: map[registration.Status]uint64{registration.Assigned: 1, registration.Failed: 1},
	})
}

func groupOneWins(w *world) {
	stored := w.group(scope, "line")
	const writers = 20
	verdicts := make([]registration.Verdict, writers)
	var running sync.WaitGroup
	for i := range writers {
		running.Go(func() {
			g := group("line", numbered("w", i))
			g.Certificates = nil
			_, verdict, err := w.store.PutGroup(w.ctx, scope, g, pointer(stored.Revision), audit("w", epoch), "")
			if err != nil {
				verdict = -1
			}
			verdicts[i] = verdict
		})
	}
	running.Wait()
	won := 0
	for _, verdict := range verdicts {
		switch verdict {
		case registration.Applied:
			won++
		case registration.Conflict:
		default:
			w.Fatalf("verdict %d", verdict)
		}
	}
	if won != 1 {
		w.Fatalf("%d writers with one etag won", won)
	}
}
