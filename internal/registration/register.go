package registration

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// Request is a device's request as a transport understood it.
type Request struct {
	Scope         string
	ID            string // registration id from the path, decoded once
	Authorization string // the whole header; empty if there was none
	Address       string // of the peer
	Arrived       time.Time
	Body          dps.RegisterRequest
}

// Answer is what a device gets. Exactly one of Challenge and Status is set.
type Answer struct {
	Challenge  []byte               // activation blob: answer 401 with it
	Status     *dps.OperationStatus // operation or, for a lookup, its registration state alone
	RetryAfter time.Duration        // set while assigning
	TrackingID string
	Reason     Reason
}

const (
	tokenLeeway     = 5 * time.Minute  // past `se`, for clocks that run ahead of ours
	tokenAhead      = 48 * time.Hour   // furthest `se`
	operationWindow = 10 * time.Minute // how long an operation is answered
	pollAdvice      = 2 * time.Second  // some SDKs lift or drop smaller values
	redeemTries     = 4
)

// Register answers a register request: without a token a challenge, with one that proves the TPM an operation.
func (c *Core) Register(ctx context.Context, r Request) (Answer, error) {
	if r.Authorization == "" {
		return c.challenge(ctx, r)
	}
	return c.prove(ctx, r)
}

// Lookup answers a status lookup: without a token a challenge as Register does, with one the registration state, never a key.
func (c *Core) Lookup(ctx context.Context, r Request) (Answer, error) {
	if r.Authorization == "" {
		return c.challenge(ctx, r)
	}
	s, err := c.admit(r)
	if err != nil {
		return Answer{}, err
	}
	token, err := c.parseToken(s, r)
	if err != nil {
		return Answer{}, err
	}
	proof, err := c.verify(ctx, s, r, token)
	if err != nil {
		return Answer{}, err
	}
	if proof.repeated != nil { // a redeemed token polls its operation and nothing else
		return Answer{}, c.fault(s, dps.CodeUnauthorized, ReasonTokenSpent, "", nil)
	}
	if proof.device.Enrollment.Disabled {
		return Answer{}, c.refuseProven(ctx, s, r, ActionLookup, c.fault(s, dps.CodeDisabled, ReasonDisabled, "", nil))
	}
	state := stateOf(r.ID, proof.device.Registration)
	status := &dps.OperationStatus{Status: state.Status, RegistrationState: state}
	return Answer{Status: status, TrackingID: c.track(s, ReasonLookup), Reason: ReasonLookup}, nil
}

// keys are a device's two public keys after judgement.
type keys struct {
	ek  *attest.EK
	srk *attest.SRK
}

// admit checks what needs no store: the id and what the body says of itself.
func (c *Core) admit(r Request) (*scope, error) {
	s, _ := c.scope(r.Scope)
	if !dps.ValidRegistrationID(r.ID) {
		return nil, c.fault(s, dps.CodeBadRequest, ReasonBadID, "The registration id must be 1 to 128 of the characters A-Z a-z 0-9 - . _ : and end in a letter, digit or dash.", nil)
	}
	if r.Body.RegistrationID != "" && dps.FoldID(r.Body.RegistrationID) != dps.FoldID(r.ID) {
		return nil, c.fault(s, dps.CodeBadRequest, ReasonIDMismatch, "The registrationId in the body is not the one in the path.", nil)
	}
	if r.Body.CSR != "" {
		return nil, c.fault(s, dps.CodeBadRequest, ReasonCSR, "This service does not issue certificates: send no csr.", nil)
	}
	return s, nil
}

// judge parses the keys in a body.
func (c *Core) judge(s *scope, tpm *dps.TPMKeys) (keys, error) {
	ek, err := c.parseEK(tpm.EndorsementKey)
	if err != nil {
		return keys{}, c.fault(s, dps.CodeBadRequest, ReasonBadEK, "tpm.endorsementKey: "+plain(err), err)
	}
	srk, err := c.parseSRK(tpm.StorageRootKey)
	if err != nil {
		return keys{}, c.fault(s, dps.CodeBadRequest, ReasonBadSRK, "tpm.storageRootKey: "+plain(err), err)
	}
	if err := attest.JudgePair(ek, srk); err != nil {
		return keys{}, c.fault(s, dps.CodeBadRequest, ReasonBadSRK, "tpm: "+plain(err), err)
	}
	return keys{ek, srk}, nil
}

// challenge answers a first contact. An unknown scope, an unknown id and another EK take the same steps — two parses, one read, no
// public-key operation — and get the same answer.
func (c *Core) challenge(ctx context.Context, r Request) (Answer, error) {
	s, err := c.admit(r)
	if err != nil {
		return Answer{}, err
	}
	if r.Body.TPM == nil {
		return Answer{}, c.fault(s, dps.CodeBadRequest, ReasonMissingTPM, "The body needs a tpm object with endorsementKey and storageRootKey.", nil)
	}
	shown, err := c.judge(s, r.Body.TPM)
	if err != nil {
		return Answer{}, err
	}
	device, err := c.store.Device(ctx, s.ID, dps.FoldID(r.ID))
	if err != nil {
		return Answer{}, c.storeFault(s, "reading a device", err)
	}
	if reason := c.match(r.Scope, device, shown.ek); reason != ReasonNone {
		return Answer{}, c.fault(s, dps.CodeNotEnrolled, reason, "", nil)
	}
	ek, err := c.enrolledEK(device.Enrollment, shown.ek)
	if err != nil {
		return Answer{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	blob, err := c.makeChallenge(ctx, s, device, r, ek, shown.srk)
	if err != nil {
		return Answer{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	return Answer{Challenge: blob, TrackingID: c.track(s, ReasonChallenged), Reason: ReasonChallenged}, nil
}

// match compares the shown EK with the enrolled one in constant time; with no enrollment it compares with zeros.
func (c *Core) match(scopeID string, device Device, ek *attest.EK) Reason {
	var enrolled [32]byte
	if device.Enrollment != nil {
		enrolled = device.Enrollment.EKKeyID
	}
	shown := ek.KeyID()
	same := subtle.ConstantTimeCompare(enrolled[:], shown[:]) == 1
	switch _, known := c.scope(scopeID); {
	case !known:
		return ReasonUnknownScope
	case device.Enrollment == nil:
		return ReasonUnknownID
	case !same:
		return ReasonOtherEK
	}
	return ReasonNone
}

// enrolledEK is the public area that counts: bits of the shown one that do not make the key could have been varied.
func (c *Core) enrolledEK(e *Enrollment, shown *attest.EK) (*attest.EK, error) {
	if shown != nil && bytes.Equal(e.EK, shown.Bytes()) {
		return shown, nil
	}
	ek, err := c.parseEK(e.EK)
	if err != nil {
		return nil, fmt.Errorf("the enrolled EK of %s: %w", e.ID, err)
	}
	return ek, nil
}

func (c *Core) makeChallenge(ctx context.Context, s *scope, device Device, r Request, ek *attest.EK, srk *attest.SRK) ([]byte, error) {
	id := dps.FoldID(r.ID)
	subject := challengeSubject{s.ID, id, ek.Name(), srk.Name(), device.Generation}
	blob, err := c.wrap(c.rand, ek, srk, subject.key(s.root, slotOf(r.Arrived)))
	if err != nil {
		return nil, err
	}
	if device.Registration != nil && bytes.Equal(device.Registration.SRK, srk.Bytes()) {
		return blob, nil // the last proven owner is remembered by the registration
	}
	// Only clients that omit the tpm object later need this memory, so its loss must not refuse the others.
	if err := c.store.RememberOwner(ctx, s.ID, id, srk.Bytes(), r.Arrived); err != nil {
		c.log.Warn("store", "doing", "remembering an owner", "err", err)
	}
	return blob, nil
}

// proof is a verified token with what it proved.
type proof struct {
	device     Device
	ek         *attest.EK
	srk        *attest.SRK
	key        []byte
	generation uint64
	repeated   *Operation // set instead of the rest if this very token was redeemed already
}

// prove answers a register request that carries a token.
func (c *Core) prove(ctx context.Context, r Request) (Answer, error) {
	s, err := c.admit(r)
	if err != nil {
		return Answer{}, err
	}
	token, err := c.parseToken(s, r)
	if err != nil {
		return Answer{}, err
	}
	for range redeemTries {
		proof, err := c.verify(ctx, s, r, token)
		if err != nil {
			return Answer{}, err
		}
		if proof.repeated != nil {
			return c.accepted(s, *proof.repeated), nil
		}
		operation, verdict, err := c.redeem(ctx, s, r, token, proof)
		if err != nil {
			return Answer{}, err
		}
		if verdict == Conflict {
			continue // something moved between the read and the write: judge again from what is there now
		}
		if operation, err = c.Advance(ctx, s.ID, operation); err != nil {
			c.log.Warn("advance", "operation", operation.ID, "err", err) // stays assigning; the poll goes on
		}
		return c.accepted(s, operation), nil
	}
	return Answer{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

// accepted is the one answer to an accepted proof, first time or repeated: some SDKs accept nothing but 202 and assigning here.
func (c *Core) accepted(s *scope, o Operation) Answer {
	status := &dps.OperationStatus{OperationID: o.ID, Status: string(Assigning), RegistrationState: &dps.RegistrationState{
		RegistrationID: o.RegistrationID, Status: string(Assigning),
	}}
	return Answer{Status: status, RetryAfter: pollAdvice, TrackingID: o.TrackingID, Reason: ReasonRegistered}
}

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

// verify finds the open challenge whose key verifies the token. Whatever fails — scope, id, EK, owner, slot, generation, signature —
// the answer is the same.
func (c *Core) verify(ctx context.Context, s *scope, r Request, token dps.Token) (proof, error) {
	if reason := fresh(token, r.Arrived); reason != ReasonNone {
		return proof{}, c.fault(s, dps.CodeUnauthorized, reason, "", nil)
	}
	var shown keys
	if r.Body.TPM != nil {
		var err error
		if shown, err = c.judge(s, r.Body.TPM); err != nil {
			return proof{}, err
		}
	}
	device, err := c.store.Device(ctx, s.ID, dps.FoldID(r.ID))
	if err != nil {
		return proof{}, c.storeFault(s, "reading a device", err)
	}
	if o := device.Operation; o != nil && c.sameToken(*o, token) && r.Arrived.Sub(o.Created) <= operationWindow {
		if err := sameKeys(o.EK, o.SRK, shown); err != nil {
			return proof{}, c.fault(s, dps.CodeBadRequest, ReasonOtherKeys, err.Error(), nil)
		}
		return proof{device: device, repeated: o}, nil
	}
	p, err := c.findChallenge(ctx, s, r, token, device, shown)
	if err != nil {
		return proof{}, err
	}
	if err := sameKeys(device.Enrollment.EK, p.srk.Bytes(), shown); err != nil {
		return proof{}, c.fault(s, dps.CodeBadRequest, ReasonOtherKeys, err.Error(), nil)
	}
	return p, nil
}

func (c *Core) sameToken(o Operation, token dps.Token) bool {
	digest := token.Digest()
	return subtle.ConstantTimeCompare(digest[:], o.TokenDigest[:]) == 1
}

// sameKeys holds the rule that EK and SRK come from the redeemed challenge: a body may omit them, but not name others.
func sameKeys(ek, srk []byte, shown keys) error {
	if shown.ek == nil {
		return nil
	}
	proven, err := attest.ParsePublic(ek)
	if err != nil || proven.KeyID() != shown.ek.KeyID() {
		return fmt.Errorf("tpm.endorsementKey is not the one that the challenge was made for")
	}
	if !bytes.Equal(srk, shown.srk.Bytes()) {
		return fmt.Errorf("tpm.storageRootKey is not the one that the challenge was made for")
	}
	return nil
}

// findChallenge tries the owner in the body, then the last proven one, then those remembered; two slots each. Before it fails it has
// parsed one EK and tried ownersTried owners, whatever is enrolled or remembered, so that its cost does not tell. Without an
// enrollment it never succeeds.
func (c *Core) findChallenge(ctx context.Context, s *scope, r Request, token dps.Token, device Device, shown keys) (proof, error) {
	ek, err := c.challengedEK(device, shown)
	if err != nil {
		return proof{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	owners, forgotten := c.owners(ctx, s, r, device, shown)
	for i, owner := range padOwners(owners) {
		srk, err := c.parseSRK(owner)
		if err != nil {
			continue // was acceptable when remembered; a newer release may be stricter
		}
		subject := challengeSubject{s.ID, dps.FoldID(r.ID), ek.Name(), srk.Name(), device.Generation}
		key, ok := subject.open(s.root, slotOf(r.Arrived), token)
		if ok && device.Enrollment != nil && i < len(owners) {
			return proof{device: device, ek: ek, srk: srk, key: key, generation: device.Generation}, nil
		}
	}
	if forgotten != nil { // only now: it is needed by none but clients that omit the tpm object
		return proof{}, c.storeFault(s, "reading remembered owners", forgotten)
	}
	if _, known := c.scope(r.Scope); !known {
		return proof{}, c.fault(s, dps.CodeUnauthorized, ReasonUnknownScope, "", nil)
	}
	return proof{}, c.fault(s, dps.CodeUnauthorized, ReasonTokenSignature, "", nil)
}

// challengedEK is the EK that challenges of this id are made for: the enrolled one, else one that stands in for it. One parse each time.
func (c *Core) challengedEK(device Device, shown keys) (*attest.EK, error) {
	switch {
	case device.Enrollment != nil:
		return c.enrolledEK(device.Enrollment, nil)
	case shown.ek != nil:
		return c.parseEK(shown.ek.Bytes())
	}
	return c.parseEK(standInKey)
}

// owners lists the SRKs whose challenges may be open, likeliest first; with an error the remembered ones are missing.
func (c *Core) owners(ctx context.Context, s *scope, r Request, device Device, shown keys) ([][]byte, error) {
	remembered, err := c.store.Owners(ctx, s.ID, dps.FoldID(r.ID), r.Arrived.Add(-slotsAccepted*slotLength))
	var owners [][]byte
	if shown.srk != nil {
		owners = append(owners, shown.srk.Bytes())
	}
	if device.Registration != nil {
		owners = append(owners, device.Registration.SRK)
	}
	return append(owners, remembered...), err
}

// redeem writes what a proof earned: an operation, or a refusal. A Conflict means nothing was written.
func (c *Core) redeem(ctx context.Context, s *scope, r Request, token dps.Token, p proof) (Operation, Verdict, error) {
	enrollment := p.device.Enrollment
	switch {
	case enrollment.Disabled:
		return c.refuse(ctx, s, r, p, c.fault(s, dps.CodeDisabled, ReasonDisabled, "", nil))
	case enrollment.PinnedSRK != nil && !bytes.Equal(enrollment.PinnedSRK, p.srk.Bytes()):
		return c.refuse(ctx, s, r, p, c.fault(s, dps.CodeRefusedOwner, ReasonPinnedSRK, "", nil))
	}
	redemption, err := c.redemption(s, r, token, p)
	if err != nil {
		return Operation{}, 0, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	revision, verdict, err := c.store.Redeem(ctx, s.ID, redemption)
	switch {
	case err != nil:
		return Operation{}, 0, c.storeFault(s, "redeeming a challenge", err)
	case verdict == Taken:
		return c.refuse(ctx, s, r, p, c.fault(s, dps.CodeConflict, ReasonDeviceIDTaken,
			"The device id is in use by another registration. Ask the operator for another device id.", nil))
	}
	redemption.Operation.Revision = revision
	return redemption.Operation, verdict, nil
}

// refuseProven makes a refusal of a device that proved itself durable before it is said, where no challenge is to be spent.
func (c *Core) refuseProven(ctx context.Context, s *scope, r Request, action string, fault *Fault) error {
	// One row for each id and reason while the memory of them lasts: a token that authenticates polls for minutes must not
	// write at the speed of the network.
	note := Decision{At: c.now(), Scope: s.ID, ID: dps.FoldID(r.ID), Reason: fault.Reason, TrackingID: fault.TrackingID}
	if c.refused.has(note) {
		return fault
	}
	audit := c.deviceAudit(r, action, OutcomeRefused, fault.Reason, fault.TrackingID, "")
	if err := c.store.AppendAudit(ctx, s.ID, audit); err != nil {
		return c.storeFault(s, "writing a refusal", err)
	}
	c.refused.add(note)
	return fault
}

// refuse spends the challenge and makes the refusal durable before it is said.
func (c *Core) refuse(ctx context.Context, s *scope, r Request, p proof, fault *Fault) (Operation, Verdict, error) {
	audit := c.deviceAudit(r, ActionRegister, OutcomeRefused, fault.Reason, fault.TrackingID, "")
	verdict, err := c.store.Refuse(ctx, s.ID, Refused{ID: dps.FoldID(r.ID), Generation: p.generation, Audit: audit})
	if err != nil {
		return Operation{}, 0, c.storeFault(s, "writing a refusal", err)
	}
	if verdict == Conflict {
		return Operation{}, Conflict, nil
	}
	return Operation{}, Applied, fault
}

func (c *Core) deviceAudit(r Request, action, outcome string, reason Reason, trackingID, detail string) Audit {
	return Audit{At: c.now(), Actor: ActorDevice, Address: r.Address, Action: action, Object: dps.FoldID(r.ID),
		Outcome: outcome, Reason: reason, TrackingID: trackingID, Detail: detail}
}

// redemption composes the rows of an accepted proof.
func (c *Core) redemption(s *scope, r Request, token dps.Token, p proof) (Redemption, error) {
	id, now := dps.FoldID(r.ID), c.now()
	operationID, err := c.newOperationID()
	if err != nil {
		return Redemption{}, err
	}
	sealedKey, err := c.sealer.Seal(ContextChallengeKey(s.ID, operationID), p.key)
	if err != nil {
		return Redemption{}, err
	}
	next, reason, err := c.nextRegistration(s, p, id, now)
	if err != nil {
		return Redemption{}, err
	}
	next.OperationID = operationID
	tracking := c.track(s, reason)
	before := uint64(0)
	if p.device.Registration != nil {
		before = p.device.Registration.Revision
	}
	return Redemption{
		ID: id, Generation: p.generation, EnrollmentRevision: p.device.Enrollment.Revision, RegistrationBefore: before,
		Operation: Operation{
			ID: operationID, RegistrationID: next.ID, Status: Assigning, Substatus: next.Substatus, Generation: p.generation + 1,
			TokenDigest: token.Digest(), SealedKey: sealedKey, EK: p.ek.Bytes(), SRK: p.srk.Bytes(),
			SealedHubKey: next.SealedHubKey, Hub: next.Hub, DeviceID: next.DeviceID, TrackingID: tracking, Created: now, Updated: now,
		},
		Registration: next,
		Audit: c.deviceAudit(r, ActionRegister, OutcomeOK, reason, tracking,
			fmt.Sprintf(`{"operation":%q,"owner":%q}`, operationID, hex.EncodeToString(p.srk.Name()))),
	}, nil
}

// nextRegistration is the registration after this proof: the hub key is kept while EK and owner are the ones last proven, so that a
// running device is not cut off, and is new otherwise.
func (c *Core) nextRegistration(s *scope, p proof, id string, now time.Time) (Registration, Reason, error) {
	before, enrollment := p.device.Registration, p.device.Enrollment
	next := Registration{
		ID: enrollment.ID, Status: Assigning, Substatus: "initialAssignment", EKKeyID: enrollment.EKKeyID, SRK: p.srk.Bytes(),
		Hub: s.Hosts[0], DeviceID: enrollment.DeviceID, HubKeyGeneration: p.generation + 1, Created: now, Updated: now,
	}
	if next.DeviceID == "" {
		next.DeviceID = enrollment.ID
	}
	if before != nil {
		// The name at the hub is settled by the first assignment; deleting the registration frees it.
		next.DeviceID, next.Substatus, next.Created = before.DeviceID, before.Substatus, before.Created
		if before.EKKeyID == enrollment.EKKeyID && bytes.Equal(before.SRK, p.srk.Bytes()) {
			next.SealedHubKey, next.HubKeyGeneration = before.SealedHubKey, before.HubKeyGeneration
			return next, ReasonRegistered, nil
		}
	}
	key := make([]byte, 32)
	if _, err := io.ReadFull(c.rand, key); err != nil {
		return Registration{}, 0, err
	}
	sealed, err := c.sealer.Seal(ContextHubKey(s.ID, id), key)
	if err != nil {
		return Registration{}, 0, err
	}
	next.SealedHubKey = sealed
	if before != nil {
		return next, ReasonOwnerChanged, nil
	}
	return next, ReasonRegistered, nil
}

// newOperationID makes an opaque, URL-safe id in the shape that clients have seen: digit, 16 hex digits, GUID.
func (c *Core) newOperationID() (string, error) {
	var b [24]byte
	if _, err := io.ReadFull(c.rand, b[:]); err != nil {
		return "", err
	}
	h := hex.EncodeToString(b[:])
	return "5." + h[:16] + "." + h[16:24] + "-" + h[24:28] + "-" + h[28:32] + "-" + h[32:36] + "-" + h[36:], nil
}
