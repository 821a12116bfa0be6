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
	// Any other error means the outcome is unknown; call again.
	EnsureDevice(ctx context.Context, scope, hub string, device HubDevice) error
	// Drop ends every session at a hub that is gone with its scope, and is idempotent. Identities are the store's to remove.
	Drop(ctx context.Context, scope, hub string) error
}

// HubDevice is what a hub must know of a device.
type HubDevice struct {
	DeviceID   string
	Credential Credential
	Generation uint64 // Operation.Revision: rises within a scope from one proof to the next, whatever ids are deleted in between
}

// ErrStale says that a newer generation has been seen.
var ErrStale = errors.New("a newer generation has been seen")
