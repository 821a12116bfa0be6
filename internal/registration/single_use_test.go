package registration_test

import (
	"fmt"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// P4: a challenge is redeemed once, only by the TPM it was made for, only before it expires.

func TestAChallengeIsRedeemedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	key := d.challenge()
	_, err := d.prove(d.token(key, time.Hour))
	w.must(err)
	for _, d.omitTPM = range []bool{false, true} {
		w.wantUnproven(d.prove(d.token(key, 2*time.Hour)))
	}
}

func TestAChallengeLivesBetweenOneAndTwoSlots(t *testing.T) {
	t.Parallel()
	const slot = registration.SlotLength
	w := newWorld(t)
	for _, c := range []struct {
		made, used time.Duration // since a slot began
		proves     bool
	}{
		{0, 0, true},
		{0, 2*slot - 1, true},
		{0, 2 * slot, false},
		{slot - 1, slot, true},
		{slot - 1, 2*slot - 1, true},
		{slot - 1, 2 * slot, false},
	} {
		t.Run("made at "+c.made.String()+", used at "+c.used.String(), func(t *testing.T) {
			w := w.in(t)
			d := w.enrolled(fmt.Sprintf("pump-%d-%d", c.made, c.used))
			w.clock.advance(c.made)
			key := d.challenge()
			w.clock.advance(c.used - c.made)
			answer, err := d.prove(d.token(key, time.Hour))
			if c.proves {
				w.must(err)
			} else {
				w.wantUnproven(answer, err)
			}
			w.clock.advance(3*slot - c.used) // a slot begins again
		})
	}
}

func TestTheGenerationOutlivesADeletedRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	got := d.register()
	w.must(w.core.DeleteRegistration(w.ctx, operator, "pump", ""))
	w.wantUnproven(d.prove(d.token(got.challenge, 2*time.Hour)))
	w.wantUnproven(d.prove(got.token))
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	d.enroll("", nil)
	w.wantUnproven(d.prove(d.token(got.challenge, 3*time.Hour)))
	d.register()
	w.wantSound("pump")
}

// Long after a registration was deleted its generation may go: no challenge of that time can be redeemed any more, and what the hub
// compares rises all the same.
func TestMaintenanceForgetsAGenerationThatCanDoNoHarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	got := d.register()
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	d.enroll("", nil)
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	w.clock.advance(time.Second)
	w.must(w.core.Maintain(w.ctx))
	w.wantUnproven(d.prove(d.token(got.challenge, 2*time.Hour)))
	w.clock.advance(2 * registration.SlotLength) // the longest that a challenge lives
	w.must(w.core.Maintain(w.ctx))
	if w.snapshot("pump").Generation != 1 {
		t.Error("the generation went with the registration")
	}
	w.clock.advance(5*time.Minute + time.Second)
	w.must(w.core.Maintain(w.ctx))
	if w.snapshot("pump").Generation != 0 {
		t.Error("the generation stays for ever")
	}
	d.enroll("", nil)
	d.register()
}

func TestMaintenanceRemovesOperationsAfterTheirWindowOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	got := d.register()
	w.clock.advance(registration.OperationWindow)
	w.must(w.core.Maintain(w.ctx))
	w.must(second(d.poll(got.operation, got.token)))
	w.clock.advance(time.Minute + time.Second)
	w.must(w.core.Maintain(w.ctx))
	if o := w.snapshot("pump").Operation; o != nil {
		t.Errorf("the operation of %s is still there", o.Created)
	}
	w.wantSound("pump")
	d.register()
}

// What the operator does between challenge and proof counts.
func TestTheEnrollmentChangesBetweenChallengeAndProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := softtpm.New(softtpm.ECC, 1)
	for _, c := range []struct {
		name   string
		change func(d *device)
		code   dps.Code // 0: accepted
		reason registration.Reason
	}{
		{"disabled", func(d *device) { d.enroll("*", disabled) }, dps.CodeDisabled, registration.ReasonDisabled},
		{"deleted", func(d *device) { d.must(d.core.DeleteEnrollment(d.ctx, operator, d.id, "")) }, dps.CodeUnauthorized, registration.ReasonTokenSignature},
		{"deleted-and-made-again", func(d *device) {
			d.must(d.core.DeleteEnrollment(d.ctx, operator, d.id, ""))
			d.enroll("", nil)
		}, 0, 0},
		{"changed", func(d *device) { d.enroll("*", map[string]any{"deviceId": "at-" + d.id}) }, 0, 0},
		{"pinned-to-this-owner", func(d *device) { d.enroll("*", d.pinning(d.chip.SRK.Bytes())) }, 0, 0},
		{"pinned-to-another-owner", func(d *device) { d.enroll("*", d.pinning(other.SRK.Bytes())) }, dps.CodeRefusedOwner, registration.ReasonPinnedSRK},
		{"another-EK", func(d *device) { (&device{world: d.world, id: d.id, chip: other}).enroll("*", nil) }, dps.CodeUnauthorized, registration.ReasonTokenSignature},
	} {
		for _, moment := range []string{"before-the-proof", "during-the-proof"} {
			t.Run(c.name+" "+moment, func(t *testing.T) {
				w := w.in(t)
				d := w.enrolled(c.name + "-" + moment)
				token := d.token(d.challenge(), time.Hour)
				if moment == "before-the-proof" {
					c.change(d)
				} else {
					w.changeDuringRedeem(func() { c.change(d) })
				}
				answer, err := d.prove(token)
				if c.code == 0 {
					w.must(err)
				} else {
					w.wantFault(err, c.code, c.reason)
				}
				if snapshot := w.snapshot(d.id); (snapshot.Registration != nil) != (c.code == 0) || answer.Challenge != nil {
					t.Errorf("registration %+v, answer %+v", snapshot.Registration, answer)
				}
				w.wantSound(d.id)
			})
		}
	}
}

// changeDuringRedeem runs a step between the core's read and its write.
func (w *world) changeDuringRedeem(step func()) { w.store.beforeNext("Redeem", step) }

func TestARefusalAfterProofIsDurableAndSpendsTheChallenge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := softtpm.New(softtpm.ECC, 1)
	for name, c := range map[string]struct {
		change func(d *device) map[string]any
		code   dps.Code
		reason registration.Reason
	}{
		"disabled": {func(*device) map[string]any { return disabled }, dps.CodeDisabled, registration.ReasonDisabled},
		"pinned":   {func(d *device) map[string]any { return d.pinning(other.SRK.Bytes()) }, dps.CodeRefusedOwner, registration.ReasonPinnedSRK},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			d := w.device(name, softtpm.ECC, 0)
			d.enroll("", c.change(d))
			key := d.challenge() // like any other: a stranger learns nothing
			token := d.token(key, time.Hour)
			_, err := d.prove(token)
			fault := w.wantFault(err, c.code, c.reason)
			rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, fault.TrackingID)
			w.must(err)
			if len(rows) != 1 || rows[0].Outcome != registration.OutcomeRefused || rows[0].Reason != c.reason || rows[0].Address == "" {
				t.Errorf("audit: %+v", rows)
			}
			w.wantUnproven(d.prove(token))
			w.wantUnproven(d.prove(d.token(key, 2*time.Hour)))
			d.enroll("*", nil)
			w.wantUnproven(d.prove(token))
			d.register()
			w.wantSound(name)
		})
	}
}

func TestACloneGetsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	got := d.register()
	clone := w.device("pump", softtpm.ECC, 7)
	for name, srk := range map[string]*softtpm.Key{"the victim's SRK": d.chip.SRK, "its own SRK": clone.chip.SRK} {
		chip := &softtpm.TPM{EK: d.chip.EK, SRK: srk}
		shows := &device{world: w, scope: scopeOne, id: "pump", chip: chip} // its public halves only
		answer, err := w.core.Register(w.ctx, shows.request(""))
		w.must(err)
		if _, err := clone.chip.Open(answer.Challenge); err == nil {
			t.Errorf("with %s the clone opened the challenge", name)
		}
		guess := shows.token(make([]byte, 32), time.Hour)
		w.wantUnproven(shows.prove(guess))
		w.wantUnproven(shows.prove(shows.token(got.challenge, 3*time.Hour)))
		answer, err = shows.poll(got.operation, got.token) // captured traffic
		w.must(err)
		if _, err := clone.chip.Open(answer.Status.RegistrationState.TPM.AuthenticationKey); err == nil {
			t.Errorf("with %s the clone opened the hub key", name)
		}
	}
	d.register()
}
