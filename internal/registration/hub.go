package registration

import (
	"context"
	"errors"
)

// Hub is where devices go to work.
type Hub interface {
	// EnsureDevice makes the device exist at the named hub with exactly this key, and is idempotent. If the key is
	// another than before, then on return neither key slot holds the old one, its sessions are cut, its queue and persistent session are
	// gone and tokens minted under it are dead. A running session under an unchanged key is not touched.
	// ErrStale if the hub has seen a higher generation: a newer owner has proved itself.
	// Any other error means the outcome is unknown; call again.
	EnsureDevice(ctx context.Context, scope, hub string, device HubDevice) error
}

// HubDevice is what a hub must know of a device.
type HubDevice struct {
	DeviceID   string
	Key        []byte // 32-byte HMAC key
	Generation uint64 // Operation.Revision: rises within a scope from one proof to the next, whatever ids are deleted in between
}

// ErrStale says that a newer generation has been seen.
var ErrStale = errors.New("a newer generation has been seen")
