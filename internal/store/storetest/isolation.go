package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

const otherScope = "0ne00000002"

// scopesAreIsolated lets the same ids live in two scopes: whatever one scope does, the other sees nothing of it.
func scopesAreIsolated(w *world) {
	fill := func(scope string) {
		w.enroll(scope, "dev")
		w.redeem(scope, "dev", "op-1", epoch)
		w.ok(w.store.RememberOwner(w.ctx, scope, "dev", []byte("srk of "+scope), epoch))
		id := registration.Identity{Hub: "hub", DeviceID: "dev", SealedKey: []byte("key of " + scope), Generation: 3, Updated: epoch}
		w.putIdentity(scope, id, "identity")
	}
	fill(scope)
	w.same("other scope while one is filled", w.picture(otherScope), picture{})
	// Revisions of a scope are its own business: moving one apart shows a mix-up.
	w.enroll(otherScope, "extra")
	fill(otherScope)

	for name, act := range map[string]func(){
		"put": func() {
			_, verdict, err := w.store.PutEnrollment(w.ctx, otherScope, enrollment("dev", "put"), anyRevision, audit("1", epoch), "")
			w.applied(verdict, err)
		},
		"redeem": func() {
			w.redeem(otherScope, "dev", "op-2", epoch)
			w.finish(otherScope, "dev", "op-2", registration.Failed)
		},
		"refuse": func() {
			w.applied(w.store.Refuse(w.ctx, otherScope, registration.Refused{ID: "dev", Generation: w.device(otherScope, "dev").Generation, Audit: audit("2", epoch)}))
		},
		"remember": func() { w.ok(w.store.RememberOwner(w.ctx, otherScope, "dev", []byte("new"), epoch)) },
		"identity": func() {
			id := registration.Identity{Hub: "hub", DeviceID: "dev", SealedKey: []byte("new"), Generation: 4, Updated: epoch}
			w.putIdentity(otherScope, id, "3")
		},
		"replace sealed": func() {
			n, err := w.store.ReplaceSealed(w.ctx, []registration.SealedReplacement{{
				SealedValue: registration.SealedValue{Kind: registration.SealedOperationKey, Scope: otherScope, Key: "op-1", Sealed: []byte("challenge key op-1")},
				New:         []byte("new"),
			}})
			w.ok(err)
			if n > 1 {
				w.Fatalf("%d sealed values replaced, want at most one", n)
			}
		},
	} {
		before := w.picture(scope)
		act()
		w.same(name+" in the other scope", w.picture(scope), before)
	}
	before := w.picture(scope)
	w.applied(w.store.DeleteRegistration(w.ctx, otherScope, "dev", nil, audit("4", epoch), ""))
	w.same("delete registration in the other scope", w.picture(scope), before)
	w.applied(w.store.DeleteEnrollment(w.ctx, otherScope, "dev", nil, audit("5", epoch), ""))
	w.same("delete enrollment in the other scope", w.picture(scope), before)
	w.finish(scope, "dev", "op-1", registration.Assigned)
}

// picture is all that can be read of a scope's id "dev".
type picture struct {
	Device    registration.Device
	Operation registration.Operation
	Owners    [][]byte
	Identity  registration.Identity
	Audit     []registration.Audit
}

func (w *world) picture(scope string) (p picture) {
	w.Helper()
	var err error
	p.Device = w.device(scope, "dev")
	if p.Operation, err = w.store.Operation(w.ctx, scope, "op-1"); err != nil && !isNotFound(err) {
		w.Fatal(err)
	}
	p.Owners, err = w.store.Owners(w.ctx, scope, "dev", time.Time{})
	w.ok(err)
	if p.Identity, err = w.store.Identity(w.ctx, scope, "hub", "dev"); err != nil && !isNotFound(err) {
		w.Fatal(err)
	}
	for _, id := range []string{"enroll dev", "redeem op-1", "redeem op-2", "identity", "1", "2", "3", "4", "5"} {
		rows, err := w.store.AuditByTrackingID(w.ctx, scope, id)
		w.ok(err)
		p.Audit = append(p.Audit, rows...)
	}
	return p
}
