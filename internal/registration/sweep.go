package registration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"latchkey.example/latchkey/dps"
)

// pruneBatch bounds one round of Maintain, so that it never holds the writer for long.
const pruneBatch = 1000

// generationLife is how long the redemption count of a deleted registration is kept: longer than any challenge lives, so that none made
// before can be redeemed after.
const generationLife = 15 * time.Minute

// Maintain moves on what nobody polls, then removes operations whose window has passed, generations of ids that are long gone, what deleted
// scopes have left and audit rows past their retention, and renews certificates of scopes.
func (c *Core) Maintain(ctx context.Context) error {
	return errors.Join(c.Resume(ctx), c.prune(ctx), c.pruneScopes(ctx), c.renewCertificates(ctx), c.expireAudit(ctx))
}

// sweepTime bounds one call of maintenance to the store.
const sweepTime = time.Minute

// patiently bounds work that no request waits for and that nobody else gives up: a server whose host is gone while it has a statement of ours
// is else waited for as long as the system resends, a quarter of an hour.
func patiently[T any](ctx context.Context, span time.Duration, work func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	return work(ctx)
}

// resumeAge keeps Resume away from operations whose own request is still at work.
const resumeAge = 5 * time.Second

// resumePage is how many operations Resume holds in memory at a time.
const resumePage = 1000

// Resume advances operations that are still assigning: a crash, a cut connection or a hub that was down left them, and their device may
// never come back to poll. Until it is done a previous owner's key is still good at the hub. What fails now is tried again the next time.
// It looks at all of them, a page at a time: those that stay, as a disabled group's do, never hide those behind them. Those that a clock ahead of
// this one has left are among them, but for what another node may be at just now. Where the hub's sessions are another process's it leaves them to
// that, and to the outbox what is done over the network, where one alone is at it at a time.
func (c *Core) Resume(ctx context.Context) error {
	if c.embeddedReach() == Elsewhere {
		return nil
	}
	now := c.now()
	past := c.resumeAll(ctx, Unfinished{}, now.Add(-resumeAge))
	return errors.Join(past, c.resumeAll(ctx, Unfinished{Operation: Operation{Created: now.Add(clockSkew + time.Microsecond)}}, now.AddDate(100, 0, 0)))
}

func (c *Core) resumeAll(ctx context.Context, after Unfinished, before time.Time) (failed error) {
	for last := after; ; {
		page, err := patiently(ctx, sweepTime, func(ctx context.Context) ([]Unfinished, error) {
			return c.store.Unfinished(ctx, before, last, resumePage)
		})
		if err != nil {
			return errors.Join(failed, fmt.Errorf("listing unfinished operations: %w", err))
		}
		for _, last = range page {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if _, err := c.resume(ctx, last, false); err != nil && !errors.Is(err, errUnknownScope) && !errors.Is(err, errShutOut) {
				failed = fmt.Errorf("operation %s: %w", last.Operation.ID, err)
			}
		}
		if len(page) < resumePage {
			return failed
		}
	}
}

// resume advances one operation unless the operator has shut its device out since: what a poll would refuse is not assigned either. One whose place
// another took is given back as superseded, and one that calls over the network, unless that is wanted, as it is.
func (c *Core) resume(ctx context.Context, u Unfinished, far bool) (Operation, error) {
	o := u.Operation
	device, err := patiently(ctx, outboxTime, func(ctx context.Context) (Device, error) {
		return c.store.Device(ctx, u.Scope, dps.FoldID(o.RegistrationID))
	})
	if err != nil {
		return o, err
	}
	if device.Operation != nil && device.Operation.ID == o.ID {
		o = *device.Operation // with its plan
	}
	s, known := c.scope(u.Scope)
	if !known {
		return o, errUnknownScope
	}
	standing, err := patiently(ctx, outboxTime, func(ctx context.Context) (Reason, error) { return c.standing(ctx, s, device, o) })
	switch {
	case err != nil:
		return o, err
	case standing == ReasonSuperseded, standing != ReasonNone && (device.Registration == nil || device.Registration.OperationID != o.ID):
		return superseded(o), nil // shut out or not: what it may have made is to be cleaned up
	case standing != ReasonNone:
		return o, errShutOut
	case !far && c.overNetwork(u.Scope, o):
		return o, nil
	}
	return c.advanceInTime(ctx, u.Scope, o)
}

// advanceInTime bounds the time, and what is asked of hubs over the network.
func (c *Core) advanceInTime(ctx context.Context, scopeID string, o Operation) (advanced Operation, err error) {
	p, err := decodePlan(o.Plan)
	if err != nil {
		return o, err
	}
	if _, remote, _ := c.reaches(scopeID, o, p); !remote {
		return patiently(ctx, outboxTime, func(ctx context.Context) (Operation, error) { return c.Advance(ctx, scopeID, o) })
	}
	span, hubs := remoteTime, []string(nil)
	for _, hub := range append([]string{o.Hub}, p.Leaving...) {
		if hub != "" && c.hub.Reach(scopeID, hub) == Remote {
			hubs = append(hubs, hub)
		}
	}
	if o.Hub == "" {
		span, hubs = webhookTime, []string{webhooks}
	}
	advanced = o
	err = c.overTheNetwork(ctx, span, scopeID, hubs, func(ctx context.Context) error {
		advanced, err = c.Advance(ctx, scopeID, o)
		return err
	})
	return advanced, err
}

func (c *Core) prune(ctx context.Context) error {
	for {
		removed, err := patiently(ctx, sweepTime, func(ctx context.Context) (int, error) {
			return c.store.Prune(ctx, c.now().Add(-operationWindow-time.Minute), c.now().Add(-generationLife), pruneBatch)
		})
		if err != nil || removed < pruneBatch {
			return err
		}
	}
}
