package registration

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// Scopes are tenants. Who may configure the home scope, the one that init made, creates and deletes the others; to everybody else of the
// installation they do not exist.

// OwnerPolicy is the access policy that a new scope has, with every right.
const OwnerPolicy = "provisioningserviceowner"

// Bounds of scopes.
const (
	MaxScopes = 1_000
	MaxHosts  = 10 // of one scope
)

// Issuer makes server certificates for the names of scopes.
type Issuer interface {
	// Check says in public words why no certificate could serve the names; nil if one can.
	Check(names []string) error
	// Issue makes a certificate for names that Check has passed: chain and key in PEM. Both are nil if the configured certificate covers the names.
	Issue(names []string) (chain, key []byte, err error)
}

// renewBefore is how long before its end a scope's certificate is replaced.
const renewBefore = 30 * 24 * time.Hour

// NewScope makes a scope with one access policy, which has every right, and seals its secrets. The primary key of the policy is returned for
// the one time that it is shown.
func NewScope(sealer Sealer, random io.Reader, hosts []string, now time.Time) (Scope, []byte, error) {
	var drawn [4 + 3*32]byte
	if _, err := io.ReadFull(random, drawn[:]); err != nil {
		return Scope{}, nil, err
	}
	id := "0lk" + hex.EncodeToString(drawn[:4])
	root, primary, secondary := drawn[4:36], drawn[36:68], drawn[68:]
	scope := Scope{ID: id, Hosts: hosts, Created: now}
	policy := AccessPolicy{Name: OwnerPolicy, Rights: AllRights}
	for _, secret := range []struct {
		into    *[]byte
		context string
		plain   []byte
	}{
		{&scope.SealedRoot, ContextScopeRoot(id), root},
		{&policy.SealedPrimary, ContextPolicyKey(id, OwnerPolicy, "primary"), primary},
		{&policy.SealedSecondary, ContextPolicyKey(id, OwnerPolicy, "secondary"), secondary},
	} {
		sealed, err := sealer.Seal(secret.context, secret.plain)
		if err != nil {
			return Scope{}, nil, err
		}
		*secret.into = sealed
	}
	scope.Policies = []AccessPolicy{policy}
	return scope, primary, nil
}

// ScopeShown is a scope as the operator of the home scope sees it: nothing of what is in it.
type ScopeShown struct {
	ID             string
	Hosts          []string
	Home           bool
	Created        time.Time
	CertificateEnd time.Time // zero: the configured certificate serves its names
}

// ScopeCreated is a new scope, and the key of its owner policy, a secret that is not shown again.
type ScopeCreated struct {
	ScopeShown
	Policy     string
	PrimaryKey []byte
}

// atHome gives the caller's scope if it is the home scope. A caller of another gets what one without the right gets.
func (c *Core) atHome(by Caller) (*scope, error) {
	s, _ := c.scope(by.Scope)
	if !s.Home {
		return nil, c.fault(s, dps.CodeUnauthorized, ReasonNotHome, "", nil)
	}
	return s, nil
}

// MayManageScopes says whether the caller is of the home scope, before anything of what he sent is looked at.
func (c *Core) MayManageScopes(by Caller) error {
	_, err := c.atHome(by)
	return err
}

func (s *scope) shown() ScopeShown {
	shown := ScopeShown{ID: s.ID, Hosts: slices.Clone(s.Hosts), Home: s.Home, Created: s.Created}
	if s.certificate != nil {
		shown.CertificateEnd = s.certificate.Leaf.NotAfter
	}
	return shown
}

// Scopes lists all scopes, in order of their ids.
func (c *Core) Scopes(by Caller) ([]ScopeShown, error) {
	if _, err := c.atHome(by); err != nil {
		return nil, err
	}
	list := []ScopeShown{}
	for _, s := range c.scopes.Load().byID {
		list = append(list, s.shown())
	}
	slices.SortFunc(list, func(a, b ScopeShown) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// ScopeNamed shows one scope.
func (c *Core) ScopeNamed(by Caller, id string) (ScopeShown, error) {
	home, err := c.atHome(by)
	if err != nil {
		return ScopeShown{}, err
	}
	s, known := c.scope(id)
	if !known {
		return ScopeShown{}, c.fault(home, dps.CodeScopeNotFound, ReasonScopeMissing, "", nil)
	}
	return s.shown(), nil
}

// CreateScope makes a tenant of the host names (lower case), with the certificate they need, and serves it from then on.
func (c *Core) CreateScope(ctx context.Context, by Caller, hosts []string) (ScopeCreated, error) {
	home, err := c.atHome(by)
	if err != nil {
		return ScopeCreated{}, err
	}
	if err := c.judgeHosts(home, hosts); err != nil {
		return ScopeCreated{}, err
	}
	made, primary, err := c.makeScope(hosts)
	if err != nil {
		return ScopeCreated{}, c.fault(home, dps.CodeInternal, ReasonInternal, "", err)
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	verdict, err := c.store.CreateScope(ctx, made.Scope, c.callerAudit(by, ActionScopeCreate, made.ID, ReasonChanged, scopeDetail(made.Scope)))
	reload := c.ReloadScopes(ctx) // whatever came of it: an error may hide that it was done
	switch {
	case err != nil:
		return ScopeCreated{}, c.storeFault(home, "writing a scope", err)
	case verdict == Exists:
		return ScopeCreated{}, c.fault(home, dps.CodeScopeExists, ReasonHostTaken, "", nil)
	case reload != nil: // its key is shown now or never
		c.log.Warn("a scope was created, but the scopes cannot be read again: tried again in a minute", "scope", made.ID, "err", reload)
		c.keepScope(ctx, made)
	}
	return ScopeCreated{ScopeShown: made.shown(), Policy: OwnerPolicy, PrimaryKey: primary}, nil
}

// makeScope makes a scope that is ready to serve, and the primary key of its owner policy. Times are stored in microseconds.
func (c *Core) makeScope(hosts []string) (*scope, []byte, error) {
	made, primary, err := NewScope(c.sealer, c.rand, hosts, c.now().UTC().Truncate(time.Microsecond))
	if err != nil {
		return nil, nil, err
	}
	if err := c.certify(&made); err != nil {
		return nil, nil, err
	}
	opened, err := c.openScope(made)
	return opened, primary, err
}

func scopeDetail(s Scope) string {
	detail, err := json.Marshal(struct {
		Hosts []string `json:"hosts"`
	}{s.Hosts})
	if err != nil {
		panic(err) // only for types that JSON cannot hold
	}
	return string(detail)
}

func (c *Core) judgeHosts(home *scope, hosts []string) error {
	refuse := func(detail string) error {
		return c.fault(home, dps.CodeBadRequest, ReasonBadScope, "hosts: "+detail, nil)
	}
	table := c.scopes.Load()
	switch {
	case len(hosts) == 0 || len(hosts) > MaxHosts:
		return refuse(fmt.Sprintf("a scope has 1 to %d host names.", MaxHosts))
	case len(table.byID) >= MaxScopes:
		return refuse(fmt.Sprintf("there are %d scopes, as many as there may be.", MaxScopes))
	case c.issuer == nil:
		return refuse("this service cannot issue certificates.")
	}
	for i, host := range hosts {
		if slices.Contains(hosts[:i], host) {
			return refuse(host + " is named twice.")
		}
		if _, taken := table.byHost[host]; taken {
			return c.fault(home, dps.CodeScopeExists, ReasonHostTaken, "", nil)
		}
	}
	if err := c.issuer.Check(hosts); err != nil {
		return refuse(err.Error())
	}
	return nil
}

// certify gives a scope the certificate that its names need. Where the configured one serves its hosts it goes on doing so beside one for
// further hubs alone.
func (c *Core) certify(s *Scope) error {
	names := s.names()
	if further := names[len(s.Hosts):]; len(further) > 0 {
		chain, _, err := c.issuer.Issue(s.Hosts)
		if err != nil {
			return err
		}
		if chain == nil {
			names = further
		}
	}
	chain, key, err := c.issuer.Issue(names)
	if err != nil {
		return err
	}
	if s.Certificate, s.SealedCertificateKey = chain, nil; chain == nil {
		return nil
	}
	s.SealedCertificateKey, err = c.sealer.Seal(ContextScopeCertificate(s.ID), key)
	return err
}

// DeleteScope ends a tenant: from the answer on its devices and operators get what those of an unknown scope get, and its hub's sessions are
// cut; at other nodes that share the store, when they look there (FollowScopes), once a second. Its rows are removed by maintenance; its log stays. The home
// scope cannot be deleted.
func (c *Core) DeleteScope(ctx context.Context, by Caller, id string) error {
	home, err := c.atHome(by)
	if err != nil {
		return err
	}
	s, known := c.scope(id)
	if !known {
		return c.fault(home, dps.CodeScopeNotFound, ReasonScopeMissing, "", nil)
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	verdict, err := c.store.DeleteScope(ctx, id, c.callerAudit(by, ActionScopeDelete, id, ReasonDeleted, scopeDetail(s.Scope)))
	reload := c.ReloadScopes(ctx) // whatever came of it: an error may hide that it was done, and it may have been done at another node
	switch {
	case err != nil:
		return c.storeFault(home, "deleting a scope", err)
	case verdict == LastOne:
		return c.fault(home, dps.CodeBadRequest, ReasonBadScope, "The home scope, which manages the others, cannot be deleted.", nil)
	case reload != nil:
		c.log.Warn("a scope was deleted, but the scopes cannot be read again: tried again in a minute", "scope", id, "err", reload)
		c.forgetScope(ctx, s)
	}
	if verdict == Missing {
		return c.fault(home, dps.CodeScopeNotFound, ReasonScopeMissing, "", nil)
	}
	return nil
}

// renewCertificates replaces the certificates of scopes that end soon.
func (c *Core) renewCertificates(ctx context.Context) error {
	var failed error
	renewed := false
	for _, s := range c.scopes.Load().byID {
		if s.certificate == nil || c.issuer == nil || !c.endsSoon(s.certificate.Leaf) && !c.beginsLater(s.certificate.Leaf) {
			continue
		}
		if err := c.renewCertificate(ctx, s); err != nil {
			failed = errors.Join(failed, fmt.Errorf("renewing the certificate of scope %s: %w", s.ID, err))
			continue
		}
		renewed = true
	}
	if renewed {
		failed = errors.Join(failed, c.ReloadScopes(ctx))
	}
	return failed
}

func (c *Core) endsSoon(leaf *x509.Certificate) bool {
	return leaf.NotAfter.Sub(c.now()) <= renewBefore
}

// beginsLater says whether a certificate is not valid yet: a clock that was ahead has issued it.
func (c *Core) beginsLater(leaf *x509.Certificate) bool { return leaf.NotBefore.After(c.now()) }

func (c *Core) renewCertificate(ctx context.Context, known *scope) error {
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	s := known.Scope
	if err := c.issuer.Check(s.names()); err != nil {
		return err
	}
	if err := c.certify(&s); err != nil {
		return err
	}
	if !endsLater(s.Certificate, known.Certificate) && !c.beginsLater(known.certificate.Leaf) {
		return errors.New("the CA cannot issue one that ends later than the one there is: it ends itself")
	}
	_, err := c.store.PutScopeCertificate(ctx, s.ID, s.Certificate, s.SealedCertificateKey, Audit{At: c.now(), Actor: ActorService,
		Action: ActionScopeRenew, Object: s.ID, Outcome: OutcomeOK, Reason: ReasonChanged, Detail: scopeDetail(s)})
	return err
}

// endsLater compares the ends of two chains; without a certificate of its own a scope has that of the configuration.
func endsLater(chain, than []byte) bool {
	if chain == nil {
		return true
	}
	end := func(chain []byte) time.Time {
		block, _ := pem.Decode(chain)
		if block == nil {
			return time.Time{}
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}
		}
		return leaf.NotAfter
	}
	return end(chain).After(end(than))
}

// scopePruneBatch bounds one transition of pruneScopes.
const scopePruneBatch = 1000

// scopeSettles is how long a deleted scope is looked at again: a request that was under way may still have written a row of it.
const scopeSettles = time.Hour

// pruneScopes takes over what other nodes have done to the scopes, and removes what deleted ones have left.
func (c *Core) pruneScopes(ctx context.Context) error {
	followed := c.followScopes(ctx)
	for {
		removed, err := patiently(ctx, sweepTime, func(ctx context.Context) (int, error) {
			return c.store.PruneScopes(ctx, c.now().Add(-scopeSettles), scopePruneBatch)
		})
		if err != nil || removed == 0 {
			return errors.Join(followed, err)
		}
	}
}
