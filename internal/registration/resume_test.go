package registration_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// A new owner's proof was accepted while the hub was down, and the device never came back to poll. The old owner's key must not live on
// at the hub, however long it takes, and pruning must not lose what is still to be done.
func TestAnAcceptedProofReachesTheHubThoughNobodyPolls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	first := d.register()
	d.chip.Clear()
	w.hub.failNext("EnsureDevice", 2, before)
	_, err := d.prove(d.token(d.challenge(), time.Hour))
	w.must(err)
	w.clock.advance(2 * registration.OperationWindow)
	if err := w.core.Maintain(w.ctx); err == nil {
		t.Error("maintenance with the hub down reports no failure")
	}
	if at := w.hub.device("pump"); string(at.key) != string(first.hubKey) {
		t.Fatal("the hub was reached: the test proves nothing")
	}
	w.must(w.core.Maintain(w.ctx))
	at := w.hub.device("pump")
	if string(at.key) == string(first.hubKey) || at.cuts != 1 {
		t.Errorf("the old owner's key or session lives on: %+v", at)
	}
	if r := w.snapshot("pump").Registration; r.Status != registration.Assigned {
		t.Errorf("registration: %s", r.Status)
	}
	w.wantSound("pump")
}

// What is at work in a request of its own is left to it, and a context that ends stops the sweep.
func TestTheSweepLeavesYoungOperationsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	w.hub.failNext("EnsureDevice", 1, before)
	_, err := d.prove(d.token(d.challenge(), time.Hour))
	w.must(err)
	w.must(w.core.Resume(w.ctx))
	if w.snapshot("pump").Operation.Status != registration.Assigning {
		t.Error("an operation younger than a request was swept")
	}
	w.clock.advance(time.Minute)
	ended, cancel := context.WithCancel(w.ctx)
	cancel()
	if err := w.core.Resume(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended sweep says %v", err)
	}
	w.must(w.core.Resume(w.ctx))
	if w.snapshot("pump").Operation.Status != registration.Assigned {
		t.Error("the operation was not swept")
	}
}

// The memory of owners is for clients that omit the tpm object: when it cannot be read, the others do not notice.
func TestAMemoryThatCannotBeReadRefusesOnlyWhoNeedsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	key := d.challenge()
	w.store.failNext("Owners", 1, before)
	_, err := d.prove(d.token(key, time.Hour))
	w.must(err)

	other := w.enrolled("valve")
	other.omitTPM = true
	key = other.challenge()
	w.store.failNext("Owners", 1, before)
	_, err = other.prove(other.token(key, time.Hour))
	w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
	_, err = other.prove(other.token(key, time.Hour))
	w.must(err)
}

// One accepted token polls for ten minutes; refusals of it must not fill the audit.
func TestRefusedPollsAreAuditedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	got := d.register()
	d.enroll("*", disabled)
	audited := 0
	for range 50 {
		_, err := d.poll(got.operation, got.token)
		fault := w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
		rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, fault.TrackingID)
		w.must(err)
		audited += len(rows)
	}
	if audited != 1 {
		t.Errorf("%d audit rows for 50 refused polls", audited)
	}
}

// The etag of the poll that finishes an operation is the one that a management client reads next.
func TestThePollThatFinishesShowsTheNewEtag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	w.hub.failNext("EnsureDevice", 1, before)
	token := d.token(d.challenge(), time.Hour)
	answer, err := d.prove(token)
	w.must(err)
	answer, err = d.poll(answer.Status.OperationID, token)
	w.must(err)
	state, err := w.core.Registration(w.ctx, operator, "pump")
	w.must(err)
	if answer.Status.Status != dps.StatusAssigned || answer.Status.RegistrationState.ETag != state.ETag {
		t.Errorf("polled %+v, read %+v", answer.Status.RegistrationState, state)
	}
}

// What the operator has shut out since the proof is not assigned behind his back: a poll would refuse it too.
func TestTheSweepAssignsNothingThatAPollWouldRefuse(t *testing.T) {
	t.Parallel()
	other := softtpm.New(softtpm.ECC, 7)
	for name, shutOut := range map[string]func(d *device){
		"disabled":      func(d *device) { d.enroll("*", disabled) },
		"another owner": func(d *device) { d.enroll("*", d.pinning(other.SRK.Bytes())) },
		"another chip":  func(d *device) { (&device{world: d.world, scope: d.scope, id: d.id, chip: other}).enroll("*", nil) },
		"deleted":       func(d *device) { d.must(d.core.DeleteEnrollment(d.ctx, operator, d.id, "")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.enrolled("pump")
			w.hub.failNext("EnsureDevice", 1, before)
			_, err := d.prove(d.token(d.challenge(), time.Hour))
			w.must(err)
			shutOut(d)
			w.clock.advance(time.Minute)
			w.must(w.core.Resume(w.ctx))
			if at := w.hub.device("pump"); at.key != nil {
				t.Error("the hub was given a key")
			}
			if r := w.snapshot("pump").Registration; r != nil && r.Status != registration.Assigning {
				t.Errorf("registration: %s", r.Status)
			}
		})
	}
}
