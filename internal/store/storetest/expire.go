package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// auditExpires: the oldest rows go, no other, and the places of those that come are still greater than every place that was seen.
func auditExpires(w *world) {
	var lines []registration.AuditLine
	for i := range 6 {
		w.ok(w.store.AppendAudit(w.ctx, scope, audit(numbered("t", i), epoch.Add(time.Duration(i)*time.Hour))))
		w.ok(w.store.AppendAudit(w.ctx, otherScope, audit(numbered("o", i), epoch.Add(time.Duration(i)*time.Hour))))
	}
	read := func(scope string) []registration.AuditLine {
		w.Helper()
		page, err := w.store.AuditPage(w.ctx, scope, 0, 100)
		w.ok(err)
		return page
	}
	expire := func(before time.Time, limit, want int, row *registration.Audit) {
		w.Helper()
		n, err := w.store.ExpireAudit(w.ctx, scope, before, limit, row)
		w.ok(err)
		if n != want {
			w.Fatalf("%d rows expired, want %d", n, want)
		}
	}
	lines = read(scope)
	foreign := read(otherScope)
	none := audit("none", epoch)
	expire(epoch, 10, 0, &none) // at the bound: stays, and a run that removes nothing leaves no row
	w.audited(scope, "none", 0)
	w.same("log", read(scope), lines)
	row := audit("expired", epoch.Add(9*time.Hour))
	expire(epoch.Add(3*time.Hour), 2, 2, &row)
	w.audited(scope, "expired", 1)
	expire(epoch.Add(3*time.Hour), 2, 1, nil)
	expire(epoch.Add(time.Hour), 10, 0, nil) // an earlier bound brings nothing back and removes nothing
	left := read(scope)
	w.same("log", left[:len(left)-1], lines[3:])
	w.same("the row that says so", left[len(left)-1].Audit, row)
	w.same("another scope's log", read(otherScope), foreign)
	// Even with all of it gone, who follows the log misses nothing that comes.
	last := left[len(left)-1].Seq
	if n, err := w.store.ExpireAudit(w.ctx, scope, epoch.Add(100*time.Hour), 100, nil); err != nil || n < len(left)-1 {
		w.Fatalf("%d rows expired, %v", n, err)
	}
	w.ok(w.store.AppendAudit(w.ctx, scope, audit("after", epoch)))
	page, err := w.store.AuditPage(w.ctx, scope, last, 10)
	w.ok(err)
	if len(page) != 1 || page[0].TrackingID != "after" {
		w.Fatalf("who goes on after %d reads %+v", last, page)
	}
}

// scopesAreDeleted: gone at once, never to come again under the same id; its rows follow bit by bit, its log stays.
func scopesAreDeleted(w *world) {
	home := testScope(scope, "home.example")
	home.Home = true
	w.applied(w.store.CreateScope(w.ctx, home, audit("home", epoch)))
	second := testScope(otherScope, "second.example")
	second.Certificate, second.SealedCertificateKey = []byte("chain"), []byte("sealed key")
	w.applied(w.store.CreateScope(w.ctx, second, audit("second", epoch)))
	w.audited(otherScope, "second", 1)
	w.audited(scope, "second", 1) // and in the home scope's log
	w.audited(scope, "home", 1)
	for _, id := range []string{scope, otherScope} {
		for i := range 3 {
			w.enroll(id, numbered("dev", i))
			w.redeem(id, numbered("dev", i), "op-"+id+numbered("", i), epoch)
		}
		w.order(id, "remote", "op-remote-"+id)
		w.group(id, "line")
		_, verdict, err := w.store.PutCACertificate(w.ctx, id, caCertificate("plant", "a"), nil, audit("ca", epoch))
		w.applied(verdict, err)
		w.putIdentity(id, identity("hub", "dev", "key", 1), "i")
	}
	kept := w.device(scope, numbered("dev", 0))

	w.verdict(registration.LastOne)(w.store.DeleteScope(w.ctx, scope, audit("no", epoch)))
	w.verdict(registration.Missing)(w.store.DeleteScope(w.ctx, "0ne99999999", audit("no", epoch)))
	w.audited(scope, "no", 0)
	w.applied(w.store.DeleteScope(w.ctx, otherScope, audit("gone", epoch)))
	w.audited(otherScope, "gone", 1)
	w.audited(scope, "gone", 1)
	scopes, err := w.store.Scopes(w.ctx)
	w.ok(err)
	w.same("scopes", scopes, []registration.Scope{home})
	w.verdict(registration.Missing)(w.store.DeleteScope(w.ctx, otherScope, audit("again", epoch)))
	w.verdict(registration.Exists)(w.store.CreateScope(w.ctx, testScope(otherScope, "third.example"), audit("again", epoch)))
	w.applied(w.store.CreateScope(w.ctx, testScope("0ne00000003", "second.example"), audit("third", epoch))) // its name is free

	for rounds := 0; ; rounds++ {
		n, err := w.store.PruneScopes(w.ctx, epoch, 2)
		w.ok(err)
		if n > 2 || rounds > 100 {
			w.Fatalf("%d rows removed in round %d", n, rounds)
		}
		if n == 0 {
			break
		}
	}
	w.same("a device of the deleted scope", w.device(otherScope, numbered("dev", 0)), registration.Device{})
	w.claimed(w.claim("c", longLease, 10), "op-remote-"+scope)
	held, err := w.store.Holdings(w.ctx, otherScope)
	w.ok(err)
	if len(held.Enrollments)+len(held.Groups)+len(held.Registrations) > 0 {
		w.Fatalf("the deleted scope holds %+v", held)
	}
	cas, err := w.store.CACertificates(w.ctx, otherScope, "", 10)
	w.ok(err)
	if len(cas) > 0 {
		w.Fatal("the deleted scope holds CA certificates")
	}
	if _, err := w.store.Identity(w.ctx, otherScope, "hub", "dev"); !isNotFound(err) {
		w.Fatalf("the deleted scope holds an identity: %v", err)
	}
	for i := range 3 {
		w.noOperation(otherScope, "op-"+otherScope+numbered("", i))
	}
	for _, v := range w.listing(100, func(int) {}) {
		if v.Scope == otherScope {
			w.Fatalf("the deleted scope holds a sealed value: %q", place(v))
		}
	}
	w.same("a device of the other", w.device(scope, numbered("dev", 0)), kept)
	// A row that came late is found, until the scope has settled.
	w.enroll(otherScope, "late")
	for _, settled := range []time.Time{epoch, epoch.Add(time.Second)} {
		n, err := w.store.PruneScopes(w.ctx, settled, 10)
		w.ok(err)
		if late := settled.Equal(epoch); n > 0 != late { // the enrollment, and what a store keeps beside it
			w.Fatalf("%d late rows removed, settled before %v", n, settled)
		}
	}
	w.enroll(otherScope, "too late")
	if n, err := w.store.PruneScopes(w.ctx, epoch.Add(time.Hour), 10); err != nil || n != 0 {
		w.Fatalf("a settled scope was looked at again: %d, %v", n, err)
	}
	w.audited(otherScope, "second", 1)
	// What the rows had claimed is free: a group's certificates, an operation's id, a device id at its hub.
	_, verdict, err := w.store.PutGroup(w.ctx, otherScope, group("another", "line"), nil, audit("g", epoch), "")
	w.applied(verdict, err)
	w.enroll(otherScope, "another")
	w.redeem(otherScope, "another", "op-"+otherScope+numbered("", 0), epoch)
}

func scopeCertificateIsReplaced(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope, "a.example"), audit("s", epoch)))
	w.applied(w.store.PutScopeCertificate(w.ctx, scope, []byte("chain"), []byte("key"), audit("renewed", epoch)))
	w.audited(scope, "renewed", 1)
	w.verdict(registration.Missing)(w.store.PutScopeCertificate(w.ctx, otherScope, []byte("chain"), []byte("key"), audit("no", epoch)))
	w.audited(otherScope, "no", 0)
	scopes, err := w.store.Scopes(w.ctx)
	w.ok(err)
	want := testScope(scope, "a.example")
	want.Certificate, want.SealedCertificateKey = []byte("chain"), []byte("key")
	w.same("scope", scopes, []registration.Scope{want})
}
