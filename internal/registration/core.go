// Package registration is the core: it knows enrollments, makes challenges, checks proofs, allocates and assigns.
//
// What it guarantees: a challenge is redeemed once, only with the key that its TPM alone can open, only before it expires (P4);
// one registration id has at most one live assignment and a retry gets the same answer (P2); no hub key leaves before its audit
// row is durable (P3). It trusts the store to be atomic and durable as Store says, the hub to be idempotent as Hub says, and the
// operator's list of endorsement keys. It trusts nothing that a device sends.
//
// Transports call it with decoded messages; it calls the store and the hub; nothing calls back up.
package registration

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// Config is what a Core is built from.
type Config struct {
	Store    Store
	Hub      Hub
	Sealer   Sealer
	Issuer   Issuer           // nil: scopes can only be created for names that need no certificate of their own
	Watch    HubWatch         // nil: nobody looks at linked hubs, and what is linked is not tried
	Webhooks Webhooks         // nil: entries whose webhook is to choose the hub fail
	Logger   *slog.Logger     // required
	Now      func() time.Time // nil: time.Now
	Rand     io.Reader        // nil: crypto/rand
}

// Core is the registration core. It is safe for concurrent use.
type Core struct {
	store     Store
	hub       Hub
	sealer    Sealer
	issuer    Issuer
	webhooks  Webhooks
	watch     HubWatch
	log       *slog.Logger
	now       func() time.Time
	rand      io.Reader
	reloading sync.Mutex // held from reading the scopes to storing them, so that an older reading never takes a newer one's place
	scopes    atomic.Pointer[scopeTable]
	decisions *Decisions
	retention atomic.Int64  // of audit rows, a time.Duration; 0: for ever
	policing  sync.Mutex    // held from judging a caller again to the end of what it changes of access policies
	refused   *Decisions    // refusals after proof that are in the audit already
	troubles  complaints    // of the store, in the log
	ordered   chan struct{} // holds one if work was ordered that nobody has looked for
	lines     hubLines
	workEvery time.Duration

	// The costly steps, as fields so that a test can count them.
	parseEK  func([]byte) (*attest.EK, error)
	parseSRK func([]byte) (*attest.SRK, error)
	wrap     func(io.Reader, *attest.EK, *attest.SRK, []byte) ([]byte, error)
}

// New opens a core and loads the scopes.
func New(ctx context.Context, config Config) (*Core, error) {
	c := &Core{
		store: config.Store, hub: config.Hub, sealer: config.Sealer, issuer: config.Issuer, webhooks: config.Webhooks, watch: config.Watch, log: config.Logger, now: config.Now, rand: config.Rand,
		decisions: newDecisions(decisionEntries), refused: newDecisions(decisionEntries), parseEK: attest.ParseEK, parseSRK: attest.ParseSRK, wrap: attest.Seal,
	}
	c.ordered, c.workEvery = make(chan struct{}, 1), workEvery
	if c.watch == nil {
		c.watch = blind{}
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.rand == nil {
		c.rand = rand.Reader
	}
	return c, c.ReloadScopes(ctx)
}

// Record remembers a decision. Transports call it after the answer was written, so that a flood of strangers costs no latency.
func (c *Core) Record(d Decision) { c.decisions.add(d) }

// Fault makes the error for a refusal that a transport takes itself (limits, media type, api-version, paths).
func (c *Core) Fault(scopeID string, code dps.Code, reason Reason, detail string, inside error) *Fault {
	s, _ := c.scope(scopeID)
	return c.fault(s, code, reason, detail, inside)
}

func (c *Core) fault(s *scope, code dps.Code, reason Reason, detail string, inside error) *Fault {
	f := &Fault{Code: code, Reason: reason, Detail: detail, TrackingID: c.track(s, reason), inside: inside}
	if code.Status() >= 500 {
		f.RetryAfter = retryStore
	}
	return f
}

func (c *Core) track(s *scope, reason Reason) string {
	id, err := s.tracking.mint(c.rand, reason, c.now())
	if err != nil { // crypto/rand does not fail; a test's reader may
		return "00000000-0000-0000-0000-000000000000"
	}
	return id
}

// plain is the sentence of a refused key: it names the rule, and holds nothing but what the caller sent.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "attest: ") }

// storeFault is the answer when the store failed: nothing is known, so nothing is claimed.
func (c *Core) storeFault(s *scope, doing string, err error) *Fault {
	c.complain(slog.LevelError, doing, err)
	return c.fault(s, dps.CodeUnavailable, ReasonStoreDown, "", fmt.Errorf("%s: %w", doing, err))
}
