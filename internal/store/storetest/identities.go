package storetest

import (
	"sync"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func identity(hub, device, key string, generation uint64) registration.Identity {
	return registration.Identity{
		Hub: hub, DeviceID: device, SealedKey: []byte(key), Generation: generation,
		Created: epoch, Updated: epoch.Add(time.Duration(generation) * time.Minute),
	}
}

// identity asserts what is stored, but for the version if none is wanted: that is the store's.
func (w *world) identity(want registration.Identity) {
	w.Helper()
	got, err := w.store.Identity(w.ctx, scope, want.Hub, want.DeviceID)
	w.ok(err)
	if want.Version == 0 {
		want.Version = got.Version
	}
	w.same("identity", got, want)
}

// identityPut is the compare-and-set of an identity that was read with a generation.
func identityPut(id registration.Identity, was uint64) registration.IdentityPut {
	return registration.IdentityPut{Identity: id, Was: was}
}

// putIdentity writes an identity in the place of whatever is there.
func (w *world) putIdentity(scope string, id registration.Identity, tracking string) {
	w.Helper()
	was, err := w.store.Identity(w.ctx, scope, id.Hub, id.DeviceID)
	if err != nil && !isNotFound(err) {
		w.Fatal(err)
	}
	w.applied(w.store.PutIdentity(w.ctx, scope, identityPut(id, was.Generation), audit(tracking, epoch)))
}

// identityPuts writes in the order given and judges what the verdict, the row and the audit are after each.
func (w *world) identityPuts(puts []struct {
	key             string
	was, generation uint64
	verdict         registration.Verdict
}) {
	w.Helper()
	var now registration.Identity
	for i, p := range puts {
		id := identity("hub", "dev", p.key, p.generation)
		id.Cutting = i%2 == 1
		tracking := numbered("put", i)
		w.verdict(p.verdict)(w.store.PutIdentity(w.ctx, scope, identityPut(id, p.was), audit(tracking, epoch)))
		rows := 0
		if p.verdict == registration.Applied {
			now, rows = id, 1
		}
		w.identity(now)
		w.audited(scope, tracking, rows)
	}
}

func identityNeverMovesBack(w *world) {
	if _, err := w.store.Identity(w.ctx, scope, "hub", "dev"); !isNotFound(err) {
		w.Fatalf("%v, want not found", err)
	}
	w.identityPuts([]struct {
		key             string
		was, generation uint64
		verdict         registration.Verdict
	}{
		{"first", 0, 5, registration.Applied},
		{"same", 5, 5, registration.Applied},
		{"older", 5, 4, registration.Conflict},
		{"newer", 5, 6, registration.Applied},
		{"older", 6, 5, registration.Conflict},
	})
	if _, err := w.store.PutIdentity(w.ctx, scope, identityPut(identity("hub", "other", "none", 0), 0), audit("zero", epoch)); err == nil {
		w.Fatal("an identity of generation 0, which stands for none, was written")
	}
}

// identityReplacedAsRead: what another node wrote since the reading is not written over.
func identityReplacedAsRead(w *world) {
	w.identityPuts([]struct {
		key             string
		was, generation uint64
		verdict         registration.Verdict
	}{
		{"first", 0, 5, registration.Applied},
		{"read before the first", 0, 6, registration.Conflict},
		{"read before the first, same generation", 0, 5, registration.Conflict},
		{"read an older one", 4, 7, registration.Conflict},
		{"read a newer one", 6, 7, registration.Conflict},
		{"as read", 5, 7, registration.Applied},
	})
	w.verdict(registration.Conflict)(w.store.PutIdentity(w.ctx, scope, identityPut(identity("hub", "absent", "key", 3), 2), audit("absent", epoch)))
	if _, err := w.store.Identity(w.ctx, scope, "hub", "absent"); !isNotFound(err) {
		w.Fatalf("%v, want not found", err)
	}
}

// identityOneWins lets many writers start from the same reading, first of none and then of one.
func identityOneWins(w *world) {
	for _, was := range []uint64{0, 1} {
		var wins atomic.Int32
		var done sync.WaitGroup
		for i := range 20 {
			done.Go(func() {
				id := identity("hub", "dev", numbered("key", i), was+1)
				switch verdict, err := w.store.PutIdentity(w.ctx, scope, identityPut(id, was), audit(numbered("was", int(was)), epoch)); {
				case err != nil:
					w.Error(err)
				case verdict == registration.Applied:
					wins.Add(1)
				case verdict != registration.Conflict:
					w.Errorf("verdict %d", verdict)
				}
			})
		}
		done.Wait()
		if wins.Load() != 1 {
			w.Fatalf("%d of 20 wrote in the place of generation %d", wins.Load(), was)
		}
		w.audited(scope, numbered("was", int(was)), 1)
	}
}

func identityKeepsCase(w *world) {
	ids := []registration.Identity{
		identity("hub", "dev", "1", 1), identity("hub", "Dev", "2", 2), identity("hub", "DEV", "3", 3), identity("hub2", "dev", "4", 4),
	}
	for _, id := range ids {
		w.putIdentity(scope, id, "put")
	}
	for _, id := range ids {
		w.identity(id)
	}
}
