package registration_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// hurried is the world's store with an outbox whose leases and postponements are over at once. It notes how long the postponements were to be.
type hurried struct {
	*tapStore
	mu    sync.Mutex
	waits []time.Duration
	whys  []string
}

func (s *hurried) ClaimOutbox(ctx context.Context, claim registration.OutboxClaim) ([]registration.OutboxRow, error) {
	claim.Lease = 0
	return through(s.tap, "ClaimOutbox", func() ([]registration.OutboxRow, error) { return s.Store.ClaimOutbox(ctx, claim) })
}

func (s *hurried) SettleOutbox(ctx context.Context, scope string, work registration.Outbox, claim string) (registration.Verdict, error) {
	return through(s.tap, "SettleOutbox", func() (registration.Verdict, error) { return s.Store.SettleOutbox(ctx, scope, work, claim) })
}

func (s *hurried) PostponeOutbox(ctx context.Context, scope string, work registration.Outbox, claim string, by time.Duration, why string) (registration.Verdict, error) {
	s.mu.Lock()
	s.waits, s.whys = append(s.waits, by), append(s.whys, why)
	s.mu.Unlock()
	return through(s.tap, "PostponeOutbox", func() (registration.Verdict, error) { return s.Store.PostponeOutbox(ctx, scope, work, claim, 0, why) })
}

// hurry gives the world a core whose store is hurried.
func (w *world) hurry() *hurried {
	s := &hurried{tapStore: w.store}
	w.core = w.coreOn(s, w.clock.Now)
	return s
}

// away is a device whose key the operator has replaced while the hub was served elsewhere: its operation stays assigning.
type away struct {
	*keyed
	token, operation string
}

func (w *world) away(id string) away {
	w.Helper()
	_, err := w.put(id, keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	w.keyed(id, firstKey).assigned()
	_, err = w.put(id, keysBody(secondKey, thirdKey, ""), "*")
	w.must(err)
	w.hub.move(registration.Elsewhere)
	k := w.keyed(id, secondKey)
	a := away{keyed: k, token: k.token(time.Hour)}
	answer, err := k.register(a.token)
	w.must(err)
	a.operation = answer.Status.OperationID
	return a
}

// polled wants the status that a poll at a core shows.
func (a away) polled(core *registration.Core, want string) {
	a.Helper()
	answer, err := core.Poll(a.ctx, a.request(a.token), a.operation)
	a.must(err)
	if answer.Status.Status != want || (want == dps.StatusAssigning) != (answer.RetryAfter > 0) {
		a.Fatalf("the poll shows %s, come again in %s; want %s", answer.Status.Status, answer.RetryAfter, want)
	}
}

func (w *world) delivered(core *registration.Core, done, failed int) {
	w.Helper()
	got, err := core.Deliver(w.ctx)
	w.must(err)
	if want := (registration.Delivery{Done: done, Failed: failed}); got != want {
		w.Fatalf("delivery %+v, want %+v", got, want)
	}
}

func (w *world) waiting(want int) {
	w.Helper()
	backlog, err := w.inner.OutboxBacklog(w.ctx)
	w.must(err)
	if backlog.Waiting != want {
		w.Fatalf("%d rows in the outbox, want %d", backlog.Waiting, want)
	}
}

// A key that changes while the hub's sessions are another process's is not shown before that process has ended them.
func TestAChangedKeyWaitsForTheProcessThatServesTheHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.away("valve")
	here, there := w.core, w.newCore()
	w.waiting(1)
	for range 3 {
		a.polled(here, dps.StatusAssigning)
		w.delivered(here, 0, 0)
		w.must(here.Maintain(w.ctx))
	}
	if at := w.hub.device("valve"); at.cuts != 0 || string(at.key) != string(firstKey) {
		t.Fatal("the hub was given the key by a process that does not serve it")
	}
	w.hub.move(registration.Here) // as the other process sees it
	w.delivered(there, 1, 0)
	w.hub.move(registration.Elsewhere)
	if at := w.hub.device("valve"); at.cuts != 1 || string(at.key) != string(secondKey) {
		t.Error("the hub was not given the key")
	}
	a.polled(here, dps.StatusAssigned)
	w.waiting(0)
}

// Where no session can hang on what a device had before, the node it came to does all of it, and leaves nothing behind.
func TestAFirstRegistrationNeedsNoOtherProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hub.move(registration.Elsewhere)
	_, err := w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	for range 3 {
		w.keyed("valve", firstKey).assigned()
		w.waiting(0)
		w.clock.advance(time.Second)
	}
}

func TestWorkThatIsDoneHereIsNoRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	w.hub.failNext("EnsureDevice", 1, before)
	k := w.keyed("valve", firstKey)
	w.must(second(k.register(k.token(time.Hour))))
	w.waiting(0)
	w.hub.move(registration.Unserved) // nobody serves it now, but somebody may soon
	w.hub.failNext("EnsureDevice", 1, before)
	w.clock.advance(time.Second)
	w.must(second(k.register(k.token(time.Hour))))
	w.waiting(1)
	w.delivered(w.core, 1, 0)
	w.waiting(0)
}

// What fails rests longer each time, says why, and is done in the end. The device is told to come again, and nothing else.
func TestWhatCannotBeDeliveredRestsLongerEachTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.away("valve")
	s := w.hurry()
	w.hub.move(registration.Here)
	const times = 12
	w.hub.failNext("EnsureDevice", 2*times, after) // each poll tries too
	for range times {
		w.delivered(w.core, 0, 1)
		a.polled(w.core, dps.StatusAssigning)
		w.waiting(1)
	}
	bound := time.Second
	for i, wait := range s.waits {
		if wait < bound/2 || wait > bound {
			t.Errorf("wait %d is %s, want %s to %s", i+1, wait, bound/2, bound)
		}
		bound = min(2*bound, 5*time.Minute)
	}
	rows, err := w.inner.ClaimOutbox(w.ctx, registration.OutboxClaim{ID: "look", Kind: registration.OutboxAdvance, Limit: 10})
	w.must(err)
	if len(rows) != 1 || rows[0].Attempts != times+1 || !strings.Contains(rows[0].Failure, errInjected.Error()) || len(rows[0].Failure) > 200 {
		t.Errorf("rows %+v", rows)
	}
	logged := string(w.logs.Bytes())
	if n := strings.Count(logged, "outbox: not delivered"); n != times || !strings.Contains(logged, `"attempts":12`) {
		t.Errorf("%d warnings", n)
	}
	w.delivered(w.core, 1, 0)
	a.polled(w.core, dps.StatusAssigned)
	w.waiting(0)
}

func TestPostponementsAreBoundedAndSpread(t *testing.T) {
	t.Parallel()
	for _, attempts := range []int{0, 1, 2, 9, 10, 11, 12, 63, 64, 65, 1 << 40} {
		least, most := registration.Postponement(attempts, 0), registration.Postponement(attempts, 1)
		if least < time.Second/2 || most != 2*least || most > 5*time.Minute {
			t.Errorf("attempt %d: %s to %s", attempts, least, most)
		}
		if attempts >= 10 && most != 5*time.Minute {
			t.Errorf("attempt %d: %s", attempts, most)
		}
	}
}

// A row is looked at once and goes when nothing is to be done for it.
func TestWorkThatIsNeededNoMoreGoes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(a away){
		"registered again": func(a away) {
			a.clock.advance(time.Second)
			a.hub.move(registration.Here)
			a.keyed.assigned()
		},
		"registration deleted": func(a away) { a.must(a.core.DeleteRegistration(a.ctx, operator, a.id, "")) },
		"enrollment deleted":   func(a away) { a.must(a.core.DeleteEnrollment(a.ctx, operator, a.id, "")) },
		"shut out": func(a away) {
			_, err := a.put(a.id, keysBody(secondKey, thirdKey, `,"provisioningStatus":"disabled"`), "*")
			a.must(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.away("valve")
			change(a)
			cuts := w.hub.device("valve").cuts
			w.waiting(1)
			w.hub.move(registration.Here)
			w.delivered(w.core, 1, 0)
			w.waiting(0)
			if w.hub.device("valve").cuts != cuts {
				t.Error("the key was changed all the same")
			}
		})
	}
}

// blinkered is a node that has not heard of the first scope yet.
type blinkered struct{ *hurried }

func (s blinkered) Scopes(ctx context.Context) ([]registration.Scope, error) {
	all, err := s.hurried.Scopes(ctx)
	return slices.DeleteFunc(all, func(scope registration.Scope) bool { return scope.ID == scopeOne }), err
}

func TestWorkOfAScopeThatANodeDoesNotKnowIsLeftToOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.away("valve")
	s := w.hurry()
	w.hub.move(registration.Here)
	w.delivered(w.coreOn(blinkered{s}, w.clock.Now), 0, 1)
	w.waiting(1)
	w.delivered(w.core, 1, 0)
	a.polled(w.core, dps.StatusAssigned)
}

// However a call of the outbox or the hub fails, the work is done once and the row goes.
func TestEveryCallOfADeliveryMayFailOnEitherSideOfItsEffect(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"ClaimOutbox", "SettleOutbox", "Operation", "Device", "EnsureDevice", "Finish"} {
		for _, when := range []moment{before, after} {
			t.Run(fmt.Sprint(call, " ", when), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				a := w.away("valve")
				w.hub.move(registration.Here)
				w.away("gone")
				w.must(w.core.DeleteRegistration(w.ctx, operator, "gone", ""))
				s := w.hurry()
				w.hub.move(registration.Here)
				if call == "EnsureDevice" {
					w.hub.failNext(call, 1, when)
				} else {
					s.failNext(call, 1, when)
				}
				_, err := w.core.Deliver(w.ctx)
				if call == "ClaimOutbox" && !errors.Is(err, errInjected) {
					t.Errorf("the delivery says %v", err)
				}
				for range 3 { // as often as the daemon likes
					_, err = w.core.Deliver(w.ctx)
					w.must(err)
				}
				w.waiting(0)
				a.polled(w.core, dps.StatusAssigned)
				if cuts := w.hub.device("valve").cuts; cuts != 1 {
					t.Errorf("%d sessions cut", cuts)
				}
			})
		}
	}
}

// The node that has claimed the row dies; another takes it over. Both deliver in the end, and it does no harm.
func TestTwoNodesMayDeliverTheSameWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.away("valve")
	s := w.hurry()
	w.hub.move(registration.Here)
	heir := w.core
	w.hub.beforeNext("EnsureDevice", func() { w.delivered(heir, 1, 0) }) // while the first is at it
	w.delivered(w.coreOn(s, w.clock.Now), 1, 0)
	a.polled(w.core, dps.StatusAssigned)
	w.waiting(0)
	if at := w.hub.device("valve"); at.cuts != 1 {
		t.Errorf("%d sessions cut", at.cuts)
	}
	rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, w.snapshot("valve").Operation.TrackingID)
	w.must(err)
	if len(rows) != 2 { // the proof and the assignment
		t.Errorf("%d audit rows of the operation", len(rows))
	}
}

// A service that is told to stop gives back what it has claimed and not done, so that nobody waits for a lease.
func TestAServiceThatStopsGivesItsWorkBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.away("valve")
	w.hub.move(registration.Here)
	s := &hurried{tapStore: w.store} // for its postponement alone
	core := w.coreOn(s, w.clock.Now)
	ctx, stop := context.WithCancel(w.ctx)
	w.hub.hang(stop)
	if _, err := core.Deliver(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the delivery says %v", err)
	}
	w.hub.recover()
	w.delivered(w.core, 1, 0)
	a.polled(w.core, dps.StatusAssigned)
}

// Clocks of nodes do not matter to the outbox: the one that redeemed is a day ahead or behind.
func TestNodesWhoseClocksDifferShareTheOutbox(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{2 * time.Minute, -2 * time.Minute, 24 * time.Hour, -24 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.away("valve")
			w.hub.move(registration.Here)
			other := w.coreOn(w.store, func() time.Time { return w.clock.Now().Add(skew) })
			w.delivered(other, 1, 0)
			a.polled(w.core, dps.StatusAssigned)
		})
	}
}
