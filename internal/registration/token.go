package registration

import (
	"context"
	"crypto/subtle"
	"time"

	"latchkey.example/latchkey/dps"
)

// parseToken reads the token and judges all of it that needs no key.
func (c *Core) parseToken(s *scope, r Request) (dps.Token, error) {
	token, err := dps.ParseToken(r.Authorization)
	if err != nil {
		return dps.Token{}, c.fault(s, dps.CodeUnauthorized, ReasonBadToken, "", err)
	}
	if !token.ResourceIs(r.Scope + "/registrations/" + r.ID) {
		return dps.Token{}, c.fault(s, dps.CodeUnauthorized, ReasonTokenOtherResource, "", nil)
	}
	return token, nil
}

// fresh judges the token's expiry as of the request's arrival, before any queueing.
func fresh(token dps.Token, arrived time.Time) Reason {
	switch {
	case arrived.After(token.Expiry.Add(tokenLeeway)):
		return ReasonTokenExpired
	case token.Expiry.After(arrived.Add(tokenAhead)):
		return ReasonTokenFuture
	}
	return ReasonNone
}

func sameToken(o Operation, token dps.Token) bool {
	digest := token.Digest()
	return o.Mechanism != X509 && subtle.ConstantTimeCompare(digest[:], o.TokenDigest[:]) == 1
}

// claim is a request with a token, and what was read to judge it.
type claim struct {
	scope   *scope
	request Request
	token   dps.Token
	device  Device
	groups  *groupTable
	shown   keys // of the body, if it had a tpm object
}

// verifyToken finds what proves the token: an open challenge of a TPM, or a symmetric key. Whatever fails — scope, id, mechanism, EK, owner,
// slot, generation, signature — the answer is the same.
func (c *Core) verifyToken(ctx context.Context, s *scope, r Request, token dps.Token) (proof, error) {
	if reason := fresh(token, r.Arrived); reason != ReasonNone {
		return proof{}, c.fault(s, dps.CodeUnauthorized, reason, "", nil)
	}
	k := claim{scope: s, request: r, token: token}
	var err error
	if r.Body.TPM != nil {
		if k.shown, err = c.judge(s, r.Body.TPM); err != nil {
			return proof{}, err
		}
	}
	if k.device, k.groups, err = c.read(ctx, s, r.ID); err != nil {
		return proof{}, err
	}
	if o := k.device.Operation; o != nil && sameToken(*o, token) && o.answeredAt(r.Arrived) {
		if err := k.sameKeys(o.Mechanism, o.EK, o.SRK); err != nil {
			return proof{}, c.fault(s, dps.CodeBadRequest, ReasonOtherKeys, err.Error(), nil)
		}
		if o.Mechanism != TPM {
			if o, err = c.unlessFallen(ctx, s, k.device, o); err != nil {
				return proof{}, err
			}
		}
		if o != nil {
			return proof{device: k.device, mechanism: o.Mechanism, repeated: o}, nil
		}
	}
	p, err := c.findProof(ctx, k)
	if err != nil {
		return proof{}, err
	}
	if p.mechanism == TPM {
		if err := k.sameKeys(TPM, p.ek.Bytes(), p.srk.Bytes()); err != nil {
			return proof{}, c.fault(s, dps.CodeBadRequest, ReasonOtherKeys, err.Error(), nil)
		}
	}
	p.device, p.digest, p.generation, p.groupsRevision = k.device, token.Digest(), k.device.Generation, k.groups.revision
	return p, nil
}

// read gives one snapshot of an id, and the groups of its scope.
func (c *Core) read(ctx context.Context, s *scope, id string) (Device, *groupTable, error) {
	device, err := c.store.Device(ctx, s.ID, dps.FoldID(id))
	if err != nil {
		return Device{}, nil, c.storeFault(s, "reading a device", err)
	}
	groups, err := c.groups(ctx, s, device.GroupsRevision)
	if err != nil {
		return Device{}, nil, c.storeFault(s, "reading the groups", err)
	}
	return device, groups, nil
}

// findProof tries the mechanism of the device's entry first. Each of the three can only succeed for the entry that decides about the device;
// before it fails all three have been tried, whatever is enrolled, so that its cost does not tell.
func (c *Core) findProof(ctx context.Context, k claim) (proof, error) {
	attempts := []func(context.Context, claim) (proof, bool, error){c.byChallenge, c.byOwnKeys, c.byGroupKeys}
	first := 0
	switch {
	case k.device.Enrollment == nil:
		first = 2
	case k.device.Enrollment.Mechanism == SymmetricKey:
		first = 1
	}
	var failed error
	for i := range attempts {
		p, ok, err := attempts[(first+i)%len(attempts)](ctx, k)
		if ok {
			return p, nil
		}
		if err != nil {
			failed = err
		}
	}
	if failed != nil {
		return proof{}, failed
	}
	reason := ReasonTokenSignature
	switch _, known := c.scope(k.request.Scope); {
	case !known:
		reason = ReasonUnknownScope
	case k.device.Enrollment != nil && k.device.Enrollment.Mechanism == X509:
		reason = ReasonOtherMechanism
	}
	return proof{}, c.fault(k.scope, dps.CodeUnauthorized, reason, "", nil)
}

// byOwnKeys tries the symmetric keys of the device's own enrollment, or keys that stand in for them.
func (c *Core) byOwnKeys(_ context.Context, k claim) (proof, bool, error) {
	entry := k.device.Enrollment
	enrolled := entry != nil && entry.Mechanism == SymmetricKey
	scope, id, sealed := "", "", k.scope.standIn
	if enrolled {
		scope, id, sealed = k.scope.ID, dps.FoldID(k.request.ID), entry.Keys
	}
	own, err := c.openKeys(ContextEnrollmentKey, scope, id, sealed)
	switch {
	case enrolled && err != nil:
		return proof{}, false, c.fault(k.scope, dps.CodeInternal, ReasonInternal, "", err)
	case !enrolled:
		own = symmetricKeys{standInSecret, standInSecret}
	}
	key := own.verify(k.token)
	if !enrolled || key == nil {
		return proof{}, false, nil
	}
	return proof{mechanism: SymmetricKey, enrollment: entry, key: key, credential: own.credential()}, true, nil
}

// byGroupKeys tries the keys that the scope's groups give a device of this id.
func (c *Core) byGroupKeys(_ context.Context, k claim) (proof, bool, error) {
	for _, g := range k.groups.deriving {
		derived := g.keys.derive(k.request.ID)
		if key := derived.verify(k.token); key != nil && k.device.Enrollment == nil {
			return proof{mechanism: SymmetricKey, group: g, key: key, credential: derived.credential()}, true, nil
		}
	}
	return proof{}, false, nil
}
