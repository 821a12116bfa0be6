package registration_test

import (
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

func TestPollsAreLetInByTheAcceptedTokenOrItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	key := d.challenge()
	token := d.token(key, 30*time.Second)
	answer, err := d.prove(token)
	w.must(err)
	operation := answer.Status.OperationID
	brief := d.token(key, 10*time.Second) // under the same key, never redeemed
	w.clock.advance(10*time.Second + registration.TokenLeeway)
	for name, token := range map[string]string{"the accepted one": token, "another": brief} {
		if _, err := d.poll(operation, token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.clock.advance(time.Second)
	_, err = d.poll(operation, brief)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenExpired)
	_, err = d.poll(operation, d.token(key, registration.TokenAhead+time.Second))
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenFuture)
	w.clock.advance(registration.OperationWindow - registration.TokenLeeway - 11*time.Second)
	answer, err = d.poll(operation, token) // long expired, and at the end of the window
	w.must(err)
	d.assigned(answer)
	w.clock.advance(time.Nanosecond)
	for _, token := range []string{token, d.token(key, time.Hour)} {
		_, err = d.poll(operation, token)
		w.wantFault(err, dps.CodeUnauthorized, registration.ReasonOperationClosed)
	}
}

func TestPollsThatAreNotLetIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d, other := w.enrolled("pump"), w.enrolled("valve")
	mine, theirs := d.register(), other.register()
	for _, c := range []struct {
		name             string
		operation, token string
		reason           registration.Reason
	}{
		{"another device's operation", theirs.operation, mine.token, registration.ReasonUnknownOperation},
		{"another device's operation and token", theirs.operation, theirs.token, registration.ReasonTokenOtherResource},
		{"another device's token", mine.operation, theirs.token, registration.ReasonTokenOtherResource},
		{"another device's key", mine.operation, d.token(theirs.challenge, time.Hour), registration.ReasonTokenSignature},
		{"a hub key", mine.operation, d.token(mine.hubKey, time.Hour), registration.ReasonTokenSignature},
		{"an operation that never was", "5.0000000000000000.00000000-0000-0000-0000-000000000000", mine.token, registration.ReasonUnknownOperation},
		{"no operation", "", mine.token, registration.ReasonUnknownOperation},
		{"no token", mine.operation, "", registration.ReasonBadToken},
		{"a password", mine.operation, "Basic cHVtcDpwdW1w", registration.ReasonBadToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, err := d.poll(c.operation, c.token)
			w.wantFault(err, dps.CodeUnauthorized, c.reason)
			if answer.Status != nil || answer.Challenge != nil {
				t.Errorf("the refusal came with %+v", answer)
			}
		})
	}
	d.scope = scopeTwo
	_, err := d.poll(mine.operation, d.token(mine.challenge, time.Hour))
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownOperation)
}

func TestADisabledDeviceGetsNoKeyAtThePoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	got := d.register()
	d.enroll("*", disabled)
	w.store.failNext("AppendAudit", 1, before)
	_, err := d.poll(got.operation, got.token)
	w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
	_, err = d.poll(got.operation, got.token)
	w.wantRefusalAudited(w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled), registration.ActionPoll)
	d.enroll("*", nil)
	answer, err := d.poll(got.operation, got.token)
	w.must(err)
	d.assigned(answer)
}

// wantRefusalAudited expects the refusal of a device that proved itself in the durable audit, under the tracking id it was told.
func (w *world) wantRefusalAudited(fault *registration.Fault, action string) {
	w.Helper()
	rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, fault.TrackingID)
	w.must(err)
	if len(rows) != 1 || rows[0].Action != action || rows[0].Outcome != registration.OutcomeRefused || rows[0].Reason != fault.Reason {
		w.Errorf("audit of the refusal: %+v", rows)
	}
}

func TestADeletedRegistrationsOperationIsUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	for _, remove := range []func() error{
		func() error { return w.core.DeleteRegistration(w.ctx, operator, "pump", "") },
		func() error { return w.core.DeleteEnrollment(w.ctx, operator, "pump", "") },
	} {
		got := d.register()
		w.must(remove())
		_, err := d.poll(got.operation, got.token)
		w.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownOperation)
	}
}

func TestASupersededOperationHasFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	w.hub.failNext("EnsureDevice", 1, before)
	token := d.token(d.challenge(), time.Hour)
	answer, err := d.prove(token)
	w.must(err)
	old := answer.Status.OperationID
	d.chip.Clear()
	d.register()
	answer, err = d.poll(old, token)
	w.must(err)
	state := answer.Status.RegistrationState
	if answer.Status.Status != dps.StatusFailed || state.ErrorCode != dps.CodeConflict || state.ErrorMessage == "" || state.TPM != nil || answer.RetryAfter != 0 {
		t.Errorf("got %+v, %+v", answer, state)
	}
	if at := w.hub.device("pump"); at.generation != w.snapshot("pump").Operation.Revision || at.cuts != 0 {
		t.Errorf("the old operation reached the hub: %+v", at)
	}
}

// The read of a poll may be older than the proof that overtakes it.
func TestAPollThatIsOvertakenByANewOwnerGetsNoKey(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"EnsureDevice", "Finish"} {
		t.Run(call, func(t *testing.T) {
			w := newWorld(t)
			d := w.enrolled("pump")
			w.hub.failNext("EnsureDevice", 1, before)
			token := d.token(d.challenge(), time.Hour)
			answer, err := d.prove(token)
			w.must(err)
			next := w.device("pump", softtpm.ECC, 0)
			next.chip.Clear()
			var won registered
			overtake := func() { won = next.register() }
			if call == "Finish" {
				w.store.beforeNext(call, overtake)
			} else {
				w.hub.beforeNext(call, overtake)
			}
			answer, err = d.poll(answer.Status.OperationID, token)
			w.must(err)
			if answer.Status.Status != dps.StatusFailed {
				t.Errorf("the overtaken poll got %+v", answer.Status)
			}
			if at := w.hub.device("pump"); string(at.key) != string(won.hubKey) {
				t.Error("the hub does not hold the new owner's key")
			}
			w.wantSound("pump")
		})
	}
}

func TestPollsThatFinishTogetherAgree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	w.hub.failNext("EnsureDevice", 1, before)
	token := d.token(d.challenge(), time.Hour)
	answer, err := d.prove(token)
	w.must(err)
	operation := answer.Status.OperationID
	w.store.beforeNext("Finish", func() { // another node finishes between this one's hub call and its write
		answer, err := d.poll(operation, token)
		w.must(err)
		d.assigned(answer)
	})
	answer, err = d.poll(operation, token)
	w.must(err)
	d.assigned(answer)
}

// Another node finishes first, and the database falls before it can be read how: it stays assigning for this one. An answer without an operation
// or a status, which is what it once got, ends many a client.
func TestWhoCannotReadHowAnotherFinishedSaysAssigning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), time.Hour)
	w.store.beforeNext("Finish", func() {
		w.clock.advance(time.Minute)
		w.must(w.core.Resume(w.ctx))
	})
	w.store.failNext("Operation", 1, before)
	answer, err := d.prove(token)
	w.must(err)
	d.wantAccepted(answer)

	other := w.enrolled("valve")
	w.hub.failNext("EnsureDevice", 1, before)
	token = other.token(other.challenge(), time.Hour)
	answer, err = other.prove(token)
	w.must(err)
	operation := answer.Status.OperationID
	w.store.beforeNext("Finish", func() {
		answer, err := other.poll(operation, token)
		w.must(err)
		other.assigned(answer)
	})
	w.store.failNext("Operation", 1, before)
	answer, err = other.poll(operation, token)
	w.must(err)
	if answer.Status.Status != dps.StatusAssigning || answer.Status.OperationID != operation || answer.RetryAfter != registration.PollAdvice {
		t.Errorf("the poll got %+v", answer.Status)
	}
	answer, err = other.poll(operation, token)
	w.must(err)
	other.assigned(answer)
}

func TestAFailingHubLeavesTheOperationAssigning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	w.hub.failNext("EnsureDevice", 3, before)
	token := d.token(d.challenge(), time.Hour)
	answer, err := d.prove(token)
	w.must(err)
	for range 2 {
		polled, err := d.poll(answer.Status.OperationID, token)
		w.must(err)
		if polled.Status.Status != dps.StatusAssigning || polled.RetryAfter != registration.PollAdvice {
			t.Errorf("while the hub fails: %+v", polled)
		}
	}
	polled, err := d.poll(answer.Status.OperationID, token)
	w.must(err)
	d.assigned(polled)
	if log := string(w.logs.Bytes()); strings.Count(log, errInjected.Error()) != 3 {
		t.Errorf("the log does not tell of the hub's three failures:\n%s", log)
	}
}

// What the operator does between proof and poll counts as well: the key leaves at the poll.
func TestAnOwnerThatIsNoLongerLetInGetsNoKeyAtThePoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, reached := range []string{"assigned", "assigning"} {
		t.Run(reached, func(t *testing.T) {
			w := w.in(t)
			d, other := w.enrolled("pump-"+reached), softtpm.New(softtpm.ECC, 1)
			if reached == "assigning" {
				w.hub.failNext("EnsureDevice", 1, before)
			}
			token := d.token(d.challenge(), time.Hour)
			answer, err := d.prove(token)
			w.must(err)
			operation := answer.Status.OperationID
			w.hub.take()

			d.enroll("*", d.pinning(other.SRK.Bytes()))
			_, err = d.poll(operation, token)
			w.wantFault(err, dps.CodeRefusedOwner, registration.ReasonPinnedSRK)

			(&device{world: w, id: d.id, chip: other}).enroll("*", nil)
			answer, err = d.poll(operation, token)
			w.must(err)
			if state := answer.Status.RegistrationState; state.Status != dps.StatusFailed || state.TPM != nil {
				t.Errorf("under a replaced EK the poll got %+v", state)
			}
			if calls := w.hub.take(); calls["EnsureDevice"] != 0 {
				t.Error("the refused polls went to the hub")
			}

			d.enroll("*", d.pinning(d.chip.SRK.Bytes()))
			answer, err = d.poll(operation, token)
			w.must(err)
			d.assigned(answer)
		})
	}
}
