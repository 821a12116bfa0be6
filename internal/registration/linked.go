package registration

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// HubKind is how a linked hub is driven. The set is closed.
type HubKind string

// The kinds of hubs.
const (
	HubEmbedded HubKind = "embedded" // the one built in, in this process or a node that shares its store
	HubAzure    HubKind = "azure"    // whatever has the device identity and twin REST interface of Azure IoT Hub
	HubBroker   HubKind = "broker"   // an MQTT broker that asks over HTTP who may log in
)

// Bounds of linked hubs.
const (
	MaxHubs      = 100 // of one scope, its embedded hub not counted
	MaxHubWeight = 1000
	MaxRegions   = 100
)

// LinkedHub is a hub that a scope may give devices to.
type LinkedHub struct {
	Name     string // host name, lower case: what devices connect to. No other scope has it, as hub or as host name
	Kind     HubKind
	Weight   int  // 1 to MaxHubWeight: its share of what is hashed
	Allocate bool // false: only an enrollment that names it leads here (applyAllocationPolicy)
	Draining bool // nobody new is led here, and whoever registers again leaves it as his reprovisioning lets him
	Region   string
	// Settings are JSON of the kind's own, without secrets. SealedSecret is such JSON with secrets alone, sealed under ContextHubSecret; empty
	// without any.
	Settings     []byte
	SealedSecret []byte
	Revision     uint64 // set by the store, as Enrollment.Revision; 0: the embedded hub of the scope, which is linked though no row says so
	Created      time.Time
	Updated      time.Time
}

// AllocationSettings are how a scope chooses hubs where the enrollment says nothing else.
type AllocationSettings struct {
	Default string // allocation policy, spelled as on the wire; empty: hashed
	Regions []Region
	// SealedWebhookKey signs the questions to allocation webhooks, sealed under ContextWebhookKey; empty: there is none.
	SealedWebhookKey []byte
	Revision         uint64 // set by the store, as Enrollment.Revision; 0: nothing was ever set
	Updated          time.Time
}

// Region is a line of the operator's table for geoLatency: who comes from there, and how far the hubs are from it.
type Region struct {
	Name     string         `json:"name"`
	Networks []netip.Prefix `json:"networks"`
	Latency  map[string]int `json:"latency"` // milliseconds, by hub name
}

// EncodeRegions is how a row holds regions: JSON, empty for none.
func EncodeRegions(regions []Region) ([]byte, error) {
	if len(regions) == 0 {
		return nil, nil
	}
	return json.Marshal(regions)
}

// DecodeRegions reads what EncodeRegions wrote.
func DecodeRegions(encoded []byte) (regions []Region, err error) {
	if len(encoded) == 0 {
		return nil, nil
	}
	err = json.Unmarshal(encoded, &regions)
	return regions, err
}

// ErrUnlinked says that the scope has no hub of this name any more: what devices are there is out of reach.
var ErrUnlinked = errors.New("no such hub is linked")

// HubStore keeps the linked hubs of scopes and how they are chosen. They are part of what Scopes returns.
type HubStore interface {
	// PutHub is PutEnrollment for a linked hub, whose name is folded. Taken if another scope has the name, as a hub or as a host name; Missing if
	// there is no such scope.
	PutHub(ctx context.Context, scope string, hub LinkedHub, expect *uint64, audit Audit) (LinkedHub, Verdict, error)
	// DeleteHub removes a linked hub. Expect nil or AnyRevision: unconditional. Whether devices are there is not looked at.
	DeleteHub(ctx context.Context, scope, name string, expect *uint64, audit Audit) (Verdict, error)
	// PutAllocation is PutEnrollment for the one row of a scope's settings, but for the webhook's key, which stays as it is. Missing if there is no
	// such scope.
	PutAllocation(ctx context.Context, scope string, settings AllocationSettings, expect *uint64, audit Audit) (AllocationSettings, Verdict, error)
	// PutWebhookKey is PutAllocation for the sealed key alone, empty for none.
	PutWebhookKey(ctx context.Context, scope string, sealed []byte, expect *uint64, audit Audit) (AllocationSettings, Verdict, error)
	// HubDevices counts the registrations of a scope by the hub they are at, and by those they leave. It costs time that grows with what it counts, but holds up no transition.
	HubDevices(ctx context.Context, scope string) (map[string]HubCount, error)
}

// HubCount says how many registrations are at a hub.
type HubCount struct {
	Devices   uint64 // all of them
	Assigning uint64 // of these: what is to be done at the hub for them, or for them elsewhere, is not done yet
	Leaving   uint64 // others that have not left it yet: Registration.Leaving names it
}

// hubsOf lists the hubs of a scope by name, its embedded one among them though no row is there.
func hubsOf(s Scope) []LinkedHub {
	hubs := slices.Clone(s.Hubs)
	if len(s.Hosts) > 0 && !slices.ContainsFunc(hubs, func(h LinkedHub) bool { return h.Name == s.Hosts[0] }) {
		hubs = append(hubs, LinkedHub{Name: s.Hosts[0], Kind: HubEmbedded, Weight: 1, Allocate: true, Created: s.Created, Updated: s.Created})
	}
	slices.SortFunc(hubs, func(a, b LinkedHub) int { return strings.Compare(a.Name, b.Name) })
	return hubs
}

// hubNamed finds a hub of a scope by its name in any case.
func (s *scope) hubNamed(name string) (LinkedHub, bool) {
	name = strings.ToLower(name)
	for _, hub := range s.hubs {
		if hub.Name == name {
			return hub, true
		}
	}
	return LinkedHub{}, false
}

// has says whether the hub is linked, as one of the same kind.
func (s *scope) has(hub LinkedHub) bool {
	now, linked := s.hubNamed(hub.Name)
	return linked && now.Kind == hub.Kind
}

// names are those that a certificate must be for: the hosts, then the further embedded hubs.
func (s Scope) names() []string {
	names := slices.Clone(s.Hosts)
	for _, hub := range s.Hubs {
		if hub.Kind == HubEmbedded && !slices.Contains(names, hub.Name) {
			names = append(names, hub.Name)
		}
	}
	return names
}

// certifyHub sees to it that devices which come for a further embedded hub are shown a certificate for its name.
func (c *Core) certifyHub(ctx context.Context, by Caller, s *scope, hub LinkedHub) error {
	if hub.Kind != HubEmbedded || hub.Name == s.Hosts[0] || s.has(hub) {
		return nil
	}
	with := s.Scope
	with.Hubs = append(slices.Clone(s.Hubs), hub)
	if c.issuer == nil {
		return c.badHub(s, "This service cannot issue certificates, and the hub would need one for its name.")
	}
	if err := c.issuer.Check(with.names()); err != nil {
		return c.badHub(s, "The hub would need a certificate for its name: "+err.Error())
	}
	if err := c.certify(&with); err != nil {
		return c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	if len(with.Certificate) == 0 && len(s.Certificate) == 0 {
		return nil
	}
	verdict, err := c.store.PutScopeCertificate(ctx, s.ID, with.Certificate, with.SealedCertificateKey, c.callerAudit(by, ActionScopeRenew, s.ID, ReasonChanged, scopeDetail(with)))
	switch {
	case err != nil:
		return c.storeFault(s, "writing a certificate", err)
	case verdict == Missing:
		return c.fault(s, dps.CodeUnauthorized, ReasonAdminToken, "", nil)
	}
	return nil
}

// someHubs names linked hubs for a person who has named another.
func (s *scope) someHubs() string {
	const most = 5
	var names []string
	for _, hub := range s.hubs[:min(len(s.hubs), most)] {
		names = append(names, hub.Name)
	}
	if len(s.hubs) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// LinkedHub finds a hub of a scope by its name in any case.
func (c *Core) LinkedHub(scopeID, name string) (LinkedHub, bool) {
	s, _ := c.scope(scopeID)
	return s.hubNamed(name)
}

// IsHome says whether a scope is the home scope, whose operator is the installation's.
func (c *Core) IsHome(scopeID string) bool {
	s, _ := c.scope(scopeID)
	return s.Home
}

// LinkedHubs lists the hubs of all scopes, by scope and in order of their names. What is in the lists is not to be changed.
func (c *Core) LinkedHubs() map[string][]LinkedHub {
	all := map[string][]LinkedHub{}
	for id, s := range c.scopes.Load().byID {
		all[id] = s.hubs
	}
	return all
}

// HubSecret opens the secret of a linked hub; nil if it has none.
func (c *Core) HubSecret(scopeID string, hub LinkedHub) ([]byte, error) {
	if len(hub.SealedSecret) == 0 {
		return nil, nil
	}
	return c.sealer.Open(ContextHubSecret(scopeID, hub.Name), hub.SealedSecret)
}
