package registration_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

func TestADeviceProvisionsItself(t *testing.T) {
	t.Parallel()
	for _, alg := range softtpm.Algorithms {
		t.Run(string(alg), func(t *testing.T) {
			w := newWorld(t)
			d := w.device("Pump-7", alg, 0)
			d.enroll("", nil)
			got := d.register()
			if got.state.AssignedHub != hubOne || got.state.DeviceID != "Pump-7" || got.state.Substatus != dps.SubstatusInitialAssignment || got.state.RegistrationID != "Pump-7" {
				t.Errorf("assigned: %+v", got.state)
			}
			if bytes.Equal(got.hubKey, got.challenge) {
				t.Error("the hub key is the challenge key")
			}
			again, err := d.poll(got.operation, got.token)
			w.must(err)
			if _, key := d.assigned(again); !bytes.Equal(key, got.hubKey) {
				t.Error("a second poll gave another key")
			}
			w.wantSound("Pump-7")
		})
	}
}

func TestIdsAreOneInEveryLetterCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("Pump-7")
	d.id = "pUMP-7"
	d.register()
	d.id = "PUMP-7"
	d.register()
	if spent := w.store.redeemed("pump-7"); spent != 2 || w.snapshot("pump-7").Generation != 2 {
		t.Errorf("%d redemptions of one id", spent)
	}
}

func TestTheSameOwnerKeepsItsHubKeyAndItsSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	first := d.register()
	w.clock.advance(registration.SlotLength / 2)
	second := d.register()
	if !bytes.Equal(first.hubKey, second.hubKey) {
		t.Error("the hub key changed under the same owner")
	}
	if first.operation == second.operation || bytes.Equal(first.challenge, second.challenge) {
		t.Error("operation or challenge of the first registration again")
	}
	at := w.hub.device("pump")
	if at.cuts != 0 || at.generation != w.snapshot("pump").Operation.Revision {
		t.Errorf("the hub cut %d sessions and is at generation %d", at.cuts, at.generation)
	}
	if r := w.snapshot("pump").Registration; r.HubKeyGeneration != 1 || !r.Created.Equal(epoch) {
		t.Errorf("registration: %+v", r)
	}
}

func TestANewOwnerGetsANewKeyAndIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	first := d.register()
	d.chip.Clear()
	second := d.register()
	w.wantRekeyed(d, first, second)
}

func TestAnotherEKInTheEnrollmentGetsANewKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	first := d.register()
	srk := d.chip.SRK
	d.chip = softtpm.New(softtpm.ECC, 1)
	d.chip.SRK = srk // the EK alone is another
	d.enroll("*", nil)
	second := d.register()
	w.wantRekeyed(d, first, second)
}

// wantRekeyed expects the second registration to have ended the first one's key (P8).
func (w *world) wantRekeyed(d *device, first, second registered) {
	w.Helper()
	if bytes.Equal(first.hubKey, second.hubKey) {
		w.Errorf("the hub key is the previous owner's")
	}
	if at := w.hub.device("pump"); at.cuts != 1 || at.generation != w.snapshot(d.id).Operation.Revision || !bytes.Equal(at.key, second.hubKey) {
		w.Errorf("hub: %d cuts, generation %d", at.cuts, at.generation)
	}
	if r := w.snapshot("pump").Registration; r.HubKeyGeneration != 2 {
		w.Errorf("registration: %+v", r)
	}
	o, err := w.inner.Operation(w.ctx, scopeOne, second.operation)
	w.must(err)
	rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, o.TrackingID)
	w.must(err)
	changed := func(a registration.Audit) bool {
		return a.Action == registration.ActionRegister && a.Reason == registration.ReasonOwnerChanged && a.Object == "pump" && strings.Contains(a.Detail, second.operation)
	}
	if !slices.ContainsFunc(rows, changed) {
		w.Errorf("no audit row says that the owner changed: %+v", rows)
	}
	if answer, err := d.poll(first.operation, first.token); err != nil || answer.Status.Status != dps.StatusFailed {
		w.Errorf("the previous owner's operation: %+v, %v", answer, err)
	}
}

func TestTheDeviceIDIsTheEnrollmentsAndStaysUntilTheRegistrationIsDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("pump", softtpm.ECC, 0)
	d.enroll("", map[string]any{"deviceId": "Line-4"})
	if got := d.register(); got.state.DeviceID != "Line-4" {
		t.Errorf("device id %q", got.state.DeviceID)
	}
	d.enroll("*", map[string]any{"deviceId": "Line-5"})
	if got := d.register(); got.state.DeviceID != "Line-4" {
		t.Errorf("device id %q after the enrollment named another", got.state.DeviceID)
	}
	w.must(w.core.DeleteRegistration(w.ctx, operator, "pump", ""))
	if got := d.register(); got.state.DeviceID != "Line-5" {
		t.Errorf("device id %q after the registration was deleted", got.state.DeviceID)
	}
}
