package storetest

import (
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
