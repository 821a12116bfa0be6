package registration

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Hub is where devices go to work: the linked hubs of all scopes, behind one. Every call names the scope and the hub (host name, lower case).
//
// Generations are the fence: whoever makes a hub do something for a device says by which proof, and a hub that has heard of a later one answers
// ErrStale and does nothing. So a call that comes late, of a process that hung or was cut off, does not undo what came after it.
//
// Of any error that is none of those named here the outcome is unknown; call again. One that wraps a RetryError says when, one that wraps a
// RefusedError that it is of no use.
type Hub interface {
	Mover
	// EnsureDevice makes the device exist and be enabled at the named hub with exactly this credential, and is idempotent. Whatever of the credential before is not in
	// this one is dead on return: no slot holds it, sessions made with it are cut, its queue and persistent session are gone and
	// tokens minted under it are refused. A running session under what is unchanged is not touched.
	// ErrStale if the hub has seen a higher generation: a newer owner has proved itself.
	// ErrElsewhere if that is another process's to do, ErrUnlinked if the scope has no such hub: nothing was done.
	EnsureDevice(ctx context.Context, scope, hub string, device HubDevice) error
	// Drop ends every session at a hub that is gone with its scope, and is idempotent. Identities are the store's to remove.
	Drop(ctx context.Context, scope, hub string) error
	// Reach says how far calls for a hub go in this process now.
	Reach(scope, hub string) Reach
}

// Mover is the part of Hub that moves and shuts out devices.
type Mover interface {
	// RemoveDevice makes a device not exist at the hub, and is idempotent: on return there is no identity, and its twin, its messages and its sessions are
	// gone; nil if there was none. ErrStale if the hub has seen a higher generation than this, ErrElsewhere and ErrUnlinked as EnsureDevice.
	RemoveDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error
	// DisableDevice keeps the device and lets nobody in with its credential; its sessions are cut on return. Nil if there is no such device; errors as
	// RemoveDevice. EnsureDevice enables it again.
	DisableDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error
	// DeviceData reads what a device takes along when it moves; ErrNotFound if there is no such device, ErrUnlinked as EnsureDevice.
	DeviceData(ctx context.Context, scope, hub, deviceID string) (DeviceData, error)
}

// Reach says which process can do all that a hub promises, and when.
type Reach int

// Who has the sessions is the only one who can end them.
const (
	Elsewhere Reach = iota // another process has the sessions, or may have them
	Unserved               // no process has any: whoever comes first can do it
	Here                   // this process has them
	Remote                 // any process can do it, over the network: never in a request, which does not wait for others, but from the outbox
)

// HubDevice is what a hub must know of a device.
type HubDevice struct {
	DeviceID   string
	Credential Credential
	Generation uint64 // Operation.Revision: rises within a scope from one proof to the next, whatever ids are deleted in between
	// Data is what the device has at the hub after the call if it did not exist there before, or if it says Replace; otherwise what it had stays.
	// Nil: what it had stays, and a new device has nothing. A call of a generation that the hub has done already writes no data again: it may be one that
	// comes late, and the device has worked since.
	Data *DeviceData
}

// ErrElsewhere says that another process has the sessions of the hub, or may have, and a call here could not end those that it would have to.
var ErrElsewhere = errors.New("the hub's sessions are another process's")

// ErrStale says that a newer generation has been seen.
var ErrStale = errors.New("a newer generation has been seen")

// ErrNotYet says that a hub does what it was asked and nothing is wrong with it, but it is not known to be done: call again for the same device in a
// moment.
var ErrNotYet = errors.New("not known to be done yet")

// RetryError is a failure of a hub that says when to come back: it is throttling, or was found down and is left alone for a while. All calls for
// that hub wait as long.
type RetryError struct {
	After time.Duration // at least this long; longer than OutboxHorizon is cut
	Err   error
}

// Error implements error.
func (e *RetryError) Error() string {
	return fmt.Sprintf("%v (again in %s)", e.Err, e.After.Round(time.Millisecond))
}

// Unwrap implements errors.Is and errors.As.
func (e *RetryError) Unwrap() error { return e.Err }

// RefusedError is a hub's refusal that will be the same at the next call: it takes no more devices, or the credentials that it is linked with are
// not good. Nothing was done. The operation fails with the message, which its device and the operator see.
type RefusedError struct {
	Message string // one sentence or the hub's own error body; no secret in it
	Err     error
}

// Error implements error.
func (e *RefusedError) Error() string { return fmt.Sprintf("the hub refuses: %v", e.Err) }

// Unwrap implements errors.Is and errors.As.
func (e *RefusedError) Unwrap() error { return e.Err }
