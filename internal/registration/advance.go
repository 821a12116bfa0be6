package registration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"latchkey.example/latchkey/dps"
)

// Advance moves an operation as far as it can go now, and is idempotent. It is all that moves an operation: the PUT, every poll, the outbox
// (Deliver) and the sweep (Resume) call it, so a crash after the 202 needs no repair. The order is the promise: the hub holds the key first, then the assignment and its
// audit row become durable, and only then can an answer carry the key. An error leaves the operation assigning.
//
// A device that moves is read at the hub where it was, what it had is saved, it is removed there, and then made at its new hub: never is it at two.
func (c *Core) Advance(ctx context.Context, scopeID string, o Operation) (Operation, error) {
	if o.Status != Assigning {
		return o, nil
	}
	p, err := decodePlan(o.Plan)
	if err != nil {
		return o, err
	}
	if p.Awaits {
		if err := c.awaited(ctx, scopeID, o); err != nil {
			return o, err
		}
	}
	if o.Hub == "" {
		if o, p, err = c.allocateLate(ctx, scopeID, o, p); err != nil || o.Status != Assigning {
			return o, err
		}
		if _, remote, _ := c.reaches(scopeID, o, p); remote { // its turn at that hub comes with the row that was just written
			c.nudge()
			return o, nil
		}
	}
	a := arrival{substatus: o.Substatus}
	if !p.Start.IsZero() || p.Reset {
		a.data = p.Start.data(p.Reset)
	}
	if len(p.Leaving) > 0 {
		current := false
		if a, current, err = c.leave(ctx, scopeID, o, p); err == nil && !current {
			return c.overtaken(ctx, scopeID, o)
		}
	}
	if err == nil {
		err = c.arrive(ctx, scopeID, o, a)
	}
	var refused *RefusedError
	switch {
	case err == nil:
		return c.finish(ctx, scopeID, o, p, a)
	case errors.Is(err, ErrStale):
		return c.overtaken(ctx, scopeID, o)
	case errors.Is(err, ErrUnlinked):
		if gone, followed := c.unlinked(ctx, scopeID, o.Hub); !gone || followed != nil {
			return o, errors.Join(err, followed)
		}
		return c.fail(ctx, scopeID, o, dps.CodeNoHub, ReasonNoHub, "The hub "+o.Hub+" was unlinked before the device came to it. Register again.")
	case errors.As(err, &refused):
		return c.fail(ctx, scopeID, o, dps.CodeHubRefused, ReasonHubFailed, refused.Message)
	}
	return o, err
}

// arrive makes the device at its hub.
func (c *Core) arrive(ctx context.Context, scopeID string, o Operation, a arrival) error {
	credential, err := c.openCredential(scopeID, o)
	if err != nil {
		return err
	}
	err = c.hub.EnsureDevice(ctx, scopeID, o.Hub, HubDevice{DeviceID: o.DeviceID, Credential: credential, Generation: o.Revision, Data: a.data})
	if err != nil {
		return &hubFailure{o.Hub, err}
	}
	return nil
}

// overtaken gives an operation whose place another one took as it is shown, unless it has ended before that.
func (c *Core) overtaken(ctx context.Context, scopeID string, o Operation) (Operation, error) {
	now, err := c.store.Operation(ctx, scopeID, o.ID)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && now.Status == Assigning:
		return superseded(o), nil
	case err != nil:
		return o, fmt.Errorf("reading what it is now: %w", err)
	}
	return now, nil
}

// tryAdvance is Advance for a request, which an error does not end: the operation stays assigning, and its outbox row, the next poll or the sweep
// goes on. What is done over the network is left to the outbox.
func (c *Core) tryAdvance(ctx context.Context, s *scope, o Operation) Operation {
	if c.overNetwork(s.ID, o) {
		return o
	}
	o, err := c.Advance(ctx, s.ID, o)
	switch {
	case isAwaiting(err):
		c.log.Debug("advance: put off", "operation", o.ID, "why", err)
	case errors.Is(err, ErrElsewhere):
		c.log.Debug("advance: left to the process that serves the hub", "operation", o.ID)
	case err != nil:
		c.notAdvanced(o, err)
	}
	return o
}

// overNetwork says whether advancing an operation now calls what is far away. Requests do not wait for that.
func (c *Core) overNetwork(scopeID string, o Operation) bool {
	p, err := decodePlan(o.Plan)
	if o.Status != Assigning || err != nil {
		return false
	}
	_, remote, _ := c.reaches(scopeID, o, p)
	return remote
}

// finish writes the assignment, and what the audit tells of it.
func (c *Core) finish(ctx context.Context, scopeID string, o Operation, p plan, a arrival) (Operation, error) {
	o.Substatus = a.substatus
	told, err := json.Marshal(struct {
		Operation string   `json:"operation"`
		Hub       string   `json:"hub"`
		DeviceID  string   `json:"deviceId"`
		Substatus string   `json:"substatus,omitempty"`
		Left      []string `json:"left,omitempty"` // hubs that it was removed from
		Lost      []string `json:"lost,omitempty"` // hubs that are linked no more, with what it had there
	}{o.ID, o.Hub, o.DeviceID, a.substatus, p.Leaving, a.gone})
	if err != nil {
		return o, err
	}
	return c.end(ctx, scopeID, o, Finish{Status: Assigned, Hub: o.Hub, Payload: p.Returned,
		Audit: Audit{Outcome: OutcomeOK, Reason: ReasonRegistered, Detail: string(told)}})
}

// fail ends an operation without an assignment. What is shown of the registration says so; where its device may be, it keeps.
func (c *Core) fail(ctx context.Context, scopeID string, o Operation, code dps.Code, reason Reason, sentence string) (Operation, error) {
	sentence = shownText(sentence)
	told, err := json.Marshal(struct {
		Operation string `json:"operation"`
		Hub       string `json:"hub,omitempty"`
		Message   string `json:"message"`
	}{o.ID, o.Hub, sentence})
	if err != nil {
		return o, err
	}
	return c.end(ctx, scopeID, o, Finish{Status: Failed, Hub: o.Hub, ErrorCode: int(code), ErrorMessage: sentence,
		Audit: Audit{Outcome: OutcomeRefused, Reason: reason, Detail: string(told)}})
}

// maxFailureText bounds what a registration tells of its failure, in bytes: part of it may be a hub's own.
const maxFailureText = 1024

// shownText makes text that any store takes of what a hub said.
func shownText(said string) string {
	said = strings.ToValidUTF8(strings.ReplaceAll(said, "\x00", ""), "")
	return strings.ToValidUTF8(said[:min(len(said), maxFailureText)], "")
}

func (c *Core) end(ctx context.Context, scopeID string, o Operation, f Finish) (Operation, error) {
	now, id := c.now(), dps.FoldID(o.RegistrationID)
	f.OperationID, f.RegistrationID, f.Substatus, f.DeviceID, f.At = o.ID, id, o.Substatus, o.DeviceID, now
	f.Audit.At, f.Audit.Actor, f.Audit.Action, f.Audit.Object, f.Audit.TrackingID = now, ActorService, ActionAssign, id, o.TrackingID
	verdict, err := c.store.Finish(ctx, scopeID, f)
	if err != nil {
		return o, fmt.Errorf("writing the end of the operation: %w", err)
	}
	switch verdict {
	case Applied:
		o.Status, o.Updated, o.ErrorCode, o.ErrorMessage, o.Plan = f.Status, now, f.ErrorCode, f.ErrorMessage, nil
		return o, nil
	case Conflict: // somebody else finished it: read what it is now
		return c.overtaken(ctx, scopeID, o)
	}
	return superseded(o), nil
}

// superseded is an operation whose place a newer one took, or whose chip the operator replaced or whose registration he deleted. It is
// shown, never stored: the stored row stays as it is, and is pruned with its window unless it is still its registration's current one.
func superseded(o Operation) Operation {
	o.Status, o.ErrorCode, o.ErrorMessage = Failed, int(dps.CodeConflict), "A newer registration of this device took the place of this operation. Register again."
	return o
}
