package storetest

import (
	"fmt"
	"sync"

	"latchkey.example/latchkey/internal/registration"
)

func testScope(id string, hosts ...string) registration.Scope {
	return registration.Scope{
		ID: id, Hosts: hosts, SealedRoot: []byte("root of " + id), Created: epoch,
		Policies: []registration.AccessPolicy{
			{Name: "owner", Rights: registration.AllRights, SealedPrimary: []byte("p1 " + id), SealedSecondary: []byte("s1 " + id)},
			{Name: "Reader", Rights: registration.EnrollmentRead, SealedPrimary: []byte("p2 " + id), SealedSecondary: []byte("s2 " + id)},
		},
	}
}

func scopeIsCreatedOnce(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope("0neA", "a.example", "b.example"), audit("first", epoch)))
	for tracking, again := range map[string]registration.Scope{
		"same id":              testScope("0neA", "c.example"),
		"id in other case":     testScope("0NEa", "d.example"),
		"same host":            testScope("0neB", "e.example", "b.example"),
		"host in other case":   testScope("0neC", "A.Example"),
		"id and host the same": testScope("0neA", "a.example"),
	} {
		verdict, err := w.store.CreateScope(w.ctx, again, audit(tracking, epoch))
		w.verdict(registration.Exists)(verdict, err)
		w.audited(again.ID, tracking, 0)
	}
	w.audited("0neA", "first", 1)
	scopes, err := w.store.Scopes(w.ctx)
	w.ok(err)
	w.same("scopes", scopes, []registration.Scope{testScope("0neA", "a.example", "b.example")})
	// What a refused scope asked for is still free.
	w.applied(w.store.CreateScope(w.ctx, testScope("0neB", "c.example", "e.example"), audit("second", epoch)))
}

func scopeKeepsAll(w *world) {
	second, first := testScope("zz", "z.example", "a.example"), testScope("aa")
	first.Policies = nil
	w.applied(w.store.CreateScope(w.ctx, second, audit("1", epoch)))
	w.applied(w.store.CreateScope(w.ctx, first, audit("2", epoch)))
	scopes, err := w.store.Scopes(w.ctx)
	w.ok(err)
	w.same("scopes in order of id", scopes, []registration.Scope{first, second})
}

func oneScopeIsHome(w *world) {
	home, other := testScope("home", "home.example"), testScope("other", "other.example")
	home.Home, other.Home = true, true
	w.applied(w.store.CreateScope(w.ctx, home, audit("home", epoch)))
	w.verdict(registration.Exists)(w.store.CreateScope(w.ctx, other, audit("second home", epoch)))
	w.audited("other", "second home", 0)
	other.Home = false
	w.applied(w.store.CreateScope(w.ctx, other, audit("other", epoch)))
}

// At once too: two installations of one database are begun by two people.
func oneScopeIsHomeAtOnce(w *world) {
	const rivals = 8
	verdicts := make(chan registration.Verdict, rivals)
	var group sync.WaitGroup
	for i := range rivals {
		group.Go(func() {
			s := testScope(fmt.Sprintf("s%d", i), fmt.Sprintf("s%d.example", i))
			s.Home = true
			verdict, err := w.store.CreateScope(w.ctx, s, audit(s.ID, epoch))
			w.ok(err)
			verdicts <- verdict
		})
	}
	group.Wait()
	close(verdicts)
	made := 0
	for v := range verdicts {
		if v == registration.Applied {
			made++
		}
	}
	w.same("home scopes", made, 1)
}

func scopesRevisionMoves(w *world) {
	var last uint64
	look := func(what string, moves bool) {
		w.Helper()
		now, err := w.store.ScopesRevision(w.ctx)
		w.ok(err)
		if moves != (now > last) || now < last {
			w.Errorf("%s: the revision went from %d to %d", what, last, now)
		}
		last = now
	}
	look("at first", true)
	w.applied(w.store.CreateScope(w.ctx, testScope("a", "a.example"), audit("1", epoch)))
	look("a scope is created", true)
	w.verdict(registration.Exists)(w.store.CreateScope(w.ctx, testScope("a", "b.example"), audit("2", epoch)))
	look("a scope is refused", false)
	w.applied(w.store.PutScopeCertificate(w.ctx, "a", []byte("chain"), []byte("key"), audit("3", epoch)))
	look("a certificate is put", true)
	policy := testPolicy("new", registration.EnrollmentRead, "new")
	w.applied(w.store.PutPolicy(w.ctx, "a", nil, policy, audit("4", epoch)))
	look("an access policy is created", true)
	w.verdict(registration.Exists)(w.store.PutPolicy(w.ctx, "a", nil, policy, audit("5", epoch)))
	look("an access policy is refused", false)
	w.applied(w.store.DeletePolicy(w.ctx, "a", "new", audit("6", epoch)))
	look("an access policy is deleted", true)
	hub := w.putHub("a", linkedHub("hub.example", "one"), nil, "7")
	look("a hub is linked", true)
	_, verdict, err := w.store.PutHub(w.ctx, "a", linkedHub("hub.example", "one"), nil, audit("8", epoch))
	w.verdict(registration.Exists)(verdict, err)
	look("a hub is refused", false)
	settings, verdict, err := w.store.PutAllocation(w.ctx, "a", allocationSettings("one"), nil, audit("9", epoch))
	w.applied(verdict, err)
	look("settings are put", true)
	_, verdict, err = w.store.PutWebhookKey(w.ctx, "a", []byte("key"), &settings.Revision, audit("10", epoch))
	w.applied(verdict, err)
	look("a webhook's key is put", true)
	for _, v := range []registration.SealedValue{
		{Kind: registration.SealedHubSecret, Scope: "a", Key: hub.Name, Sealed: hub.SealedSecret}, {Kind: registration.SealedWebhookKey, Scope: "a", Sealed: []byte("key")},
	} {
		n, err := w.store.ReplaceSealed(w.ctx, []registration.SealedReplacement{{SealedValue: v, New: []byte("sealed anew")}})
		w.ok(err)
		w.same("replaced", n, 1)
		look(string(v.Kind)+" is sealed anew", true)
	}
	w.applied(w.store.DeleteHub(w.ctx, "a", "hub.example", nil, audit("11", epoch)))
	look("a hub is unlinked", true)
	n, err := w.store.ReplaceSealed(w.ctx, []registration.SealedReplacement{{
		SealedValue: registration.SealedValue{Kind: registration.SealedScopeRoot, Scope: "a", Sealed: testScope("a").SealedRoot}, New: []byte("sealed anew"),
	}})
	w.ok(err)
	w.same("replaced", n, 1)
	look("a root is sealed anew", true)
	w.ok(w.store.AppendAudit(w.ctx, "a", audit("row", epoch)))
	look("an audit row is written", false)
	w.applied(w.store.DeleteScope(w.ctx, "a", audit("7", epoch)))
	look("a scope is deleted", true)
	w.verdict(registration.Missing)(w.store.DeleteScope(w.ctx, "a", audit("8", epoch)))
	look("a scope is missing", false)
}
