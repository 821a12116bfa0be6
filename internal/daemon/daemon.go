// Package daemon wires the rooms together: it opens what the configuration names, starts the listeners and stops them in reverse order.
//
// Run is what `latchkey serve` and tests call; Init is what `latchkey init` calls.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/brokerapi"
	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/httpapi"
	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/hub/broker"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/hub/linked"
	"latchkey.example/latchkey/internal/hubapi"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/proxied"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/telemetry"
	"latchkey.example/latchkey/internal/web"
)

// Options of Run.
type Options struct {
	// Load reads the configuration; it is called at the start and at every reload.
	Load func() (config.Config, error)
	// Reload asks for a reload of certificate, log level, limits, key ring, scopes and telemetry file. May be nil.
	Reload <-chan os.Signal
	// Log is where the log goes, one Write for each line.
	Log io.Writer
	// NotifySocket is where the service manager wants to hear of READY, RELOADING and STOPPING (NOTIFY_SOCKET of sd_notify(3)). Empty: nobody does.
	NotifySocket string

	headerTime time.Duration    // for a request's header; zero means 10 s, tests make it small
	now        func() time.Time // the clock of session tickets; nil means time.Now
}

// How long things may take, and how often they are done.
const (
	headerTime     = 10 * time.Second
	drainTime      = 15 * time.Second
	maintainEvery  = time.Minute
	followEvery    = time.Second
	certCheckEvery = time.Hour
)

// service is a running installation: its parts in the order in which they were opened.
type service struct {
	config  config.Config
	level   *slog.LevelVar
	log     *slog.Logger
	metrics *prometheus.Registry
	ring    *keyring.Ring
	store   backend
	ready   func(context.Context) error // whether the store can serve
	lock    *os.File                    // nil where the system has none
	sink    sink                        // nil where the hub is not served
	mark    *hubMark                    // nil where it is not, or the store is this process's alone
	hub     *embedded.Hub
	brokers *broker.Hub
	azure   *azure.Hubs
	hubs    *linked.Hub // all of these
	core    *registration.Core
	cert    *certificate
	tickets *tickets
	shared  *web.Shared
	front   *front
	manager notifier

	balancers    []netip.Prefix
	private      []netip.Prefix // networks that are else closed to what tenants name
	proxyMetrics *proxied.Metrics
	headerTime   time.Duration
	now          func() time.Time
	drain        sync.Once
}

// Run serves until ctx ends, then drains. It returns nil after a clean end.
func Run(ctx context.Context, opts Options) error {
	cfg, err := opts.Load()
	if err != nil {
		return err
	}
	s := &service{config: cfg, metrics: prometheus.NewRegistry(), headerTime: cmp.Or(opts.headerTime, headerTime),
		manager: notifier{opts.NotifySocket}, now: opts.now}
	if s.now == nil {
		s.now = time.Now
	}
	s.level, s.log = telemetry.NewLogger(opts.Log, cfg.LogFormat)
	if err := s.setLevel(cfg); err != nil {
		return err
	}
	if s.balancers, err = cfg.Balancers(); err != nil {
		return err
	}
	s.proxyMetrics = proxied.NewMetrics(s.metrics)
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := s.open(ctx); err != nil {
		return errors.Join(err, s.close())
	}
	return errors.Join(s.serve(ctx, opts), s.close())
}

func (s *service) setLevel(cfg config.Config) error {
	level, err := cfg.Level()
	if err == nil {
		s.level.Set(level)
	}
	return err
}

// open opens the parts, each of which may need those before it. The store comes first: what it says of a directory without
// an installation says what to do. Before it comes the lock if there is something to lock: a database that is being copied is not even opened.
func (s *service) open(ctx context.Context) (err error) {
	if _, err := os.Stat(s.config.Database); err == nil {
		if err := s.lockStore(); err != nil {
			return err
		}
	}
	if err = s.openStore(ctx); err != nil {
		return err
	}
	if err = s.lockStore(); err != nil {
		return err
	}
	if s.ring, err = keyring.Open(s.config.MasterKey); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no master key at %s: bring it back from where it is kept, the database cannot be read without it", s.config.MasterKey)
	} else if err != nil {
		return err
	}
	s.tickets = newTickets(s.ring, s.now)
	if s.cert, err = loadCertificate(s.config, s.metrics); err != nil {
		return err
	}
	if s.config.Hub.Serve {
		if s.sink, err = s.openTelemetry(ctx); err != nil {
			return err
		}
	}
	if err = s.wire(ctx); err != nil {
		return err
	}
	return s.hub.Acquire(ctx)
}

// lockStore locks an embedded store, once.
func (s *service) lockStore() (err error) {
	if s.config.Store == "" && s.lock == nil {
		s.lock, err = lockInstallation(s.config.Database)
	}
	return err
}

// wire connects core and hub: the core calls the hub, the hub asks which scope a name belongs to.
func (s *service) wire(ctx context.Context) (err error) {
	hub := embedded.Config{
		Identities: s.store, Serve: s.config.Hub.Serve, Sealer: s.ring, Logger: s.log.With("room", "hub"), Metrics: embedded.NewMetrics(s.metrics),
		Names:        func(hub string) (string, bool) { return s.core.HubScope(hub) },
		MaxTokenLife: s.config.Hub.MaxTokenLife, Limits: embedded.Limits{Connections: s.config.Hub.Connections},
	}
	if s.sink != nil {
		hub.Telemetry = s.sink
	}
	if s.config.Store != "" { // the embedded store is this process's alone: lockInstallation
		hub.Owners, hub.News = s.store, s.store
		if s.config.Hub.Serve {
			if s.mark, err = openHubMark(cmp.Or(s.config.Hub.Telemetry, s.config.Hub.Spool)); err != nil {
				return err
			}
			hub.Mark = s.mark
		}
		if hub.Host, err = os.Hostname(); err != nil {
			return err
		}
	}
	if s.hub, err = embedded.New(hub); err != nil {
		return err
	}
	if s.brokers, err = s.openBrokers(); err != nil {
		return err
	}
	s.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "latchkey_hub_serving", Help: "1 while this node serves the embedded hub."}, func() float64 {
		if s.hub.Reach("", "") == registration.Here {
			return 1
		}
		return 0
	}))
	if err = s.openHubs(); err != nil {
		return err
	}
	called, err := openWebhooks(s.config)
	if err != nil {
		return err
	}
	s.core, err = registration.New(ctx, registration.Config{Store: s.store, Hub: s.hubs, Watch: s.hubs, Webhooks: called, Sealer: s.ring, Issuer: issuer{s.cert, s.log}, Logger: s.log})
	if errors.Is(err, keyring.ErrTampered) || errors.Is(err, keyring.ErrUnknownKey) {
		return fmt.Errorf("the master key %s is not the one of the database %s: %w", s.config.MasterKey, storeName(s.config), err)
	} else if err != nil {
		return err
	}
	s.cert.scoped = s.core.Certificate
	s.core.KeepAudit(s.config.Audit.Retention)
	s.shared = web.NewShared(limits(s.config))
	metrics := web.NewMetrics(s.metrics)
	admin := adminapi.New(s.core, web.NewServer("management", s.core, s.log, metrics, s.shared))
	if s.sink != nil {
		admin.Watch(s.hub)
	}
	s.front = &front{
		device: httpapi.New(s.core, web.NewServer("device", s.core, s.log, metrics, s.shared)),
		admin:  admin,
		hub:    hubapi.New(s.core, s.hub, web.NewServer("hub", s.core, s.log, metrics, s.shared), time.Now),
		well:   "ok",
		broker: brokerapi.New(s.core, web.NewServer("broker", s.core, s.log, metrics, s.shared), s.brokers),
		socket: s.hub.WebSocket,
		ready:  s.ready,
	}
	if !s.config.Provision {
		admin.HubAlone()
		s.front.device, s.front.well = admin, "ok: a hub alone, nothing is provisioned here"
	}
	s.front.answerTime.Store(int64(answerTime(s.config)))
	return nil
}

func limits(c config.Config) web.Limits {
	return web.Limits{Body: c.Limits.BodyTime, Handler: c.Limits.HandlerTime, Concurrent: c.Limits.Concurrent, Parked: c.Limits.Parked, Wait: c.Limits.Wait}
}

// answerTime is how long a request may take from its header to the end of its answer.
func answerTime(c config.Config) time.Duration {
	return c.Limits.BodyTime + c.Limits.Wait + c.Limits.HandlerTime + 10*time.Second
}

// close ends the parts in reverse order.
func (s *service) close() error {
	var errs []error
	if s.azure != nil {
		s.azure.Close()
	}
	if s.hub != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		errs = append(errs, s.hub.Close(ctx))
		cancel()
	}
	if s.mark != nil {
		errs = append(errs, s.mark.Close())
	}
	if s.sink != nil {
		errs = append(errs, s.sink.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// serve runs the listeners and the background loops until ctx ends or one of them fails.
func (s *service) serve(ctx context.Context, opts Options) error {
	listeners, err := s.listen()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// Metrics and probes are served until the last request is answered, so that a drain can be watched.
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	s.serveHTTPS(ctx, group, listeners.https, unwatch)
	if listeners.mqtt != nil {
		s.serveMQTT(group, listeners.mqtt)
	}
	s.keepHub(ctx, group)
	s.keepBrokers(ctx, group)
	s.keepHubs(ctx, group)
	if listeners.metrics != nil {
		s.serveMetrics(watched, group, listeners.metrics)
	}
	group.Go(func() error { s.maintain(ctx); return nil })
	group.Go(func() error { s.tickets.run(ctx); return nil })
	group.Go(func() error { s.follow(ctx); return nil })
	group.Go(func() error { s.deliver(ctx); return nil })
	group.Go(func() error { s.reloads(ctx, opts); return nil })
	for what, l := range listeners.all() {
		s.log.Info("listening", "what", what, "addr", l.Addr().String())
	}
	s.tell(nowReady)
	return group.Wait()
}

// maintain prunes what is past its time and warns of a certificate that ends soon.
func (s *service) maintain(ctx context.Context) {
	prune, check := time.NewTicker(maintainEvery), time.NewTicker(certCheckEvery)
	defer prune.Stop()
	defer check.Stop()
	s.cert.warn(s.log)
	s.tidy(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-prune.C:
			s.tidy(ctx)
		case <-check.C:
			s.cert.warn(s.log)
		}
	}
}

func (s *service) tidy(ctx context.Context) {
	if err := s.core.Maintain(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("maintenance: tried again in a minute", "err", err)
	}
}

// follow takes over what other nodes change of scopes and access policies.
func (s *service) follow(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err := s.core.FollowScopes(ctx)
			if err != nil && !failing && ctx.Err() == nil { // once, not every second
				s.log.Warn("changes of scopes are not seen: tried again every second", "err", err)
			}
			failing = err != nil
		}
	}
}

// reloads answers SIGHUP. What cannot be reloaded stays as it was, and says so.
func (s *service) reloads(ctx context.Context, opts Options) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-opts.Reload:
			s.tell(nowReloading)
			if err := s.reload(ctx, opts); err != nil {
				s.log.Error("reload: what failed stays as it was", "err", err)
			} else {
				s.log.Info("reloaded")
			}
			s.tell(nowReady)
		}
	}
}

func (s *service) reload(ctx context.Context, opts Options) error {
	cfg, err := opts.Load()
	if err != nil {
		return err
	}
	s.shared.Set(limits(cfg))
	s.front.answerTime.Store(int64(answerTime(cfg)))
	s.core.KeepAudit(cfg.Audit.Retention)
	if names := config.NeedRestart(s.config, cfg); len(names) > 0 {
		s.log.Warn("reload: these settings changed and need a restart", "settings", names)
	}
	err = errors.Join(s.setLevel(cfg), s.cert.reload(cfg), s.reloadRing(), s.core.ReloadScopes(ctx))
	if s.sink != nil {
		err = errors.Join(err, s.sink.Reload())
	}
	return err
}

// reloadRing reads the key ring again, also for what is derived from it.
func (s *service) reloadRing() error {
	err := s.ring.Reload()
	s.tickets.rotate()
	return err
}

// listeners of one service.
type listeners struct{ https, mqtt, metrics net.Listener }

func (l listeners) all() map[string]net.Listener {
	all := map[string]net.Listener{"https": l.https, "mqtt": l.mqtt, "metrics": l.metrics}
	maps.DeleteFunc(all, func(_ string, l net.Listener) bool { return l == nil })
	return all
}

// listen binds all addresses before anything is served, so that a wrong one is found at once.
func (s *service) listen() (l listeners, err error) {
	bind := func(what, addr string) (bound net.Listener) {
		if err != nil || addr == "" {
			return nil
		}
		if bound, err = net.Listen("tcp", addr); err != nil {
			err = fmt.Errorf("%s: %w", what, err)
			return nil
		}
		return bound
	}
	mqtt := s.config.MQTT
	if !s.config.Hub.Serve {
		mqtt = ""
	}
	l.https, l.mqtt, l.metrics = bind("https", s.config.HTTPS), bind("mqtt", mqtt), bind("metrics", s.config.Metrics)
	if err != nil {
		for _, open := range []net.Listener{l.https, l.mqtt, l.metrics} {
			if open != nil {
				open.Close()
			}
		}
	}
	return l, err
}
