package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/brokerapi"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/hubapi"
	"latchkey.example/latchkey/internal/proxied"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/telemetry"
)

// front tells the APIs of the HTTPS listener apart by the first path segment, and devices that come to their hub. Scope names that would be taken
// for another are reserved.
type front struct {
	device, admin http.Handler
	socket        http.HandlerFunc // MQTT over WebSocket
	hub           http.Handler     // the hub's service side
	broker        http.Handler     // the questions of linked brokers
	well          string           // what a good probe says
	ready         func(context.Context) error
	draining      atomic.Bool

	mu         sync.Mutex
	asked      time.Time // when ready was asked last
	answer     error
	answerTime atomic.Int64 // from a request's header to the end of its answer; follows the limits
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	deadline := time.Now().Add(time.Duration(f.answerTime.Load()))
	_ = http.NewResponseController(w).SetWriteDeadline(deadline) // unsupported only by test recorders
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case first == "healthz" && rest == "":
		probe(w, "ok", nil)
	case first == "readyz" && rest == "":
		probe(w, f.well, f.readiness(r.Context()))
	case hubapi.Serves(first):
		f.hub.ServeHTTP(w, r)
	case brokerapi.Serves(r.URL.EscapedPath()):
		f.broker.ServeHTTP(w, r)
	case strings.EqualFold(strings.TrimSuffix(r.URL.Path, "/"), embedded.WebSocketPath):
		f.socket(w, r)
	case adminapi.Serves(first):
		f.admin.ServeHTTP(w, r)
	default:
		f.device.ServeHTTP(w, r)
	}
}

func (f *front) readiness(ctx context.Context) error {
	if f.draining.Load() {
		return errors.New("draining")
	}
	f.mu.Lock() // strangers may probe too: one read a second answers all, so that who hangs up must not end it
	defer f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if time.Since(f.asked) > time.Second {
		f.answer, f.asked = f.ready(ctx), time.Now()
	}
	switch t := registration.Trouble(f.answer); {
	case t != nil:
		return errors.New(t.Public)
	case f.answer != nil:
		return errors.New("the store does not answer")
	}
	return nil
}

// wellness is what a good probe says to those on this machine: also what keeps telemetry from where it belongs, which is no reason to send devices to
// another node.
func (s *service) wellness() string {
	lines := []string{s.front.well}
	if s.sink != nil {
		lines = append(lines, s.sink.Trouble()...)
	}
	return strings.Join(lines, "\n")
}

func probe(w http.ResponseWriter, well string, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, err.Error()+"\n")
		return
	}
	_, _ = io.WriteString(w, well+"\n")
}

// httpServer has the deadlines that every listener needs. HTTP/1.1 alone: it is what the device SDKs speak.
func (s *service) httpServer(handler http.Handler) *http.Server {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: s.headerTime,
		WriteTimeout:      answerTime(s.config),
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          telemetry.Quiet(s.log),
		Protocols:         new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	return server
}

// serveHTTPS calls drained when the last request is answered.
func (s *service) serveHTTPS(ctx context.Context, group *errgroup.Group, l net.Listener, drained func()) {
	server := s.httpServer(s.front)
	server.TLSConfig = s.tickets.share("https", s.cert.tls("http/1.1"))
	// The limit stands below: it counts connections of balancers from the first byte on, so that those whose header is awaited have a bound.
	l = s.proxied("https", netutil.LimitListener(l, s.config.Limits.Connections))
	s.serveUntil(ctx, group, server, func() error { return server.ServeTLS(l, "", "") }, drained)
}

func (s *service) serveMetrics(ctx context.Context, group *errgroup.Group, l net.Listener) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { probe(w, "ok", nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { probe(w, s.wellness(), s.front.readiness(r.Context())) })
	server := s.httpServer(mux)
	s.serveUntil(ctx, group, server, func() error { return server.Serve(l) }, func() {})
}

// serveUntil serves, and drains when ctx ends: no new connections, requests at work finish.
func (s *service) serveUntil(ctx context.Context, group *errgroup.Group, server *http.Server, serve func() error, drained func()) {
	group.Go(func() error {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		defer drained()
		<-ctx.Done()
		s.startDraining()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if err := server.Shutdown(drain); err != nil {
			s.log.Warn("draining: requests were cut", "err", err)
			return server.Close()
		}
		return nil
	})
}

func (s *service) startDraining() {
	s.drain.Do(func() {
		s.front.draining.Store(true)
		s.shared.Drain()
		s.tell(nowStopping)
		s.log.Info("draining: no new connections, requests at work finish")
	})
}

// proxied has the balancers' connections say who their peers are, where there are balancers.
func (s *service) proxied(name string, l net.Listener) net.Listener {
	if len(s.balancers) == 0 {
		return l
	}
	return proxied.Listen(l, proxied.Config{From: s.balancers, HeaderTime: s.headerTime, Name: name, Log: s.log, Metrics: s.proxyMetrics})
}

// serveMQTT: the hub counts strangers by address when it accepts, so the peer is known before.
func (s *service) serveMQTT(group *errgroup.Group, l net.Listener) {
	l = s.proxied("mqtt", l)
	secured := tls.NewListener(l, s.tickets.share("mqtt", s.cert.tls()))
	group.Go(func() error { return s.hub.Serve(secured) })
}

// keepHub keeps the hub this process's until its last session has ended, or watches who serves it. When another process has it, this one ends.
func (s *service) keepHub(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return s.hub.Keep(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if err := s.hub.Close(end); err != nil {
			s.log.LogAttrs(end, slog.LevelWarn, "closing the hub", slog.Any("err", err))
		}
		return nil
	})
}
