package registration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"latchkey.example/latchkey/dps"
)

// How the outbox is worked off. Work that was claimed begins at once or goes back, so that it is over before its lease.
const (
	outboxBatch   = 64
	outboxWorkers = 256              // at a time
	outboxTime    = 5 * time.Second  // for one row, where the hub is ours
	remoteTime    = 15 * time.Second // for one row that calls hubs over the network
	webhookTime   = 25 * time.Second // for one row that calls a webhook; the hubs' turn comes after that
	outboxLease   = time.Minute
	workEvery     = 500 * time.Millisecond

	firstPostponement = time.Second
	lastPostponement  = 5 * time.Minute
	maxFailure        = 200 // bytes of the reason that a row keeps
	// lookAgain is longer than a call can take, whoever makes it and for whom the lease is over: what it did is then to be seen.
	lookAgain = 90 * time.Second
	// shutOutLife is how long a device that was shut out is waited for.
	shutOutLife = 24 * time.Hour
)

// Delivery says what became of the rows that were claimed.
type Delivery struct {
	Done   int // delivered, or found to be needed no more
	Failed int // postponed
}

// Deliver does work of the outbox that is due, and what it orders in doing so, until none is left. Work whose node died comes up again when its lease has
// run out.
func (c *Core) Deliver(ctx context.Context) (Delivery, error) {
	run := &delivering{core: c, places: make(chan struct{}, outboxWorkers)}
	for {
		select {
		case <-c.ordered:
		default:
		}
		err := run.claimAll(ctx)
		run.workers.Wait()
		if err != nil || ctx.Err() != nil || len(c.ordered) == 0 {
			return run.take(), errors.Join(err, ctx.Err())
		}
	}
}

// Work delivers until the context ends: what is due, and what this process has just ordered, at once. A hub that hangs holds up nobody but its own
// work. Each round is told to report, with what was done since the last and an error if nothing can be claimed. The wiring runs it on
// every node: which of them may do what, it knows itself.
func (c *Core) Work(ctx context.Context, report func(Delivery, error)) {
	run := &delivering{core: c, places: make(chan struct{}, outboxWorkers)}
	defer run.workers.Wait()
	due := time.NewTicker(c.workEvery)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		case <-c.ordered:
		}
		report(run.take(), run.claimAll(ctx))
	}
}

// nudge says that there is work, which then need not wait for its time.
func (c *Core) nudge() {
	select {
	case c.ordered <- struct{}{}:
	default:
	}
}

// delivering is work that is under way.
type delivering struct {
	core    *Core
	places  chan struct{}
	workers sync.WaitGroup

	mu    sync.Mutex
	since Delivery
}

// take gives what came of the work since the last time.
func (d *delivering) take() Delivery {
	d.mu.Lock()
	defer d.mu.Unlock()
	since := d.since
	d.since = Delivery{}
	return since
}

func (d *delivering) note(failed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if failed {
		d.since.Failed++
		return
	}
	d.since.Done++
}

// claimAll starts what is due of each kind that this process can do, until nothing is left or every place is taken.
func (d *delivering) claimAll(ctx context.Context) error {
	var failed error
	for _, kind := range d.core.workable() {
		for ctx.Err() == nil {
			rows, err := d.claim(ctx, kind)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("claiming work of the outbox: %w", err))
			}
			if rows < outboxBatch {
				break
			}
		}
	}
	return failed
}

// workable are the kinds of work that this process can do now.
func (c *Core) workable() []OutboxKind {
	kinds := []OutboxKind{OutboxAdvanceRemote, OutboxDeviceOrder, OutboxGroupOrder}
	if c.embeddedReach() != Elsewhere {
		kinds = append(kinds, OutboxAdvance, OutboxDeviceOrderEmbedded)
	}
	return kinds
}

// embeddedReach is that of the embedded hubs, which all are one process's.
func (c *Core) embeddedReach() Reach {
	for id, s := range c.scopes.Load().byID {
		return c.hub.Reach(id, s.Hosts[0])
	}
	return Elsewhere // without scopes there is nothing to reach
}

// claim takes as many rows as there are places for and gives each a worker. It waits for a place, but not for many.
func (d *delivering) claim(ctx context.Context, kind OutboxKind) (rows int, err error) {
	free := 0
	for range outboxBatch {
		select {
		case d.places <- struct{}{}:
			free++
			continue
		default:
		}
		break
	}
	for free == 0 {
		select {
		case d.places <- struct{}{}:
			free++
		case <-ctx.Done():
			return 0, nil
		}
	}
	claimed, id, err := d.core.claimOutbox(ctx, kind, free)
	for range free - len(claimed) {
		<-d.places
	}
	for _, row := range claimed {
		d.workers.Go(func() {
			defer func() { <-d.places }()
			d.note(d.core.deliver(ctx, row, id) != nil)
		})
	}
	if len(claimed) == free { // there may be more
		return outboxBatch, err
	}
	return len(claimed), err
}

func (c *Core) claimOutbox(ctx context.Context, kind OutboxKind, limit int) ([]OutboxRow, string, error) {
	id, err := c.newOperationID()
	if err != nil {
		return nil, "", err
	}
	rows, err := patiently(ctx, outboxTime, func(ctx context.Context) ([]OutboxRow, error) {
		return c.store.ClaimOutbox(ctx, OutboxClaim{ID: id, Kind: kind, Lease: outboxLease, Limit: limit})
	})
	return rows, id, err
}

// Why a row is not settled though nothing went wrong.
var (
	errRowGone   = errors.New("the row went with its work")
	errLookAgain = errors.New("another operation took its place; looked at again, for calls that come late")
	errShutOut   = errors.New("the operator has shut the device out; it goes on if he lets it in again")
)

// deliver does one row's work and ends its claim, even when the service is about to stop: another node then need not wait for the lease.
func (c *Core) deliver(ctx context.Context, row OutboxRow, claim string) error {
	err := c.do(ctx, row, claim)
	ctx, cancel := detached(ctx)
	defer cancel()
	switch {
	case errors.Is(err, errRowGone):
		return nil
	case err == nil:
		if _, err := c.store.SettleOutbox(ctx, row.Scope, row.Outbox, claim); err != nil {
			c.log.Warn("outbox: what is done is looked at again", "object", row.Object, "err", err)
		}
		return nil
	}
	c.postpone(ctx, row, claim, err)
	return err
}

// do does a row's work. Nil: it is done, and the row is to be settled.
func (c *Core) do(ctx context.Context, row OutboxRow, claim string) error {
	switch row.Kind {
	case OutboxDeviceOrder, OutboxDeviceOrderEmbedded:
		return c.carryOut(ctx, row, claim)
	case OutboxGroupOrder:
		return c.carryOutGroup(ctx, row, claim)
	}
	return c.advanceOrdered(ctx, row)
}

func (c *Core) postpone(ctx context.Context, row OutboxRow, claim string, why error) {
	by := postponement(row.Attempts, rand.Float64())
	var retry *RetryError
	switch {
	case errors.Is(why, ErrElsewhere) || errors.Is(why, context.Canceled): // nothing is wrong with the work
		by = firstPostponement
	case errors.Is(why, errOthers), errors.Is(why, ErrNotYet):
		by = firstPostponement
	case errors.Is(why, errShutOut):
		by = lastPostponement
	case errors.Is(why, errLookAgain):
		by = lookAgain
	case errors.As(why, &retry): // not before the hub says, and not all at once
		by = max(retry.After+time.Duration(rand.Float64()*float64(min(retry.After, longestRest)/2)), min(by, longestRest))
	}
	if errors.Is(why, errLookAgain) || errors.Is(why, errHubRests) || errors.Is(why, errOthers) || errors.Is(why, errShutOut) || errors.Is(why, ErrNotYet) {
		c.log.Debug("outbox: put off", "kind", row.Kind, "scope", row.Scope, "object", row.Object, "in", by.Round(time.Millisecond), "why", why)
	} else {
		c.log.Warn("outbox: not delivered, it is tried again", "kind", row.Kind, "scope", row.Scope, "object", row.Object, "attempts", row.Attempts,
			"age", row.Age.Round(time.Second), "in", by.Round(time.Millisecond), "err", why)
	}
	failure := why.Error()
	failure = strings.ToValidUTF8(failure[:min(len(failure), maxFailure)], "")
	if _, err := c.store.PostponeOutbox(ctx, row.Scope, row.Outbox, claim, by, failure); err != nil {
		c.log.Warn("outbox: work that failed is tried again when its lease has run out", "object", row.Object, "err", err)
	}
}

// postponement is how long a row rests after its nth attempt: twice as long each time, up to a bound, and of that half to the whole, as chance
// (0 to 1) has it, so that what failed together does not come back together.
func postponement(attempts int, chance float64) time.Duration {
	whole := lastPostponement
	if attempts < 12 { // the bound is reached before
		whole = min(whole, firstPostponement<<max(0, attempts-1))
	}
	return whole/2 + time.Duration(chance*float64(whole/2))
}

var errUnknownScope = errors.New("the scope is not known to this node, yet or any more")

// advanceOrdered advances the operation that a row names; nil if nothing is left to do for it.
func (c *Core) advanceOrdered(ctx context.Context, row OutboxRow) error {
	o, err := patiently(ctx, outboxTime, func(ctx context.Context) (Operation, error) { return c.store.Operation(ctx, row.Scope, row.Object) })
	switch {
	case errors.Is(err, ErrNotFound): // deleted
		return nil
	case err != nil || o.Status != Assigning:
		return err
	}
	o, err = c.resume(ctx, Unfinished{Scope: row.Scope, Operation: o}, true)
	switch {
	case errors.Is(err, errShutOut) && (row.Age > shutOutLife || !c.overNetwork(row.Scope, o)): // if he lets it in again the sweep goes on, or the device begins anew
		return nil
	case err != nil || o.Status == Assigning: // it has a hub by now, and another row
		return err
	case o.Status == Failed && o.ErrorCode == int(dps.CodeConflict): // which tells of another operation, mostly
		return c.cleanUp(ctx, row, o)
	}
	return errRowGone
}

// cleanUp ends the work for an operation whose place another one took. Calls of whoever was at it may still be under way: it is looked at once more when they
// must be over.
func (c *Core) cleanUp(ctx context.Context, row OutboxRow, o Operation) error {
	now, err := true, error(nil)
	if is, err := c.store.Operation(ctx, row.Scope, o.ID); err != nil || is.Status != Assigning { // it has failed, or is deleted
		return unlessMissing(err)
	}
	work := func(ctx context.Context) error {
		now, err = c.undo(ctx, row.Scope, o)
		return err
	}
	remote := o.Hub != "" && c.hub.Reach(row.Scope, o.Hub) == Remote
	if remote {
		err = c.overTheNetwork(ctx, remoteTime, row.Scope, []string{o.Hub}, work)
	} else {
		_, err = patiently(ctx, outboxTime, func(ctx context.Context) (struct{}, error) { return struct{}{}, work(ctx) })
	}
	switch {
	case err != nil:
		return err
	case !now, remote && row.Failure != errLookAgain.Error():
		return errLookAgain
	}
	return nil
}

func unlessMissing(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// overTheNetwork does work that calls hubs over the network, within its time.
func (c *Core) overTheNetwork(ctx context.Context, span time.Duration, scope string, hubs []string, work func(ctx context.Context) error) error {
	return c.atHubs(ctx, span, scope, hubs, work)
}
