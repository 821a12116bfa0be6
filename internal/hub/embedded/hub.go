// Package embedded is the hub that comes with the service: devices log in over MQTT 3.1.1 with SAS tokens signed by their hub
// key, send telemetry, have twins, get messages and answer direct methods, as they would at an Azure IoT Hub (section 5 of the wire facts in
// the design references).
//
// It guarantees: who holds no current key of a device gets no session; a device uses its own topics only; a telemetry message
// is acknowledged after its record is durable; a message to a device is kept until the device has acknowledged it or its time is over; what a device is told of
// its twin comes in the order of versions; when EnsureDevice has given a device another key, the sessions, subscriptions
// and queues of the old key are gone before it returns; bytes from the network cost bounded memory and never stop the process.
//
// It trusts: the listener to be TLS already; Identities to be durable when it returns; the sealer. It does not trust the MQTT
// library with hostile bytes: every CONNECT and every packet header is judged here first (connect.go, frames.go), a panic ends
// one connection, and the library never queues anything for a device: what the hub sends goes past it (outgoing.go).
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"latchkey.example/latchkey/internal/registration"
)

// Config is what a Hub needs. Identities, Sealer, Names and Telemetry have no default.
type Config struct {
	Identities Identities
	// News orders and hands out what other processes have to tell devices that have their sessions here. Nil: no other process can have Identities open.
	News News
	// Owners says which of the processes that share Identities has the sessions. Nil: no other process can have Identities open, which the caller
	// sees to.
	Owners Owners
	// Serve says that this process has the sessions: Acquire, then Serve, and Keep beside it. Otherwise it has none, and EnsureDevice does what can be done
	// without them; only Keep is to run.
	Serve  bool
	Mark   Mark          // nil: the successor of a process that was killed always waits for the lease
	Host   string        // of this process, told to others who want the hub
	Lease  time.Duration // 0: 15 s. How long another process must see nothing of the owner before it has the hub
	Sealer registration.Sealer
	// Names says which scope a hub name (lower case, no port) belongs to. It is called under the hub's lock, so it must not wait or call the hub.
	Names func(hub string) (scope string, ok bool)
	// Telemetry takes one NDJSON line per Write, which is durable when Write returns without error: the message is acknowledged then. It must be safe
	// for concurrent use, and must not wait for long: a connection waits with it, and Close for the connection.
	Telemetry io.Writer

	Logger  *slog.Logger     // nil: nothing is logged
	Metrics *Metrics         // nil: counted, but not registered anywhere
	Now     func() time.Time // judges SAS tokens; nil: time.Now

	MaxTokenLife  time.Duration // 0: 24 h. A SAS token that expires later than this (and 5 minutes) from now is refused
	SessionExpiry time.Duration // 0: 24 h. How long a session without clean flag outlives its connection
	Limits        Limits
}

// Limits bound what strangers and devices can make the hub spend. Zero means the default.
type Limits struct {
	Connections     int           // open connections, 10000
	Pending         int           // of these, such that have not logged in, 1000
	Message         int           // bytes of one payload, 256 KiB
	ConnectDeadline time.Duration // for TLS handshake and CONNECT packet together, 10 s
	WriteDeadline   time.Duration // for one write to a device, 10 s

	// PendingPerAddress bounds Pending for one IPv4 address or IPv6 /64 network, 64: so many may be silent, and so many devices behind one
	// address translator may log in at the same moment.
	PendingPerAddress int
}

func (l *Limits) setDefaults() {
	l.Connections = orDefault(l.Connections, 10_000)
	l.Pending = orDefault(l.Pending, 1_000)
	l.PendingPerAddress = orDefault(l.PendingPerAddress, 64)
	l.Message = orDefault(l.Message, 256<<10)
	l.ConnectDeadline = orDefault(l.ConnectDeadline, 10*time.Second)
	l.WriteDeadline = orDefault(l.WriteDeadline, 10*time.Second)
}

func orDefault[T int | time.Duration](v, byDefault T) T {
	if v <= 0 {
		return byDefault
	}
	return v
}

// Hub implements registration.Hub. All methods are safe together.
type Hub struct {
	config   Config
	log      *slog.Logger
	metrics  *Metrics
	server   *mqtt.Server
	logins   keyLocks
	twins    keyLocks
	refusals burst // of log lines that strangers can cause
	watching watching
	// sinkFails spaces the lines about telemetry that cannot be written: a full disk must not fill the log too.
	sinkFails            spaced
	twinFails, newsFails spaced
	start                sync.Once
	doubts               atomic.Int64    // devices that are judged again, see doubt
	base                 context.Context // of all work, ended by Close
	stop                 context.CancelFunc

	owner   *ownership
	kept    chan struct{} // closed when Keep is to end
	keeping sync.WaitGroup

	// Stands in for the key of an unknown device, so that the same work is done for it.
	dummyKey, dummySealed []byte

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	pending   pending            // those of conns that have no login
	gone      sync.Cond          // a connection has left conns
	devices   map[string]*device // by deviceKey
	callers   map[string]*callers
	sweeping  sync.WaitGroup
}

var _ registration.Hub = (*Hub)(nil)

// New makes a hub that serves nothing yet. The caller ends it with Close.
func New(config Config) (*Hub, error) {
	if config.Identities == nil || config.Sealer == nil || config.Names == nil || config.Serve && config.Telemetry == nil {
		return nil, errors.New("hub: Identities, Sealer, Names and, to serve it, Telemetry must be given")
	}
	config.MaxTokenLife = orDefault(config.MaxTokenLife, 24*time.Hour)
	config.SessionExpiry = orDefault(config.SessionExpiry, 24*time.Hour)
	config.Limits.setDefaults()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Metrics == nil {
		config.Metrics = NewMetrics(nil)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	h := &Hub{
		config: config, log: config.Logger, metrics: config.Metrics,
		listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{}, devices: map[string]*device{}, callers: map[string]*callers{},
		pending: pending{byAddress: map[netip.Prefix]int{}}, kept: make(chan struct{}),
	}
	h.owner = &ownership{store: config.Owners, serve: config.Serve, mark: config.Mark, host: config.Host, lease: orDefault(config.Lease, defaultLease),
		wallTime: config.Now, suspend: h.suspend, start: time.Now(), slept: sleepClock()}
	h.gone.L = &h.mu
	h.base, h.stop = context.WithCancel(context.Background())
	h.dummyKey = make([]byte, 32)
	rand.Read(h.dummyKey)
	var err error
	if h.dummySealed, err = config.Sealer.Seal(dummyContext, h.dummyKey); err != nil {
		return nil, err
	}
	h.server, err = newServer(h)
	return h, err
}

// newServer makes the MQTT library's server. It gets no logger: it would log whole packets, passwords included.
func newServer(h *Hub) (*mqtt.Server, error) {
	capabilities := mqtt.NewDefaultServerCapabilities()
	capabilities.MinimumProtocolVersion = 4
	capabilities.MaximumQos = 1
	capabilities.SharedSubAvailable = 0
	capabilities.TopicAliasMaximum = 0
	capabilities.MaximumPacketSize = uint32(maxPublish(h.config.Limits)) + 1 // what it counts: remaining length and one byte
	capabilities.MaximumClientWritesPending = 8                              // allocated per client; nothing is ever queued
	capabilities.ReceiveMaximum = 32
	capabilities.MaximumInflight = 32
	capabilities.MaximumSessionExpiryInterval = math.MaxUint32 // sessions end in sessions.go: the library would forget the subscriptions
	server := mqtt.New(&mqtt.Options{
		Capabilities: capabilities,
		// Of what TLS has decrypted, or a WebSocket unmasked, and keeps anyway; a large payload goes past it.
		ClientNetReadBufferSize: 512,
		Logger:                  slog.New(slog.DiscardHandler),
		SysTopicResendInterval:  math.MaxInt32, // each one stops the world to read memory statistics that nobody may subscribe to
	})
	return server, server.AddHook(&hook{hub: h}, nil)
}

// Serve accepts connections from l, which is TLS already, until Close; it then returns nil. Several listeners may be served.
func (h *Hub) Serve(l net.Listener) error {
	if !h.addListener(l) {
		l.Close()
		return nil
	}
	if err := h.begin(); err != nil {
		return err
	}
	for {
		nc, err := l.Accept()
		if err == nil {
			h.accept(nc)
			continue
		}
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() || isExhausted(err) {
			h.log.Error("hub: accepting a connection", "error", err)
			if !h.pause(100 * time.Millisecond) {
				return nil
			}
			continue
		}
		if h.base.Err() != nil {
			return nil
		}
		return err
	}
}

// begin has the MQTT library take connections, once.
func (h *Hub) begin() (err error) {
	h.start.Do(func() {
		if err = h.server.Serve(); err == nil {
			h.sweeping.Go(h.sweep)
			h.sweeping.Go(h.takeNews)
		}
	})
	return err
}

// pause waits, and reports false if the hub was closed meanwhile.
func (h *Hub) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-h.base.Done():
		return false
	}
}

func (h *Hub) addListener(l net.Listener) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.listeners[l] = struct{}{}
	return true
}

// Close stops accepting, lets each connection end the packet it is working on, and closes them all. When ctx ends first, the
// connections are torn down at once and the error of ctx is returned. Wills are not sent. The hub is given up when the last connection has ended.
func (h *Hub) Close(ctx context.Context) error {
	conns, first := h.beginClose()
	if !first {
		return nil
	}
	for _, c := range conns {
		c.drain(causeShutdown)
	}
	done := make(chan struct{})
	go func() { h.waitIdle(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		for _, c := range conns {
			c.cut(causeShutdown)
		}
		<-done
	}
	h.start.Do(func() {}) // Serve can no longer start it
	h.sweeping.Wait()
	return errors.Join(err, h.server.Close(), h.giveUp(ctx))
}

// waitIdle returns when no connection is left.
func (h *Hub) waitIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.conns) > 0 {
		h.gone.Wait()
	}
}

func (h *Hub) beginClose() (conns []*conn, first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false
	}
	h.closed = true
	h.stop()
	for l := range h.listeners {
		l.Close()
	}
	for _, d := range h.devices {
		d.timer.Stop()
	}
	for c := range h.conns {
		conns = append(conns, c)
	}
	return conns, true
}
