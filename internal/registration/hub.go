package registration

import (
	"context"
	"errors"
)

// Hub is where devices go to work.
type Hub interface {
	// EnsureDevice makes the device exist at the named hub with exactly this credential, and is idempotent. Whatever of the credential before is not in
	// this one is dead on return: no slot holds it, sessions made with it are cut, its queue and persistent session are gone and
	// tokens minted under it are refused. A running session under what is unchanged is not touched.
	// ErrStale if the hub has seen a higher generation: a newer owner has proved itself.
	// ErrElsewhere if that is another process's to do: nothing was done.
	// Any other error means the outcome is unknown; call again.
	EnsureDevice(ctx context.Context, scope, hub string, device HubDevice) error
	// Drop ends every session at a hub that is gone with its scope, and is idempotent. Identities are the store's to remove.
	Drop(ctx context.Context, scope, hub string) error
	// Reach says how far EnsureDevice goes in this process now, for the hubs of all scopes.
	Reach() Reach
}

// Reach says which process can do all that EnsureDevice promises.
type Reach int

// Who has the sessions is the only one who can end them.
const (
	Elsewhere Reach = iota // another process has the sessions, or may have them
	Unserved               // no process has any: whoever comes first can do it
	Here                   // this process has them
)

// HubDevice is what a hub must know of a device.
type HubDevice struct {
	DeviceID   string
	Credential Credential
	Generation uint64 // Operation.Revision: rises within a scope from one proof to the next, whatever ids are deleted in between
}

// ErrElsewhere says that another process has the sessions of the hub, or may have, and a call here could not end those that it would have to.
var ErrElsewhere = errors.New("the hub's sessions are another process's")

// ErrStale says that a newer generation has been seen.
var ErrStale = errors.New("a newer generation has been seen")
