package handover

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/test/pgserver"
)

const (
	host     = "dps.example.net"
	lease    = 3 * time.Second // a loaded machine beats late
	patience = 30 * time.Second
)

var server *pgserver.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = pgserver.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Stop()
	return m.Run()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is an installation: what its nodes share.
type site struct {
	*testing.T
	address string
	ring    *keyring.Ring
	scope   string
}

var made atomic.Int32

func newSite(t *testing.T) *site {
	t.Helper()
	return siteOn(t, server)
}

// siteOn makes an installation in a database of its own on a server.
func siteOn(t *testing.T, server *pgserver.Server) *site {
	t.Helper()
	name := fmt.Sprintf("site_%d", made.Add(1))
	must(t, server.Psql(t.Context(), "postgres", "CREATE DATABASE "+name))
	s := &site{T: t, address: server.Address(name)}
	must(t, postgres.Create(t.Context(), s.address))
	var err error
	s.ring, err = keyring.Create(filepath.Join(t.TempDir(), "master.key"), time.Now())
	must(t, err)
	scope, _, err := registration.NewScope(s.ring, rand.Reader, []string{host}, time.Now())
	must(t, err)
	scope.Home = true
	store, err := postgres.Open(t.Context(), s.address, postgres.Options{Conns: 2})
	must(t, err)
	verdict, err := store.CreateScope(t.Context(), scope, registration.Audit{At: time.Now(), Actor: registration.ActorLocal, Action: registration.ActionScopeCreate, Object: scope.ID, Outcome: registration.OutcomeOK})
	if verdict != registration.Applied || err != nil {
		t.Fatalf("scope: verdict %d, %v", verdict, err)
	}
	must(t, store.Close())
	s.scope = scope.ID
	return s
}

// node is one of the site's: its own connections, core and hub.
type node struct {
	*site
	store *postgres.Store
	hub   *embedded.Hub
	core  *registration.Core
	mqtt  string // of one that serves the hub
	kept  chan error
	dead  bool
}

// start starts a node. skew is how far its clock is ahead.
func (s *site) start(name string, serves bool, skew time.Duration) (*node, error) {
	s.Helper()
	n := &node{site: s, kept: make(chan error, 1)}
	var err error
	n.store, err = postgres.Open(s.Context(), s.address, postgres.Options{Conns: 4})
	must(s.T, err)
	now := func() time.Time { return time.Now().Add(skew) }
	n.hub, err = embedded.New(embedded.Config{
		Identities: n.store, Owners: n.store, Serve: serves, Host: name, Lease: lease, Sealer: s.ring, Telemetry: io.Discard, Now: now,
		Names: func(name string) (string, bool) { return n.core.HubScope(name) },
	})
	must(s.T, err)
	n.core, err = registration.New(s.Context(), registration.Config{Store: n.store, Hub: n.hub, Sealer: s.ring, Logger: slog.New(slog.DiscardHandler), Now: now})
	must(s.T, err)
	if err := n.hub.Acquire(s.Context()); err != nil {
		return nil, errors.Join(err, n.hub.Close(s.Context()), n.store.Close())
	}
	go func() { n.kept <- n.hub.Keep(context.Background()) }()
	if serves {
		n.listen()
	}
	s.Cleanup(n.stop)
	return n, nil
}

func (s *site) node(name string, serves bool) *node {
	s.Helper()
	n, err := s.start(name, serves, 0)
	must(s.T, err)
	return n
}

func (n *node) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(n.T, err)
	n.mqtt = l.Addr().String()
	go func() { _ = n.hub.Serve(l) }()
}

// stop ends a node as a service manager does.
func (n *node) stop() {
	if n.dead {
		return
	}
	n.dead = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(n.hub.Close(ctx), <-n.kept, n.store.Close()); err != nil {
		n.Errorf("stopping: %v", err)
	}
}

// kill ends a node as kill -9 does: what it has in the database stays as it is, and its sessions are gone.
func (n *node) kill() {
	n.dead = true
	must(n.T, n.store.Close())
	must(n.T, n.hub.Close(context.Background()))
	<-n.kept
}

func (n *node) operator() registration.Caller {
	return registration.Caller{Scope: n.scope, Policy: registration.OwnerPolicy, Address: "198.51.100.9:443", TrackingID: "managed"}
}

// enroll gives a device its key.
func (n *node) enroll(id string, key []byte) {
	n.Helper()
	other := make([]byte, 32)
	rand.Read(other)
	encode := base64.StdEncoding.EncodeToString
	wire, err := dps.DecodeEnrollment(id, []byte(`{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"`+encode(key)+`","secondaryKey":"`+encode(other)+`"}}}`))
	must(n.T, err)
	_, err = n.core.PutEnrollment(n.Context(), n.operator(), wire, "*")
	if err != nil {
		_, err = n.core.PutEnrollment(n.Context(), n.operator(), wire, "")
	}
	must(n.T, err)
}

// proven is a registration that a node has accepted.
type proven struct {
	id, operation string
	request       registration.Request
}

func newKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

// register proves a device at a node.
func (n *node) register(id string, key []byte) proven {
	n.Helper()
	token, err := dps.NewToken(dps.KeySigner(key), n.scope+"/registrations/"+id, time.Now().Add(time.Hour), dps.KeyNameRegistration)
	must(n.T, err)
	p := proven{id: id, request: registration.Request{Scope: n.scope, ID: id, Authorization: token, Address: "192.0.2.8:40000", Arrived: time.Now(),
		Body: dps.RegisterRequest{RegistrationID: id}}}
	answer, err := n.core.Register(n.Context(), p.request)
	must(n.T, err)
	p.operation = answer.Status.OperationID
	return p
}

// poll is what a node shows of it; while it is assigning it says when to come again.
func (n *node) poll(p proven) string {
	n.Helper()
	answer, err := n.core.Poll(n.Context(), p.request, p.operation)
	must(n.T, err)
	if status := answer.Status.Status; (status == dps.StatusAssigning) != (answer.RetryAfter > 0) {
		n.Errorf("%s, come again in %s", status, answer.RetryAfter)
	}
	return answer.Status.Status
}

func (n *node) shows(p proven, want string) {
	n.Helper()
	if got := n.poll(p); got != want {
		n.Fatalf("%s is %s, want %s", p.id, got, want)
	}
}

// deliver works off the outbox once.
func (n *node) deliver() registration.Delivery {
	n.Helper()
	got, err := n.core.Deliver(n.Context())
	must(n.T, err)
	return got
}

func (n *node) waiting() int {
	n.Helper()
	backlog, err := n.store.OutboxBacklog(n.Context())
	must(n.T, err)
	return backlog.Waiting
}

// session is a device's connection to the hub.
type session struct {
	paho.Client
	lost chan struct{}
}

// login connects with a key.
func (n *node) login(id string, key []byte) (*session, error) {
	n.Helper()
	password, err := dps.NewToken(dps.KeySigner(key), host+"/devices/"+id, time.Now().Add(time.Hour), "")
	must(n.T, err)
	s := &session{lost: make(chan struct{})}
	o := paho.NewClientOptions()
	o.Servers = []*url.URL{{Scheme: "tcp", Host: n.mqtt}}
	o.SetClientID(id).SetUsername(host + "/" + id + "/?api-version=2021-04-12").SetPassword(password)
	o.SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(patience)
	o.SetConnectionLostHandler(func(paho.Client, error) { close(s.lost) })
	s.Client = paho.NewClient(o)
	token := s.Connect()
	if !token.WaitTimeout(patience) {
		n.Fatalf("the hub has not answered within %v", patience)
	}
	if token.Error() == nil {
		n.Cleanup(func() { s.Disconnect(0) })
	}
	return s, token.Error()
}

func (n *node) loggedIn(id string, key []byte) *session {
	n.Helper()
	s, err := n.login(id, key)
	must(n.T, err)
	return s
}

// alive says whether the hub still takes messages of the session.
func (s *session) alive(id string) bool {
	token := s.Publish("devices/"+id+"/messages/events/", 1, false, "1")
	return token.WaitTimeout(patience) && token.Error() == nil && s.IsConnectionOpen()
}

// ended wants the session to have been cut by now; that the client notices takes a moment.
func (s *session) ended(t *testing.T) {
	t.Helper()
	select {
	case <-s.lost:
	case <-time.After(patience):
		t.Error("the session is still there")
	}
}
