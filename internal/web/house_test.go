package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/internal/web"
)

const scope = "0lkOne"

// house is a server of one API with all that it writes about its answers.
type house struct {
	t       *testing.T
	core    *registration.Core
	server  *web.Server
	shared  *web.Shared
	metrics *prometheus.Registry
	log     *logBuffer
}

func newHouse(t *testing.T, limits web.Limits) *house {
	t.Helper()
	dir := t.TempDir()
	ring, err := keyring.Create(filepath.Join(dir, "master.key"), time.Now())
	must(t, err)
	path := filepath.Join(dir, "latchkey.db")
	must(t, sqlite.Create(t.Context(), path, sqlite.Options{}))
	store, err := sqlite.Open(t.Context(), path, sqlite.Options{Linger: -1})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	root, err := ring.Seal(registration.ContextScopeRoot(scope), bytes.Repeat([]byte{1}, 32))
	must(t, err)
	_, err = store.CreateScope(t.Context(), registration.Scope{ID: scope, Hosts: []string{"one.example.net"}, SealedRoot: root, Created: time.Now()},
		registration.Audit{At: time.Now(), Actor: registration.ActorLocal, Action: registration.ActionScopeCreate, Object: scope, Outcome: registration.OutcomeOK})
	must(t, err)
	h := &house{t: t, shared: web.NewShared(limits), metrics: prometheus.NewRegistry(), log: &logBuffer{}}
	logger := slog.New(slog.NewJSONHandler(h.log, nil))
	h.core, err = registration.New(t.Context(), registration.Config{Store: store, Hub: noHub{}, Sealer: ring, Logger: logger})
	must(t, err)
	h.server = web.NewServer("test", h.core, logger, web.NewMetrics(h.metrics), h.shared)
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type noHub struct{}

func (noHub) EnsureDevice(context.Context, string, string, registration.HubDevice) error { return nil }

func (noHub) Drop(context.Context, string, string) error { return nil }

func (noHub) Reach(_, _ string) registration.Reach { return registration.Here }

func (noHub) RemoveDevice(context.Context, string, string, string, uint64) error { return nil }

func (noHub) DisableDevice(context.Context, string, string, string, uint64) error { return nil }

func (noHub) DeviceData(context.Context, string, string, string) (registration.DeviceData, error) {
	return registration.DeviceData{}, registration.ErrNotFound
}

// serve answers a request on a recorder: there is no connection behind it, so it works in a synctest bubble.
func (h *house) serve(ctx context.Context, route web.Route) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.server.Serve(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), route)
	return w
}

// route is one whose handler answers 200 with an empty object.
func route(wantsBody bool) web.Route {
	return web.Route{Operation: "test", Scope: scope, ID: "id", WantsBody: wantsBody, Handle: func(_ context.Context, call web.Call) (web.Reply, error) {
		return ok(call)
	}}
}

func ok(web.Call) (web.Reply, error) {
	return web.Reply{Status: http.StatusOK, Body: []byte("{}"), Reason: registration.ReasonPolled}, nil
}

// counted is the sum of latchkey_requests_total over all series that have the reason.
func (h *house) counted(reason string) (n float64) {
	h.t.Helper()
	families, err := h.metrics.Gather()
	must(h.t, err)
	for _, family := range families {
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				if family.GetName() == "latchkey_requests_total" && label.GetName() == "reason" && label.GetValue() == reason {
					n += series.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// logBuffer holds the log as JSON lines.
type logBuffer struct {
	mu    sync.Mutex
	lines []map[string]any
}

func (l *logBuffer) Write(p []byte) (int, error) {
	var line map[string]any
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return len(p), nil
}

// requests are the lines about requests that were answered with a reason.
func (l *logBuffer) requests(reason string) (found []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line["msg"] == "request" && line["reason"] == reason {
			found = append(found, line)
		}
	}
	return found
}

// why is what the operator is told of an answer.
func (h *house) why(trackingID string) registration.Explanation {
	h.t.Helper()
	x, err := h.core.Why(h.t.Context(), registration.Caller{Scope: scope}, trackingID)
	must(h.t, err)
	return x
}
