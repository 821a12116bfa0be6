package azure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// HubsConfig is what Hubs needs. Find and Secret have no default.
type HubsConfig struct {
	// Find gives a linked hub of a scope, Secret opens its secret: registration.Core has both. They must not wait.
	Find   func(scope, name string) (registration.LinkedHub, bool)
	Secret func(scope string, hub registration.LinkedHub) ([]byte, error)

	Logger *slog.Logger                                                                            // nil: nothing is logged
	Now    func() time.Time                                                                        // nil: time.Now
	Dial   func(scope string) func(ctx context.Context, network, address string) (net.Conn, error) // how hubs of a scope are reached; nil: over the network, wherever it is
	// Proxy is the one through which hubs of a scope are reached; nil: none. Whoever asks a proxy is not held back by Dial.
	Proxy func(scope string) func(*http.Request) (*url.URL, error)
}

// Hubs are all linked hubs of the kind azure. Each is made ready when it is first called, and anew when what is linked has changed. All methods are safe together.
type Hubs struct {
	config HubsConfig

	mu    sync.Mutex
	ready map[linkKey]link
}

type linkKey struct{ scope, name string }

type link struct {
	revision uint64
	hub      *Hub
}

var (
	_ registration.Hub   = (*Hubs)(nil)
	_ registration.Mover = (*Hubs)(nil)
)

// NewHubs makes the kind. It calls nobody yet.
func NewHubs(config HubsConfig) (*Hubs, error) {
	if config.Find == nil || config.Secret == nil {
		return nil, errors.New("hub: the kind azure needs Find and Secret")
	}
	return &Hubs{config: config, ready: map[linkKey]link{}}, nil
}

// EnsureDevice implements registration.Hub.
func (h *Hubs) EnsureDevice(ctx context.Context, scope, hub string, device registration.HubDevice) error {
	one, err := h.of(scope, hub)
	if err != nil {
		return err
	}
	return one.EnsureDevice(ctx, scope, hub, device)
}

// RemoveDevice implements registration.Mover.
func (h *Hubs) RemoveDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	one, err := h.of(scope, hub)
	if err != nil {
		return err
	}
	return one.RemoveDevice(ctx, scope, hub, deviceID, generation)
}

// DisableDevice implements registration.Mover.
func (h *Hubs) DisableDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	one, err := h.of(scope, hub)
	if err != nil {
		return err
	}
	return one.DisableDevice(ctx, scope, hub, deviceID, generation)
}

// DeviceData implements registration.Mover.
func (h *Hubs) DeviceData(ctx context.Context, scope, hub, deviceID string) (registration.DeviceData, error) {
	one, err := h.of(scope, hub)
	if err != nil {
		return registration.DeviceData{}, err
	}
	return one.DeviceData(ctx, scope, hub, deviceID)
}

// Reach implements registration.Hub: any process can do it, over the network.
func (h *Hubs) Reach(string, string) registration.Reach { return registration.Remote }

// Drop implements registration.Hub. Sessions and identities at a hub that is not ours outlive the scope: whoever owns that hub removes them.
func (h *Hubs) Drop(_ context.Context, scope, hub string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgetLocked(linkKey{scope, hub})
	return nil
}

// Close lets go of idle connections.
func (h *Hubs) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range h.ready {
		h.forgetLocked(k)
	}
}

func (h *Hubs) forgetLocked(k linkKey) {
	if l, ok := h.ready[k]; ok {
		l.hub.Close()
		delete(h.ready, k)
	}
}

// State is the health of a linked hub as this process has seen it; false if it was not called since it was linked or changed.
func (h *Hubs) State(scope, hub string) (State, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.ready[linkKey{scope, hub}]
	if !ok {
		return State{}, false
	}
	return l.hub.State(), true
}

// of gives a hub as it is linked now: ErrUnlinked if it is not.
func (h *Hubs) of(scope, name string) (*Hub, error) {
	linked, found := h.config.Find(scope, name)
	if !found || linked.Kind != registration.HubAzure {
		return nil, registration.ErrUnlinked
	}
	if one := h.known(linkKey{scope, linked.Name}, linked.Revision); one != nil {
		return one, nil
	}
	secret, err := h.config.Secret(scope, linked)
	if err != nil {
		return nil, fmt.Errorf("hub %s: opening its secret: %w", linked.Name, err)
	}
	one, err := h.make(scope, linked, secret)
	if err != nil {
		return nil, err
	}
	return h.keep(linkKey{scope, linked.Name}, link{linked.Revision, one}), nil
}

// known gives a hub that is ready, if it is of this revision.
func (h *Hubs) known(k linkKey, revision uint64) *Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l, ok := h.ready[k]; ok && l.revision == revision {
		return l.hub
	}
	return nil
}

// keep keeps a hub, unless somebody else has made it ready meanwhile, and forgets those that are linked no more.
func (h *Hubs) keep(k linkKey, l link) *Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, ok := h.ready[k]; ok && other.revision >= l.revision {
		return other.hub
	}
	h.forgetLocked(k)
	h.ready[k] = l
	for other := range h.ready {
		if _, linked := h.config.Find(other.scope, other.name); !linked {
			h.forgetLocked(other)
		}
	}
	return l.hub
}

func (h *Hubs) make(scope string, linked registration.LinkedHub, secret []byte) (*Hub, error) {
	settings, connection, err := Parse(linked.Name, linked.Settings, secret)
	if err != nil {
		return nil, err
	}
	c := Config{Name: linked.Name, Connection: connection, Settings: settings, Log: h.config.Logger, Now: h.config.Now}
	if h.config.Dial != nil {
		c.Dial = h.config.Dial(scope)
	}
	if h.config.Proxy != nil {
		c.Proxy = h.config.Proxy(scope)
	}
	return New(c)
}

// Judge says what is wrong with the settings and the secret of a hub that is to be linked; a *registration.HubError, or nil. It does not wait.
func (h *Hubs) Judge(_ string, hub registration.LinkedHub, secret []byte) error {
	_, _, err := Parse(hub.Name, hub.Settings, secret)
	return err
}

// Probe asks a hub whether it is an IoT hub and reads its registry for us. One of revision 0, which is about to be linked or changed, is also asked whether it
// would let us write devices and twins. It changes nothing there.
func (h *Hubs) Probe(ctx context.Context, scope string, hub registration.LinkedHub, secret []byte) error {
	if hub.Revision != 0 { // linked as it is here; a client that is kept costs the hub one request and no handshake
		one, err := h.of(scope, hub.Name)
		if err != nil {
			return err
		}
		return one.Probe(ctx)
	}
	one, err := h.make(scope, hub, secret)
	if err != nil {
		return err
	}
	defer one.Close()
	if err := one.Probe(ctx); err != nil {
		return err
	}
	return one.ProbeRights(ctx)
}
