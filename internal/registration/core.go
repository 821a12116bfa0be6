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
	"errors"
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
	Store  Store
	Hub    Hub
	Sealer Sealer
	Logger *slog.Logger     // required
	Now    func() time.Time // nil: time.Now
	Rand   io.Reader        // nil: crypto/rand
}

// Core is the registration core. It is safe for concurrent use.
type Core struct {
	store     Store
	hub       Hub
	sealer    Sealer
	log       *slog.Logger
	now       func() time.Time
	rand      io.Reader
	reloading sync.Mutex // held from reading the scopes to storing them, so that an older reading never takes a newer one's place
	scopes    atomic.Pointer[scopeTable]
	decisions *Decisions
	policing  sync.Mutex // held from judging a caller again to the end of what it changes of access policies
	refused   *Decisions // refusals after proof that are in the audit already

	// The costly steps, as fields so that a test can count them.
	parseEK  func([]byte) (*attest.EK, error)
	parseSRK func([]byte) (*attest.SRK, error)
	wrap     func(io.Reader, *attest.EK, *attest.SRK, []byte) ([]byte, error)
}

// scope is a Scope with its secrets opened.
type scope struct {
	Scope
	root     []byte
	policies map[string]policyKeys
	tracking trackingIDs
	standIn  SealedKeys // opened in place of keys that are not there

	groups  atomic.Pointer[groupTable] // nil until a device needs it
	loading sync.Mutex                 // held while groups is made anew
}

type policyKeys struct {
	rights             Right
	primary, secondary []byte
}

type scopeTable struct {
	byID   map[string]*scope
	byHost map[string]*scope
	nobody *scope // stands in for an unknown scope: random root, so that the same work is done and nothing verifies
}

// New opens a core and loads the scopes.
func New(ctx context.Context, config Config) (*Core, error) {
	c := &Core{
		store: config.Store, hub: config.Hub, sealer: config.Sealer, log: config.Logger, now: config.Now, rand: config.Rand,
		decisions: newDecisions(decisionEntries), refused: newDecisions(decisionEntries), parseEK: attest.ParseEK, parseSRK: attest.ParseSRK, wrap: attest.Seal,
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.rand == nil {
		c.rand = rand.Reader
	}
	return c, c.ReloadScopes(ctx)
}

// ReloadScopes reads the scopes again; on failure the ones known before stay.
func (c *Core) ReloadScopes(ctx context.Context) error {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	scopes, err := c.store.Scopes(ctx)
	if err != nil {
		return fmt.Errorf("reading the scopes: %w", err)
	}
	root := make([]byte, 32)
	if _, err := io.ReadFull(c.rand, root); err != nil {
		return err
	}
	table := &scopeTable{byID: map[string]*scope{}, byHost: map[string]*scope{}, nobody: &scope{root: root}}
	for _, s := range scopes {
		opened, err := c.openScope(s)
		if err != nil {
			return fmt.Errorf("scope %s: %w", s.ID, err)
		}
		table.byID[s.ID] = opened
		for _, host := range s.Hosts {
			table.byHost[strings.ToLower(host)] = opened
		}
		if table.nobody.tracking.block == nil {
			table.nobody.tracking = opened.tracking // refusals for unknown scopes are explained with the first scope's key
		}
	}
	if len(scopes) == 0 {
		return errors.New("the store holds no scope: was `latchkey init` run?")
	}
	c.scopes.Store(table)
	return nil
}

func (c *Core) openScope(s Scope) (*scope, error) {
	root, err := c.sealer.Open(ContextScopeRoot(s.ID), s.SealedRoot)
	if err != nil {
		return nil, fmt.Errorf("opening its challenge root: %w", err)
	}
	opened := &scope{Scope: s, root: root, policies: map[string]policyKeys{}}
	if opened.tracking, err = newTrackingIDs(root); err != nil {
		return nil, err
	}
	if opened.standIn, err = c.sealKeys(ContextEnrollmentKey, s.ID, "", symmetricKeys{standInSecret, standInSecret}); err != nil {
		return nil, err
	}
	for _, p := range s.Policies {
		keys := policyKeys{rights: p.Rights}
		if keys.primary, err = c.sealer.Open(ContextPolicyKey(s.ID, p.Name, "primary"), p.SealedPrimary); err != nil {
			return nil, fmt.Errorf("opening a key of access policy %s: %w", p.Name, err)
		}
		if keys.secondary, err = c.sealer.Open(ContextPolicyKey(s.ID, p.Name, "secondary"), p.SealedSecondary); err != nil {
			return nil, fmt.Errorf("opening a key of access policy %s: %w", p.Name, err)
		}
		opened.policies[p.Name] = keys
	}
	return opened, nil
}

// scope gives the named scope, or the one that stands in for an unknown one.
func (c *Core) scope(id string) (*scope, bool) {
	table := c.scopes.Load()
	if s, ok := table.byID[id]; ok {
		return s, true
	}
	return table.nobody, false
}

// HostScope names the scope whose management API answers at a host name (lower case), empty if none does.
func (c *Core) HostScope(host string) string {
	if s, ok := c.scopes.Load().byHost[host]; ok {
		return s.ID
	}
	return ""
}

// HubScope says which scope a hub name belongs to, for the embedded hub's logins.
func (c *Core) HubScope(hub string) (string, bool) {
	s, ok := c.scopes.Load().byHost[strings.ToLower(hub)]
	if !ok || !strings.EqualFold(s.Hosts[0], hub) {
		return "", false
	}
	return s.ID, true
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
	c.log.Error("store", "doing", doing, "err", err)
	return c.fault(s, dps.CodeUnavailable, ReasonStoreDown, "", fmt.Errorf("%s: %w", doing, err))
}
