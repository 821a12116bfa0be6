package hubapi_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/hubapi"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/internal/web"
)

const (
	scope, host           = "0lkOne", "one.example.net"
	otherScope, otherHost = "0lkTwo", "two.example.net"
	version               = "?api-version=2021-04-12"
	owner                 = "owner"
	patience              = 10 * time.Second // how long a test waits for what must happen
)

// rights are the access policies: one for each right, and the owner's.
var rights = map[string]registration.Right{
	"config": registration.ServiceConfig, "enrollment-read": registration.EnrollmentRead, "enrollment-write": registration.EnrollmentWrite,
	"status-read": registration.RegistrationStatusRead, "status-write": registration.RegistrationStatusWrite,
	"registry-read": registration.RegistryRead, "registry-write": registration.RegistryWrite, "service": registration.ServiceConnect, owner: registration.AllRights,
}

// house is the service side over the real hub, core, store and key ring, with two scopes.
type house struct {
	t     testing.TB
	url   string
	store *sqlite.Store
	core  *registration.Core
	hub   *embedded.Hub
	mqtt  net.Listener
	api   http.Handler
}

func newHouse(t testing.TB) *house {
	t.Helper()
	return newHouseWith(t, func(h hubapi.Hub) hubapi.Hub { return h })
}

// newHouseWith is a house whose service side sees the hub through a wrapper.
func newHouseWith(t testing.TB, wrap func(hubapi.Hub) hubapi.Hub) *house {
	t.Helper()
	if test, ok := t.(*testing.T); ok {
		test.Parallel() // each house has its own database, and waits for its disk
	}
	dir := t.TempDir()
	ring, err := keyring.Create(filepath.Join(dir, "master.key"), time.Now())
	must(t, err)
	path := filepath.Join(dir, "latchkey.db")
	must(t, sqlite.Create(t.Context(), path, sqlite.Options{}))
	h := &house{t: t}
	h.store, err = sqlite.Open(t.Context(), path, sqlite.Options{Linger: -1})
	must(t, err)
	t.Cleanup(func() { must(t, h.store.Close()) })
	h.createScope(ring, scope, host)
	h.createScope(ring, otherScope, otherHost)
	h.hub, err = embedded.New(embedded.Config{Identities: h.store, Serve: true, Sealer: ring, Telemetry: io.Discard,
		Names: func(hub string) (string, bool) { return h.core.HubScope(hub) }})
	must(t, err)
	quiet := slog.New(slog.DiscardHandler)
	h.core, err = registration.New(t.Context(), registration.Config{Store: h.store, Hub: h.hub, Sealer: ring, Logger: quiet})
	must(t, err)
	h.mqtt, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- h.hub.Serve(h.mqtt) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		must(t, h.hub.Close(ctx))
		must(t, <-served)
	})
	server := web.NewServer("hub", h.core, quiet, web.NewMetrics(prometheus.NewRegistry()), web.NewShared(web.DefaultLimits))
	h.api = hubapi.New(h.core, wrap(h.hub), server, time.Now)
	front := httptest.NewServer(h.api)
	t.Cleanup(front.Close)
	h.url = front.URL
	return h
}

// key is the key of an access policy; each has two of its own.
func key(scope, policy, slot string) []byte {
	sum := sha256.Sum256([]byte("key of " + scope + policy + slot))
	return sum[:]
}

func (h *house) createScope(ring *keyring.Ring, id string, hosts ...string) {
	h.t.Helper()
	seal := func(context string, plain []byte) []byte {
		sealed, err := ring.Seal(context, plain)
		must(h.t, err)
		return sealed
	}
	made := registration.Scope{ID: id, Hosts: hosts, Created: time.Now(), SealedRoot: seal(registration.ContextScopeRoot(id), key(id, "root", ""))}
	for name, right := range rights {
		made.Policies = append(made.Policies, registration.AccessPolicy{Name: name, Rights: right,
			SealedPrimary:   seal(registration.ContextPolicyKey(id, name, "primary"), key(id, name, "primary")),
			SealedSecondary: seal(registration.ContextPolicyKey(id, name, "secondary"), key(id, name, "secondary"))})
	}
	verdict, err := h.store.CreateScope(h.t.Context(), made, registration.Audit{At: time.Now(), Actor: registration.ActorLocal, Action: registration.ActionScopeCreate, Object: id, Outcome: registration.OutcomeOK})
	must(h.t, err)
	if verdict != registration.Applied {
		h.t.Fatalf("creating scope %s: verdict %d", id, verdict)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// token is a SAS token for a resource, under the key of an access policy or another one.
func token(t testing.TB, key []byte, resource, policy string, expiry time.Time) string {
	t.Helper()
	text, err := dps.NewToken(dps.KeySigner(key), resource, expiry, policy)
	must(t, err)
	return text
}

// as is a fresh SAS token of one of the scope's access policies.
func as(t testing.TB, policy string) string {
	t.Helper()
	return token(t, key(scope, policy, "primary"), host, policy, time.Now().Add(time.Hour))
}

// answer is what came back, whole.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   string
}

// ask sends a request; headers come in pairs.
func (h *house) ask(method, path, body, authorization string, header ...string) answer {
	h.t.Helper()
	a, err := h.try(method, path, body, authorization, header...)
	must(h.t, err)
	return a
}

// try is ask for goroutines, which may not end the test.
func (h *house) try(method, path, body, authorization string, header ...string) (answer, error) {
	request, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Host = host
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	for i := 0; i < len(header); i += 2 {
		switch header[i] {
		case "Host":
			request.Host = header[i+1]
		default:
			request.Header.Set(header[i], header[i+1])
		}
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{h.t, response.StatusCode, response.Header, string(text)}, err
}

// owner asks with every right.
func (h *house) owner(method, path, body string, header ...string) answer {
	h.t.Helper()
	joint := "?"
	if strings.Contains(path, "?") {
		joint = "&"
	}
	return h.ask(method, path+joint+version[1:], body, as(h.t, owner), header...)
}

func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// refused checks a refusal in the hub's form: status, name, sentence and tracking id, in body and headers alike.
func (a answer) refused(status int, name, sentence string) answer {
	a.t.Helper()
	var body struct{ Message, ExceptionMessage string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	tracking := a.header.Get("x-ms-request-id")
	if !strings.HasPrefix(body.Message, "ErrorCode:"+name+";") || !strings.Contains(body.Message, sentence) || a.header.Get("iothub-errorcode") != name {
		a.t.Errorf("refused with %s and %q, want %s with %q", a.body, a.header.Get("iothub-errorcode"), name, sentence)
	}
	if tracking == "" || !strings.HasPrefix(body.ExceptionMessage, "Tracking ID:"+tracking+"-") {
		a.t.Errorf("tracking id %q, body %s", tracking, a.body)
	}
	return a
}

// object is the body as an object.
func (a answer) object() map[string]any {
	a.t.Helper()
	var value map[string]any
	if err := json.Unmarshal([]byte(a.body), &value); err != nil {
		a.t.Fatalf("status %d, body %q: %v", a.status, a.body, err)
	}
	return value
}

// get gives a member of the body by its path, as text; empty if it is not there.
func (a answer) get(path ...string) string {
	a.t.Helper()
	var value any = a.object()
	for _, name := range path {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// because checks the reason that the operator finds for an answer.
func (h *house) because(a answer, reason string) {
	h.t.Helper()
	x, err := h.core.Why(h.t.Context(), registration.Caller{Scope: scope}, a.header.Get("x-ms-request-id"))
	must(h.t, err)
	if x.Reason.String() != reason || x.Reason.Explain() == "" {
		h.t.Errorf("reason %q, want %q", x.Reason, reason)
	}
}

// audited are the audit rows of an answer.
func (h *house) audited(a answer) []registration.Audit {
	h.t.Helper()
	x, err := h.core.Why(h.t.Context(), registration.Caller{Scope: scope}, a.header.Get("x-ms-request-id"))
	must(h.t, err)
	return x.Audit
}

// create makes a device and gives its primary key.
func (h *house) create(id string) []byte {
	h.t.Helper()
	a := h.owner("PUT", "/devices/"+id, fmt.Sprintf(`{"deviceId":%q}`, id)).want(200)
	return decoded(h.t, a.get("authentication", "symmetricKey", "primaryKey"))
}

// device is a connected device.
type device struct {
	mqtt.Client
	t    testing.TB
	id   string
	lost chan error

	mu       sync.Mutex
	received []mqtt.Message
	arrived  chan struct{}
}

// tryConnect logs a device in with a key.
func (h *house) tryConnect(id string, key []byte) (*device, error) {
	d := &device{t: h.t, id: id, lost: make(chan error, 1), arrived: make(chan struct{}, 100)}
	options := mqtt.NewClientOptions().AddBroker("tcp://" + h.mqtt.Addr().String()).SetClientID(id).SetProtocolVersion(4).SetCleanSession(false).
		SetAutoReconnect(false).SetConnectRetry(false).SetOrderMatters(false).SetUsername(host + "/" + id + "/?api-version=2021-04-12").
		SetPassword(token(h.t, key, host+"/devices/"+id, "", time.Now().Add(time.Hour)))
	options.OnConnectionLost = func(_ mqtt.Client, err error) { d.lost <- err }
	options.DefaultPublishHandler = func(_ mqtt.Client, m mqtt.Message) {
		d.mu.Lock()
		d.received = append(d.received, m)
		d.mu.Unlock()
		d.arrived <- struct{}{}
	}
	d.Client = mqtt.NewClient(options)
	login := d.Connect()
	if !login.WaitTimeout(patience) {
		return nil, context.DeadlineExceeded
	}
	if login.Error() == nil {
		h.t.Cleanup(func() { d.Disconnect(0) })
	}
	return d, login.Error()
}

func (h *house) connect(id string, key []byte, filters ...string) *device {
	h.t.Helper()
	d, err := h.tryConnect(id, key)
	must(h.t, err)
	for _, filter := range filters {
		d.wait(d.Subscribe(filter, 1, nil))
	}
	return d
}

func (d *device) wait(t mqtt.Token) {
	d.t.Helper()
	if !t.WaitTimeout(patience) || t.Error() != nil {
		d.t.Fatalf("the hub does not answer: %v", t.Error())
	}
}

// next waits for a message.
func (d *device) next() mqtt.Message {
	d.t.Helper()
	select {
	case <-d.arrived:
		d.mu.Lock()
		defer d.mu.Unlock()
		m := d.received[0]
		d.received = d.received[1:]
		return m
	case <-time.After(patience):
		d.t.Fatal("nothing arrives")
		return nil
	}
}

// cut waits until the hub has ended the connection.
func (d *device) cut() {
	d.t.Helper()
	select {
	case <-d.lost:
	case <-time.After(patience):
		d.t.Fatal("the connection is still up")
	}
}

func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }

func (a answer) is(body string) {
	a.t.Helper()
	if a.body != body {
		a.t.Errorf("body %s, want %s", a.body, body)
	}
}
