package registration_test

import (
	"context"
	"errors"
	"fmt"
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

// A symmetric key or a certificate proves its device as often as it likes, with no challenge to spend: refusals of it must not fill the
// audit either, and move nothing.
func TestRefusedRegistrationsAreAuditedOnce(t *testing.T) {
	t.Parallel()
	const off = `,"provisioningStatus":"disabled"`
	ca := newCA(t, "plant ca", nil)
	for name, c := range map[string]struct {
		prepare func(w *world) (register func() (registration.Answer, error), err error)
		code    dps.Code
		reason  registration.Reason
	}{
		"disabled, symmetric key": {func(w *world) (func() (registration.Answer, error), error) {
			_, err := w.put("dev", keysBody(firstKey, secondKey, off), "")
			return w.repeating("dev", firstKey), err
		}, dps.CodeDisabled, registration.ReasonDisabled},
		"disabled group, symmetric key": {func(w *world) (func() (registration.Answer, error), error) {
			g, err := w.putGroup("plant", `{"attestation":{"type":"symmetricKey"}`+off+`}`, "")
			return w.repeating("dev", dps.DeriveKey(g.Attestation.SymmetricKey.Primary, "dev")), err
		}, dps.CodeDisabled, registration.ReasonDisabled},
		"disabled group, certificate": {func(w *world) (func() (registration.Answer, error), error) {
			_, err := w.putGroup("plant", signingBody(ca, off), "")
			return w.certified("dev", ca.issue(w.tb, "dev")).register, err
		}, dps.CodeDisabled, registration.ReasonDisabled},
		"device id taken": {func(w *world) (func() (registration.Answer, error), error) {
			_, err := w.put("other", keysBody(secondKey, thirdKey, `,"deviceId":"press-07"`), "")
			w.must(err)
			w.keyed("other", secondKey).assigned()
			_, err = w.put("dev", keysBody(firstKey, secondKey, `,"deviceId":"press-07"`), "")
			return w.repeating("dev", firstKey), err
		}, dps.CodeConflict, registration.ReasonDeviceIDTaken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			register, err := c.prepare(w)
			w.must(err)
			for range 50 {
				_, err := register()
				w.wantFault(err, c.code, c.reason)
			}
			w.wantRefusals("dev", c.reason, 1)
			if g := w.snapshot("dev").Generation; g != 0 {
				t.Errorf("generation %d after refusals", g)
			}
			w.clock.advance(registration.OperationWindow)
			_, err = register()
			w.wantFault(err, c.code, c.reason)
			w.wantRefusals("dev", c.reason, 2)
		})
	}
}

// repeating registers with the same token again and again.
func (w *world) repeating(id string, key []byte) func() (registration.Answer, error) {
	k := w.keyed(id, key)
	token := k.token(time.Hour)
	return func() (registration.Answer, error) { return k.register(token) }
}

// wantRefusals asserts how many refused registrations of an id are in the audit, all for one reason.
func (w *world) wantRefusals(id string, reason registration.Reason, want int) {
	w.Helper()
	rows, err := w.inner.AuditPage(w.ctx, scopeOne, 0, 1000)
	w.must(err)
	got := 0
	for _, a := range rows {
		if a.Outcome != registration.OutcomeRefused || a.Object != id {
			continue
		}
		if got++; a.Action != registration.ActionRegister || a.Reason != reason {
			w.Errorf("a refusal is audited as %+v", a)
		}
	}
	if got != want {
		w.Errorf("%d audit rows of refusals, want %d", got, want)
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

// A whole plant met a hub that was down, and was shut out before it came back: what it left stays for good, and hides no one behind it.
func TestWhatStaysUnfinishedHidesNothingFromTheSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plant, err := w.putGroup("plant", `{"attestation":{"type":"symmetricKey"}}`, "")
	w.must(err)
	_, err = w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	w.hub.failNext("EnsureDevice", registration.ResumePage+1, before)
	for i := range registration.ResumePage {
		id := fmt.Sprint("press-", i)
		k := w.keyed(id, dps.DeriveKey(plant.Attestation.SymmetricKey.Primary, id))
		w.must(second(k.register(k.token(time.Hour))))
	}
	w.clock.advance(time.Second)
	valve := w.keyed("valve", firstKey)
	w.must(second(valve.register(valve.token(time.Hour))))
	_, err = w.putGroup("plant", `{"attestation":{"type":"symmetricKey"},"provisioningStatus":"disabled"}`, "*")
	w.must(err)

	w.clock.advance(time.Minute)
	w.must(w.core.Resume(w.ctx))
	if s := w.snapshot("valve").Registration.Status; s != registration.Assigned {
		t.Errorf("behind %d operations that stay, the device is %s", registration.ResumePage, s)
	}
	if s := w.snapshot("press-0").Registration.Status; s != registration.Assigning {
		t.Errorf("a device that was shut out is %s", s)
	}
}
