package hubapi

import (
	"context"
	"encoding/json"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Hub is what this room asks of the embedded hub. Every call names scope and hub (host name, lower case). Of any error that is none of those named
// here, the outcome is unknown.
type Hub interface {
	Registry
	Twins
	Messages
	Methods
}

// Registry is the hub's identities. registration.ErrNotFound: there is no such device; ErrChanged: it is not what the caller read, nothing was done;
// ErrElsewhere: another process has sessions that would have to end, nothing was done.
type Registry interface {
	// KnownDevice reads one device.
	KnownDevice(ctx context.Context, scope, hub, deviceID string) (registration.KnownDevice, error)
	// KnownDevices lists at most limit devices, those after the id after, in order of their ids.
	KnownDevices(ctx context.Context, scope, hub, after string, limit int) ([]registration.KnownDevice, error)
	// CountDevices counts the devices, those that are disabled and those that are connected.
	CountDevices(ctx context.Context, scope, hub string) (registration.DeviceCount, error)
	// WriteDevice creates a device or changes all of one, with its audit row. What the new credential and status do not let in is cut off on return.
	WriteDevice(ctx context.Context, scope, hub string, w registration.DeviceWrite, audit registration.Audit) (registration.KnownDevice, error)
	// RemoveKnown removes a device of the version was (0: whichever) with its twin, messages and sessions, with its audit row.
	RemoveKnown(ctx context.Context, scope, hub, deviceID string, was uint64, audit registration.Audit) error
}

// Twins is the hub's documents of devices.
type Twins interface {
	// KnownTwin reads a device's twin; an empty one of version 1 if nobody has written it, ErrNotFound if there is no such device.
	KnownTwin(ctx context.Context, scope, hub, deviceID string) (registration.Twin, error)
	// ChangeTwin changes tags and desired properties, and tells the device if it listens. ErrNotFound and ErrChanged as Registry; an *iothub.TwinError if the change is to blame.
	ChangeTwin(ctx context.Context, scope, hub, deviceID string, change registration.TwinChange) (registration.Twin, error)
}

// Messages is the queue from the cloud to a device.
type Messages interface {
	// SendMessage puts a message into the device's durable queue and has it delivered if the device listens. ErrNotFound; registration.ErrFull.
	SendMessage(ctx context.Context, scope string, m registration.HubMessage) error
	// PurgeMessages empties the queue and says how many there were. ErrNotFound.
	PurgeMessages(ctx context.Context, scope, hub, deviceID string) (int, error)
}

// Methods calls devices that are connected.
type Methods interface {
	// InvokeMethod asks the device and waits for its answer: connect is how long to wait for a device that is not connected or does not listen yet,
	// respond how long for the answer after that. ErrNotFound; ErrOffline; ErrNoAnswer; ErrElsewhere if another process has the sessions.
	// It returns soon after ctx ends.
	InvokeMethod(ctx context.Context, scope, hub, deviceID, method string, payload json.RawMessage, connect, respond time.Duration) (status int, answer json.RawMessage, err error)
}
