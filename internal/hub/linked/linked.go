// Package linked is the hub that the core is given: it finds the linked hub that a call is for and hands the call to the driver of its kind. What
// the calls come to, and a look at each hub now and then, tell how the hubs do.
//
// It guarantees: a call for a hub that the scope has not linked, or has no more, is answered with ErrUnlinked and reaches nothing; what is
// said of failures to operators holds no secret. It trusts the drivers to keep the contract of registration.Hub, and Find to be of this moment.
package linked

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Driver does what a kind of hub can do, for all linked hubs of that kind.
type Driver interface {
	registration.Hub
	registration.Mover
	// Judge says in a sentence what is wrong with settings and secret of a hub. It must not wait.
	Judge(scope string, hub registration.LinkedHub, secret []byte) error
	// Probe asks a hub whether it is there and lets us do what we have to. It changes nothing there. A hub of revision 0 is about to be linked, or changed,
	// and is asked for all that it must allow. The error is a sentence without secrets, or one of the network; registration.ErrUnseen if there is
	// nothing to ask.
	Probe(ctx context.Context, scope string, hub registration.LinkedHub, secret []byte) error
}

// Config is what a Hub needs. Drivers, Find, All, Secret and Forget have no default.
type Config struct {
	Drivers map[registration.HubKind]Driver
	// Find gives a linked hub by its name in any case. It must not wait.
	Find func(scope, hub string) (registration.LinkedHub, bool)
	// All lists the linked hubs of all scopes.
	All func() map[string][]registration.LinkedHub
	// Secret opens the secret of a linked hub.
	Secret func(scope string, hub registration.LinkedHub) ([]byte, error)
	// Forget removes what the store of this installation holds of a device at a hub that is linked no more; nil if that is nothing, ErrStale as RemoveDevice.
	Forget func(ctx context.Context, scope, hub, deviceID string, generation uint64) error

	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now
}

// Hub implements registration.Hub, registration.Mover and registration.HubWatch. All methods are safe together.
type Hub struct {
	config Config
	log    *slog.Logger
	watch  watch
	calls  counts
}

var (
	_ registration.Hub      = (*Hub)(nil)
	_ registration.Mover    = (*Hub)(nil)
	_ registration.HubWatch = (*Hub)(nil)
)

// New makes a hub of its drivers, which the caller closes.
func New(config Config) (*Hub, error) {
	if config.Drivers == nil || config.Find == nil || config.All == nil || config.Secret == nil || config.Forget == nil {
		return nil, errors.New("linked hubs: Drivers, Find, All, Secret and Forget must be given")
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	h := &Hub{config: config, log: config.Logger}
	h.watch.init(config.Now)
	return h, nil
}

// EnsureDevice implements registration.Hub.
func (h *Hub) EnsureDevice(ctx context.Context, scope, hub string, device registration.HubDevice) error {
	return h.hand(scope, hub, "ensure", func(d Driver, name string) error { return d.EnsureDevice(ctx, scope, name, device) })
}

// RemoveDevice implements registration.Mover. A hub that is unlinked may be linked again: of one whose devices are in our store none is left that has
// gone elsewhere meanwhile, with a key that an owner before may hold.
func (h *Hub) RemoveDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	err := h.hand(scope, hub, "remove", func(d Driver, name string) error { return d.RemoveDevice(ctx, scope, name, deviceID, generation) })
	if !errors.Is(err, registration.ErrUnlinked) {
		return err
	}
	if failed := h.config.Forget(ctx, scope, hub, deviceID, generation); failed != nil {
		return failed
	}
	return err
}

// DisableDevice implements registration.Mover.
func (h *Hub) DisableDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	return h.hand(scope, hub, "disable", func(d Driver, name string) error { return d.DisableDevice(ctx, scope, name, deviceID, generation) })
}

// DeviceData implements registration.Mover.
func (h *Hub) DeviceData(ctx context.Context, scope, hub, deviceID string) (data registration.DeviceData, err error) {
	err = h.hand(scope, hub, "data", func(d Driver, name string) (err error) {
		data, err = d.DeviceData(ctx, scope, name, deviceID)
		return err
	})
	return data, err
}

// hand gives a call to the driver of the hub's kind, and notes what it came to.
func (h *Hub) hand(scope, hub, call string, do func(d Driver, name string) error) error {
	linked, driver := h.find(scope, hub)
	if driver == nil {
		return registration.ErrUnlinked
	}
	began := h.config.Now()
	err := do(driver, linked.Name)
	h.calls.count(linked.Kind, call, err)
	h.watch.used(key{scope, linked.Name}, linked.Revision, err, began)
	return err
}

// find gives a linked hub and its driver, nil if there is none.
func (h *Hub) find(scope, hub string) (registration.LinkedHub, Driver) {
	linked, found := h.config.Find(scope, hub)
	if !found {
		return registration.LinkedHub{}, nil
	}
	return linked, h.config.Drivers[linked.Kind]
}

// Drop implements registration.Hub. Of what kind a hub was that is gone nobody knows any more, so all drivers are told.
func (h *Hub) Drop(ctx context.Context, scope, hub string) error {
	h.watch.forget(key{scope, hub})
	var errs []error
	for _, driver := range h.config.Drivers {
		errs = append(errs, driver.Drop(ctx, scope, hub))
	}
	return errors.Join(errs...)
}

// Reach implements registration.Hub. A hub that is not linked is here: the answer needs nobody.
func (h *Hub) Reach(scope, hub string) registration.Reach {
	linked, driver := h.find(scope, hub)
	if driver == nil {
		return registration.Here
	}
	return driver.Reach(scope, linked.Name)
}

// Judge implements registration.HubWatch.
func (h *Hub) Judge(scope string, hub registration.LinkedHub, secret []byte) error {
	driver := h.config.Drivers[hub.Kind]
	if driver == nil {
		return &registration.HubError{Message: "this release has no hubs of the kind " + string(hub.Kind)}
	}
	if err := driver.Judge(scope, hub, secret); err != nil {
		return &registration.HubError{Message: plain(err.Error())}
	}
	return nil
}

// Try implements registration.HubWatch.
func (h *Hub) Try(ctx context.Context, scope string, hub registration.LinkedHub, secret []byte) error {
	driver := h.config.Drivers[hub.Kind]
	if driver == nil {
		return h.Judge(scope, hub, secret)
	}
	hub.Revision = 0
	if err := driver.Probe(ctx, scope, hub, secret); err != nil && !errors.Is(err, registration.ErrUnseen) {
		return &registration.HubError{Message: words(err), Err: err}
	}
	return nil
}

// Health implements registration.HubWatch.
func (h *Hub) Health(scope, hub string) registration.HubHealth {
	return h.watch.health(key{scope, hub})
}

// Latency implements registration.HubWatch. The embedded hub is where we are.
func (h *Hub) Latency(scope, hub string) (time.Duration, bool) {
	linked, driver := h.find(scope, hub)
	switch {
	case driver == nil:
		return 0, false
	case linked.Kind == registration.HubEmbedded:
		return 0, true
	}
	return h.watch.latency(key{scope, linked.Name})
}
