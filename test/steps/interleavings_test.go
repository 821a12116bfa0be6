package steps

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
)

// between is something that somebody does while a device registers: in front of each of the calls that its registration makes, and behind the last.
type between struct {
	name    string
	prepare func(n *node, id string) *device
	// play is what the device does; nil: one registration from its first request to its last, without another start if it is not let in.
	play func(d *device, n *node) *refusal
	// act is done at another node.
	act func(d *device, other *node)
	// end judges what came of both. Refused is how the device ended, nil if it was told that it is assigned; nth is the call in front of which it
	// was done.
	end func(d *device, n *node, refused *refusal, nth int)
}

var betweens = []between{
	{"disabled", enrolledChip, nil, func(d *device, other *node) { other.enroll(d.id, chipBody(d.chip, disabled)) }, shutOut(dps.CodeDisabled)},
	{"disabled, with a symmetric key", ownKeys, nil, func(d *device, other *node) { other.enroll(d.id, keysBody(firstKey, secondKey, disabled)) }, shutOut(dps.CodeDisabled)},
	{"disabled, with a certificate", ownCertificate, nil, func(d *device, other *node) {
		other.enroll(d.id, certificateBody("clientCertificates", d.chain[0], disabled))
	}, shutOut(dps.CodeDisabled)},
	{"enrollment deleted", enrolledChip, nil, func(d *device, other *node) {
		must(d.T, other.core.DeleteEnrollment(d.ctx, other.operator(), d.id, ""))
	}, gone},
	{"enrollment deleted, of a certificate", ownCertificate, nil, func(d *device, other *node) {
		must(d.T, other.core.DeleteEnrollment(d.ctx, other.operator(), d.id, ""))
	}, gone},
	{"registration deleted", again(enrolledChip), register, func(d *device, other *node) {
		_ = other.core.DeleteRegistration(d.ctx, other.operator(), d.id, "") // there may be none any more
	}, registeredOnce},
	{"deleted and enrolled again", enrolledChip, nil, func(d *device, other *node) {
		must(d.T, other.core.DeleteEnrollment(d.ctx, other.operator(), d.id, ""))
		d.clock.advance(time.Microsecond)
		other.enroll(d.id, chipBody(d.chip, ""))
	}, startsAnew},
	{"another chip enrolled", enrolledChip, nil, replaceChip, chipReplaced},
	{"another chip asks for the id", enrolledChip, nil, func(d *device, other *node) {
		stranger := other.rivalChip(d)
		if refused := stranger.register(other); !refused.is(dps.CodeNotEnrolled, dps.CodeUnauthorized) {
			d.Errorf("%s: a chip that is not enrolled got %+v", d.id, refused)
		}
	}, registeredAll},
	{"the same device at another node", enrolledChip, register, twin, registeredOnce},
	{"the same device at another node, with a symmetric key", ownKeys, register, twin, registeredOnce},
	{"the same device at another node, with a certificate", ownCertificate, register, twin, registeredOnce},
	{"the same device at another node, which is registered", again(enrolledChip), register, twin, registeredOnce},
	{"a new owner at another node", enrolledChip, nil, nextOwner, newOwnerStays},
	{"a new owner at another node, where the one before was registered", again(enrolledChip), nil, nextOwner, newOwnerStays},
	{"its group disabled", groupedKeys, nil, func(d *device, other *node) { other.group("keys", keysBody(firstKey, secondKey, disabled)) }, shutOut(dps.CodeDisabled)},
	{"its group's key changed", groupedKeys, nil, func(d *device, other *node) { other.group("keys", keysBody(secondKey, secondKey, "")) }, shutOut(dps.CodeUnauthorized)},
	{"its group deleted", groupedCertificate, nil, func(d *device, other *node) {
		must(d.T, other.core.DeleteGroup(d.ctx, other.operator(), "line", ""))
	}, shutOut(dps.CodeUnauthorized)},
	{"its group's CA replaced", groupedCertificate, nil, func(d *device, other *node) {
		other.group("line", certificateBody("signingCertificates", other.newCA("next").certificate, ""))
	}, shutOut(dps.CodeUnauthorized)},
	{"another group changed", groupedKeys, nil, func(d *device, other *node) {
		other.group("line", certificateBody("signingCertificates", other.ca.certificate, ""))
	}, registeredAll},
	{"the device id taken", enrolledChip, nil, takeDeviceID, oneHasTheDeviceID},
	{"its scope deleted", inItsScope, nil, func(d *device, other *node) {
		must(d.T, other.core.FollowScopes(d.ctx))
		must(d.T, other.core.DeleteScope(d.ctx, other.operator(), d.scopeID))
	}, scopeGone},
	{"swept", enrolledChip, nil, func(d *device, other *node) {
		d.clock.advance(10 * time.Second)
		must(d.T, other.core.Maintain(d.ctx))
	}, registeredAll},
}

// What somebody does to a device while it registers, at whatever step, comes out as if it had been done before the registration or after it, and nothing
// is left half done.
func TestWhateverComesBetweenTwoSteps(t *testing.T) {
	t.Parallel()
	onBoth(t, 4, 12, func(s *stage) {
		n, other := s.start(), s.start()
		for _, b := range betweens {
			s.Run(b.name, func(t *testing.T) {
				there := s.in(t)
				n, other := n.at(there), other.at(there)
				calls := n.callsBefore(b)
				for nth := range len(calls) + 1 {
					if s.chosen() || nth == 0 {
						n.meetBetween(b, other, nth, calls)
					}
				}
				s.told, s.made = there.told, there.made
			})
		}
	})
}

func (b between) playing() func(d *device, n *node) *refusal {
	if b.play != nil {
		return b.play
	}
	return func(d *device, n *node) *refusal { return d.attempt(n) }
}

// callsBefore records the calls of the registration when nothing comes between.
func (n *node) callsBefore(b between) []string {
	n.Helper()
	d := n.beginBetween(b)
	n.tap.open()
	refused := b.playing()(d, n)
	calls, _ := n.tap.recorded()
	if refused != nil {
		n.Fatalf("%s was refused though nothing came between: %+v", d.id, refused)
	}
	return slices.Clone(calls)
}

func (n *node) beginBetween(b between) *device {
	n.tap.open()
	return b.prepare(n, n.name(strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(b.name)))
}

func (n *node) meetBetween(b between, other *node, nth int, calls []string) {
	n.Helper()
	d := n.beginBetween(b)
	when := "behind the last call"
	if nth < len(calls) {
		when = fmt.Sprintf("in front of call %d, %s", nth, calls[nth])
	}
	failed := n.Failed()
	d.redeems = slices.Index(calls, "Redeem")
	n.tap.arm(nth, 0, func() { b.act(d, other) })
	refused := b.playing()(d, n)
	if _, met := n.tap.recorded(); !met {
		n.tap.open()
		b.act(d, other)
	}
	n.tap.open()
	b.end(d, n, refused, nth)
	must(n.T, n.start().core.Maintain(n.ctx))
	if n.Failed() && !failed {
		n.Errorf("failed: %s, %s", d.id, when)
	}
}
