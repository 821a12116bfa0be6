package registration_test

import (
	"fmt"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

const (
	skew = registration.ClockSkew
	day  = 24 * time.Hour
)

// node is another node on the same store and the same hub, with a clock of its own.
func (w *world) node(ahead time.Duration) *world {
	w.Helper()
	other := *w
	other.clock = &clock{now: w.clock.Now().Add(ahead)}
	other.core = other.newCore()
	return &other
}

// at is the device at another node.
func (d *device) at(w *world) *device {
	there := *d
	there.world = w
	return &there
}

// Two nodes two minutes apart, whichever is ahead and at whatever point of a slot: a challenge of one counts at the other, and so does all that
// follows.
func TestNodesTwoMinutesApartServeOneDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, ahead := range []time.Duration{skew, -skew} {
		other := w.node(ahead)
		for n := range int(registration.SlotLength / (20 * time.Second)) {
			d := w.in(t).enrolled(fmt.Sprintf("device-%d-%d", n, int(ahead.Seconds())))
			d.omitTPM = n%2 == 0
			there := d.at(other)
			token := d.token(d.challenge(), time.Hour)
			answer, err := there.prove(token)
			if err != nil {
				t.Errorf("%s into a slot, a challenge is refused by a node %s ahead: %v", w.clock.Now().Sub(epoch), ahead, err)
			} else {
				d.servedBy(there, answer.Status.OperationID, token)
			}
			w.clock.advance(20 * time.Second)
			other.clock.advance(20 * time.Second)
		}
	}
}

// servedBy polls and repeats at both nodes.
func (d *device) servedBy(there *device, operation, token string) {
	d.Helper()
	for _, at := range []*device{d, there} {
		polled, err := at.poll(operation, token)
		d.must(err)
		at.assigned(polled)
		again, err := at.prove(token)
		d.must(err)
		if again.Status.OperationID != operation {
			d.Errorf("the repeat got operation %s, want %s", again.Status.OperationID, operation)
		}
	}
}

// A challenge lives for three minutes at least and twelve at most, whichever of two nodes made it.
func TestAChallengeEndsAtANodeWhoseClockDiffers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		ahead, wait time.Duration // of the node that redeems; by its clock since the challenge
		good        bool
	}{
		{skew, 3 * time.Minute, true}, {skew, 9 * time.Minute, false}, {-skew, 5 * time.Minute, true}, {-skew, 12*time.Minute + time.Second, false},
		{-skew - registration.SlotLength, 0, false}, {2 * registration.SlotLength, 0, false},
	} {
		d := w.in(t).enrolled(fmt.Sprintf("%d-%d", int(c.ahead.Seconds()), int(c.wait.Seconds())))
		there := d.at(w.node(c.ahead))
		token := d.token(d.challenge(), time.Hour)
		there.clock.advance(c.wait)
		answer, err := there.prove(token)
		if c.good {
			d.must(err)
		} else {
			d.wantUnproven(answer, err)
		}
	}
}

// The clock jumps by a day, either way, between any two requests of a device: what was given before the jump counts for nothing after it, and the
// device is registered by starting anew, at once. When the clock is right again, what it wrote meanwhile holds nobody up.
func TestAClockThatJumpsLetsNothingOldInAndKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, jump := range []time.Duration{day, -day} {
		for _, after := range []string{"challenge", "proof", "poll"} {
			t.Run(fmt.Sprintf("%s after the %s", jump, after), func(t *testing.T) {
				w := w.in(t)
				d := w.enrolled(fmt.Sprintf("after-%s-%d", after, int(jump.Hours())))
				token := d.token(d.challenge(), time.Hour)
				var operation string
				if after != "challenge" {
					answer, err := d.prove(token)
					w.must(err)
					operation = answer.Status.OperationID
				}
				if after == "poll" {
					_, err := d.poll(operation, token)
					w.must(err)
				}
				w.clock.advance(jump)
				if answer, err := d.prove(token); err == nil {
					t.Errorf("a token from before the jump got %+v", answer)
				}
				if operation != "" {
					if _, err := d.poll(operation, token); err == nil {
						t.Error("an operation from before the jump is answered")
					}
				}
				d.register()
				w.clock.advance(-jump)
				d.register()
			})
		}
	}
}

// The same for devices whose proofs can be shown again: what they are given after the jump can be polled.
func TestAClockThatWasAheadKeepsNoProofsOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "ca", nil)
	w.mustPut(w.put("valve", keysBody(firstKey, secondKey, ""), ""))
	w.mustPutGroup(w.putGroup("line", signingBody(ca, ""), ""))
	k, cert := w.keyed("valve", firstKey), w.certified("member", ca.issue(t, "member"))
	w.clock.advance(day)
	w.hub.failNext("EnsureDevice", 4, before)
	token := k.token(time.Hour) // from now on good for a day and more
	ahead, err := k.register(token)
	w.must(err)
	certAhead, err := cert.register()
	w.must(err)
	w.hub.heal()
	w.clock.advance(-day)
	answer, err := k.register(token)
	w.must(err)
	if answer.Status.OperationID == ahead.Status.OperationID {
		t.Error("the operation of the clock that was ahead is given again")
	}
	w.finished(w.core.Poll(w.ctx, k.request(token), answer.Status.OperationID))
	again, err := cert.register()
	w.must(err)
	if again.Status.OperationID == certAhead.Status.OperationID {
		t.Error("the operation of the clock that was ahead is given again, to a certificate")
	}
	w.finished(w.core.Poll(w.ctx, cert.request(), again.Status.OperationID))
}

// A group that was written by a clock a day ahead lets its devices in today; one that was changed after a proof holds the proof up, though the
// clock of the node that changed it is behind.
func TestWhetherAGroupChangedAfterAProofIsNoMatterOfClocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca, next := newCA(t, "ca", nil), newCA(t, "next", nil)
	ahead, behind := w.node(day), w.node(-skew)
	w.mustPutGroup(ahead.putGroup("line", signingBody(ca, ""), ""))
	d := w.certified("member", ca.issue(t, "member"))
	answer, err := d.register()
	w.must(err)
	w.finished(w.core.Poll(w.ctx, d.request(), answer.Status.OperationID))

	w.hub.failNext("EnsureDevice", 1, before)
	w.clock.advance(time.Second)
	answer, err = d.register()
	w.must(err)
	w.mustPutGroup(behind.putGroup("line", signingBody(next, ""), "*"))
	polled, err := w.core.Poll(w.ctx, d.request(), answer.Status.OperationID)
	w.must(err)
	if polled.Status.Status != dps.StatusFailed {
		t.Errorf("a device of a CA that the group does not have any more is %s", polled.Status.Status)
	}
}

// An operation that a clock which was ahead has left unfinished is finished by the sweep though nobody polls: until then the previous owner's key is
// good. One of a node that is a little ahead is left to it.
func TestWhatAClockThatWasAheadLeftIsFinished(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ahead    time.Duration
		finished bool
	}{{day, true}, {skew + time.Second, true}, {skew, false}, {time.Minute, false}} {
		w := newWorld(t)
		d := w.enrolled("pump")
		first := d.register()
		d.chip.Clear()
		w.hub.failNext("EnsureDevice", 1, before)
		there := d.at(w.node(c.ahead))
		_, err := there.prove(there.token(there.challenge(), time.Hour))
		w.must(err)
		w.must(w.core.Maintain(w.ctx))
		held := string(w.hub.device("pump").key)
		if finished := held != string(first.hubKey); finished != c.finished {
			t.Errorf("of a clock %s ahead: finished %t, want %t", c.ahead, finished, c.finished)
		}
	}
}

// The count of redemptions of an id that is gone is forgotten after a quarter of an hour, by whatever clock. One that jumps forgets it at once. Whoever
// keeps the token of an old proof can do nothing with it when the id is enrolled again, in the same slot by the right clock.
func TestACountThatIsForgottenTooEarlyOpensNoReplay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	got := d.register()
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	wrong := w.node(day)
	w.must(wrong.core.Maintain(w.ctx))
	if w.snapshot("pump").Generation != 0 {
		t.Fatal("this test needs a count that was forgotten")
	}
	w.clock.advance(time.Second)
	d.enroll("", nil)
	answer, err := d.prove(got.token)
	w.wantUnproven(answer, err)
}

// Owners that a clock ahead remembered do not push out those who come after it.
func TestOwnersOfAClockThatWasAheadKeepNobodyOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	d.omitTPM = true
	there := d.at(w.node(day))
	for chip := range registration.MaxOwners + 2 {
		other := *there
		other.chip = &softtpm.TPM{EK: d.chip.EK, SRK: softtpm.New(softtpm.ECC, chip+1).SRK}
		_, err := other.core.Register(w.ctx, other.request(""))
		w.must(err)
	}
	d.register()
}

// A refusal of a device that proved itself is audited again when the memory that it was belongs to a clock that was ahead.
func TestRefusalsAreAuditedAfterAClockWentBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustPut(w.put("valve", keysBody(firstKey, secondKey, `,"provisioningStatus":"disabled"`), ""))
	k := w.keyed("valve", firstKey)
	rows := func() int {
		w.Helper()
		_, err := k.register(k.token(time.Hour))
		fault := w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
		rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, fault.TrackingID)
		w.must(err)
		return len(rows)
	}
	w.clock.advance(day)
	if rows() != 1 || rows() != 0 {
		t.Error("a refusal is not audited once")
	}
	w.clock.advance(-day)
	if rows() != 1 {
		t.Error("a refusal after the clock went back is not audited")
	}
}

// A certificate that a clock ahead has issued is not valid yet when the clock is right again: it is replaced.
func TestACertificateOfAClockThatWasAheadIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.newScope("plant2.example")
	issued := w.core.Certificate("plant2.example").Leaf
	w.clock.advance(issued.NotAfter.Sub(w.clock.Now()) - time.Hour)
	w.must(w.core.Maintain(w.ctx))
	ahead := w.core.Certificate("plant2.example").Leaf
	if !ahead.NotBefore.After(issued.NotBefore) {
		t.Fatal("this test needs a certificate that was renewed")
	}
	w.clock.advance(epoch.Add(time.Hour).Sub(w.clock.Now()))
	w.must(w.core.Maintain(w.ctx))
	if now := w.core.Certificate("plant2.example").Leaf; now.NotBefore.After(w.clock.Now()) {
		t.Errorf("a certificate from %s on is served at %s", now.NotBefore, w.clock.Now())
	}
}

// mustPut and mustPutGroup are for writes that must succeed.
func (w *world) mustPut(_ dps.IndividualEnrollment, err error) { w.Helper(); w.must(err) }
func (w *world) mustPutGroup(_ dps.EnrollmentGroup, err error) { w.Helper(); w.must(err) }
