package steps

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// trouble is what becomes of a call.
type trouble int

const (
	failsBefore    trouble = iota // nothing happened
	failsAfter                    // it took effect, and the caller hears that it failed
	hangsBefore                   // nothing happens until the request is given up
	hangsAfter                    // it takes effect, and the answer does not come until the request is given up
	cancelledFirst                // the request is given up right before it
	cancelledLater                // the request is given up right after it, and it answers as if nothing was
	troubles
)

// What becomes of a process: nothing that it calls has any effect from there on.
const (
	diesBefore trouble = troubles + 1 + iota
	diesAfter          // the call took effect
	isDead
)

func (t trouble) String() string {
	if t > troubles {
		return [...]string{"is the last of a process", "took effect and is the last of a process", "is of a process that is dead"}[t-troubles-1]
	}
	return [...]string{"fails before its effect", "fails after its effect", "hangs before its effect", "hangs after its effect", "meets a request that was given up", "is the last of a request that is given up"}[t]
}

var errInjected = errors.New("injected fault")

// tap is what all calls of a store and a hub go through, one request at a time. It records them, and makes one of them meet its trouble or lets
// somebody else act in front of it.
type tap struct {
	mu      sync.Mutex
	calls   []string // since it was armed
	at      int      // the call that is met; -1: none
	only    string   // of the calls of this name alone; empty: of all
	trouble trouble
	step    func() // instead of the trouble
	met     bool
	dead    bool               // the process is: nobody makes a call any more
	giveUp  context.CancelFunc // of the request that is under way
}

// open lets everything through, and forgets what it has recorded.
func (t *tap) open() { t.arm(-1, 0, nil) }

// arm makes the nth call from now on meet its trouble, or with a step that.
func (t *tap) arm(nth int, trouble trouble, step func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls, t.at, t.only, t.trouble, t.step, t.met, t.dead = nil, nth, "", trouble, step, false, false
}

// armAt makes the call that was the nth of those recorded meet its trouble, or a step, by its name and how often that came before: what several workers do
// has no order.
func (t *tap) armAt(calls []string, nth int, trouble trouble, step func()) {
	before := 0
	for _, call := range calls[:nth] {
		if call == calls[nth] {
			before++
		}
	}
	t.arm(before, trouble, step)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.only = calls[nth]
}

// recorded are the calls since the tap was armed or opened, and whether one was met.
func (t *tap) recorded() (calls []string, met bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls, t.met
}

// enter notes a call. The step runs outside of the lock: its own calls go through the tap too, and are met no more.
func (t *tap) enter(call string) (meets bool, trouble trouble) {
	t.mu.Lock()
	if t.dead {
		t.mu.Unlock()
		return true, isDead
	}
	meets = len(t.calls) == t.at
	if t.only != "" {
		meets = call == t.only && t.at == 0
		if call == t.only && t.at > 0 {
			t.at--
		}
	}
	t.calls = append(t.calls, call)
	step := t.step
	if meets {
		t.at, t.met, t.dead = -1, true, t.trouble >= diesBefore && step == nil
	}
	t.mu.Unlock()
	if meets && step != nil {
		step()
		return false, 0
	}
	return meets, t.trouble
}

// request gives a request a context that the tap can end.
func (t *tap) request(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveUp = cancel
	return ctx, cancel
}

func (t *tap) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveUp()
}

// hung is what a call returns that hung until the request ended. A call whose context does not end with the request has a limit of its own.
func hung(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.DeadlineExceeded
}

// none, one and two pass a call on that returns so many values beside its error.
func none(t *tap, ctx context.Context, call string, do func(context.Context) error) error {
	_, err := one(t, ctx, call, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return err
}

func one[T any](t *tap, ctx context.Context, call string, do func(context.Context) (T, error)) (T, error) {
	v, _, err := two(t, ctx, call, func(ctx context.Context) (T, struct{}, error) {
		v, err := do(ctx)
		return v, struct{}{}, err
	})
	return v, err
}

func two[T, U any](t *tap, ctx context.Context, call string, do func(context.Context) (T, U, error)) (v T, u U, err error) {
	meets, trouble := t.enter(call)
	if !meets {
		return do(ctx)
	}
	var noT T
	var noU U
	switch trouble {
	case failsBefore, diesBefore, isDead:
		return noT, noU, fmt.Errorf("%s: %w", call, errInjected)
	case hangsBefore:
		t.end()
		return noT, noU, hung(ctx)
	case cancelledFirst:
		t.end()
		return do(ctx)
	}
	v, u, err = do(ctx)
	switch trouble {
	case failsAfter, diesAfter:
		return noT, noU, fmt.Errorf("%s, after its effect: %w", call, errors.Join(errInjected, err))
	case hangsAfter:
		t.end()
		return noT, noU, hung(ctx)
	}
	t.end()
	return v, u, err
}
