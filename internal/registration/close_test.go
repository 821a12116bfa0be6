package registration_test

import (
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// closingToken answers a challenge for closing.
func (d *device) closingToken() string {
	d.Helper()
	answer, err := d.world.core.Close(d.world.ctx, d.request(""))
	d.world.must(err)
	return d.token(d.open(registration.Answer{Challenge: answer.Challenge}), time.Hour)
}

func (d *device) closeWith(token string) (registration.ClosingAnswer, error) {
	return d.world.core.Close(d.world.ctx, d.request(token))
}

// closed closes the registration and waits until the service says that the key is dead.
func (d *device) closed() (token string) {
	d.Helper()
	token = d.closingToken()
	answer, err := d.closeWith(token)
	d.world.must(err)
	for range 5 {
		if !answer.Closing {
			return token
		}
		_, err = d.world.core.Deliver(d.world.ctx)
		d.world.must(err)
		answer, err = d.closeWith(token)
		d.world.must(err)
	}
	panic("it is closing for ever")
}

// A device that closes its registration is gone from its hub before it hears so, is not let in again, and the operator sees who did it.
func TestADeviceClosesItsRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("press")
	d.register()
	token := d.closingToken()
	answer, err := d.closeWith(token)
	w.must(err)
	if !answer.Closing || answer.RetryAfter <= 0 || !w.atHub("press") {
		t.Fatalf("%+v: nobody has been at the hub yet", answer)
	}
	again, err := d.closeWith(token) // whose answer was lost
	w.must(err)
	if !again.Closing || again.TrackingID != answer.TrackingID {
		t.Errorf("a repeat hears %+v", again)
	}
	_, err = w.core.Deliver(w.ctx)
	w.must(err)
	if answer, err = d.closeWith(token); err != nil || answer.Closing {
		t.Fatalf("%+v, %v", answer, err)
	}
	if w.atHub("press") {
		t.Error("its identity is at the hub still")
	}
	is := w.snapshot("press")
	wire, err := w.core.Enrollment(w.ctx, operator, "press")
	w.must(err)
	if is.Registration != nil || !is.Enrollment.Disabled || wire.ProvisioningStatus != dps.EnrollmentDisabled || wire.ClosedByDevice.IsZero() {
		t.Errorf("left: %+v, %s", is, wire.Encode())
	}
	w.told(answer.TrackingID, registration.ActionClose, `"registration":{"status":"assigned"`)
	w.told(answer.TrackingID, registration.ActionHubRemove, "done")
	_, err = d.prove(d.token(d.challenge(), time.Hour))
	w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
	d.closed() // once more changes no more
	w.wantSound("press")
}

// A token that closed a registration is spent: enabled again, the device is not closed by whoever has it.
func TestACapturedClosingDoesNothingLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("press")
	d.register()
	token := d.closed()
	d.enroll("*", nil)
	if wire, err := w.core.Enrollment(w.ctx, operator, "press"); err != nil || !wire.ClosedByDevice.IsZero() {
		t.Errorf("an entry that is enabled again says %s, %v", wire.Encode(), err)
	}
	d.register()
	_, err := d.closeWith(token)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	if r := w.snapshot("press").Registration; r == nil || r.Status != registration.Assigned {
		t.Errorf("registration %+v", r)
	}
}

// A proof made for registering closes nothing, and one made for closing registers nothing.
func TestAChallengeForClosingIsForNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("press")
	d.register()
	before := w.snapshot("press")
	_, err := d.closeWith(d.token(d.challenge(), time.Hour))
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	_, err = d.prove(d.closingToken())
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	if is := w.snapshot("press"); is.Generation != before.Generation || is.Registration == nil {
		t.Error("something was redeemed")
	}
}

// Strangers, and devices that prove themselves otherwise, learn nothing and close nothing.
func TestStrangersCloseNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("press")
	d.register()
	_, err := w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	for _, id := range []string{"press", "valve", "nobody"} {
		stranger := w.device(id, softtpm.ECC, 2)
		_, err := w.core.Close(w.ctx, stranger.request(""))
		if w.wantFault(err, dps.CodeNotEnrolled, faultReason(err)); err == nil {
			t.Errorf("%s: challenged", id)
		}
		_, err = stranger.closeWith(stranger.token(firstKey, time.Hour))
		if fault := w.wantFault(err, dps.CodeUnauthorized, faultReason(err)); fault.Detail == "" {
			t.Errorf("%s: nothing says who may", id)
		}
	}
	if w.snapshot("press").Registration == nil || w.snapshot("valve").Enrollment.Disabled {
		t.Error("something was closed")
	}
}

// atHub says whether the embedded hub has an identity of that name.
func (w *world) atHub(deviceID string) bool {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	d := w.hub.devices[scopeOne+" "+deviceID]
	return d != nil && !d.removed
}

func faultReason(err error) registration.Reason {
	if fault, ok := err.(*registration.Fault); ok {
		return fault.Reason
	}
	return registration.ReasonNone
}

// Whoever is first, a device that registers while it is closed has no live key after it has heard that it is closed.
func TestManyCloseAndRegisterAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("press")
	d.register()
	closing, proof := d.closingToken(), d.token(d.challenge(), time.Hour)
	var all sync.WaitGroup
	var mu sync.Mutex
	acknowledged := false
	for range 50 {
		all.Go(func() {
			answer, err := d.closeWith(closing)
			mu.Lock()
			defer mu.Unlock()
			acknowledged = acknowledged || err == nil && !answer.Closing
			if err != nil && faultReason(err) != registration.ReasonTokenSignature {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := d.prove(proof); err != nil && faultReason(err) != registration.ReasonTokenSignature && faultReason(err) != registration.ReasonConflict {
				t.Error(err)
			}
		})
	}
	all.Wait()
	is := w.snapshot("press")
	if is.Enrollment.Disabled == (is.Registration != nil) || is.Generation != 2 {
		t.Fatalf("neither closed nor registered: %+v", is)
	}
	d.closed()
	if w.atHub("press") || w.snapshot("press").Registration != nil {
		t.Error("a key is alive after the closing was acknowledged")
	}
	w.wantSound("press")
}

// The store fails at each call, before or after its effect: the device repeats, or begins anew, and comes to the same end.
func TestClosingSurvivesEveryFailureOfTheStore(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Device", "CloseRegistration", "Closure", "Owners"} {
		for _, when := range []moment{before, after} {
			t.Run(call+" "+when.String(), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				d := w.enrolled("press")
				d.register()
				token := d.closingToken()
				w.store.failNext(call, 1, when)
				if _, err := d.closeWith(token); err != nil {
					w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
				}
				w.store.heal()
				answer, err := d.closeWith(token)
				w.must(err)
				for range 5 {
					if !answer.Closing {
						break
					}
					_, err = w.core.Deliver(w.ctx)
					w.must(err)
					answer, err = d.closeWith(token)
					w.must(err)
				}
				if w.atHub("press") || answer.Closing {
					t.Errorf("%+v; at the hub: %t", answer, w.atHub("press"))
				}
				w.wantSound("press")
			})
		}
	}
}
