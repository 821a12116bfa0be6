package registration_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
)

const (
	scopeOne = "0ne000000A1"
	scopeTwo = "0ne000000B2"
	hubOne   = "one.hub.example"
	hubTwo   = "two.hub.example"
)

// epoch begins a slot, so that a test can count slots from it.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// tester is what worlds need of a test; *testing.T, *testing.B and *rapid.T have it.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// world is a core with a real store and a real key ring, a hub that judges, a clock that stands, and chance from a seed.
type world struct {
	tester
	tb       testing.TB // nil in rounds of a property
	ctx      context.Context
	clock    *clock
	rand     *chance
	path     string // of the database
	ring     *keyring.Ring
	inner    *sqlite.Store
	store    *tapStore
	hub      *judgingHub
	core     *registration.Core
	issuer   *ownIssuer
	webhooks registration.Webhooks // nil: none are called
	logs     *syncBuffer
	files    string // folder of database and key ring
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := openWorld(tb, tb.TempDir(), seedOf(tb))
	w.tb = tb
	tb.Cleanup(w.close)
	return w
}

// seedOf draws the seed of a test, or takes it from LATCHKEY_SEED to run a failed one again.
func seedOf(tb testing.TB) uint64 {
	tb.Helper()
	if _, bench := tb.(*testing.B); bench {
		return 1
	}
	seed := rand.Uint64()
	if text := os.Getenv("LATCHKEY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Logf("run again with LATCHKEY_SEED=%d", seed)
	return seed
}

// openWorld makes a world in an empty folder; the caller closes it.
func openWorld(t tester, folder string, seed uint64) *world {
	t.Helper()
	w := &world{tester: t, ctx: context.Background(), clock: &clock{now: epoch}, rand: newChance(seed), logs: new(syncBuffer), files: folder}
	w.path = filepath.Join(folder, "latchkey.db")
	var err error
	w.ring, err = keyring.Create(filepath.Join(folder, "master.keys"), epoch)
	w.must(err)
	w.must(sqlite.Create(w.ctx, w.path, sqlite.Options{}))
	w.inner, err = sqlite.Open(w.ctx, w.path, sqlite.Options{Linger: -1, Readers: 2})
	w.must(err)
	w.createScope(scopeOne, hubOne, "alias.one.example")
	w.createScope(scopeTwo, hubTwo)
	w.hub = newJudgingHub(w)
	w.store = newTapStore(w)
	w.issuer = &ownIssuer{w: w}
	w.core = w.newCore()
	return w
}

// newCore starts a core on the same store, as after a restart or on another node.
func (w *world) newCore() *registration.Core {
	w.Helper()
	return w.coreOn(w.store, w.clock.Now)
}

// coreOn starts a core whose way to the store, and whose clock, are its own.
func (w *world) coreOn(store registration.Store, now func() time.Time) *registration.Core {
	w.Helper()
	core, err := registration.New(w.ctx, registration.Config{
		Store: store, Hub: w.hub, Sealer: w.ring, Issuer: w.issuer, Webhooks: w.webhooks, Now: now, Rand: w.rand,
		Logger: slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	w.must(err)
	return core
}

// in is the same world for a subtest, or for one round of a property.
func (w *world) in(t tester) *world {
	inner := *w
	inner.tester = t
	return &inner
}

func (w *world) close() {
	w.Helper()
	w.must(w.inner.Close())
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("%v", err)
	}
}

// rights of the access policies that every scope has, by name.
var rights = map[string]registration.Right{
	"owner": registration.AllRights, "config": registration.ServiceConfig,
	"enrollment-reader": registration.EnrollmentRead, "enrollment-writer": registration.EnrollmentRead | registration.EnrollmentWrite,
	"hub-reader": registration.RegistryRead, "hub-writer": registration.RegistryRead | registration.RegistryWrite, "application": registration.ServiceConnect,
	"status-reader": registration.RegistrationStatusRead, "status-writer": registration.RegistrationStatusRead | registration.RegistrationStatusWrite,
}

// secret is the plaintext of a planted secret: 32 recognisable bytes.
func secret(parts string) []byte {
	sum := sha256.Sum256([]byte("planted " + parts))
	return sum[:]
}

func (w *world) createScope(id string, hosts ...string) {
	w.Helper()
	scope := registration.Scope{ID: id, Hosts: hosts, SealedRoot: w.seal(registration.ContextScopeRoot(id), secret("root "+id)), Created: epoch, Home: id == scopeOne}
	for name, r := range rights {
		scope.Policies = append(scope.Policies, registration.AccessPolicy{
			Name: name, Rights: r,
			SealedPrimary:   w.seal(registration.ContextPolicyKey(id, name, "primary"), secret("primary "+id+name)),
			SealedSecondary: w.seal(registration.ContextPolicyKey(id, name, "secondary"), secret("secondary "+id+name)),
		})
	}
	verdict, err := w.inner.CreateScope(w.ctx, scope, registration.Audit{At: epoch, Actor: registration.ActorLocal, Action: registration.ActionScopeCreate, Object: id, Outcome: registration.OutcomeOK})
	w.must(err)
	if verdict != registration.Applied {
		w.Fatalf("scope %s: verdict %d", id, verdict)
	}
}

func (w *world) seal(context string, plaintext []byte) []byte {
	w.Helper()
	sealed, err := w.ring.Seal(context, plaintext)
	w.must(err)
	return sealed
}

// snapshot reads an id beside the tap.
func (w *world) snapshot(id string) registration.Device {
	w.Helper()
	device, err := w.inner.Device(w.ctx, scopeOne, dps.FoldID(id))
	w.must(err)
	return device
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

// chance is a seeded reader that goroutines can share.
type chance struct {
	mu     sync.Mutex
	source *rand.ChaCha8
}

func newChance(seed uint64) *chance {
	return &chance{source: rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64(nil, seed)))}
}

func (c *chance) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.source.Read(p)
}

// syncBuffer is a log that goroutines can share.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}
