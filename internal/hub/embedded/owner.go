package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Owners keeps which process has the hub's sessions, for processes that share a store.
type Owners interface {
	// HubOwner reads it; an empty id is nobody.
	HubOwner(ctx context.Context) (registration.HubOwner, error)
	// MoveHub makes to the owner in the place of from; with the same id it is a beat. Conflict if the owner has another id than from by now, or
	// another beat.
	MoveHub(ctx context.Context, from, to registration.HubOwner) (registration.Verdict, error)
}

// Mark hands on from one process to its successor in the same place under which id it has the hub.
type Mark interface {
	// Dead says whether an id was noted by a process that is certainly dead.
	Dead(id string) bool
	// Set notes an id before the hub is taken under it.
	Set(id string) error
}

// ownership is this process's part in the question which one has the sessions. At any time one at most has any.
//
// The owner moves a beat in the store all the time. No clock of one process is compared with another's; each measures spans by its own. An owner serves
// until lease - margin after it has *sent* the last beat that was confirmed. Who wants the hub, or wants to find it without an
// owner, watches the beat until it has *seen* the same one for a whole lease, and then moves the owner by compare-and-set of that
// beat. A beat is seen after it was sent, so when it has been seen for a lease the owner has stopped serving, if no clock runs by more than margin/lease
// faster than another; and a beat that comes after all meets a conflict, on one side or the other.
//
// What only the owner may write names him in its transaction, so that one who does not know yet that he has lost the hub writes nothing.
type ownership struct {
	store    Owners // nil: no other process has the store open
	serve    bool
	mark     Mark // may be nil
	host     string
	lease    time.Duration
	wallTime func() time.Time
	suspend  func()    // called when the owner may serve no more; it must not wait
	start    time.Time // spans are measured from it by the monotonic clock

	// slept is how long the machine has been suspended so far, which the monotonic clock leaves out.
	slept func() time.Duration

	mu    sync.Mutex
	me    registration.HubOwner // the zero value while this process has nothing
	until time.Duration         // since start; the owner serves before it
	lost  bool                  // a beat since the last one that was confirmed was not answered, and may have been applied
	over  *time.Timer           // at until
	seen  sighting              // of another owner, or of nobody
}

// sighting is an owner as this process has seen him.
type sighting struct {
	owner registration.HubOwner
	since time.Duration // since start: when the answer came that first told of this beat
	known bool
}

// Spans of an ownership, in parts of the lease.
const (
	defaultLease = 15 * time.Second
	beatParts    = 5 // beats, and looks at another's beat, in a lease
	marginParts  = 5 // the part of the lease that clocks may differ by, and in which sessions are cut
)

func (o *ownership) now() time.Duration      { return time.Since(o.start) + o.slept() }
func (o *ownership) interval() time.Duration { return o.lease / beatParts }
func (o *ownership) margin() time.Duration   { return o.lease / marginParts }

// ErrOwned says who serves the hub, in a sentence for the operator.
type ErrOwned struct{ Owner registration.HubOwner }

func (e *ErrOwned) Error() string {
	return fmt.Sprintf("the hub is served by the node on %s since %s: set hub.serve: false on this one, or stop that one first",
		e.Owner.Host, e.Owner.Since.UTC().Format(time.RFC3339))
}

// reach says how far EnsureDevice goes here now, and the owner that its writes must name; nil if nobody else can have the store open.
func (o *ownership) reach() (registration.Reach, *string) {
	if o.store == nil {
		if o.serve {
			return registration.Here, nil
		}
		return registration.Unserved, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch id := o.me.ID; {
	case o.serve && o.servingLocked():
		return registration.Here, &id
	case !o.serve && o.seen.known && o.seen.owner.ID == "":
		return registration.Unserved, new(string)
	}
	return registration.Elsewhere, nil
}

// serving says whether this process may have sessions now.
func (o *ownership) serving() bool {
	reach, _ := o.reach()
	return reach == registration.Here
}

func (o *ownership) servingLocked() bool { return o.me.ID != "" && o.now() < o.until }

// acquire makes this process the owner. It returns once it is, or once another one has been seen to live.
func (o *ownership) acquire(ctx context.Context) error {
	for {
		call, cancel := context.WithTimeout(ctx, o.lease)
		owned, err := o.attempt(call)
		cancel()
		if owned || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(o.interval()):
		}
	}
}

// attempt looks at the owner once, and takes the hub if there is none who lives.
func (o *ownership) attempt(ctx context.Context) (owned bool, err error) {
	before := o.sighting()
	now, err := o.look(ctx)
	switch {
	case err != nil:
		return false, err
	case now.owner.ID == "" || o.mark != nil && o.mark.Dead(now.owner.ID) || before.known && o.dead(now):
		return o.take(ctx, now.owner)
	case before.known && before.owner.ID != "" && now.since != before.since: // his beat has moved
		return false, &ErrOwned{now.owner}
	}
	return false, nil
}

func (o *ownership) sighting() sighting {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}

// look reads the owner and notes since when he is as he is.
func (o *ownership) look(ctx context.Context) (sighting, error) {
	owner, err := o.store.HubOwner(ctx)
	if err != nil {
		return sighting{}, fmt.Errorf("hub: reading its owner: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if was := o.seen.owner; !o.seen.known || was.ID != owner.ID || was.Beat != owner.Beat {
		o.seen = sighting{owner: owner, since: o.now(), known: true}
	}
	return o.seen, nil
}

// dead says whether an owner has been seen without a beat for a lease: his sessions are gone.
func (o *ownership) dead(s sighting) bool {
	return s.owner.ID != "" && o.now()-s.since >= o.lease
}

// take moves the hub from who was seen to this process, under a new id.
func (o *ownership) take(ctx context.Context, from registration.HubOwner) (bool, error) {
	me := registration.HubOwner{ID: rand.Text(), Host: o.host, Since: o.wallTime(), Beat: from.Beat + 1}
	if o.mark != nil {
		if err := o.mark.Set(me.ID); err != nil {
			return false, fmt.Errorf("hub: noting its owner: %w", err)
		}
	}
	sent := o.now()
	verdict, err := o.store.MoveHub(ctx, from, me)
	if err != nil {
		return false, fmt.Errorf("hub: becoming its owner: %w", err)
	}
	if verdict != registration.Applied {
		return false, nil
	}
	o.own(me, sent)
	return true, nil
}

// own notes what the store has confirmed of this process, by a call that was sent at a time.
func (o *ownership) own(me registration.HubOwner, sent time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.me, o.until, o.lost = me, sent+o.lease-o.margin(), false
	if o.over != nil {
		o.over.Stop()
	}
	o.over = time.AfterFunc(o.until-o.now(), o.end)
}

// end suspends the hub, if no beat has been confirmed since the timer was set.
func (o *ownership) end() {
	o.mu.Lock()
	over := !o.servingLocked()
	o.mu.Unlock()
	if over {
		o.suspend()
	}
}

// keep beats, as owner, or watches the owner's beat until ctx ends. It returns an error when another process has the hub in this one's place.
func (o *ownership) keep(ctx context.Context) error {
	step := o.watch
	if o.serve {
		step = o.beat
	}
	ticker := time.NewTicker(o.interval())
	defer ticker.Stop()
	for {
		// What hangs is given up: the next call may find another way to the store.
		call, cancel := context.WithTimeout(ctx, o.interval())
		err := step(call)
		cancel()
		var owned *ErrOwned
		if errors.As(err, &owned) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// beat moves the owner's beat. A failure changes nothing: the hub is suspended when its time is over, and serves again after the next beat that
// is confirmed, if nobody has taken it meanwhile.
func (o *ownership) beat(ctx context.Context) error {
	for range 2 {
		o.mu.Lock()
		me := o.me
		o.mu.Unlock()
		next := me
		next.Beat++
		sent := o.now()
		verdict, err := o.store.MoveHub(ctx, me, next)
		if err == nil && verdict == registration.Applied {
			o.own(next, sent)
			return nil
		}
		if err != nil {
			o.mu.Lock()
			o.lost = true
			o.mu.Unlock()
			return err
		}
		if err := o.recover(ctx, me); err != nil {
			return err
		}
	}
	return nil
}

// recover finds out why a beat met a conflict: an earlier one was applied though it was not answered, or the hub was taken.
func (o *ownership) recover(ctx context.Context, me registration.HubOwner) error {
	owner, err := o.store.HubOwner(ctx)
	switch {
	case err != nil:
		return err
	case owner.ID == me.ID && o.adopt(owner):
		return nil
	}
	o.lose()
	if owner.ID == "" {
		_, err = o.take(ctx, owner)
		return err
	}
	return &ErrOwned{owner}
}

// adopt takes the beat that was found under this process's id for its own. That it stands there says nothing about how long another has seen it: the
// time to serve is not prolonged, only the next beat does that. A later one than any that this process can have sent is that of a copy of it, as of a
// virtual machine that was restored while it runs: nothing else tells the two apart.
func (o *ownership) adopt(found registration.HubOwner) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.lost && found.Beat > o.me.Beat {
		return false
	}
	o.me, o.lost = found, false
	return true
}

// lose ends what this process has at once.
func (o *ownership) lose() {
	o.mu.Lock()
	o.until = 0
	o.mu.Unlock()
	o.suspend()
}

// watch looks at the owner's beat, and when it has stood still for a lease lets the hub be nobody's.
func (o *ownership) watch(ctx context.Context) error {
	seen, err := o.look(ctx)
	if err != nil || !o.dead(seen) {
		return err
	}
	_, err = o.store.MoveHub(ctx, seen.owner, registration.HubOwner{Since: o.wallTime(), Beat: seen.owner.Beat + 1})
	return err // who it is now, the next look tells
}

// mistaken notes that the hub has an owner, though none was seen.
func (o *ownership) mistaken() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = sighting{}
}

// release gives the hub up, when the last session is gone.
func (o *ownership) release(ctx context.Context) error {
	o.mu.Lock()
	me := o.me
	o.me = registration.HubOwner{}
	if o.over != nil {
		o.over.Stop()
	}
	o.mu.Unlock()
	for me.ID != "" {
		verdict, err := o.store.MoveHub(ctx, me, registration.HubOwner{Since: o.wallTime(), Beat: me.Beat + 1})
		if err != nil || verdict == registration.Applied {
			return err
		}
		now, err := o.store.HubOwner(ctx)
		if err != nil || now.ID != me.ID { // taken: it was to be given up anyway
			return err
		}
		me = now // its last beat was not answered
	}
	return nil
}
