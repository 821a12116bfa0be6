package embedded

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// register is the store's row of the owner. It judges: nobody takes the hub while another serves it.
type register struct {
	mu    sync.Mutex
	owner registration.HubOwner
	nodes []*node
	taken func(from, to registration.HubOwner) // called under the lock when the hub changes hands
}

// line is one node's way to the register. It can be cut, and can lose or delay single calls.
type line struct {
	*register
	mu    sync.Mutex
	down  bool
	fails func() (when string) // "", "before", "after" or "hang"
}

var errDown = errors.New("the store does not answer")

func (l *line) state() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.down:
		return "before"
	case l.fails != nil:
		return l.fails()
	}
	return ""
}

func (l *line) cut(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

func (l *line) failing(how func() string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fails = how
}

// call fails before its effect, or after it, or hangs until it is given up, with or without effect.
func (l *line) call(ctx context.Context, do func()) error {
	switch l.state() {
	case "before":
		return errDown
	case "after":
		do()
		return errDown
	case "slow": // the answer comes long after the effect
		do()
		select {
		case <-ctx.Done():
		case <-time.After(lease/beatParts - time.Millisecond):
		}
		return nil
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "hang, then do":
		<-ctx.Done()
		do()
		return ctx.Err()
	}
	do()
	return ctx.Err()
}

func (l *line) HubOwner(ctx context.Context) (owner registration.HubOwner, err error) {
	err = l.call(ctx, func() {
		l.register.mu.Lock()
		defer l.register.mu.Unlock()
		owner = l.owner
	})
	return owner, err
}

func (l *line) MoveHub(ctx context.Context, from, to registration.HubOwner) (verdict registration.Verdict, err error) {
	err = l.call(ctx, func() {
		l.register.mu.Lock()
		defer l.register.mu.Unlock()
		if l.owner.ID != from.ID || l.owner.Beat != from.Beat {
			verdict = registration.Conflict
			return
		}
		if from.ID != to.ID && l.taken != nil {
			l.taken(from, to)
		}
		l.owner = to
	})
	return verdict, err
}

// node is one process's ownership.
type node struct {
	*ownership
	line      *line
	suspended atomic.Int32
	asleep    atomic.Int64 // how long its machine stood still, in nanoseconds
	ended     chan error
	stop      context.CancelFunc
}

const lease = 10 * time.Second

func (r *register) node(host string, serve bool) *node {
	n := &node{line: &line{register: r}, ended: make(chan error, 1)}
	n.ownership = &ownership{store: n.line, serve: serve, host: host, lease: lease, wallTime: time.Now, suspend: func() { n.suspended.Add(1) }, start: time.Now(),
		slept: func() time.Duration { return time.Duration(n.asleep.Load()) }}
	r.nodes = append(r.nodes, n)
	return n
}

// run acquires the hub, if the node serves it, and keeps it.
func (n *node) run(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	n.stop = stop
	if n.serve {
		if err := n.acquire(ctx); err != nil {
			t.Fatal(err)
		}
	}
	go func() { n.ended <- n.keep(ctx) }()
}

// kill ends a node without a word.
func (n *node) kill() {
	n.line.cut(true)
	n.stop()
}

func (r *register) now() registration.HubOwner {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner
}

func TestASecondNodeIsRefusedTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		first, second := r.node("alpha", true), r.node("beta", true)
		first.run(t)
		defer first.stop()
		time.Sleep(90 * time.Second) // it has served for a while
		before := time.Now()
		err := second.acquire(t.Context())
		var owned *ErrOwned
		if !errors.As(err, &owned) || owned.Owner.Host != "alpha" {
			t.Fatalf("acquired: %v", err)
		}
		for _, part := range []string{"alpha", owned.Owner.Since.UTC().Format(time.RFC3339), "hub.serve: false"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is missing in %q", part, err)
			}
		}
		if waited := time.Since(before); waited >= lease {
			t.Errorf("it was refused after %s only", waited)
		}
		if !first.serving() || second.serving() {
			t.Errorf("serving: %t and %t", first.serving(), second.serving())
		}
	})
}

func TestTheHubOfADeadNodeIsTakenAfterALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		dead, heir := r.node("alpha", true), r.node("beta", true)
		dead.run(t)
		time.Sleep(time.Minute)
		dead.kill()
		before := time.Now()
		r.taken = func(from, to registration.HubOwner) {
			if dead.serving() {
				t.Error("it was taken while the other served it")
			}
		}
		heir.run(t)
		defer heir.stop()
		if waited := time.Since(before); waited < lease || waited > lease+2*heir.interval() {
			t.Errorf("taken after %s, the lease is %s", waited, lease)
		}
		if !heir.serving() || r.now().Host != "beta" {
			t.Error("the heir does not serve")
		}
	})
}

func TestAStartDoesNotWaitForEverForAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		n := r.node("alpha", true)
		n.line.failing(func() string { return "hang" })
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		if err := n.acquire(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("acquired: %v", err)
		}
	})
}

// mark is that of a process, handed on to the next.
type mark struct{ before, now string }

func (m *mark) Dead(id string) bool { return id == m.before }
func (m *mark) Set(id string) error { m.now = id; return nil }

func TestTheSuccessorOfAKilledProcessNeedNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		dead, next, other := r.node("alpha", true), r.node("alpha", true), r.node("beta", true)
		handed := new(mark)
		dead.mark = handed
		dead.run(t)
		time.Sleep(time.Minute)
		dead.kill()
		before := time.Now()
		next.mark = &mark{before: handed.now}
		next.run(t)
		defer next.stop()
		if waited := time.Since(before); waited != 0 || !next.serving() {
			t.Errorf("waited %s", waited)
		}
		other.mark = &mark{before: handed.now} // an old one: the hub has changed hands since
		if err := other.acquire(t.Context()); !errors.As(err, new(*ErrOwned)) {
			t.Errorf("acquired: %v", err)
		}
	})
}

func TestAHubThatWasGivenUpIsTakenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		first, second := r.node("alpha", true), r.node("beta", true)
		first.run(t)
		first.stop()
		if err := <-first.ended; err != nil {
			t.Fatal(err)
		}
		if err := first.release(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		second.run(t)
		defer second.stop()
		if waited := time.Since(before); waited != 0 || first.serving() || !second.serving() {
			t.Errorf("waited %s", waited)
		}
	})
}

// An owner that does not reach the store stops serving while nobody else can have the hub yet, and serves again when it finds that nobody has.
func TestAnOwnerWithoutItsStoreIsSuspendedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		n := r.node("alpha", true)
		n.run(t)
		defer n.stop()
		synctest.Wait()
		n.line.cut(true)
		time.Sleep(lease - n.margin() - time.Millisecond)
		if !n.serving() || n.suspended.Load() != 0 {
			t.Error("suspended too early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n.serving() || n.suspended.Load() != 1 {
			t.Errorf("serving %t, suspended %d times", n.serving(), n.suspended.Load())
		}
		time.Sleep(time.Hour)
		n.line.cut(false)
		time.Sleep(n.interval())
		synctest.Wait()
		if !n.serving() || n.suspended.Load() != 1 {
			t.Errorf("serving %t, suspended %d times", n.serving(), n.suspended.Load())
		}
	})
}

func TestAnOwnerThatComesBackTooLateIsToldWhoServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		late, heir := r.node("alpha", true), r.node("beta", true)
		late.run(t)
		time.Sleep(time.Minute)
		late.line.cut(true)
		heir.run(t)
		defer heir.stop()
		late.line.cut(false)
		var owned *ErrOwned
		if err := <-late.ended; !errors.As(err, &owned) || owned.Owner.Host != "beta" {
			t.Errorf("ended with %v", err)
		}
		if late.serving() || !heir.serving() {
			t.Errorf("serving: %t and %t", late.serving(), heir.serving())
		}
	})
}

// The clock that processes measure by stands still while the machine does. An owner that wakes up does not serve until the store has confirmed that nobody else
// does, and who only watched does not take what it saw before for the present.
func TestAnOwnerWhoseMachineSleptServesOnlyOnceItIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		n := r.node("alpha", true)
		n.run(t)
		defer n.stop()
		time.Sleep(time.Minute)
		n.asleep.Add(int64(lease))
		if n.serving() {
			t.Error("it serves, though another may have the hub by now")
		}
		time.Sleep(n.interval())
		synctest.Wait()
		if !n.serving() {
			t.Error("it does not serve again")
		}
	})
}

// A running machine is copied, memory and all: two processes have the same id. The second that beats finds a beat that it has not sent, and ends.
func TestACopyOfARunningOwnerIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		first, twin := r.node("alpha", true), r.node("alpha", true)
		first.run(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		first.mu.Lock()
		twin.me, twin.until = first.me, first.until
		first.mu.Unlock()
		go func() { twin.ended <- twin.keep(t.Context()) }()
		defer first.stop()
		time.Sleep(2 * lease)
		synctest.Wait()
		if first.serving() == twin.serving() || len(first.ended)+len(twin.ended) != 1 {
			t.Errorf("serving: %t and %t", first.serving(), twin.serving())
		}
	})
}

// The answer to a beat is lost, and with it the store for a while. What the owner then reads says that the hub is its own, but not for how long another
// has watched the beat that it reads.
func TestABeatWithoutAnswerDoesNotProlongTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		owner, heir := r.node("alpha", true), r.node("beta", true)
		owner.run(t)
		defer owner.stop()
		synctest.Wait()
		sent := 0
		owner.line.failing(func() string {
			if sent++; sent == 1 {
				return "after"
			}
			return "before"
		})
		time.Sleep(owner.interval()) // the last beat that arrives
		synctest.Wait()
		r.taken = func(registration.HubOwner, registration.HubOwner) {
			if owner.serving() {
				t.Error("it was taken while the other served it")
			}
		}
		go func() {
			time.Sleep(lease - owner.interval()) // shortly before the heir may take it, one call passes: the reading
			reads := 0
			owner.line.failing(func() string {
				if reads++; reads <= 2 { // a beat that meets a conflict, and the reading
					return ""
				}
				return "before"
			})
		}()
		heir.run(t)
		defer heir.stop()
		if owner.serving() || !heir.serving() {
			t.Errorf("serving: %t and %t", owner.serving(), heir.serving())
		}
	})
}

// The lease counts from when a beat was sent: its answer may come much later than another node sees it.
func TestASlowAnswerDoesNotProlongTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		owner, heir := r.node("alpha", true), r.node("beta", true)
		owner.run(t)
		defer owner.stop()
		synctest.Wait()
		sent := 0
		owner.line.failing(func() string {
			if sent++; sent == 1 {
				return "slow"
			}
			return "before"
		})
		time.Sleep(owner.interval())
		synctest.Wait()
		go heir.acquire(t.Context())
		time.Sleep(lease - owner.margin())
		synctest.Wait()
		if owner.serving() {
			t.Error("it serves longer than it may")
		}
		time.Sleep(lease)
		synctest.Wait()
		if r.now().Host != "beta" {
			t.Error("the heir has not got it")
		}
	})
}

func TestALostAnswerCostsTheOwnerNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		n := r.node("alpha", true)
		n.run(t)
		defer n.stop()
		calls := 0
		n.line.failing(func() string {
			if calls++; calls%5 == 1 {
				return "after"
			}
			return ""
		})
		for range 1000 {
			time.Sleep(n.interval())
			if !n.serving() {
				t.Fatal("it does not serve")
			}
		}
		if n.suspended.Load() != 0 || len(n.ended) != 0 {
			t.Errorf("suspended %d times", n.suspended.Load())
		}
	})
}

// Nodes that do not serve the hub see to it that a dead owner's is nobody's, so that work which needs no sessions goes on.
func TestNodesWithoutAHubNoticeThatNobodyServesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &register{}
		owner, a, b := r.node("alpha", true), r.node("beta", false), r.node("gamma", false)
		reach := func(want registration.Reach) {
			t.Helper()
			time.Sleep(a.interval())
			synctest.Wait()
			for _, n := range []*node{a, b} {
				if got, _ := n.reach(); got != want {
					t.Errorf("node on %s reaches %d, want %d", n.host, got, want)
				}
			}
		}
		for _, n := range []*node{a, b} {
			if got, _ := n.reach(); got != registration.Elsewhere {
				t.Errorf("before the first look a node reaches %d", got)
			}
			n.run(t)
			defer n.stop()
		}
		reach(registration.Unserved)
		owner.run(t)
		reach(registration.Elsewhere)
		time.Sleep(time.Hour)
		reach(registration.Elsewhere)
		owner.kill()
		r.taken = func(registration.HubOwner, registration.HubOwner) {
			if owner.serving() {
				t.Error("it was freed while it was served")
			}
		}
		time.Sleep(lease - 3*a.interval())
		reach(registration.Elsewhere)
		time.Sleep(3 * a.interval())
		reach(registration.Unserved)
		next := r.node("alpha", true)
		next.run(t)
		defer next.stop()
		if !next.serving() {
			t.Error("a new owner does not serve")
		}
		reach(registration.Elsewhere)
	})
}

// Five minutes of nodes that come and go, with a store that fails in every way: never do two serve. The heirs' clocks run faster than the owner's, which
// their shorter leases stand for.
func TestNeverDoTwoServe(t *testing.T) {
	for round := range 8 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			if two, served := storm(t, seed, 0.85); two > 0 || served < 100 {
				t.Errorf("seed %d: two nodes served at %d of the moments looked at, one at %d", seed, two, served)
			}
		})
	}
}

// The storm is one that would show it: where clocks differ by more than the margin, two do serve.
func TestTwoServeWhereClocksDifferTooMuch(t *testing.T) {
	const rounds = 1000 // the schedule is chance, too: a few are enough mostly
	for seed := range uint64(rounds) {
		if two, _ := storm(t, seed, 0.5); two > 0 {
			t.Logf("found in round %d", seed)
			return
		}
	}
	t.Errorf("clocks that differ by half the lease did no harm in %d rounds", rounds)
}

// storm returns at how many moments two nodes served, and at how many one did.
func storm(t *testing.T, seed uint64, rate float64) (two, one int) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 0))
		var mu sync.Mutex
		chance := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return random.IntN(n)
		}
		r := &register{}
		taken := 0
		r.taken = func(registration.HubOwner, registration.HubOwner) {
			for _, each := range r.nodes {
				if each.serving() {
					taken++
				}
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var running sync.WaitGroup
		for i := range 3 {
			running.Go(func() {
				for ctx.Err() == nil {
					r.live(ctx, fmt.Sprint("host ", i), time.Duration(float64(lease)*[]float64{1, rate, rate}[i]), chance)
					pause(ctx, time.Duration(chance(8000))*time.Millisecond)
				}
			})
		}
		for range 1500 {
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			switch r.serving() {
			case 0:
			case 1:
				one++
			default:
				two++
			}
		}
		stop()
		running.Wait()
		two += taken
	})
	return two, one
}

// live is one life of a node, to its death or the end of the storm.
func (r *register) live(ctx context.Context, host string, lease time.Duration, chance func(int) int) {
	r.mu.Lock()
	n := r.node(host, true)
	r.mu.Unlock()
	n.lease = lease
	bad := chance(4) // of ten calls fail
	n.line.failing(func() string {
		if chance(10) < bad {
			return []string{"before", "after", "slow", "hang", "hang, then do"}[chance(5)]
		}
		return ""
	})
	ctx, kill := context.WithTimeout(ctx, time.Duration(chance(60_000))*time.Millisecond)
	defer kill()
	if n.acquire(ctx) == nil {
		_ = n.keep(ctx)
	}
	n.mu.Lock()
	n.until = 0 // dead, or its last session has ended
	n.mu.Unlock()
	if chance(2) == 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.interval())
		defer cancel()
		_ = n.release(ctx)
	}
}

func (r *register) serving() (n int) {
	r.mu.Lock()
	nodes := r.nodes
	r.mu.Unlock()
	for _, each := range nodes {
		if each.serving() {
			n++
		}
	}
	return n
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
