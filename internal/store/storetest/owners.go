package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func (w *world) owners(since time.Time, want ...string) {
	w.Helper()
	srks, err := w.store.Owners(w.ctx, scope, "dev", since)
	w.ok(err)
	got := make([]string, len(srks))
	for i, srk := range srks {
		got[i] = string(srk)
	}
	w.same("owners", got, want)
}

func ownersNewestFirst(w *world) {
	w.owners(time.Time{})
	remember := func(srk string, after time.Duration) {
		w.ok(w.store.RememberOwner(w.ctx, scope, "dev", []byte(srk), epoch.Add(after)))
	}
	remember("a", 0)
	remember("b", time.Second)
	remember("c", time.Second) // the later of two with the same time is the newer
	w.owners(time.Time{}, "c", "b", "a")
	remember("a", 2*time.Second)
	w.owners(time.Time{}, "a", "c", "b")
	w.owners(epoch.Add(time.Second), "a", "c", "b") // at the bound: remembered
	w.owners(epoch.Add(time.Second+time.Microsecond), "a")
	w.owners(epoch.Add(time.Minute))
}

// ownersBounded floods one id: its newest stay, a neighbour is untouched, and an SRK remembered again does not count twice.
func ownersBounded(w *world) {
	w.ok(w.store.RememberOwner(w.ctx, scope, "neighbour", []byte("n"), epoch))
	var want []string
	for i := range 5 * registration.MaxOwners {
		srk := numbered("srk", i)
		for range 2 {
			w.ok(w.store.RememberOwner(w.ctx, scope, "dev", []byte(srk), epoch.Add(time.Duration(i)*time.Millisecond)))
		}
		want = append([]string{srk}, want...)
		want = want[:min(len(want), registration.MaxOwners)]
		w.owners(time.Time{}, want...)
	}
	srks, err := w.store.Owners(w.ctx, scope, "neighbour", time.Time{})
	w.ok(err)
	w.same("neighbour", srks, [][]byte{[]byte("n")})
}
