package registration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"
	"sync/atomic"
)

// scope is a Scope with its secrets opened.
type scope struct {
	Scope
	root        []byte
	policies    map[string]policyKeys
	tracking    trackingIDs
	certificate *tls.Certificate // nil: that of the configuration
	standIn     SealedKeys       // opened in place of keys that are not there
	hubs        []LinkedHub      // in order of their names, the embedded one among them

	groups  atomic.Pointer[groupTable] // nil until a device needs it
	loading chan struct{}              // holds one while groups is made anew
}

type policyKeys struct {
	rights             Right
	primary, secondary []byte
}

type scopeTable struct {
	revision uint64 // of the scopes, read before they were
	byID     map[string]*scope
	byHost   map[string]*scope
	byHub    map[string]*scope // by the names of embedded hubs
	nobody   *scope            // stands in for an unknown scope: random root, so that the same work is done and nothing verifies
}

// ReloadScopes reads the scopes again; on failure the ones known before stay.
func (c *Core) ReloadScopes(ctx context.Context) error {
	return c.changeScopes(ctx, func(*scopeTable) (*scopeTable, error) { return c.readScopes(ctx) })
}

// FollowScopes reads the scopes again if their revision has moved: another node may have changed them. Of many callers that see it move one reads them.
func (c *Core) FollowScopes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	revision, err := c.store.ScopesRevision(ctx)
	if err != nil {
		return fmt.Errorf("reading the scopes' revision: %w", err)
	}
	if revision == c.scopes.Load().revision {
		return nil
	}
	return c.changeScopes(ctx, func(now *scopeTable) (*scopeTable, error) {
		if now.revision == revision {
			return now, nil
		}
		return c.readScopes(ctx)
	})
}

// followScopes reads the scopes again if they are not as stored, whatever their revision says: another process may have changed them. Where they are, their groups stay in
// memory.
func (c *Core) followScopes(ctx context.Context) error {
	scopes, err := patiently(ctx, policyTime, c.store.Scopes)
	if err != nil {
		return fmt.Errorf("reading the scopes: %w", err)
	}
	if c.scopes.Load().shows(scopes) {
		return nil
	}
	return c.ReloadScopes(ctx)
}

// keepScope serves a scope that is known to be stored.
func (c *Core) keepScope(ctx context.Context, s *scope) {
	c.amendScopes(ctx, func(t *scopeTable) { t.add(s) })
}

// forgetScope serves a scope no more that is known to be deleted.
func (c *Core) forgetScope(ctx context.Context, s *scope) {
	c.amendScopes(ctx, func(t *scopeTable) { t.remove(s) })
}

func (c *Core) amendScopes(ctx context.Context, amend func(*scopeTable)) {
	_ = c.changeScopes(ctx, func(now *scopeTable) (*scopeTable, error) { // which does not fail
		table := &scopeTable{revision: now.revision, byID: maps.Clone(now.byID), byHost: maps.Clone(now.byHost), byHub: maps.Clone(now.byHub), nobody: now.nobody}
		amend(table)
		return table, nil
	})
}

// changeScopes puts in the place of the scopes what change makes of them, then ends the sessions at the hubs that are gone.
func (c *Core) changeScopes(ctx context.Context, change func(now *scopeTable) (*scopeTable, error)) error {
	gone, err := c.replaceScopes(change)
	for _, hub := range gone {
		c.dropHub(ctx, hub)
	}
	return err
}

// goneHub is a hub that was unlinked, or that went with its scope.
type goneHub struct{ scope, hub string }

func (c *Core) replaceScopes(change func(now *scopeTable) (*scopeTable, error)) (gone []goneHub, err error) {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	now := c.scopes.Load()
	next, err := change(now)
	if err != nil {
		return nil, err
	}
	c.scopes.Store(next)
	return now.without(next), nil
}

// dropHub cuts the sessions of a hub that is gone. It outlives the request that has noticed: nobody would notice again.
func (c *Core) dropHub(ctx context.Context, gone goneHub) {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := c.hub.Drop(ctx, gone.scope, gone.hub); err != nil {
		c.log.Warn("dropping a hub: what is left of its sessions ends with their tokens", "scope", gone.scope, "hub", gone.hub, "err", err)
	}
}

// readScopes gives up in time, whoever asks: others wait for its end (reloading).
func (c *Core) readScopes(ctx context.Context) (*scopeTable, error) {
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	revision, err := c.store.ScopesRevision(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the scopes' revision: %w", err)
	}
	scopes, err := c.store.Scopes(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the scopes: %w", err)
	}
	root := make([]byte, 32)
	if _, err := io.ReadFull(c.rand, root); err != nil {
		return nil, err
	}
	standIn, err := c.sealKeys(ContextEnrollmentKey, "", "", symmetricKeys{standInSecret, standInSecret})
	if err != nil {
		return nil, err
	}
	table := &scopeTable{revision: revision, byID: map[string]*scope{}, byHost: map[string]*scope{}, byHub: map[string]*scope{}, nobody: &scope{root: root, standIn: standIn, loading: make(chan struct{}, 1)}}
	for _, s := range scopes {
		opened, err := c.openScope(s)
		if err != nil {
			return nil, fmt.Errorf("scope %s: %w", s.ID, err)
		}
		table.add(opened)
		if table.nobody.tracking.block == nil {
			table.nobody.tracking = opened.tracking // refusals for unknown scopes are explained with the first scope's key
		}
	}
	if len(scopes) == 0 {
		return nil, errors.New("the store holds no scope: was `latchkey init` run?")
	}
	return table, nil
}

// add puts in a scope that nobody else knows yet.
func (t *scopeTable) add(s *scope) {
	s.standIn = t.nobody.standIn
	t.byID[s.ID] = s
	for _, host := range s.Hosts {
		t.byHost[strings.ToLower(host)] = s
	}
	for _, hub := range s.hubs {
		if hub.Kind == HubEmbedded {
			t.byHub[hub.Name] = s
		}
	}
}

func (t *scopeTable) remove(s *scope) {
	delete(t.byID, s.ID)
	of := func(_ string, has *scope) bool { return has.ID == s.ID }
	maps.DeleteFunc(t.byHost, of)
	maps.DeleteFunc(t.byHub, of)
}

// shows says whether the table holds the scopes as they are stored.
func (t *scopeTable) shows(stored []Scope) bool {
	same := len(stored) == len(t.byID)
	for _, s := range stored {
		has, known := t.byID[s.ID]
		same = same && known && reflect.DeepEqual(has.Scope, s)
	}
	return same
}

// without lists the hubs of a table, which may be nil, that the next one does not have.
func (t *scopeTable) without(next *scopeTable) (gone []goneHub) {
	if t == nil {
		return nil
	}
	for id, s := range t.byID {
		for _, hub := range s.hubs {
			if now := next.byID[id]; now == nil || !now.has(hub) {
				gone = append(gone, goneHub{id, hub.Name})
			}
		}
	}
	return gone
}

func (c *Core) openScope(s Scope) (*scope, error) {
	root, err := c.sealer.Open(ContextScopeRoot(s.ID), s.SealedRoot)
	if err != nil {
		return nil, fmt.Errorf("opening its challenge root: %w", err)
	}
	opened := &scope{Scope: s, root: root, policies: map[string]policyKeys{}, hubs: hubsOf(s), loading: make(chan struct{}, 1)}
	if opened.tracking, err = newTrackingIDs(root); err != nil {
		return nil, err
	}
	if len(s.Certificate) > 0 {
		if opened.certificate, err = c.openCertificate(s); err != nil {
			return nil, err
		}
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
	s, ok := c.scopes.Load().byHub[strings.ToLower(hub)]
	if !ok {
		return "", false
	}
	return s.ID, true
}

// openCertificate makes a scope's certificate ready for handshakes.
func (c *Core) openCertificate(s Scope) (*tls.Certificate, error) {
	key, err := c.sealer.Open(ContextScopeCertificate(s.ID), s.SealedCertificateKey)
	if err != nil {
		return nil, fmt.Errorf("opening the key of its certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(s.Certificate, key)
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	return &pair, nil
}

// Certificate is the server certificate of a host name (in any case), nil if that of the configuration is to serve.
func (c *Core) Certificate(host string) *tls.Certificate {
	table, host := c.scopes.Load(), strings.ToLower(host)
	s, ok := table.byHost[host]
	if !ok {
		s, ok = table.byHub[host]
	}
	if !ok || s.certificate == nil || s.certificate.Leaf.VerifyHostname(host) != nil {
		return nil
	}
	return s.certificate
}
