package brokerapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/brokerapi"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/internal/web"
)

const (
	scope  = "0lkOne"
	hub    = "broker.example"
	secret = "shared-secret-123"
	token  = "SharedAccessSignature sr=broker.example%2Fdevices%2Fdev-1&sig=abc%3D&se=123"
)

var expires = time.Unix(1_800_000_000, 0)

// hubs writes down what it is asked, and answers as it is told: yes, a reason for no, or an error.
type hubs struct {
	mu      sync.Mutex
	product string
	host    string
	why     registration.Reason // None: yes
	refuses string              // a topic that gets a no all the same
	err     error
	asked   []string
}

func (h *hubs) note(format string, a ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, fmt.Sprintf(format, a...))
}

func (h *hubs) answer(yes registration.Reason) registration.Reason {
	if h.why != registration.ReasonNone {
		return h.why
	}
	return yes
}

func (h *hubs) Caller(name, shown string) (string, string, bool) {
	return scope, h.product, name == hub && shown == secret
}

func (h *hubs) Login(_ context.Context, name, user, client, password, certificate string) (string, time.Time, registration.Reason, error) {
	h.note("login %s %s %s %s %q", name, user, client, password, certificate)
	return client, expires, h.answer(registration.ReasonBrokerLogin), h.err
}

func (h *hubs) Topic(_ context.Context, name, user, client, topic string, subscribe bool) (string, registration.Reason, error) {
	h.note("topic %s %s %s %s %v", name, user, client, topic, subscribe)
	if topic == h.refuses {
		return client, registration.ReasonTopic, nil
	}
	return client, h.answer(registration.ReasonBrokerTopic), h.err
}

func (h *hubs) Standing(_ context.Context, name, user, client string) (string, string, registration.Reason, error) {
	return client, h.host, h.answer(registration.ReasonBrokerTopic), h.err
}

// house is the API with all that it writes about its answers.
type house struct {
	t    testing.TB
	core *registration.Core
	hubs *hubs
	api  *brokerapi.API
	log  bytes.Buffer
}

var (
	once   sync.Once
	shared *registration.Core // it costs a database, and remembers nothing that a test asks for
	clean  func()
)

func TestMain(m *testing.M) {
	code := m.Run()
	if clean != nil {
		clean()
	}
	os.Exit(code)
}

func newHouse(t testing.TB, product string) *house {
	t.Helper()
	once.Do(func() { shared, clean = newCore(t) })
	h := &house{t: t, core: shared, hubs: &hubs{product: product}}
	if product == "rabbitmq" {
		h.hubs.host = "/"
	}
	logger := slog.New(slog.NewJSONHandler(&h.log, nil))
	h.api = brokerapi.New(h.core, web.NewServer("broker", h.core, logger, web.NewMetrics(prometheus.NewRegistry()), web.NewShared(web.DefaultLimits)), h.hubs)
	return h
}

func newCore(t testing.TB) (*registration.Core, func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "latchkey-brokerapi")
	must(t, err)
	ring, err := keyring.Create(filepath.Join(dir, "master.key"), time.Now())
	must(t, err)
	path, ctx := filepath.Join(dir, "latchkey.db"), context.Background()
	must(t, sqlite.Create(ctx, path, sqlite.Options{}))
	store, err := sqlite.Open(ctx, path, sqlite.Options{Linger: -1})
	must(t, err)
	root, err := ring.Seal(registration.ContextScopeRoot(scope), bytes.Repeat([]byte{1}, 32))
	must(t, err)
	_, err = store.CreateScope(ctx, registration.Scope{ID: scope, Hosts: []string{"one.example.net"}, SealedRoot: root, Created: time.Now()},
		registration.Audit{At: time.Now(), Actor: registration.ActorLocal, Action: registration.ActionScopeCreate, Object: scope, Outcome: registration.OutcomeOK})
	must(t, err)
	core, err := registration.New(ctx, registration.Config{Store: store, Hub: noHub{}, Sealer: ring, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	return core, func() { store.Close(); os.RemoveAll(dir) }
}

type noHub struct{ registration.Hub }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// recorded reads a request of testdata, as it was on the wire.
func recorded(t testing.TB, name string) *http.Request {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".http"))
	must(t, err)
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	must(t, err)
	r.RemoteAddr = "192.0.2.7:5000"
	return r
}

// send gives the answer in one line: status, content type and body.
func (h *house) send(r *http.Request) string {
	h.t.Helper()
	w := httptest.NewRecorder()
	h.api.ServeHTTP(w, r)
	answer := w.Result()
	body, err := io.ReadAll(answer.Body)
	must(h.t, err)
	media, _, _ := strings.Cut(answer.Header.Get("Content-Type"), ";")
	return fmt.Sprintf("%d %s %s", answer.StatusCode, media, body)
}

func request(method, path, contentType, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	r.SetBasicAuth("broker", secret)
	return r
}

// lastLine is the last line of the log.
func (h *house) lastLine() (line map[string]any) {
	h.t.Helper()
	lines := strings.Split(strings.TrimSpace(h.log.String()), "\n")
	must(h.t, json.Unmarshal([]byte(lines[len(lines)-1]), &line))
	return line
}

var errStore = errors.New("the store is away")
