package registration_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// Random lives of one device, held against a model of a few fields. The model knows P2 (one live assignment, a retry gets the same
// answer), P4 (a challenge counts once and in time) and P8 (another owner, another key). Rapid prints its seed and a short life.
func TestRandomLivesOfADeviceFollowTheModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lives := 0
	rapid.Check(t, func(rt *rapid.T) {
		lives++
		w.store.heal()
		w.hub.heal()
		l := &life{device: w.in(rt).device(fmt.Sprintf("device-%d", lives), softtpm.ECC, 0), keys: map[string]int{}}
		rt.Repeat(map[string]func(*rapid.T){
			"challenge": l.askChallenge, "prove": l.proveOne, "repeat": l.repeatOne, "poll": l.pollOne, "poll again": l.pollOne,
			"clear": l.clear, "hub fails": l.hubFails, "enable": l.putEnabled, "disable": l.putDisabled,
			"delete registration": l.deleteRegistration, "delete enrollment": l.deleteEnrollment, "time passes": l.timePasses, "": l.check,
		})
	})
}

// life is the model beside its device.
type life struct {
	*device
	owner      int
	enrolled   bool
	since      time.Time // of the enrollment
	disabled   bool
	generation uint64
	challenges []heldChallenge
	accepted   []acceptedProof
	current    *assignment // the registration
	tokens     int
	keys       map[string]int // owner of each hub key ever seen
}

type heldChallenge struct {
	key        []byte
	slot       int64
	generation uint64
	owner      int
	enrolled   time.Time // the enrollment's creation
	chip       softtpm.TPM
}

type acceptedProof struct {
	operation, token string
	created, expiry  time.Time
	chip             softtpm.TPM
	owner            int
	live             *assignment // nil once the operator deleted it
}

type assignment struct {
	operation string
	owner     int
	key       []byte // once seen
}

func (l *life) askChallenge(*rapid.T) {
	answer, err := l.core.Register(l.ctx, l.request(""))
	if !l.enrolled {
		l.wantFault(err, dps.CodeNotEnrolled, registration.ReasonUnknownID)
		return
	}
	l.must(err)
	l.challenges = append(l.challenges, heldChallenge{l.open(answer), l.slot(), l.generation, l.owner, l.since, *l.chip})
}

func (l *life) slot() int64 { return l.clock.Now().Unix() / int64(registration.SlotLength/time.Second) }

func draw[T any](t *rapid.T, from []T) T {
	if len(from) == 0 {
		t.Skip("nothing to choose from")
	}
	return from[rapid.IntRange(0, len(from)-1).Draw(t, "which")]
}

// as plays a request with the chip as it was.
func (l *life) as(chip softtpm.TPM) *device {
	d := *l.device
	d.chip = &chip
	return &d
}

func (l *life) proveOne(t *rapid.T) {
	c := draw(t, l.challenges)
	d := l.as(c.chip)
	d.omitTPM = rapid.Bool().Draw(t, "omit tpm")
	l.tokens++
	span := time.Duration(rapid.SampledFrom([]int{30, 300, 3600}).Draw(t, "life"))*time.Second + time.Duration(l.tokens)*time.Second
	proof := acceptedProof{token: d.token(c.key, span), created: l.clock.Now(), expiry: l.clock.Now().Add(span), chip: c.chip, owner: c.owner}
	answer, err := d.prove(proof.token)
	switch open := c.generation == l.generation && c.enrolled.Equal(l.since) && l.slot()-c.slot < 2; {
	case !l.enrolled || !open:
		l.wantUnproven(answer, err)
	case l.disabled:
		l.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
		l.generation++
	default:
		l.must(err)
		l.generation++
		proof.operation = answer.Status.OperationID
		l.assign(&proof)
	}
}

func (l *life) assign(p *acceptedProof) {
	next := &assignment{operation: p.operation, owner: p.owner}
	if l.current != nil && l.current.owner == p.owner {
		next.key = l.current.key
	}
	for _, earlier := range l.accepted {
		if earlier.operation == p.operation {
			l.Errorf("operation %s was given twice", p.operation)
		}
	}
	l.current, p.live = next, next
	l.accepted = append(l.accepted, *p)
}

func (l *life) repeatOne(t *rapid.T) {
	p := draw(t, l.accepted)
	answer, err := l.as(p.chip).prove(p.token)
	now := l.clock.Now()
	switch {
	case now.After(p.expiry.Add(registration.TokenLeeway)):
		l.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenExpired)
	case p.live == nil || p.live != l.current || now.Sub(p.created) > registration.OperationWindow:
		l.wantUnproven(answer, err)
	default:
		l.must(err)
		if answer.Status.OperationID != p.operation {
			l.Errorf("the repeat of %s got %s", p.operation, answer.Status.OperationID)
		}
	}
}

func (l *life) pollOne(t *rapid.T) {
	p := draw(t, l.accepted)
	d := l.as(p.chip)
	answer, err := d.poll(p.operation, p.token)
	switch {
	case p.live == nil:
		l.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownOperation)
	case l.clock.Now().Sub(p.created) > registration.OperationWindow:
		l.wantFault(err, dps.CodeUnauthorized, registration.ReasonOperationClosed)
	case l.disabled:
		l.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
	case p.live != l.current:
		l.must(err)
		if answer.Status.Status != dps.StatusFailed {
			l.Errorf("a superseded operation is %s", answer.Status.Status)
		}
	default:
		l.must(err)
		l.pollCurrent(d, p, answer)
	}
}

func (l *life) pollCurrent(d *device, p acceptedProof, answer registration.Answer) {
	if answer.Status.Status == dps.StatusAssigning {
		return // the hub failed
	}
	_, key := d.assigned(answer)
	if owner, seen := l.keys[string(key)]; seen && owner != p.owner {
		l.Errorf("owner %d was given the hub key of owner %d", p.owner, owner)
	}
	if known := l.current.key; known != nil && string(known) != string(key) {
		l.Errorf("the same owner was given two hub keys")
	}
	l.keys[string(key)], l.current.key = p.owner, key
}

func (l *life) clear(*rapid.T) {
	next := *l.chip
	next.Clear()
	l.chip, l.owner = &next, l.owner+1
}

func (l *life) hubFails(t *rapid.T) {
	l.hub.failNext("EnsureDevice", 1, rapid.SampledFrom([]moment{before, after}).Draw(t, "when"))
}

func (l *life) putEnabled(*rapid.T)  { l.put(nil) }
func (l *life) putDisabled(*rapid.T) { l.put(disabled) }

func (l *life) put(change map[string]any) {
	ifMatch := ""
	if l.enrolled {
		ifMatch = "*"
	}
	l.enroll(ifMatch, change)
	if !l.enrolled {
		l.since = l.clock.Now()
	}
	l.enrolled, l.disabled = true, change != nil
}

func (l *life) deleteRegistration(*rapid.T) {
	err := l.core.DeleteRegistration(l.ctx, operator, l.id, "")
	if l.current == nil {
		l.wantFault(err, dps.CodeRegistrationNotFound, registration.ReasonRegistrationMissing)
		return
	}
	l.must(err)
	l.forget()
}

func (l *life) deleteEnrollment(*rapid.T) {
	err := l.core.DeleteEnrollment(l.ctx, operator, l.id, "")
	if !l.enrolled {
		l.wantFault(err, dps.CodeNotEnrolled, registration.ReasonEnrollmentMissing)
		return
	}
	l.must(err)
	l.enrolled, l.disabled = false, false
	l.forget()
}

func (l *life) forget() {
	l.current = nil
	for i := range l.accepted {
		l.accepted[i].live = nil
	}
}

func (l *life) timePasses(t *rapid.T) {
	l.clock.advance(time.Duration(rapid.SampledFrom([]int{1, 60, 240, 400}).Draw(t, "seconds")) * time.Second)
}

func (l *life) check(*rapid.T) {
	l.wantSound(l.id)
	d := l.snapshot(l.id)
	if d.Generation != l.generation || (d.Registration != nil) != (l.current != nil) || (d.Enrollment != nil) != l.enrolled {
		l.Errorf("store: %+v\nmodel: %+v", d, l)
	}
	if l.current != nil && d.Registration != nil && d.Registration.OperationID != l.current.operation {
		l.Errorf("registered by %s, the model says %s", d.Registration.OperationID, l.current.operation)
	}
}
