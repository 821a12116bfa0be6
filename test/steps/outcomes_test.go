package steps

import (
	"bytes"
	"errors"
	"slices"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// forget takes back what the device was told: somebody has ended it.
func (s *stage) forget(id string) {
	s.told = slices.DeleteFunc(s.told, func(t told) bool { return t.device == id })
}

// registeredAll: it makes no difference.
func registeredAll(d *device, n *node, refused *refusal, _ int) {
	d.Helper()
	if refused != nil {
		d.Errorf("%s was refused: %+v", d.id, refused)
		return
	}
	n.wantStored(d.last())
}

// shutOut: a request that begins after the change is refused, and so is every one from then on. No proof is redeemed after it, whatever had been read
// before.
func shutOut(code dps.Code) func(d *device, n *node, refused *refusal, nth int) {
	return func(d *device, n *node, refused *refusal, nth int) {
		d.Helper()
		switch {
		case refused == nil && nth <= d.began:
			d.Errorf("%s was told that it is assigned by a request that began after it was shut out", d.id)
		case refused != nil && !refused.is(code, dps.CodeUnauthorized, dps.CodeDisabled):
			d.Errorf("%s was refused as %+v", d.id, refused)
		}
		if nth <= d.redeems && !n.unregistered(d) {
			d.Errorf("%s was registered by a proof that was redeemed after it was shut out", d.id)
		}
		if again := d.attempt(n); !again.is(code) {
			d.Errorf("%s, which is shut out, got %+v", d.id, again)
		}
		d.forget(d.id)
	}
}

// gone: the same for a device whose enrollment is not there any more, and nothing is left of it.
func gone(d *device, n *node, refused *refusal, nth int) {
	d.Helper()
	switch {
	case refused == nil && nth <= d.began:
		d.Errorf("%s was told that it is assigned by a request that began after it was deleted", d.id)
	case refused != nil && !refused.is(dps.CodeNotEnrolled, dps.CodeUnauthorized):
		d.Errorf("%s was refused as %+v", d.id, refused)
	}
	if again := d.attempt(n); !again.is(dps.CodeNotEnrolled, dps.CodeUnauthorized) {
		d.Errorf("%s, which is deleted, got %+v", d.id, again)
	}
	d.wantNothingStored(d.scope)
	d.forget(d.id)
}

func (d *device) wantNothingStored(scope string) {
	d.Helper()
	is, err := d.store.Device(d.ctx, scope, dps.FoldID(d.id))
	must(d.T, err)
	if is.Enrollment != nil || is.Registration != nil || is.Operation != nil {
		d.Errorf("of %s there is left: %+v", d.id, is)
	}
	if d.operation == "" {
		return
	}
	if _, err := d.store.Operation(d.ctx, scope, d.operation); !errors.Is(err, registration.ErrNotFound) {
		d.Errorf("of %s its operation is left: %v", d.id, err)
	}
}

// registeredOnce: whatever was told, asking once more gives one registration, and to a TPM whose owner is the same the same key.
func registeredOnce(d *device, n *node, refused *refusal, _ int) {
	d.Helper()
	if refused != nil {
		d.Errorf("%s was refused: %+v", d.id, refused)
		return
	}
	heard, gone := d.heard, n.generation(d) > 0 && n.unregistered(d)
	if refused := d.register(n); refused != nil {
		d.Errorf("%s was refused: %+v", d.id, refused)
		return
	}
	n.wantStored(d.last())
	if d.rival != nil && !gone && (!bytes.Equal(heard.key, d.heard.key) || !bytes.Equal(d.rival.heard.key, d.heard.key)) {
		d.Errorf("%s has one owner, and was given two keys", d.id)
	}
}

func (n *node) unregistered(d *device) bool {
	n.Helper()
	is, err := n.store.Device(n.ctx, n.scope, dps.FoldID(d.id))
	must(n.T, err)
	return is.Registration == nil
}

// startsAnew: what it had may count for nothing; from the first request on it is registered.
func startsAnew(d *device, n *node, refused *refusal, _ int) {
	d.Helper()
	if refused != nil && !refused.is(dps.CodeUnauthorized) {
		d.Errorf("%s was refused as %+v", d.id, refused)
	}
	d.forget(d.id)
	registeredAll(d, n, d.register(n), 0)
}

// twin registers the same device at another node.
func twin(d *device, other *node) {
	d.Helper()
	there := *d
	d.rival = &there
	if refused := there.register(other); refused != nil {
		d.Errorf("%s was refused at the other node: %+v", d.id, refused)
	}
}

// nextOwner clears the device's TPM and registers it at another node; who had it before goes on with what he has.
func nextOwner(d *device, other *node) {
	d.Helper()
	there := *d
	chip := *d.chip
	chip.Clear()
	there.chip, d.rival = &chip, &there
	if refused := there.register(other); refused != nil {
		d.Errorf("the new owner of %s was refused: %+v", d.id, refused)
	}
}

// newOwnerStays: the hub holds the new owner's key and no other, whatever the one before was at when it came. Who asks for a challenge behind it is the
// owner after it.
func newOwnerStays(d *device, n *node, refused *refusal, nth int) {
	d.Helper()
	if nth == 0 && refused == nil {
		n.wantStored(d.last())
		if bytes.Equal(d.heard.key, d.rival.heard.key) {
			d.Errorf("two owners of %s were given the same key", d.id)
		}
		return
	}
	if refused != nil && !refused.is(dps.CodeUnauthorized) {
		d.Errorf("the owner before of %s was refused as %+v", d.id, refused)
	}
	d.wantRival(n)
}

// wantRival: the rival has the id, with the key that it was given.
func (d *device) wantRival(n *node) {
	d.Helper()
	heard := d.rival.heard
	if held := n.held(heard.hub, heard.deviceID); !bytes.Equal(held.Primary, heard.key) {
		d.Errorf("the hub holds another key for %s than was given last", d.id)
	}
	if bytes.Equal(heard.key, d.heard.key) {
		d.Errorf("%s and who came after it were given the same key", d.id)
	}
	registeredAll(d.rival, n, d.rival.register(n), 0)
	if !bytes.Equal(heard.key, d.rival.heard.key) {
		d.Errorf("who came after %s was given two keys", d.id)
	}
}

// rivalChip is a chip that is not the device's, and wants its id.
func (n *node) rivalChip(d *device) *device {
	there := *d
	n.made++
	there.chip = softtpm.New(softtpm.ECC, 100_000+n.made)
	return &there
}

// replaceChip enrolls another chip, which registers at another node.
func replaceChip(d *device, other *node) {
	d.Helper()
	d.rival = other.rivalChip(d)
	other.enroll(d.id, chipBody(d.rival.chip, ""))
	if refused := d.rival.register(other); refused != nil {
		d.Errorf("the new chip of %s was refused: %+v", d.id, refused)
	}
}

func chipReplaced(d *device, n *node, refused *refusal, nth int) {
	d.Helper()
	switch {
	case refused == nil && nth <= d.began:
		d.Errorf("%s was told that it is assigned by a request that began after its chip was replaced", d.id)
	case refused != nil && !refused.is(dps.CodeNotEnrolled, dps.CodeUnauthorized):
		d.Errorf("the chip before of %s was refused as %+v", d.id, refused)
	}
	if again := d.attempt(n); !again.is(dps.CodeNotEnrolled) {
		d.Errorf("the chip before of %s got %+v", d.id, again)
	}
	d.wantRival(n)
}

// takeDeviceID registers another device under the device id that the first one is to have.
func takeDeviceID(d *device, other *node) {
	d.Helper()
	d.rival = other.rivalChip(d)
	d.rival.id = other.name("rival")
	other.enroll(d.rival.id, chipBody(d.rival.chip, `,"deviceId":"`+d.id+`"`))
	d.rival.refused = d.rival.register(other)
}

func oneHasTheDeviceID(d *device, n *node, refused *refusal, _ int) {
	d.Helper()
	for _, r := range []*refusal{refused, d.rival.refused} {
		if r != nil && !r.is(dps.CodeConflict) {
			d.Errorf("%s or its rival was refused as %+v", d.id, r)
		}
	}
	if (refused == nil) == (d.rival.refused == nil) {
		d.Errorf("the device id %s went to both of two devices, or to none", d.id)
	}
	winner := d
	if refused != nil {
		winner = d.rival
	}
	n.wantStored(winner.last())
}

// inItsScope is a device in a scope of its own.
func inItsScope(n *node, id string) *device {
	d := n.chipped(id)
	d.scopeID = n.newScope(false, id+".example")
	must(n.T, n.core.ReloadScopes(n.ctx))
	wire, err := dps.DecodeEnrollment(id, []byte(chipBody(d.chip, "")))
	must(n.T, err)
	by := n.operator()
	by.Scope = d.scopeID
	_, err = n.core.PutEnrollment(n.ctx, by, wire, "")
	must(n.T, err)
	return d
}

// scopeGone: the other node follows within its second; then the device is a stranger, and nothing of the scope is left.
func scopeGone(d *device, n *node, refused *refusal, _ int) {
	d.Helper()
	if refused != nil && !refused.is(dps.CodeNotEnrolled, dps.CodeUnauthorized) {
		d.Errorf("%s was refused as %+v", d.id, refused)
	}
	must(d.T, n.core.FollowScopes(d.ctx))
	if again := d.attempt(n); !again.is(dps.CodeNotEnrolled) {
		d.Errorf("%s, whose scope is gone, got %+v", d.id, again)
	}
	must(d.T, n.core.Maintain(d.ctx))
	d.wantNothingStored(d.scopeID)
	if _, err := d.store.Identity(d.ctx, d.scopeID, d.id+".example", d.id); !errors.Is(err, registration.ErrNotFound) {
		d.Errorf("the hub of a scope that is gone still knows %s: %v", d.id, err)
	}
}
