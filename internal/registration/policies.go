package registration

import (
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// maxPolicies bounds the access policies of one scope: they are all held in memory, and read again at each change.
const maxPolicies = 100

// policyKeySize is the size of an access policy's key in bytes.
const policyKeySize = 32

// policyTime bounds the writing of an access policy or a scope and the reading after it.
const policyTime = 10 * time.Second

// Policy is a shared access policy as ServiceConfig shows it.
type Policy struct {
	Name               string
	Rights             Right
	Primary, Secondary dps.KeySigner // nil in lists
}

// KeySlot names one of an access policy's two keys.
type KeySlot string

// The two keys. Either signs; a client is moved to the other before one is regenerated.
const (
	PrimaryKey   KeySlot = "primary"
	SecondaryKey KeySlot = "secondary"
)

// Presence is what a PUT wants to find: anything, nothing (If-None-Match: *) or something (If-Match: *).
type Presence int

// What is there before a PUT.
const (
	PresentOrAbsent Presence = iota
	Absent
	Present
)

// The calls below read the scopes again before they judge and after they wrote. So what they answer is the store's truth and not this process's
// memory, and in this process a key is dead, and a right gone, before the change is acknowledged: if the scopes cannot be read
// again, the caller gets an error and not a yes. Other nodes on the same store look for a change at every management request (Authorize).

// Policies lists the access policies of the caller's scope by name, without their keys.
func (c *Core) Policies(ctx context.Context, by Caller) ([]Policy, error) {
	s, err := c.freshScope(ctx, by)
	if err != nil {
		return nil, err
	}
	list := make([]Policy, 0, len(s.Scope.Policies))
	for _, p := range s.Scope.Policies {
		list = append(list, Policy{Name: p.Name, Rights: p.Rights})
	}
	slices.SortFunc(list, func(a, b Policy) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Policy reads one access policy with its keys. That they were shown is durable audit before they leave.
func (c *Core) Policy(ctx context.Context, by Caller, name string) (Policy, error) {
	c.policing.Lock()
	defer c.policing.Unlock()
	s, err := c.judgedScope(ctx, by)
	if err != nil {
		return Policy{}, err
	}
	if err := c.policyName(s, name); err != nil {
		return Policy{}, err
	}
	shown, ok := s.policy(name)
	if !ok {
		return Policy{}, c.policyMissing(s)
	}
	if err := c.store.AppendAudit(ctx, s.ID, c.callerAudit(by, ActionPolicyReveal, name, ReasonManaged, "")); err != nil {
		return Policy{}, c.storeFault(s, "writing that keys were shown", err)
	}
	return shown, nil
}

// PutPolicy creates an access policy with two fresh keys, or changes the rights of one and keeps its keys. Rights are not empty.
func (c *Core) PutPolicy(ctx context.Context, by Caller, name string, rights Right, want Presence) (Policy, error) {
	return c.changePolicy(ctx, by, name, func(s *scope, was *AccessPolicy) (AccessPolicy, Audit, error) {
		var before any
		after := policyTold{Rights: rights.Names()}
		policy := AccessPolicy{Name: name, Rights: rights}
		switch {
		case was == nil && want == Present:
			return policy, Audit{}, c.policyMissing(s)
		case was != nil && want == Absent:
			return policy, Audit{}, c.fault(s, dps.CodePreconditionFailed, ReasonPolicyExists, "An access policy of this name exists already.", nil)
		case was != nil:
			before = policyTold{Rights: was.Rights.Names()}
			policy.SealedPrimary, policy.SealedSecondary = was.SealedPrimary, was.SealedSecondary
		case len(s.Scope.Policies) >= maxPolicies:
			return policy, Audit{}, c.fault(s, dps.CodeConflict, ReasonTooManyPolicies, "The scope has as many access policies as it may have. Remove one that is not used.", nil)
		default:
			after.NewKeys = []KeySlot{PrimaryKey, SecondaryKey}
			for _, slot := range after.NewKeys {
				if err := c.freshKey(s, &policy, slot); err != nil {
					return policy, Audit{}, err
				}
			}
		}
		return policy, c.callerAudit(by, ActionPolicyPut, name, ReasonChanged, changed(before, after)), nil
	})
}

// RegeneratePolicy gives an access policy a fresh key in one slot. Tokens under the old one are refused by this process from here on; the
// other key goes on.
func (c *Core) RegeneratePolicy(ctx context.Context, by Caller, name string, slot KeySlot) (Policy, error) {
	return c.changePolicy(ctx, by, name, func(s *scope, was *AccessPolicy) (AccessPolicy, Audit, error) {
		if was == nil {
			return AccessPolicy{}, Audit{}, c.policyMissing(s)
		}
		policy, rights := *was, was.Rights.Names()
		err := c.freshKey(s, &policy, slot)
		detail := changed(policyTold{Rights: rights}, policyTold{Rights: rights, NewKeys: []KeySlot{slot}})
		return policy, c.callerAudit(by, ActionPolicyRegenerate, name, ReasonChanged, detail), err
	})
}

// DeletePolicy removes an access policy. Both its keys are dead in this process when it returns nil.
func (c *Core) DeletePolicy(ctx context.Context, by Caller, name string) error {
	c.policing.Lock()
	defer c.policing.Unlock()
	s, err := c.judgedScope(ctx, by)
	if err != nil {
		return err
	}
	if err := c.policyName(s, name); err != nil {
		return err
	}
	was := s.storedPolicy(name)
	if was == nil {
		return c.policyMissing(s)
	}
	detail := changed(policyTold{Rights: was.Rights.Names()}, nil)
	ctx, cancel := detached(ctx)
	defer cancel()
	verdict, err := c.store.DeletePolicy(ctx, s.ID, name, c.callerAudit(by, ActionPolicyDelete, name, ReasonDeleted, detail))
	s, reload := c.freshScope(ctx, by)
	switch {
	case err != nil:
		return c.storeFault(s, "deleting an access policy", err)
	case reload != nil:
		return reload
	case verdict == LastOne:
		return c.lastPolicy(s)
	case verdict == Missing:
		return c.policyMissing(s)
	}
	return nil
}

// changePolicy writes what change makes of the policy as it is stored, nil if it is not there.
func (c *Core) changePolicy(ctx context.Context, by Caller, name string, change func(*scope, *AccessPolicy) (AccessPolicy, Audit, error)) (Policy, error) {
	c.policing.Lock()
	defer c.policing.Unlock()
	s, err := c.judgedScope(ctx, by)
	if err != nil {
		return Policy{}, err
	}
	if err := c.policyName(s, name); err != nil {
		return Policy{}, err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	for range redeemTries {
		was := s.storedPolicy(name)
		row, audit, err := change(s, was)
		if err != nil {
			return Policy{}, err
		}
		verdict, err := c.store.PutPolicy(ctx, s.ID, was, row, audit)
		now, reload := c.freshScope(ctx, by) // whatever came of it: an error may hide that it was done
		switch {
		case err != nil:
			return Policy{}, c.storeFault(s, "writing an access policy", err)
		case reload != nil:
			return Policy{}, reload
		case verdict == LastOne:
			return Policy{}, c.lastPolicy(s)
		case verdict == Applied:
			return c.openPolicy(s, row)
		}
		if s = now; !s.trusts(by) { // somebody else changed something between read and write; judge again, the caller too
			return Policy{}, c.fault(s, dps.CodeUnauthorized, ReasonAdminToken, "", nil)
		}
	}
	return Policy{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

// detached outlives the request, for a while: what was written for a caller who has given up must still reach the scopes in memory.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), policyTime)
}

// freshScope reads the scopes again and gives the caller's. The scope is never nil, so that it can serve an error.
func (c *Core) freshScope(ctx context.Context, by Caller) (*scope, error) {
	err := c.ReloadScopes(ctx)
	s, _ := c.scope(by.Scope)
	if err != nil {
		return s, c.storeFault(s, "reading the access policies", err)
	}
	return s, nil
}

// judgedScope is freshScope for a caller that is judged again by what was read: its key may have been regenerated, or its policy removed,
// while the request waited its turn, and a dead key must not make itself a living one.
func (c *Core) judgedScope(ctx context.Context, by Caller) (*scope, error) {
	s, err := c.freshScope(ctx, by)
	if err == nil && !s.trusts(by) {
		err = c.fault(s, dps.CodeUnauthorized, ReasonAdminToken, "", nil)
	}
	return s, err
}

// trusts says whether the key that signed the caller's token is still one of its policy, and the policy may still change policies.
func (s *scope) trusts(by Caller) bool {
	if by.key == nil {
		return true
	}
	keys, ok := s.policies[by.Policy]
	if !ok || keys.rights&ServiceConfig == 0 {
		return false
	}
	return sha256.Sum256(keys.primary) == *by.key || sha256.Sum256(keys.secondary) == *by.key
}

func (s *scope) storedPolicy(name string) *AccessPolicy {
	for i := range s.Scope.Policies {
		if s.Scope.Policies[i].Name == name {
			return &s.Scope.Policies[i]
		}
	}
	return nil
}

func (s *scope) policy(name string) (Policy, bool) {
	keys, ok := s.policies[name]
	return Policy{Name: name, Rights: keys.rights, Primary: keys.primary, Secondary: keys.secondary}, ok
}

// openPolicy opens the row that was written, which need not be what is stored by now.
func (c *Core) openPolicy(s *scope, row AccessPolicy) (Policy, error) {
	p := Policy{Name: row.Name, Rights: row.Rights}
	var err error
	if p.Primary, err = c.sealer.Open(ContextPolicyKey(s.ID, row.Name, string(PrimaryKey)), row.SealedPrimary); err == nil {
		p.Secondary, err = c.sealer.Open(ContextPolicyKey(s.ID, row.Name, string(SecondaryKey)), row.SealedSecondary)
	}
	if err != nil {
		return Policy{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	return p, nil
}

// freshKey draws a key for a slot and seals it.
func (c *Core) freshKey(s *scope, policy *AccessPolicy, slot KeySlot) error {
	key := make([]byte, policyKeySize)
	_, err := io.ReadFull(c.rand, key)
	var sealed []byte
	if err == nil {
		sealed, err = c.sealer.Seal(ContextPolicyKey(s.ID, policy.Name, string(slot)), key)
	}
	if err != nil {
		return c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	if slot == PrimaryKey {
		policy.SealedPrimary = sealed
	} else {
		policy.SealedSecondary = sealed
	}
	return nil
}

// policyName refuses what SDKs would not take in a connection string, and the two names that are no path segment to many clients.
func (c *Core) policyName(s *scope, name string) error {
	if dps.ValidPolicyName(name) && name != "." && name != ".." {
		return nil
	}
	return c.fault(s, dps.CodeBadRequest, ReasonBadRequest, "The name of an access policy must be 1 to 128 of the characters A-Z a-z 0-9 _ - @ . and not only one or two dots.", nil)
}

func (c *Core) policyMissing(s *scope) error {
	return c.fault(s, dps.CodeNotFound, ReasonPolicyMissing, "There is no access policy of this name.", nil)
}

func (c *Core) lastPolicy(s *scope) error {
	return c.fault(s, dps.CodeConflict, ReasonLastPolicy,
		"Only this access policy has the permission ServiceConfig. Give it to another one first, or nobody could manage the scope any more.", nil)
}

// policyTold is an access policy as the audit tells it.
type policyTold struct {
	Rights  []string  `json:"rights"`
	NewKeys []KeySlot `json:"newKeys,omitempty"` // fresh with this change
}
