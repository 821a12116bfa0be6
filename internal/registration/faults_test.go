package registration_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// persist is a device that does not give up: it repeats what failed with advice to retry, and starts again after a 401.
func (d *device) persist() registered {
	d.Helper()
	for range 10 {
		answer, err := d.core.Register(d.ctx, d.request(""))
		if d.retryable(err) {
			continue
		}
		got := registered{challenge: d.open(answer)}
		got.token = d.token(got.challenge, time.Hour)
		if d.persistProof(&got) && d.persistPoll(&got) {
			return got
		}
	}
	d.Fatalf("the device did not get through")
	return registered{}
}

func (d *device) persistProof(got *registered) bool {
	d.Helper()
	for range 10 {
		answer, err := d.prove(got.token)
		if err == nil {
			got.operation = answer.Status.OperationID
			return true
		}
		if !d.retryable(err) {
			return false
		}
	}
	d.Fatalf("the proof did not get through")
	return false
}

func (d *device) persistPoll(got *registered) bool {
	d.Helper()
	for range 10 {
		answer, err := d.poll(got.operation, got.token)
		switch {
		case d.retryable(err):
		case err != nil, answer.Status.Status == dps.StatusFailed:
			return false
		case answer.Status.Status == dps.StatusAssigned:
			got.state, got.hubKey = d.assigned(answer)
			return true
		case answer.RetryAfter == 0:
			d.Errorf("assigning without advice when to ask again")
		}
	}
	d.Fatalf("the poll did not get through")
	return false
}

// retryable tells a failure of the service from a refusal, and holds it to P6: advice when to retry, and nothing else said.
func (d *device) retryable(err error) bool {
	d.Helper()
	if err == nil {
		return false
	}
	var fault *registration.Fault
	if !errors.As(err, &fault) {
		d.Fatalf("not a fault: %v", err)
	}
	if fault.Code.Status() < 500 {
		return false
	}
	if fault.Code != dps.CodeUnavailable || fault.Reason != registration.ReasonStoreDown || fault.RetryAfter <= 0 || fault.Detail != "" {
		d.Errorf("a failing store gave %+v", fault)
	}
	return true
}

// Each call of the store and of the hub fails once, before and after its effect, at each place of three registrations; the device
// retries, and ends assigned with the key that the hub holds. test/steps goes further, and needs PostgreSQL.
func TestEveryCallMayFailOnEitherSideOfItsEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, story := range faultStories {
		t.Run(story.name, func(t *testing.T) {
			calls := w.in(t).callsOf(story)
			for _, name := range []string{"Device", "Owners", "Redeem", "EnsureDevice", "Finish"} {
				if calls[name] == 0 {
					t.Errorf("%s makes no call of %s: the test looks in the wrong place", story.name, name)
				}
			}
			for _, name := range slices.Sorted(maps.Keys(calls)) {
				for nth := range calls[name] {
					for _, when := range []moment{before, after} {
						t.Run(fmt.Sprintf("%s %d fails %s its effect", name, nth+1, when), func(t *testing.T) {
							w.in(t).failOnce(story, name, nth, when)
						})
					}
				}
			}
		})
	}
}

type faultStory struct {
	name    string
	prepare func(d *device)
	spent   uint64 // redemptions that prepare made
	newKey  bool   // another than before
}

var faultStories = []faultStory{
	{"a first registration", func(*device) {}, 0, true},
	{"the same owner again", func(d *device) { d.register() }, 1, false},
	{"a new owner", func(d *device) { d.register(); d.chip.Clear() }, 1, true},
}

var faultDevices = 0

func (w *world) faultDevice(story faultStory) *device {
	faultDevices++
	d := w.enrolled(fmt.Sprintf("device-%d", faultDevices))
	story.prepare(d)
	w.store.take()
	w.hub.take()
	return d
}

// callsOf counts the calls of a registration in which nothing fails.
func (w *world) callsOf(story faultStory) map[string]int {
	w.faultDevice(story).persist()
	calls := w.store.take()
	for name, n := range w.hub.take() {
		calls[name] = n
	}
	return calls
}

func (w *world) failOnce(story faultStory, name string, nth int, when moment) {
	w.Helper()
	d := w.faultDevice(story)
	prior := w.hub.device(d.id)
	if name == "EnsureDevice" {
		w.hub.plan(name, nth, 1, when)
	} else {
		w.store.plan(name, nth, 1, when)
	}
	got := d.persist()
	w.wantSound(d.id)
	snapshot := w.snapshot(d.id)
	if r := snapshot.Registration; r == nil || r.Status != registration.Assigned || r.OperationID != got.operation {
		w.Errorf("registration: %+v", r)
	}
	if snapshot.Generation != story.spent+1 {
		w.Errorf("%d redemptions of the faulty registration", snapshot.Generation-story.spent)
	}
	if story.newKey == slices.Equal(prior.key, got.hubKey) {
		w.Errorf("new key: %t", !story.newKey)
	}
	if w.store.pending(name) || w.hub.pending(name) {
		w.Errorf("the fault did not happen")
	}
}

func (t *tap) pending(call string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.faults[call]) > 0
}

// P3: whatever becomes of Finish, no answer carries a key before its row is durable. The poll of every device here checks that; this
// test makes the moment last.
func TestNoKeyLeavesWhileItsAuditRowCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, when := range []moment{before, after} {
		t.Run(when.String(), func(t *testing.T) {
			w := newWorld(t)
			d := w.enrolled("pump")
			token := d.token(d.challenge(), time.Hour)
			w.store.failNext("Finish", 5, when)
			answer, err := d.prove(token)
			w.must(err)
			for range 4 {
				polled, err := d.poll(answer.Status.OperationID, token)
				w.must(err)
				durable := w.snapshot("pump").Operation.Status == registration.Assigned
				if when == before && (polled.Status.Status != dps.StatusAssigning || durable) {
					t.Errorf("status %s, durable %t", polled.Status.Status, durable)
				}
			}
			w.store.heal()
			polled, err := d.poll(answer.Status.OperationID, token)
			w.must(err)
			d.assigned(polled)
		})
	}
}

// P6: with the store down every request is refused with advice, and nothing changes.
func TestAStoreThatIsDownRefusesWithAdvice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d, fresh := w.enrolled("pump"), w.enrolled("valve")
	got := d.register()
	key := fresh.challenge()
	proof := fresh.token(key, time.Hour)
	requests := map[string]func() (registration.Answer, error){
		"first contact": func() (registration.Answer, error) { return d.core.Register(d.ctx, d.request("")) },
		"proof":         func() (registration.Answer, error) { return fresh.prove(proof) },
		"poll":          func() (registration.Answer, error) { return d.poll(got.operation, got.token) },
		"another poll":  func() (registration.Answer, error) { return d.poll("5.gone", got.token) },
		"lookup":        func() (registration.Answer, error) { return fresh.core.Lookup(d.ctx, fresh.request(proof)) },
	}
	for request, call := range map[string]string{
		"first contact": "Device", "proof": "Redeem", "poll": "Device", "another poll": "Operation", "lookup": "Device",
	} {
		w.store.failNext(call, 1, before)
		answer, err := requests[request]()
		if !d.retryable(err) || answer.Status != nil || answer.Challenge != nil {
			t.Errorf("%s with %s failing: %+v, %v", request, call, answer, err)
		}
	}
	if w.snapshot("valve").Registration != nil || w.store.redeemed("valve") != 0 {
		t.Error("a refused request changed something")
	}
	fresh.persist()
}

// A refusal that could not be written is not said: it would be a refusal after proof without its row.
func TestARefusalThatCannotBeWrittenIsNotSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("pump", softtpm.ECC, 0)
	d.enroll("", disabled)
	token := d.token(d.challenge(), time.Hour)
	w.store.failNext("Refuse", 1, before)
	if _, err := d.prove(token); !d.retryable(err) {
		t.Errorf("got %v", err)
	}
	_, err := d.prove(token)
	w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
}

func TestAHubThatHangsEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), time.Hour)
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	w.hub.hang(cancel)
	answer, err := w.core.Register(ctx, d.request(token))
	w.must(err)
	d.wantAccepted(answer)
	w.hub.recover()
	polled, err := d.poll(answer.Status.OperationID, token)
	w.must(err)
	d.assigned(polled)
}

func TestMemoryOfOwnersIsNotNeededForAChallenge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	w.store.failNext("RememberOwner", 1, before)
	d.register()
}

func TestAProofThatAlwaysCollidesEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), time.Hour)
	var collide func()
	collide = func() {
		d.enroll("*", nil)
		w.store.beforeNext("Redeem", collide)
	}
	w.store.beforeNext("Redeem", collide)
	_, err := d.prove(token)
	w.wantFault(err, dps.CodeConflict, registration.ReasonConflict)
	w.store.beforeNext("Redeem", nil)
	_, err = d.prove(token)
	w.must(err)
}
