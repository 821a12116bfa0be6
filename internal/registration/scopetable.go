package registration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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

	groups  atomic.Pointer[groupTable] // nil until a device needs it
	loading chan struct{}              // holds one while groups is made anew
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
	standIn, err := c.sealKeys(ContextEnrollmentKey, "", "", symmetricKeys{standInSecret, standInSecret})
	if err != nil {
		return err
	}
	table := &scopeTable{byID: map[string]*scope{}, byHost: map[string]*scope{}, nobody: &scope{root: root, standIn: standIn, loading: make(chan struct{}, 1)}}
	for _, s := range scopes {
		opened, err := c.openScope(s)
		if err != nil {
			return fmt.Errorf("scope %s: %w", s.ID, err)
		}
		opened.standIn = standIn
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
	opened := &scope{Scope: s, root: root, policies: map[string]policyKeys{}, loading: make(chan struct{}, 1)}
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
	s, ok := c.scopes.Load().byHost[strings.ToLower(hub)]
	if !ok || !strings.EqualFold(s.Hosts[0], hub) {
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
	if s, ok := c.scopes.Load().byHost[strings.ToLower(host)]; ok {
		return s.certificate
	}
	return nil
}
