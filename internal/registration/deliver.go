package registration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// How the outbox is worked off. A batch is over before its lease, though every row of it runs out of time.
const (
	outboxBatch   = 64
	outboxWorkers = 8
	outboxTime    = 5 * time.Second // for one row
	outboxLease   = time.Minute

	firstPostponement = time.Second
	lastPostponement  = 5 * time.Minute
	maxFailure        = 200 // bytes of the reason that a row keeps
)

// Delivery says what became of the rows that Deliver claimed.
type Delivery struct {
	Done   int // delivered, or found to be needed no more
	Failed int // postponed
}

// Deliver does work of the outbox that is due, until none is left. Work whose node died comes up again when its lease has run out. The wiring
// calls it again and again, on every node: which of them may do what, it knows itself.
func (c *Core) Deliver(ctx context.Context) (Delivery, error) {
	var all Delivery
	for c.hub.Reach("", "") != Elsewhere {
		claim, err := c.newOperationID()
		if err != nil {
			return all, err
		}
		rows, err := patiently(ctx, outboxTime, func(ctx context.Context) ([]OutboxRow, error) {
			return c.store.ClaimOutbox(ctx, OutboxClaim{ID: claim, Kind: OutboxAdvance, Lease: outboxLease, Limit: outboxBatch})
		})
		if err != nil {
			return all, fmt.Errorf("claiming work of the outbox: %w", err)
		}
		failed := c.deliverAll(ctx, rows, claim)
		all.Done, all.Failed = all.Done+len(rows)-failed, all.Failed+failed
		if len(rows) < outboxBatch || ctx.Err() != nil {
			break
		}
	}
	return all, ctx.Err()
}

// deliverAll returns how many rows failed.
func (c *Core) deliverAll(ctx context.Context, rows []OutboxRow, claim string) (failed int) {
	var workers sync.WaitGroup
	next, failures := make(chan OutboxRow), make(chan bool, len(rows))
	for range min(outboxWorkers, len(rows)) {
		workers.Go(func() {
			for row := range next {
				failures <- c.deliver(ctx, row, claim) != nil
			}
		})
	}
	for _, row := range rows {
		next <- row
	}
	close(next)
	workers.Wait()
	close(failures)
	for one := range failures {
		if one {
			failed++
		}
	}
	return failed
}

// deliver does one row's work and ends its claim, even when the service is about to stop: another node then need not wait for the lease.
func (c *Core) deliver(ctx context.Context, row OutboxRow, claim string) error {
	attempt, cancel := context.WithTimeout(ctx, outboxTime)
	gone, err := c.advanceOrdered(attempt, row)
	cancel()
	ctx, cancel = detached(ctx)
	defer cancel()
	switch {
	case gone:
	case err == nil:
		if _, err := c.store.SettleOutbox(ctx, row.Scope, row.Outbox, claim); err != nil {
			c.log.Warn("outbox: what is done is looked at again", "object", row.Object, "err", err)
		}
	default:
		c.postpone(ctx, row, claim, err)
	}
	return err
}

func (c *Core) postpone(ctx context.Context, row OutboxRow, claim string, why error) {
	by := postponement(row.Attempts, rand.Float64())
	if errors.Is(why, ErrElsewhere) || errors.Is(why, context.Canceled) { // nothing is wrong with the work
		by = firstPostponement
	}
	c.log.Warn("outbox: not delivered, it is tried again", "kind", row.Kind, "scope", row.Scope, "object", row.Object, "attempts", row.Attempts,
		"age", row.Age.Round(time.Second), "in", by.Round(time.Millisecond), "err", why)
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

// advanceOrdered advances the operation that a row names. Gone says that the row went with it.
func (c *Core) advanceOrdered(ctx context.Context, row OutboxRow) (gone bool, err error) {
	o, err := c.store.Operation(ctx, row.Scope, row.Object)
	switch {
	case errors.Is(err, ErrNotFound): // deleted
		return false, nil
	case err != nil || o.Status != Assigning:
		return false, err
	}
	o, err = c.resume(ctx, Unfinished{Scope: row.Scope, Operation: o})
	return err == nil && o.Status == Assigned, err
}
