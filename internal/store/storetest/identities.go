package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func identity(hub, device, key string, generation uint64) registration.Identity {
	return registration.Identity{
		Hub: hub, DeviceID: device, SealedKey: []byte(key), Generation: generation,
		Updated: epoch.Add(time.Duration(generation) * time.Minute),
	}
}

func (w *world) identity(want registration.Identity) {
	w.Helper()
	got, err := w.store.Identity(w.ctx, scope, want.Hub, want.DeviceID)
	w.ok(err)
	w.same("identity", got, want)
}

func identityNeverMovesBack(w *world) {
	if _, err := w.store.Identity(w.ctx, scope, "hub", "dev"); !isNotFound(err) {
		w.Fatalf("%v, want not found", err)
	}
	for i, put := range []struct {
		key        string
		generation uint64
		verdict    registration.Verdict
	}{
		{"first", 5, registration.Applied},
		{"same", 5, registration.Applied},
		{"older", 4, registration.Conflict},
		{"newer", 6, registration.Applied},
		{"older", 5, registration.Conflict},
	} {
		id := identity("hub", "dev", put.key, put.generation)
		tracking := numbered("put", i)
		w.verdict(put.verdict)(w.store.PutIdentity(w.ctx, scope, id, audit(tracking, epoch)))
		if put.verdict == registration.Applied {
			w.identity(id)
			w.audited(scope, tracking, 1)
		} else {
			w.audited(scope, tracking, 0)
		}
	}
	w.identity(identity("hub", "dev", "newer", 6))
}

func identityKeepsCase(w *world) {
	ids := []registration.Identity{
		identity("hub", "dev", "1", 1), identity("hub", "Dev", "2", 2), identity("hub", "DEV", "3", 3), identity("hub2", "dev", "4", 4),
	}
	for _, id := range ids {
		w.applied(w.store.PutIdentity(w.ctx, scope, id, audit("put", epoch)))
	}
	for _, id := range ids {
		w.identity(id)
	}
}
