package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/hub/broker"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/storetest"
)

const (
	testScope = "0ne00000001"
	testHub   = "broker.latchkey.test"
	secret    = "shared-secret-of-the-broker"
	password  = "management-password"
)

var (
	keyOne = []byte("0123456789abcdef0123456789abcdef")
	keyTwo = []byte("fedcba9876543210fedcba9876543210")
)

// fakeRabbit is the part of RabbitMQ's management API that is used, over connections that a test opens. It shows a connection listDelay late, as
// the real one does, and refuses whoever comes without the password.
type fakeRabbit struct {
	t      *testing.T
	server *httptest.Server
	clock  *clock

	mu     sync.Mutex
	conns  map[string]fakeConn
	queues map[string]bool
	down   bool
	asked  []string
}

type fakeConn struct {
	user, client string
	since        time.Time
}

const listDelay = 7 * time.Second

func newFakeRabbit(t *testing.T, c *clock) *fakeRabbit {
	r := &fakeRabbit{t: t, clock: c, conns: map[string]fakeConn{}, queues: map[string]bool{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *fakeRabbit) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, q.Method+" "+q.URL.EscapedPath())
	w.Header()["Date"] = nil // the fake's clock is the test's
	if user, pass, _ := q.BasicAuth(); user != "latchkey" || pass != password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	path := q.URL.EscapedPath()
	name, isConn := strings.CutPrefix(path, "/api/connections/")
	queue, isQueue := strings.CutPrefix(path, "/api/queues/%2F/")
	switch {
	case q.Method == http.MethodGet && path == "/api/connections" && q.URL.Query().Get("page_size") == "500":
		r.list(w)
	case q.Method == http.MethodDelete && isConn && deleted(r.conns, name), q.Method == http.MethodDelete && isQueue && deleted(r.queues, queue):
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func deleted[V any](from map[string]V, name string) bool {
	_, there := from[name]
	delete(from, name)
	return there
}

func (r *fakeRabbit) list(w http.ResponseWriter) {
	type variable struct {
		ClientID string `json:"client_id"`
	}
	type item struct {
		Name     string   `json:"name"`
		User     string   `json:"user"`
		Host     string   `json:"vhost"`
		Since    int64    `json:"connected_at"`
		Variable variable `json:"variable_map"`
	}
	items := []item{}
	for name, c := range r.conns {
		if r.clock.now().Sub(c.since) >= listDelay {
			items = append(items, item{name, c.user, "/", c.since.UnixMilli(), variable{c.client}})
		}
	}
	json.NewEncoder(w).Encode(map[string]any{"page_count": 1, "items": items})
}

func (r *fakeRabbit) connect(name, user, client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[name] = fakeConn{user, client, r.clock.now()}
	r.queues["mqtt-subscription-"+client+"qos1"] = true
	r.queues["mqtt-will-"+client] = true // of a connection before, whose will is to come later
}

func (r *fakeRabbit) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, there := r.conns[name]
	return there
}

func (r *fakeRabbit) turn(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// store is the model of the stores, with failures before and after the effect of the nth call, and a count of reads.
type store struct {
	*storetest.Model
	mu     sync.Mutex
	reads  int
	failAt int // writes until the one that fails; 0: none
	after  bool
	moved  func() // called once before the next write
	read   func() // called once after the next read of an identity, before its answer
}

var errStore = errors.New("the store fails as ordered")

func (s *store) Identity(ctx context.Context, scope, hub, device string) (registration.Identity, error) {
	id, err := s.Model.Identity(ctx, scope, hub, device)
	s.mu.Lock()
	s.reads++
	read := s.read
	s.read = nil
	s.mu.Unlock()
	if read != nil {
		read()
	}
	return id, err
}

func (s *store) fails() (fails, after bool) {
	s.mu.Lock()
	moved := s.moved
	s.moved = nil
	if s.failAt > 0 {
		s.failAt--
		fails, after = s.failAt == 0, s.after
	}
	s.mu.Unlock()
	if moved != nil {
		moved()
	}
	return fails, after
}

func (s *store) PutIdentity(ctx context.Context, scope string, put registration.IdentityPut, audit registration.Audit) (registration.Verdict, error) {
	fails, after := s.fails()
	if fails && !after {
		return 0, errStore
	}
	verdict, err := s.Model.PutIdentity(ctx, scope, put, audit)
	if fails {
		return 0, errStore
	}
	return verdict, err
}

func (s *store) DeleteIdentity(ctx context.Context, scope string, del registration.IdentityDelete, audit registration.Audit) (registration.Verdict, error) {
	fails, after := s.fails()
	if fails && !after {
		return 0, errStore
	}
	verdict, err := s.Model.DeleteIdentity(ctx, scope, del, audit)
	if fails {
		return 0, errStore
	}
	return verdict, err
}

// world is a broker hub with its store, its clock and a broker.
type world struct {
	t      *testing.T
	hub    *broker.Hub
	store  *store
	clock  *clock
	rabbit *fakeRabbit
	linked registration.LinkedHub
	config broker.Config
}

func newWorld(t *testing.T, product broker.Product) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{at: time.Now().Truncate(time.Millisecond)}, store: &store{Model: storetest.NewModel()}}
	w.rabbit = newFakeRabbit(t, w.clock)
	ring, err := keyring.Create(filepath.Join(t.TempDir(), "master.key"), time.Now())
	w.must(err)
	settings := map[string]any{"product": product}
	if product == broker.RabbitMQ {
		settings["managementUrl"], settings["managementUser"] = w.rabbit.server.URL, "latchkey"
	}
	text, err := json.Marshal(settings)
	w.must(err)
	sealed, err := ring.Seal(registration.ContextHubSecret(testScope, testHub), []byte(`{"sharedSecret":"`+secret+`","managementPassword":"`+password+`"}`))
	w.must(err)
	w.linked = registration.LinkedHub{Name: testHub, Kind: registration.HubBroker, Weight: 1, Settings: text, SealedSecret: sealed, Revision: 1}
	w.config = broker.Config{
		Identities: w.store, Sealer: ring, Alone: true, Now: w.clock.now,
		Linked: func(scope, name string) (registration.LinkedHub, bool) {
			return w.linked, scope == testScope && name == w.linked.Name
		},
		All: func() map[string][]registration.LinkedHub {
			return map[string][]registration.LinkedHub{testScope: {w.linked}}
		},
	}
	w.restart()
	w.clock.pass(time.Minute) // nothing is young
	return w
}

// restart is another process with the same store.
func (w *world) restart() {
	var err error
	w.hub, err = broker.New(w.config)
	w.must(err)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ensure(device string, generation uint64, key []byte) error {
	return w.hub.EnsureDevice(w.t.Context(), testScope, testHub, registration.HubDevice{DeviceID: device, Generation: generation, Credential: registration.Credential{Primary: key}})
}

func (w *world) token(device string, key []byte, life time.Duration) string {
	w.t.Helper()
	token, err := dps.NewToken(dps.KeySigner(key), testHub+"/devices/"+device, w.clock.now().Add(life), "")
	w.must(err)
	return token
}

func (w *world) login(device string, key []byte) registration.Reason {
	w.t.Helper()
	_, _, why, err := w.hub.Login(w.t.Context(), testHub, device, device, w.token(device, key, time.Hour), "")
	w.must(err)
	return why
}

// arrive logs in and connects.
func (w *world) arrive(name, device string, key []byte) {
	w.t.Helper()
	w.wantReason(registration.ReasonBrokerLogin, w.login(device, key))
	w.rabbit.connect(name, device, device)
}

func (w *world) topic(device string) registration.Reason {
	w.t.Helper()
	_, why, err := w.hub.Topic(w.t.Context(), testHub, device, device, "devices/"+device+"/messages/events/", false)
	w.must(err)
	return why
}

func (w *world) wantReason(want, got registration.Reason) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("the reason is %s, want %s", got, want)
	}
}

func (w *world) identity(device string) registration.Identity {
	w.t.Helper()
	id, err := w.store.Model.Identity(w.t.Context(), testScope, testHub, device)
	w.must(err)
	return id
}
