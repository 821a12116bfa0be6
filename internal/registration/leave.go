package registration

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"latchkey.example/latchkey/dps"
)

// arrival is what a device has when it comes to its hub.
type arrival struct {
	data      *DeviceData
	substatus string
	gone      []string // hubs that it left and that are linked no more: what it had there is lost, if it was there
}

// hubFailure says which hub an error is of.
type hubFailure struct {
	hub string
	err error
}

func (f *hubFailure) Error() string { return fmt.Sprintf("hub %s: %v", f.hub, f.err) }
func (f *hubFailure) Unwrap() error { return f.err }

// leave takes a device from the hubs where it may be, before it is made at another: never is it at two. What it had is durable before it is
// removed; so whoever goes on after a crash between any two calls finds it, there or here. Nothing is removed until the hub that it
// goes to has answered. Not current says that another operation has taken this one's place: nothing more is to be done for it.
func (c *Core) leave(ctx context.Context, scopeID string, o Operation, p plan) (a arrival, current bool, err error) {
	_, device, current, err := c.stillCurrent(ctx, scopeID, o)
	if err != nil || !current {
		return a, false, err
	}
	if err := c.othersDone(ctx, scopeID, p); err != nil {
		return a, true, err
	}
	a, current, err = c.collect(ctx, scopeID, o, p, device.Registration)
	if err != nil || !current {
		return a, current, err
	}
	for _, hub := range p.Leaving {
		err := c.hub.RemoveDevice(ctx, scopeID, hub, o.DeviceID, o.Revision)
		switch {
		case errors.Is(err, ErrUnlinked), errors.Is(err, ErrStale): // who proved himself later is there, of this registration or another: Finish tells
		case err != nil:
			return a, true, &hubFailure{hub, err}
		}
	}
	return a, true, nil
}

// errOthers is said of an operation that waits for those before it.
var errOthers = errors.New("somebody is still at work for an operation whose place this one took")

// othersDone says whether nobody is at a hub any more for the operations before: what he may still make there would be a second device.
func (c *Core) othersDone(ctx context.Context, scopeID string, p plan) error {
	for _, id := range p.After {
		for _, kind := range []OutboxKind{OutboxAdvance, OutboxAdvanceRemote} {
			claimed, err := c.store.OutboxClaimed(ctx, scopeID, Outbox{Kind: kind, Object: id})
			if err != nil {
				return err
			}
			if claimed {
				return &RetryError{After: firstPostponement, Err: errOthers}
			}
		}
	}
	return nil
}

// collect finds out what the device takes along, and keeps it. It is where the hub that it left has not removed it yet, or is saved, or is at the hub
// already, or is lost.
func (c *Core) collect(ctx context.Context, scopeID string, o Operation, p plan, r *Registration) (a arrival, current bool, err error) {
	there, err := c.probe(ctx, scopeID, o.Hub, o.DeviceID)
	if err != nil {
		return a, true, err
	}
	if p.Reset {
		return arrival{data: p.Start.data(true), substatus: substatusReset}, true, nil
	}
	for _, hub := range p.Leaving {
		data, err := c.hub.DeviceData(ctx, scopeID, hub, o.DeviceID)
		switch {
		case errors.Is(err, ErrNotFound):
		case errors.Is(err, ErrUnlinked):
			gone, followed := c.unlinked(ctx, scopeID, hub)
			if !gone || followed != nil {
				return a, true, errors.Join(&hubFailure{hub, err}, followed)
			}
			a.gone = append(a.gone, hub)
		case err != nil:
			return a, true, &hubFailure{hub, err}
		default:
			if len(data.Tags)+len(data.Desired)+len(data.Reported) == 0 { // not even empty objects: that hub keeps no twins
				data.Tags, data.Desired = p.Start.Tags, p.Start.Desired
			}
			data.Replace, a.data, a.substatus = true, &data, substatusMigrated
			current, err = c.saveMove(ctx, scopeID, o, hub, data)
			return a, current, err
		}
	}
	switch {
	case len(r.Saved) > 0:
		kept, err := decodeSaved(r.Saved)
		a.data, a.substatus = kept.data(kept.From != o.Hub), substatusMigrated
		if kept.From == o.Hub { // it comes back before it was anywhere else
			a.substatus = r.Substatus
		}
		return a, true, err
	case there:
		a.data, a.substatus = p.Start.data(false), r.Substatus
	default:
		a.data, a.substatus = p.Start.data(false), substatusReset
	}
	return a, true, nil
}

// unlinked says whether a hub that answered so is linked no more, and not only yet unknown to this node.
func (c *Core) unlinked(ctx context.Context, scopeID, hub string) (bool, error) {
	err := c.FollowScopes(ctx)
	s, known := c.scope(scopeID)
	if err != nil || !known {
		return !known, err // with its scope
	}
	_, linked := s.hubNamed(hub)
	return !linked, nil
}

// probe asks a hub whether it has the device, and so whether it answers.
func (c *Core) probe(ctx context.Context, scopeID, hub, deviceID string) (there bool, err error) {
	_, err = c.hub.DeviceData(ctx, scopeID, hub, deviceID)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, &hubFailure{hub, err}
	}
	return true, nil
}

func (c *Core) saveMove(ctx context.Context, scopeID string, o Operation, hub string, data DeviceData) (current bool, err error) {
	encoded, err := savedFrom(hub, data)
	if err != nil {
		return true, err
	}
	verdict, err := c.store.SaveMove(ctx, scopeID, SavedMove{OperationID: o.ID, RegistrationID: dps.FoldID(o.RegistrationID), Data: encoded, At: c.now()})
	if err != nil {
		return true, fmt.Errorf("saving what the device takes along: %w", err)
	}
	return verdict == Applied, nil
}

// undo removes what an operation, whose place another one took, may have made at its hub behind the other's back: a call can come late, after the
// other has removed the device there. Of a higher generation nothing is touched. Not now says that the other one may still need what is at that hub.
func (c *Core) undo(ctx context.Context, scopeID string, o Operation) (now bool, err error) {
	device, err := c.store.Device(ctx, scopeID, dps.FoldID(o.RegistrationID))
	r := device.Registration
	switch {
	case err != nil:
		return true, err
	case r == nil || o.Hub == "" || r.OperationID == o.ID || r.Hub == o.Hub:
		return true, nil
	case slices.Contains(r.Leaving, o.Hub):
		return r.Status != Assigning, nil // it removes it; if it has failed, the next one does
	}
	err = c.hub.RemoveDevice(ctx, scopeID, o.Hub, o.DeviceID, o.Revision)
	if err != nil && !errors.Is(err, ErrStale) && !errors.Is(err, ErrUnlinked) {
		return true, &hubFailure{o.Hub, err}
	}
	return true, nil
}
