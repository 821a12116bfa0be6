package registration

import (
	"bytes"
	"context"
	"crypto/x509"
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
	APIVersion    string // as the device gave it; empty: the latest
	Body          dps.RegisterRequest
	// Certificates is what the client sent in the TLS handshake, its own first, whose private key the handshake has shown it to hold. Nothing
	// else of them has been judged.
	Certificates []*x509.Certificate

	closing bool // it is to close the registration
}

// showsCertificate says whether a client certificate is what the request is to be judged by: a token or a TPM's keys go before it.
func (r *Request) showsCertificate() bool {
	return len(r.Certificates) > 0 && r.Authorization == "" && r.Body.TPM == nil
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
	clockSkew       = 2 * time.Minute  // how far the clocks of two nodes may be apart without a device noticing
	tokenLeeway     = 5 * time.Minute  // past `se`, for clocks that run ahead of ours
	tokenAhead      = 48 * time.Hour   // furthest `se`
	operationWindow = 10 * time.Minute // how long an operation is answered
	pollAdvice      = 2 * time.Second  // some SDKs lift or drop smaller values
	slowPollAdvice  = 30 * time.Second // for an operation that takes long
	redeemTries     = 4
)

// Register answers a register request: without a token a challenge, with one that proves the TPM or a symmetric key, or with a client
// certificate, an operation.
func (c *Core) Register(ctx context.Context, r Request) (Answer, error) {
	if r.Authorization == "" && !r.showsCertificate() {
		return c.challenge(ctx, r)
	}
	return c.prove(ctx, r)
}

// Lookup answers a status lookup: without a token a challenge as Register does, with one the registration state, never a key.
func (c *Core) Lookup(ctx context.Context, r Request) (Answer, error) {
	if r.Authorization == "" && !r.showsCertificate() {
		return c.challenge(ctx, r)
	}
	s, err := c.admit(r)
	if err != nil {
		return Answer{}, err
	}
	verify, err := c.verifier(s, r)
	if err != nil {
		return Answer{}, err
	}
	proof, err := verify(ctx)
	if err != nil {
		return Answer{}, err
	}
	if proof.repeated != nil && proof.mechanism == TPM { // a redeemed token polls its operation and nothing else
		return Answer{}, c.fault(s, dps.CodeUnauthorized, ReasonTokenSpent, "", nil)
	}
	if proof.disabled() {
		return Answer{}, c.refuseProven(ctx, s, r, ActionLookup, c.fault(s, dps.CodeDisabled, ReasonDisabled, "", nil))
	}
	state := stateOf(r.ID, proof.device.Registration)
	status := &dps.OperationStatus{Status: state.Status, RegistrationState: state}
	return Answer{Status: status, TrackingID: c.track(s, ReasonLookup), Reason: ReasonLookup}, nil
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

// proof is what a device has shown of itself, and the entry that lets it in: its own enrollment or a group.
type proof struct {
	device         Device
	mechanism      Mechanism
	enrollment     *Enrollment // nil: the group lets it in
	group          *knownGroup
	digest         [32]byte   // of the token or the client certificate
	generation     uint64     // expected
	groupsRevision uint64     // expected
	repeated       *Operation // set if this very proof was redeemed and its operation is still answered; of a token then, nothing below and no entry is

	ek  *attest.EK // of a TPM, as srk
	srk *attest.SRK
	key []byte // that verified the token; nil with a certificate
	// credential is what the hub will hold; that of a TPM is made when the proof is redeemed.
	credential Credential
}

func (p *proof) disabled() bool {
	if p.group != nil {
		return p.group.Disabled
	}
	return p.enrollment != nil && p.enrollment.Disabled
}

// verifier judges all of a proof that needs no store, and gives what judges the rest as often as it takes.
func (c *Core) verifier(s *scope, r Request) (func(context.Context) (proof, error), error) {
	if r.showsCertificate() {
		return func(ctx context.Context) (proof, error) { return c.verifyCertificate(ctx, s, r) }, nil
	}
	token, err := c.parseToken(s, r)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (proof, error) { return c.verifyToken(ctx, s, r, token) }, nil
}

// prove answers a register request that carries a token or a client certificate.
func (c *Core) prove(ctx context.Context, r Request) (Answer, error) {
	s, err := c.admit(r)
	if err != nil {
		return Answer{}, err
	}
	verify, err := c.verifier(s, r)
	if err != nil {
		return Answer{}, err
	}
	for range redeemTries {
		proof, err := verify(ctx)
		if err != nil {
			return Answer{}, err
		}
		if proof.repeated != nil {
			return c.accepted(s, *proof.repeated), nil
		}
		operation, verdict, err := c.redeem(ctx, s, r, proof)
		if err != nil {
			return Answer{}, err
		}
		if verdict == Conflict {
			continue // something moved between the read and the write: judge again from what is there now
		}
		return c.accepted(s, c.tryAdvance(ctx, s, operation)), nil
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

// redeem writes what a proof earned: an operation, or a refusal. A Conflict means nothing was written.
func (c *Core) redeem(ctx context.Context, s *scope, r Request, p proof) (Operation, Verdict, error) {
	switch {
	case p.disabled():
		return c.refuse(ctx, s, r, p, c.fault(s, dps.CodeDisabled, ReasonDisabled, "", nil))
	case p.mechanism == TPM && p.enrollment.PinnedSRK != nil && !bytes.Equal(p.enrollment.PinnedSRK, p.srk.Bytes()):
		return c.refuse(ctx, s, r, p, c.fault(s, dps.CodeRefusedOwner, ReasonPinnedSRK, "", nil))
	}
	awaits, err := c.awaits(ctx, s, p)
	if err != nil {
		return Operation{}, 0, c.storeFault(s, "reading what the device awaits", err)
	}
	redemption, err := c.redemption(s, r, p, awaits)
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
	if verdict == Applied && redemption.Outbox != nil {
		c.nudge()
	}
	return redemption.Operation, verdict, nil
}

// refuseProven makes a refusal of a device that proved itself durable before it is said, where no challenge is to be spent.
func (c *Core) refuseProven(ctx context.Context, s *scope, r Request, action string, fault *Fault) error {
	// One row for each id and reason while the memory of them lasts: a proof that can be shown for minutes, or for years, must not
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

// refuse makes the refusal durable before it is said, and spends the challenge of a TPM. The proofs of others can be shown again and again.
func (c *Core) refuse(ctx context.Context, s *scope, r Request, p proof, fault *Fault) (Operation, Verdict, error) {
	if p.mechanism != TPM {
		return Operation{}, 0, c.refuseProven(ctx, s, r, ActionRegister, fault)
	}
	action := ActionRegister
	if r.closing {
		action = ActionClose
	}
	audit := c.deviceAudit(r, action, OutcomeRefused, fault.Reason, fault.TrackingID, "")
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
