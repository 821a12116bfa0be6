package steps

import (
	"slices"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

const (
	skew = 2 * time.Minute // that nodes may be apart, docs/threat-model.md
	slot = 5 * time.Minute
	day  = 24 * time.Hour
)

// startAhead starts a node whose clock is ahead of the stage's.
func (s *stage) startAhead(by time.Duration) *node {
	s.Helper()
	there := *s
	there.clock = &clock{now: s.clock.Now().Add(by)}
	return there.start()
}

// What internal/registration's tests of clocks show on one store holds on both: a device that sends each of its requests to another of two nodes that are
// two minutes apart, at any point of a slot, does not notice.
func TestNodesTwoMinutesApart(t *testing.T) {
	t.Parallel()
	onBoth(t, 1, 1, func(s *stage) {
		for _, ahead := range []time.Duration{skew, -skew} {
			n, other := s.start(), s.startAhead(ahead)
			for range slot / (50 * time.Second) {
				d := enrolledChip(n, s.name("apart"))
				d.omitsTPM = s.made%2 == 0
				d.alternate(n, other)
				s.clock.advance(50 * time.Second)
				other.clock.advance(50 * time.Second)
			}
		}
	})
}

// alternate plays a registration whose requests go to one node and to the other in turn.
func (d *device) alternate(n, other *node) {
	d.Helper()
	if refused := d.authorize(n); refused != nil {
		d.Errorf("%s: the challenge was refused: %+v", d.id, refused)
		return
	}
	answer, refused := d.put(other, d.token)
	if refused != nil {
		d.Errorf("%s, %s after the hour: the proof was refused: %+v", d.id, d.clock.Now().Sub(d.clock.Now().Truncate(time.Hour)), refused)
		return
	}
	d.operation = answer.Status.OperationID
	for _, at := range []*node{n, other} {
		if refused := d.await(at); refused != nil {
			d.Errorf("%s: the poll was refused: %+v", d.id, refused)
		}
		if again, refused := d.put(at, d.token); refused != nil || again.Status.OperationID != d.operation {
			d.Errorf("%s: the repeat got %+v, %+v", d.id, again, refused)
		}
	}
}

// A node whose clock is a day off, either way, serves a device between two others of its requests.
func TestANodeADayOff(t *testing.T) {
	t.Parallel()
	onBoth(t, 1, 1, func(s *stage) {
		n := s.start()
		for _, off := range []time.Duration{day, -day} {
			wrong := s.startAhead(off)
			for _, prepare := range []func(n *node, id string) *device{enrolledChip, cleared, ownKeys, groupedKeys} {
				d := prepare(n, s.name("off"))
				if refused := d.authorize(n); refused != nil {
					t.Fatalf("%+v", refused)
				}
				if answer, refused := d.put(wrong, d.token); d.chip != nil && !refused.is(dps.CodeUnauthorized) {
					s.Errorf("%s: a challenge of the right clock got %+v, %+v", d.id, answer.Status, refused)
				}
				for _, at := range []*node{wrong, n, wrong, n} {
					there := *d
					there.stage = at.stage // signs with the node's time
					if refused := there.register(at); refused != nil {
						s.Errorf("%s was refused: %+v", d.id, refused)
					}
					s.tell(there.heard)
				}
			}
		}
	})
}

// What a clock a day ahead has left unfinished is finished by the others' sweep.
func TestWhatAClockAheadLeftIsFinished(t *testing.T) {
	t.Parallel()
	onBoth(t, 1, 1, func(s *stage) {
		n, ahead := s.start(), s.startAhead(day)
		calls := n.callsOf(stories[0])
		d := enrolledChip(n, s.name("left"))
		there := *d
		there.stage = ahead.stage
		s.tap.arm(slices.Index(calls, "EnsureDevice"), failsBefore, nil)
		if refused := there.authorize(ahead); refused != nil {
			t.Fatalf("%+v", refused)
		}
		if _, refused := there.put(ahead, there.token); refused != nil {
			t.Fatalf("%+v", refused)
		}
		if _, met := s.tap.recorded(); !met {
			t.Fatal("this test needs an operation that is left unfinished")
		}
		s.tap.open()
		must(t, n.core.Maintain(s.ctx))
		is, err := s.store.Device(s.ctx, s.scope, d.id)
		must(t, err)
		if is.Registration == nil || is.Registration.Status != registration.Assigned {
			s.Errorf("the registration is %+v", is.Registration)
		}
	})
}

// A count of redemptions that a clock ahead forgot lets no old proof in, and owners that it remembered keep nobody out.
func TestAClockAheadOpensAndBlocksNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, 1, 1, func(s *stage) {
		n, ahead := s.start(), s.startAhead(day)
		d := again(enrolledChip)(n, s.name("replayed"))
		must(t, n.core.DeleteEnrollment(s.ctx, s.operator(), d.id, ""))
		s.forget(d.id)
		must(t, ahead.core.Maintain(s.ctx))
		if n.generation(d) != 0 {
			t.Fatal("this test needs a count that was forgotten")
		}
		s.clock.advance(time.Microsecond)
		n.enroll(d.id, chipBody(d.chip, ""))
		if answer, refused := d.put(n, d.token); !refused.is(dps.CodeUnauthorized) {
			s.Errorf("an old proof got %+v, %+v", answer.Status, refused)
		}

		d = enrolledChip(n, s.name("crowded"))
		d.omitsTPM = true
		for chip := range registration.MaxOwners + 2 {
			owner := *d
			owner.chip = &softtpm.TPM{EK: d.chip.EK, SRK: softtpm.New(softtpm.ECC, 200_000+chip).SRK}
			if _, refused := owner.put(ahead, ""); refused != nil {
				t.Fatalf("%+v", refused)
			}
		}
		if refused := d.attempt(n); refused != nil {
			s.Errorf("%s was refused: %+v", d.id, refused)
		}
	})
}
