// Package broker makes any MQTT broker a hub that can ask over HTTP whether a login and a topic are allowed. Devices' identities are ours, in the
// store of the service; the broker has none. This package answers what internal/brokerapi is asked, and ends connections through the broker's
// management API.
//
// It guarantees: who holds no current key of a device logs in to nothing; a device reaches the topics of its templates and no others; when
// EnsureDevice, DisableDevice or RemoveDevice returns, every connection that the broker had let in with what is not good any more is closed, with
// what the broker kept for it; a connection whose SAS token has expired is closed within CheckEvery.
//
// It trusts: Identities to be durable when it returns; the broker to ask, to believe the answer, and to show in its management API within ListDelay
// the connections that it has. It does not trust what stands in questions, nor what the management API answers beyond its own connections: both are
// bounded. Brokers without a management API keep connections; what those can still do is in docs/hubs.
package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Identities keeps devices, by scope, hub name (lower case, no port) and device id (case-sensitive).
type Identities interface {
	PutIdentity(ctx context.Context, scope string, put registration.IdentityPut, audit registration.Audit) (registration.Verdict, error)
	DeleteIdentity(ctx context.Context, scope string, del registration.IdentityDelete, audit registration.Audit) (registration.Verdict, error)
	// Identity reads one identity; registration.ErrNotFound if there is none.
	Identity(ctx context.Context, scope, hub, deviceID string) (registration.Identity, error)
	// Identities lists those of a hub in the order of their device ids, byte by byte, beginning behind after.
	Identities(ctx context.Context, scope, hub, after string, limit int) ([]registration.Identity, error)
}

// Config is what a Hub needs. Identities, Sealer, Linked and All have no default.
type Config struct {
	Identities Identities
	Sealer     registration.Sealer
	// Linked gives a linked hub of a scope, and All those of all scopes, of whatever kind: registration.Core has both. They must not wait.
	Linked func(scope, name string) (registration.LinkedHub, bool)
	All    func() map[string][]registration.LinkedHub
	// Alone says that no other process answers brokers for the same store: what this one has let in is then all that there is.
	Alone bool
	// Remember is the file that this process writes down in, now and then and when Keep ends, whom it has let in, to know it again after a restart.
	// Empty: it does not.
	Remember string
	// Dial gives what opens connections to the management APIs of a scope's hubs; nil: a net.Dialer.
	Dial func(scope string) func(ctx context.Context, network, address string) (net.Conn, error)

	Logger       *slog.Logger     // nil: nothing is logged
	Metrics      *Metrics         // nil: counted, but not registered anywhere
	Now          func() time.Time // nil: time.Now
	MaxTokenLife time.Duration    // 0: 24 h. A SAS token that expires later than this (and 5 minutes) from now is refused
}

// Hub implements registration.Hub and registration.Mover for brokers, and answers their questions. All methods are safe together.
type Hub struct {
	config  Config
	log     *slog.Logger
	metrics *Metrics
	started time.Time
	logins  logins

	forgetful bool // Remember could not be written; Keep alone uses it

	// Stand in for the key and the identity of an unknown device, so that the same work is done for it.
	dummyKey, dummySealed []byte

	mu      sync.Mutex
	links   map[string]*link  // by name; also those that are not linked any more, until Drop has cut their sessions
	scopes  map[string]string // of the linked brokers, by name, as they were at indexed
	indexed time.Time
}

var (
	_ registration.Hub   = (*Hub)(nil)
	_ registration.Mover = (*Hub)(nil)
)

// New makes a hub. Its Keep is to run beside it.
func New(config Config) (*Hub, error) {
	if config.Identities == nil || config.Sealer == nil || config.Linked == nil || config.All == nil {
		return nil, errors.New("hub: brokers need Identities, Sealer, Linked and All")
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Metrics == nil {
		config.Metrics = NewMetrics(nil)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Dial == nil {
		config.Dial = func(string) func(context.Context, string, string) (net.Conn, error) {
			return (&net.Dialer{Timeout: managementTime}).DialContext
		}
	}
	if config.MaxTokenLife <= 0 {
		config.MaxTokenLife = 24 * time.Hour
	}
	h := &Hub{config: config, log: config.Logger, metrics: config.Metrics, started: config.Now(), links: map[string]*link{}, dummyKey: make([]byte, 32)}
	h.logins.byDevice = map[string]login{}
	if config.Remember != "" {
		if err := h.logins.load(config.Remember); err != nil {
			h.log.Warn("logins at brokers that were written down are forgotten", "err", err)
		}
	}
	rand.Read(h.dummyKey)
	var err error
	h.dummySealed, err = config.Sealer.Seal(dummyContext, h.dummyKey)
	return h, err
}

const dummyContext = "broker-dummy-key"

// link is a linked hub made ready: settings read, templates compiled, secrets opened, a client for its management API.
type link struct {
	Scope              string
	Name               string
	revision           uint64
	settings           Settings
	secret             Secret
	publish, subscribe []template
	manager            manager // nil if the product has none
	close              func()  // what the client holds open

	swept time.Time // when the last look at all connections began that was completed; under Hub.mu
}

// find gives the linked broker of a name, of whatever scope: registration.ErrUnlinked if there is none. Names that are asked for and are none cost a
// look at all hubs once a second at most.
func (h *Hub) find(name string) (*link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if scope, ok := h.scopes[name]; ok {
			if linked, ok := h.config.Linked(scope, name); ok && linked.Kind == registration.HubBroker {
				return h.readyLocked(scope, linked)
			}
		}
		if now := h.config.Now(); now.Sub(h.indexed).Abs() < indexAge {
			return nil, registration.ErrUnlinked
		}
		h.indexLocked()
	}
}

const indexAge = time.Second

func (h *Hub) indexLocked() {
	h.scopes, h.indexed = map[string]string{}, h.config.Now()
	for scope, hubs := range h.config.All() {
		for _, linked := range hubs {
			if linked.Kind == registration.HubBroker {
				h.scopes[linked.Name] = scope
			}
		}
	}
}

// of is find for a call of the core, which names the scope too.
func (h *Hub) of(scope, name string) (*link, error) {
	linked, ok := h.config.Linked(scope, name)
	if !ok || linked.Kind != registration.HubBroker {
		return nil, registration.ErrUnlinked
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.readyLocked(scope, linked)
}

// readyLocked makes a linked hub ready, once for each of its revisions.
func (h *Hub) readyLocked(scope string, linked registration.LinkedHub) (*link, error) {
	known, ok := h.links[linked.Name]
	if ok && known.revision == linked.Revision && known.Scope == scope {
		return known, nil
	}
	l, err := h.open(scope, linked)
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", linked.Name, err)
	}
	if ok {
		known.close()
	}
	h.links[linked.Name] = l
	return l, nil
}

func (h *Hub) open(scope string, linked registration.LinkedHub) (*link, error) {
	l := &link{Scope: scope, Name: linked.Name, revision: linked.Revision}
	var err error
	if l.settings, err = ParseSettings(linked.Settings); err != nil {
		return nil, err
	}
	text, err := h.config.Sealer.Open(registration.ContextHubSecret(scope, linked.Name), linked.SealedSecret)
	if err != nil {
		return nil, fmt.Errorf("opening its secrets: %w", err)
	}
	if l.secret, err = ParseSecret(text, l.settings.Product); err != nil {
		return nil, err
	}
	if l.publish, err = compileAll("publish", l.settings.Publish, l.settings.Product); err != nil {
		return nil, err
	}
	if l.subscribe, err = compileAll("subscribe", l.settings.Subscribe, l.settings.Product); err != nil {
		return nil, err
	}
	l.manager, l.close = newManager(l, h.config.Dial(l.Scope))
	return l, nil
}

// Reach implements registration.Hub: a management API is asked over the network.
func (h *Hub) Reach(string, string) registration.Reach { return registration.Remote }

// DeviceData implements registration.Mover. A broker keeps nothing of a device that could move: it has no twin.
func (h *Hub) DeviceData(ctx context.Context, scope, hub, deviceID string) (registration.DeviceData, error) {
	if _, err := h.of(scope, hub); err != nil {
		return registration.DeviceData{}, err
	}
	_, err := h.config.Identities.Identity(ctx, scope, hub, deviceID)
	return registration.DeviceData{}, err
}
