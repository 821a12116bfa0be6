package storetest

import (
	"fmt"
	"net/netip"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func linkedHub(name, salt string) registration.LinkedHub {
	return registration.LinkedHub{
		Name: name, Kind: registration.HubKind("kind " + salt), Weight: 1 + len(salt), Allocate: len(salt)%2 == 0, Draining: len(salt)%2 == 1,
		Region: "region " + salt, Settings: []byte(`{"settings":"` + salt + `"}`), SealedSecret: []byte("secret " + salt),
		Created: epoch, Updated: epoch.Add(time.Second),
	}
}

func allocationSettings(salt string) registration.AllocationSettings {
	return registration.AllocationSettings{
		Default: "policy " + salt, Updated: epoch.Add(time.Second),
		Regions: []registration.Region{
			{Name: "north " + salt, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}, Latency: map[string]int{"a.example": 3, "b.example": 70}},
			{Name: "south " + salt, Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}, Latency: map[string]int{"b.example": 5}},
		},
	}
}

// tenant reads a scope.
func (w *world) tenant(id string) registration.Scope {
	w.Helper()
	scopes, err := w.store.Scopes(w.ctx)
	w.ok(err)
	for _, s := range scopes {
		if s.ID == id {
			return s
		}
	}
	w.Fatalf("there is no scope %s", id)
	return registration.Scope{}
}

func (w *world) putHub(scope string, hub registration.LinkedHub, expect *uint64, tracking string) registration.LinkedHub {
	w.Helper()
	stored, verdict, err := w.store.PutHub(w.ctx, scope, hub, expect, audit(tracking, epoch))
	w.applied(verdict, err)
	return stored
}

func hubRoundTrip(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope, "own.example"), audit("scope", epoch)))
	second := w.putHub(scope, linkedHub("Second.example", "one"), nil, "second")
	first := w.putHub(scope, linkedHub("first.example", "two"), nil, "first")
	want := linkedHub("second.example", "one")
	want.Revision = second.Revision
	w.same("as stored, its name folded", second, want)
	w.same("in order of their names", w.tenant(scope).Hubs, []registration.LinkedHub{first, second})
	w.audited(scope, "second", 1)
	if second.Revision == 0 || first.Revision <= second.Revision {
		w.Fatalf("the revisions are %d, then %d", second.Revision, first.Revision)
	}

	changed := linkedHub("SECOND.example", "changed")
	changed.Created = epoch.Add(time.Hour)
	for expect, want := range map[*uint64]registration.Verdict{
		nil: registration.Exists, pointer(first.Revision): registration.Conflict, pointer(second.Revision - 1): registration.Conflict,
	} {
		_, verdict, err := w.store.PutHub(w.ctx, scope, changed, expect, audit("refused", epoch))
		w.verdict(want)(verdict, err)
	}
	_, verdict, err := w.store.PutHub(w.ctx, scope, linkedHub("third.example", "three"), anyRevision, audit("refused", epoch))
	w.verdict(registration.Missing)(verdict, err)
	_, verdict, err = w.store.PutHub(w.ctx, "nowhere", linkedHub("third.example", "three"), nil, audit("refused", epoch))
	w.verdict(registration.Missing)(verdict, err)
	w.audited(scope, "refused", 0)
	w.audited("nowhere", "refused", 0)
	w.same("refused", w.tenant(scope).Hubs, []registration.LinkedHub{first, second})

	again := w.putHub(scope, changed, &second.Revision, "changed")
	want = linkedHub("second.example", "changed")
	want.Revision = again.Revision
	w.same("replaced, as old as it was", again, want)
	w.same("read", w.tenant(scope).Hubs, []registration.LinkedHub{first, again})
	if again.Revision <= first.Revision {
		w.Fatalf("the revision went from %d to %d", first.Revision, again.Revision)
	}

	w.verdict(registration.Conflict)(w.store.DeleteHub(w.ctx, scope, "second.example", &second.Revision, audit("not deleted", epoch)))
	w.audited(scope, "not deleted", 0)
	w.applied(w.store.DeleteHub(w.ctx, scope, "Second.example", &again.Revision, audit("deleted", epoch)))
	w.audited(scope, "deleted", 1)
	w.verdict(registration.Missing)(w.store.DeleteHub(w.ctx, scope, "second.example", nil, audit("not deleted", epoch)))
	w.applied(w.store.DeleteHub(w.ctx, scope, "first.example", nil, audit("deleted", epoch)))
	w.same("none is left", len(w.tenant(scope).Hubs), 0)
	if anew := w.putHub(scope, linkedHub("second.example", "anew"), nil, "anew"); anew.Revision <= again.Revision {
		w.Fatalf("the revision of a hub that was deleted is given again: %d", anew.Revision)
	}
}

// No two scopes share a hub, by whichever name: devices of the one would be devices of the other.
func hubNamesAreOfOneScope(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope, "own.example", "second.example"), audit("scope", epoch)))
	w.applied(w.store.CreateScope(w.ctx, testScope(otherScope, "other.example"), audit("scope", epoch)))
	w.putHub(scope, linkedHub("shared.example", "one"), nil, "one")
	for _, name := range []string{"shared.example", "SHARED.example", "own.example", "Second.example"} {
		for _, expect := range []*uint64{nil, anyRevision} {
			_, verdict, err := w.store.PutHub(w.ctx, otherScope, linkedHub(name, "two"), expect, audit("taken", epoch))
			w.verdict(registration.Taken)(verdict, err)
		}
	}
	w.audited(otherScope, "taken", 0)
	w.same("nothing was linked", len(w.tenant(otherScope).Hubs), 0)
	w.verdict(registration.Exists)(w.store.CreateScope(w.ctx, testScope("0neC", "c.example", "Shared.example"), audit("third", epoch)))
	w.verdict(registration.Missing)(w.store.DeleteHub(w.ctx, otherScope, "shared.example", nil, audit("not deleted", epoch)))

	w.putHub(scope, linkedHub("own.example", "own"), nil, "own") // its embedded hub, otherwise than by default
	w.applied(w.store.DeleteHub(w.ctx, scope, "shared.example", nil, audit("deleted", epoch)))
	w.putHub(otherScope, linkedHub("shared.example", "free"), nil, "free")
	w.applied(w.store.DeleteScope(w.ctx, otherScope, audit("gone", epoch)))
	w.putHub(scope, linkedHub("shared.example", "free again"), nil, "free again")
	w.putHub(scope, linkedHub("other.example", "free too"), nil, "free too")
}

func allocationRoundTrip(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope, "own.example"), audit("scope", epoch)))
	w.same("at first", w.tenant(scope).Allocation, registration.AllocationSettings{})
	put := func(settings registration.AllocationSettings, expect *uint64, want registration.Verdict, tracking string) registration.AllocationSettings {
		w.Helper()
		stored, verdict, err := w.store.PutAllocation(w.ctx, scope, settings, expect, audit(tracking, epoch))
		w.verdict(want)(verdict, err)
		w.audited(scope, tracking, map[bool]int{true: 1, false: 0}[want == registration.Applied])
		return stored
	}
	put(allocationSettings("none"), anyRevision, registration.Missing, "missing")
	first := put(allocationSettings("one"), nil, registration.Applied, "first")
	want := allocationSettings("one")
	want.Revision = first.Revision
	w.same("as stored", first, want)
	w.same("read", w.tenant(scope).Allocation, want)
	put(allocationSettings("two"), nil, registration.Exists, "exists")
	put(allocationSettings("two"), pointer(first.Revision+1), registration.Conflict, "conflict")

	keyed, verdict, err := w.store.PutWebhookKey(w.ctx, scope, []byte("webhook key"), &first.Revision, audit("key", epoch.Add(time.Hour)))
	w.applied(verdict, err)
	want.SealedWebhookKey, want.Updated, want.Revision = []byte("webhook key"), epoch.Add(time.Hour), keyed.Revision
	w.same("with a key", keyed, want)
	w.same("read with a key", w.tenant(scope).Allocation, want)
	if keyed.Revision <= first.Revision {
		w.Fatalf("the revision went from %d to %d", first.Revision, keyed.Revision)
	}
	_, verdict, err = w.store.PutWebhookKey(w.ctx, scope, []byte("another"), &first.Revision, audit("stale key", epoch))
	w.verdict(registration.Conflict)(verdict, err)

	second := put(registration.AllocationSettings{SealedWebhookKey: []byte("not this way"), Updated: epoch}, &keyed.Revision, registration.Applied, "second")
	w.same("emptied, with its key", second, registration.AllocationSettings{SealedWebhookKey: []byte("webhook key"), Updated: epoch, Revision: second.Revision})
	bare, verdict, err := w.store.PutWebhookKey(w.ctx, scope, nil, anyRevision, audit("no key", epoch))
	w.applied(verdict, err)
	w.same("without a key", w.tenant(scope).Allocation, registration.AllocationSettings{Updated: epoch, Revision: bare.Revision})

	w.applied(w.store.CreateScope(w.ctx, testScope(otherScope, "other.example"), audit("scope", epoch)))
	_, verdict, err = w.store.PutWebhookKey(w.ctx, otherScope, []byte("theirs"), nil, audit("theirs", epoch))
	w.applied(verdict, err)
	w.same("of one scope only", w.tenant(scope).Allocation, registration.AllocationSettings{Updated: epoch, Revision: bare.Revision})
	for _, expect := range []*uint64{nil, anyRevision} {
		_, verdict, err = w.store.PutAllocation(w.ctx, "nowhere", allocationSettings("one"), expect, audit("nowhere", epoch))
		w.verdict(registration.Missing)(verdict, err)
	}
}

func hubDevicesAreCounted(w *world) {
	for i, hub := range []string{"a.example", "b.example", "a.example", ""} {
		id := numbered("dev", i)
		e := w.enroll(scope, id)
		r := redemption(id, registration.Device{Enrollment: &e}, "op-"+id, epoch)
		r.Registration.Hub = hub
		r.Registration.Leaving = [][]string{{"old.example", "older.example"}, {"older.example"}, nil, nil}[i]
		w.redeemed(w.store.Redeem(w.ctx, scope, r))
	}
	w.enroll(otherScope, "dev")
	w.redeem(otherScope, "dev", "op", epoch)
	devices, err := w.store.HubDevices(w.ctx, scope)
	w.ok(err)
	w.same("devices", devices, map[string]registration.HubCount{"a.example": {Devices: 2, Assigning: 2}, "b.example": {Devices: 1, Assigning: 1},
		"old.example": {Leaving: 1}, "older.example": {Leaving: 2}})
	w.applied(w.store.DeleteEnrollment(w.ctx, scope, numbered("dev", 1), nil, audit("d", epoch), ""))
	end := finish(numbered("dev", 0), "op-"+numbered("dev", 0), registration.Assigned, epoch)
	end.Hub = "a.example"
	w.applied(w.store.Finish(w.ctx, scope, end))
	devices, err = w.store.HubDevices(w.ctx, scope)
	w.ok(err)
	w.same("fewer devices", devices, map[string]registration.HubCount{"a.example": {Devices: 2, Assigning: 1}})
}

// hubOneWins: of two who read the same settings one changes them.
func hubOneWins(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope, "own.example"), audit("scope", epoch)))
	hub := w.putHub(scope, linkedHub("hub.example", "first"), nil, "first")
	const rivals = 8
	verdicts := make(chan registration.Verdict, rivals)
	for i := range rivals {
		go func() {
			_, verdict, err := w.store.PutHub(w.ctx, scope, linkedHub("hub.example", fmt.Sprint("rival ", i)), &hub.Revision, audit("rival", epoch))
			if err != nil {
				w.Error(err)
			}
			verdicts <- verdict
		}()
	}
	won := 0
	for range rivals {
		switch v := <-verdicts; v {
		case registration.Applied:
			won++
		case registration.Conflict:
		default:
			w.Errorf("verdict %d", v)
		}
	}
	w.same("winners", won, 1)
	w.audited(scope, "rival", 1)
}
