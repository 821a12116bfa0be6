package steps

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/httpapi"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/internal/store/storetest"
	"latchkey.example/latchkey/test/farhub"
	"latchkey.example/latchkey/test/pgserver"
)

const host = "dps.example.net"

// server is one for all tests; each has a database of its own on it.
var server *pgserver.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = pgserver.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return m.Run()
}

// long says that everything is to be played, and not a sample.
func long() bool { return os.Getenv("LATCHKEY_LONG") == "1" }

// onBoth runs a test on SQLite and on PostgreSQL. Of the many cases of a test one in so many is played, another one each time.
func onBoth(t *testing.T, sqliteShare, postgresShare int, play func(s *stage)) {
	t.Helper()
	for _, kind := range []struct {
		name  string
		open  func(t *testing.T) storetest.Store
		share int
	}{{"SQLite", openSQLite, sqliteShare}, {"PostgreSQL", openPostgres, postgresShare}} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, kind.open(t))
			s.chance = sample(t)
			if s.share = kind.share; long() {
				s.share = 1
			}
			play(s)
			s.clean()
		})
	}
}

// sample draws the cases of a test that are played, or takes the seed of a failed test to play the same again.
func sample(t *testing.T) *mathrand.Rand {
	t.Helper()
	seed := mathrand.Uint64()
	if text := os.Getenv("LATCHKEY_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("run again with LATCHKEY_SEED=%d", seed)
	return mathrand.New(mathrand.NewPCG(seed, 0))
}

func openSQLite(t *testing.T) storetest.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "latchkey.db")
	must(t, sqlite.Create(t.Context(), path, sqlite.Options{}))
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{Linger: -1})
	must(t, err)
	return s
}

var databases struct {
	sync.Mutex
	made int
}

func openPostgres(t *testing.T) storetest.Store {
	t.Helper()
	databases.Lock()
	databases.made++
	name := fmt.Sprintf("steps_%d", databases.made)
	databases.Unlock()
	must(t, server.Psql(t.Context(), "postgres", "CREATE DATABASE "+name))
	must(t, postgres.Create(t.Context(), server.Address(name)))
	s, err := postgres.Open(t.Context(), server.Address(name), postgres.Options{Conns: 4})
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stage is an installation on a store: what its nodes share, and the operator.
type stage struct {
	*testing.T
	ctx     context.Context
	store   storetest.Store // beneath the tap
	tap     *tap
	ring    *keyring.Ring
	clock   *clock
	scope   string
	share   int  // of the cases one in so many is played
	remote  bool // no node serves the hub: each accepted proof orders its work in the outbox too
	chance  *mathrand.Rand
	made    int // devices
	told    []told
	weaken  func(storetest.Store, registration.Hub) (storetest.Store, registration.Hub) // nil: they are as they are
	found   *[]string                                                                   // takes what a test finds, where that is what is wanted
	ca      *authority                                                                  // of a group
	nobodys *authority                                                                  // of none
	far     *farhub.Hubs                                                                // hubs over the network; nil: none
	oracle  registration.Webhooks
	noLease bool
	noRest  bool
}

func newStage(t *testing.T, store storetest.Store) *stage {
	t.Helper()
	s := &stage{T: t, ctx: t.Context(), store: store, tap: new(tap), clock: &clock{now: time.Now().Truncate(time.Microsecond)}}
	t.Cleanup(func() { must(t, store.Close()) })
	s.tap.open()
	var err error
	s.ring, err = keyring.Create(filepath.Join(t.TempDir(), "master.key"), s.clock.Now())
	must(t, err)
	s.scope = s.newScope(true, host)
	s.ca, s.nobodys = s.newCA("a group's CA"), s.newCA("nobody's CA")
	return s
}

// Errorf reports what is found.
func (s *stage) Errorf(format string, args ...any) {
	s.Helper()
	if s.found != nil {
		*s.found = append(*s.found, fmt.Sprintf(format, args...))
		return
	}
	s.T.Errorf(format, args...)
}

// Fatalf reports what is found, after which nothing goes on.
func (s *stage) Fatalf(format string, args ...any) {
	s.Helper()
	if s.found != nil {
		s.Errorf(format, args...)
		runtime.Goexit()
	}
	s.T.Fatalf(format, args...)
}

func (s *stage) newScope(home bool, hosts ...string) string {
	s.Helper()
	made, _, err := registration.NewScope(s.ring, rand.Reader, hosts, s.clock.Now())
	must(s.T, err)
	made.Home = home
	verdict, err := s.store.CreateScope(s.ctx, made, registration.Audit{At: s.clock.Now(), Actor: registration.ActorLocal, Action: registration.ActionScopeCreate, Object: made.ID, Outcome: registration.OutcomeOK})
	if verdict != registration.Applied || err != nil {
		s.Fatalf("scope: verdict %d, %v", verdict, err)
	}
	return made.ID
}

// in is the same stage for one of its cases.
func (s *stage) in(t *testing.T) *stage {
	inner := *s
	inner.T = t
	return &inner
}

// chosen says whether a case is in the sample.
func (s *stage) chosen() bool { return s.chance.IntN(s.share) == 0 }

// node is a process of the service, as it was started.
type node struct {
	*stage
	core *registration.Core
	api  *httpapi.API // nil: devices call the core
}

// start starts a node on the store, behind the tap.
func (s *stage) start() *node {
	s.Helper()
	n := &node{stage: s}
	beneath := s.store
	if s.weaken != nil {
		beneath, _ = s.weaken(beneath, nil)
	}
	store := &tapped{Store: beneath, tap: s.tap, noLease: s.noLease, noRest: s.noRest}
	hub, err := embedded.New(embedded.Config{Identities: store, Serve: !s.remote, Sealer: s.ring, Telemetry: io.Discard, Now: s.clock.Now,
		Names: func(name string) (string, bool) { return n.core.HubScope(name) }})
	must(s.T, err)
	s.Cleanup(func() { must(s.T, hub.Close(context.Background())) })
	known := registration.Hub(hub)
	if s.far != nil {
		known = &split{Hub: hub, far: s.far}
	}
	if s.weaken != nil {
		_, known = s.weaken(s.store, known)
	}
	n.core, err = registration.New(s.ctx, registration.Config{Store: store, Hub: &tappedHub{Hub: known, tap: s.tap}, Sealer: s.ring, Webhooks: s.oracle,
		Now: s.clock.Now, Logger: slog.New(slog.DiscardHandler)})
	must(s.T, err)
	return n
}

func (s *stage) operator() registration.Caller {
	return registration.Caller{Scope: s.scope, Policy: registration.OwnerPolicy, Address: "198.51.100.9:443", TrackingID: "managed"}
}

// enroll writes an enrollment from JSON, in the place of what is there.
func (n *node) enroll(id, body string) {
	n.Helper()
	wire, err := dps.DecodeEnrollment(id, []byte(body))
	must(n.T, err)
	ifMatch := ""
	if d, err := n.store.Device(n.ctx, n.scope, dps.FoldID(id)); err == nil && d.Enrollment != nil {
		ifMatch = "*"
	}
	_, err = n.core.PutEnrollment(n.ctx, n.operator(), wire, ifMatch)
	must(n.T, err)
}

// told is what a device was told at the end of a registration.
type told struct {
	device, operation, hub, deviceID string
	key                              []byte // of a TPM
	credential                       registration.Credential
}

// tell remembers what a device was told, in the place of what it was told before.
func (s *stage) tell(t told) {
	for i, before := range s.told {
		if before.device == t.device {
			s.told[i] = t
			return
		}
	}
	s.told = append(s.told, t)
}

// wantStored holds what a device was told against what is stored and what its hub holds.
func (s *stage) wantStored(t told) {
	s.Helper()
	d, err := s.store.Device(s.ctx, s.scope, dps.FoldID(t.device))
	must(s.T, err)
	r := d.Registration
	switch {
	case r == nil:
		s.Errorf("%s was told that it is registered, and is not", t.device)
		return
	case r.Status != registration.Assigned || r.Hub != t.hub || r.DeviceID != t.deviceID || r.OperationID != t.operation:
		s.Errorf("%s was told %s %s by operation %s, and it is %s %s %s by %s", t.device, t.hub, t.deviceID, t.operation, r.Status, r.Hub, r.DeviceID, r.OperationID)
	}
	held := s.held(t.hub, t.deviceID)
	if t.key != nil && (!bytes.Equal(held.Primary, t.key) || held.Secondary != nil || held.Certificate != nil) {
		s.Errorf("%s was told another key than its hub holds", t.device)
	}
	if t.key == nil && !held.Equal(t.credential) {
		s.Errorf("the hub of %s holds another credential than its own", t.device)
	}
}

// held is what the hub lets a device in with.
func (s *stage) held(hub, deviceID string) registration.Credential {
	s.Helper()
	if s.far != nil && s.far.Has(hub) {
		d, _ := s.far.At(hub, deviceID)
		return d.Credential
	}
	identity, err := s.store.Identity(s.ctx, s.scope, hub, deviceID)
	if errors.Is(err, registration.ErrNotFound) {
		return registration.Credential{}
	}
	must(s.T, err)
	encoded, err := s.ring.Open(registration.ContextIdentityKey(s.scope, hub, deviceID), identity.SealedKey)
	must(s.T, err)
	credential, err := registration.DecodeCredential(encoded)
	must(s.T, err)
	return credential
}

// clean holds all that was told against all that is stored, and looks for what no promise allows.
func (s *stage) clean() {
	s.Helper()
	for _, t := range s.told {
		s.wantStored(t)
	}
	if s.remote {
		s.worksOff()
	}
	sum, err := fsck.Check(s.ctx, s.store, s.ring, func(p fsck.Problem) { s.Errorf("fsck: %s", p) })
	must(s.T, err)
	s.Logf("%d devices were told their end; fsck has looked at %d registrations", len(s.told), sum.Registrations)
}

// worksOff does what is left in the outbox, which is not much, and leaves nothing there.
func (s *stage) worksOff() {
	s.Helper()
	left, err := s.store.OutboxBacklog(s.ctx)
	must(s.T, err)
	delivery, err := s.start().core.Deliver(s.ctx)
	if err != nil || delivery.Failed > 0 || delivery.Done != left.Waiting {
		s.Errorf("of %d pieces of work in the outbox: %+v, %v", left.Waiting, delivery, err)
	}
	if left, err = s.store.OutboxBacklog(s.ctx); err != nil || left.Waiting > 0 {
		s.Errorf("left in the outbox: %+v, %v", left, err)
	}
}

// clock stands until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
