package registration_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

const plant = "plant2.example"

// inPlant is a device with an enrollment in a new scope.
func (w *world) inPlant() (*keyed, registration.ScopeCreated) {
	w.Helper()
	made := w.newScope(plant)
	wire, err := dps.DecodeEnrollment("valve", []byte(keysBody(firstKey, secondKey, "")))
	w.must(err)
	_, err = w.core.PutEnrollment(w.ctx, registration.Caller{Scope: made.ID, Policy: made.Policy}, wire, "")
	w.must(err)
	device := w.keyed("valve", firstKey)
	device.scope = made.ID
	return device, made
}

// wantGone expects that a core serves nothing of the scope any more, and that its hub was dropped once for each core that knew it.
func (w *world) wantGone(core *registration.Core, device *keyed, id string, drops int) {
	w.Helper()
	if _, known := core.HubScope(plant); known || core.HostScope(plant) != "" || core.Certificate(plant) != nil {
		w.Errorf("the names of the scope are still served")
	}
	list, err := core.Scopes(operator)
	w.must(err)
	if slices.ContainsFunc(list, func(s registration.ScopeShown) bool { return s.ID == id }) {
		w.Errorf("the scope is still listed")
	}
	_, err = core.Register(w.ctx, device.request(device.token(time.Hour)))
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownScope)
	if want := slices.Repeat([]string{id + " " + plant}, drops); !slices.Equal(w.hub.dropped, want) {
		w.Errorf("dropped %q, want %q", w.hub.dropped, want)
	}
}

// The scopes cannot be read after the delete was written: it is true from the answer on all the same.
func TestADeleteHoldsThoughTheScopesCannotBeReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	device, made := w.inPlant()
	w.store.failNext("Scopes", 1, before)
	w.must(w.core.DeleteScope(w.ctx, operator, made.ID))
	w.wantGone(w.core, device, made.ID, 1)
	w.wantFault(w.core.DeleteScope(w.ctx, operator, made.ID), dps.CodeScopeNotFound, registration.ReasonScopeMissing)
	w.must(w.core.Maintain(w.ctx))
	w.wantGone(w.core, device, made.ID, 1)
	w.newScope(plant) // the name is free
}

// The store has done it and says that it failed: nothing is claimed, and nothing of the scope is served.
func TestADeleteOfUnknownOutcomeIsLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	device, made := w.inPlant()
	w.store.failNext("DeleteScope", 1, before)
	w.wantFault(w.core.DeleteScope(w.ctx, operator, made.ID), dps.CodeUnavailable, registration.ReasonStoreDown)
	if len(w.hub.dropped) != 0 || w.core.HostScope(plant) != made.ID {
		t.Error("a scope that is there is not served")
	}
	w.store.failNext("DeleteScope", 1, after)
	w.wantFault(w.core.DeleteScope(w.ctx, operator, made.ID), dps.CodeUnavailable, registration.ReasonStoreDown)
	w.wantGone(w.core, device, made.ID, 1)
}

// Both writing and reading again fail, so the scope is served on; the next attempt finds it missing and ends it.
func TestADeleteThatFindsNothingEndsWhatIsStillServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	device, made := w.inPlant()
	w.store.failNext("DeleteScope", 1, after)
	w.store.failNext("Scopes", 2, before)
	w.wantFault(w.core.DeleteScope(w.ctx, operator, made.ID), dps.CodeUnavailable, registration.ReasonStoreDown)
	if w.core.HostScope(plant) != made.ID {
		t.Fatal("this test needs a scope that is deleted and still served")
	}
	w.wantFault(w.core.DeleteScope(w.ctx, operator, made.ID), dps.CodeScopeNotFound, registration.ReasonScopeMissing)
	w.wantGone(w.core, device, made.ID, 1)
}

func TestADeleteReachesMemoryThoughItsCallerHasGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	device, made := w.inPlant()
	ctx, giveUp := context.WithCancel(w.ctx)
	w.store.beforeNext("DeleteScope", giveUp)
	w.must(w.core.DeleteScope(ctx, operator, made.ID))
	w.wantGone(w.core, device, made.ID, 1)
}

// The key of the owner policy is shown once, so it is shown though the scopes cannot be read again, and the scope is served.
func TestACreatedScopeShowsItsKeyThoughTheScopesCannotBeReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.store.failNext("Scopes", 1, before)
	device, made := w.inPlant()
	_, err := w.core.Authorize(w.ctx, plant, "/", w.serviceToken(made.PrimaryKey, plant, made.Policy, time.Hour), "", registration.AllRights, w.clock.Now())
	w.must(err)
	_, err = device.register(device.token(time.Hour))
	w.must(err)
	shown, err := w.core.ScopeNamed(operator, made.ID)
	w.must(err)
	if w.core.Certificate(plant) == nil || shown.CertificateEnd != made.CertificateEnd {
		t.Errorf("shown as %+v", shown)
	}
	w.store.take()
	w.must(w.core.Maintain(w.ctx))
	if reads := w.store.take()["Scopes"]; reads != 1 {
		t.Errorf("maintenance has read the scopes %d times: what is kept is not what is stored", reads)
	}
}

func TestACreateOfUnknownOutcomeIsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.store.failNext("CreateScope", 1, after)
	_, err := w.core.CreateScope(w.ctx, operator, []string{plant})
	w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
	id := w.core.HostScope(plant)
	w.must(w.core.DeleteScope(w.ctx, operator, id)) // its key is not known to anybody, so it is made anew
	w.newScope(plant)
}

func TestOtherNodesFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.newCore()
	device, made := w.inPlant()
	if other.HostScope(plant) != "" {
		t.Fatal("this test needs a node that knows nothing of it")
	}
	w.must(other.FollowScopes(w.ctx))
	if other.HostScope(plant) != made.ID {
		t.Error("a new scope is not known")
	}
	w.must(w.core.DeleteScope(w.ctx, operator, made.ID))
	w.must(other.FollowScopes(w.ctx))
	w.wantGone(other, device, made.ID, 2) // each node has sessions of its own
	w.store.take()
	w.must(other.FollowScopes(w.ctx))
	if calls := w.store.take(); calls["Scopes"] != 0 {
		t.Errorf("with nothing new the scopes are read: %v", calls)
	}
	w.must(other.Maintain(w.ctx))
	if reads := w.store.take()["Scopes"]; reads != 1 {
		t.Errorf("maintenance reads the scopes %d times", reads)
	}
}

// A change is seen by all requests that are under way at once, strangers' too. One of them reads the scopes, the others wait for it.
func TestOneChangeIsReadOnceHoweverManySeeIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.newCore()
	w.inPlant()
	w.store.take()
	const crowd = 20
	var all sync.WaitGroup
	w.store.beforeNext("Scopes", func() { // one reads, and the others come
		var seen sync.WaitGroup
		for range crowd {
			seen.Add(1)
			w.store.beforeNext("ScopesRevision", seen.Done)
			all.Go(func() {
				if err := other.FollowScopes(w.ctx); err != nil {
					t.Error(err)
				}
			})
			seen.Wait()
		}
	})
	w.must(other.FollowScopes(w.ctx))
	all.Wait()
	if reads := w.store.take()["Scopes"]; reads != 1 {
		t.Errorf("the scopes were read %d times", reads)
	}
}

// What an access policy may is the store's to say at every request: a key that was taken at one node opens nothing at another, from the answer on.
func TestAnAccessPolicyIsTheSameAtEveryNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.newCore()
	ask := func(key dps.KeySigner, name string) error {
		return second(other.Authorize(w.ctx, hubOne, "/", w.serviceToken(key, hubOne, name, time.Hour), "", registration.EnrollmentRead, w.clock.Now()))
	}
	made := w.putPolicy("line", registration.EnrollmentRead)
	w.must(ask(made.Primary, "line"))
	w.regenerate("line", registration.PrimaryKey)
	w.wantFault(ask(made.Primary, "line"), dps.CodeUnauthorized, registration.ReasonAdminToken)
	w.must(ask(made.Secondary, "line"))
	w.putPolicy("line", registration.RegistrationStatusRead)
	w.wantFault(ask(made.Secondary, "line"), dps.CodeUnauthorized, registration.ReasonAdminRight)
	w.must(w.core.DeletePolicy(w.ctx, operator, "line"))
	w.wantFault(ask(made.Secondary, "line"), dps.CodeUnauthorized, registration.ReasonAdminToken)

	// Who cannot look says so, and lets nobody in by what it remembers.
	again := w.putPolicy("line", registration.EnrollmentRead)
	w.must(ask(again.Primary, "line"))
	w.store.failNext("ScopesRevision", 1, before)
	w.wantFault(ask(again.Primary, "line"), dps.CodeUnavailable, registration.ReasonStoreDown)
}
