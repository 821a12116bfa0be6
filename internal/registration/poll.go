package registration

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// Poll answers a poll of one operation. Any token that does not verify, and any operation that is not this id's, gets the same 401.
func (c *Core) Poll(ctx context.Context, r Request, operationID string) (Answer, error) {
	s, err := c.admit(r)
	if err != nil {
		return Answer{}, err
	}
	var token dps.Token
	if !r.showsCertificate() {
		if token, err = c.parseToken(s, r); err != nil {
			return Answer{}, err
		}
	}
	device, o, err := c.findOperation(ctx, s, r, operationID)
	if err != nil {
		return Answer{}, err
	}
	if err := c.authenticatePoll(s, r, token, o); err != nil {
		return Answer{}, err
	}
	standing, err := c.standing(ctx, s, device, o)
	if err != nil {
		return Answer{}, err
	}
	switch standing {
	case ReasonDisabled:
		return Answer{}, c.refuseProven(ctx, s, r, ActionPoll, c.fault(s, dps.CodeDisabled, ReasonDisabled, "", nil))
	case ReasonPinnedSRK:
		return Answer{}, c.refuseProven(ctx, s, r, ActionPoll, c.fault(s, dps.CodeRefusedOwner, ReasonPinnedSRK, "", nil))
	case ReasonSuperseded:
		o = superseded(o)
	}
	before := o.Status
	o = c.tryAdvance(ctx, s, o)
	if o.Status == Assigned && before == Assigning { // the registration's revision has moved too
		if device, err = c.store.Device(ctx, s.ID, dps.FoldID(r.ID)); err != nil {
			return Answer{}, c.storeFault(s, "reading a device", err)
		}
	}
	return c.pollAnswer(s, r, device, o)
}

// findOperation reads the device and, where it is not the current one, the operation itself.
func (c *Core) findOperation(ctx context.Context, s *scope, r Request, operationID string) (Device, Operation, error) {
	device, err := c.store.Device(ctx, s.ID, dps.FoldID(r.ID))
	if err != nil {
		return Device{}, Operation{}, c.storeFault(s, "reading a device", err)
	}
	if o := device.Operation; o != nil && subtle.ConstantTimeCompare([]byte(o.ID), []byte(operationID)) == 1 {
		return device, *o, nil
	}
	o, err := c.store.Operation(ctx, s.ID, operationID)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && dps.FoldID(o.RegistrationID) != dps.FoldID(r.ID):
		return Device{}, Operation{}, c.fault(s, dps.CodeUnauthorized, ReasonUnknownOperation, "", nil)
	case err != nil:
		return Device{}, Operation{}, c.storeFault(s, "reading an operation", err)
	}
	return device, o, nil
}

// answeredAt says whether the window of the operation is open. One that seems to come is another node's, whose clock is a little ahead; if it seems
// to come much later a clock has jumped, and its window would not end for as long as that.
func (o *Operation) answeredAt(arrived time.Time) bool {
	age := arrived.Sub(o.Created)
	return age >= -clockSkew && age <= operationWindow
}

// authenticatePoll accepts the exact token that was redeemed, even past its own expiry, or an unexpired one under the same key, within
// the operation's window.
func (c *Core) authenticatePoll(s *scope, r Request, token dps.Token, o Operation) error {
	if !o.answeredAt(r.Arrived) {
		return c.fault(s, dps.CodeUnauthorized, ReasonOperationClosed, "", nil)
	}
	if r.showsCertificate() || o.Mechanism == X509 {
		return c.authenticateCertificate(s, r, o)
	}
	if sameToken(o, token) {
		return nil
	}
	key, err := c.sealer.Open(ContextChallengeKey(s.ID, o.ID), o.SealedKey)
	if err != nil {
		return c.fault(s, dps.CodeInternal, ReasonInternal, "", fmt.Errorf("opening an operation's key: %w", err))
	}
	if reason := fresh(token, r.Arrived); reason != ReasonNone {
		return c.fault(s, dps.CodeUnauthorized, reason, "", nil)
	}
	if !token.Verify(key) {
		return c.fault(s, dps.CodeUnauthorized, ReasonTokenSignature, "", nil)
	}
	return nil
}

// authenticateCertificate accepts the client certificate whose proof was redeemed, and no other.
func (c *Core) authenticateCertificate(s *scope, r Request, o Operation) error {
	switch {
	case !r.showsCertificate() || o.Mechanism != X509:
		return c.fault(s, dps.CodeUnauthorized, ReasonOtherMechanism, "", nil)
	case !o.provedBy(sha256.Sum256(r.Certificates[0].Raw)):
		return c.fault(s, dps.CodeUnauthorized, ReasonOtherCertificate, "", nil)
	case r.Arrived.After(r.Certificates[0].NotAfter):
		return c.fault(s, dps.CodeUnauthorized, ReasonCertificateTime, "", nil)
	}
	return nil
}

// pollAgain is when to poll again an operation of some age: hubs over the network, and those that are down, take longer.
func pollAgain(age time.Duration) time.Duration {
	return min(max(pollAdvice, (age/4).Round(time.Second)), slowPollAdvice)
}

func (c *Core) pollAnswer(s *scope, r Request, device Device, o Operation) (Answer, error) {
	state := operationState(device, o)
	answer := Answer{Status: &dps.OperationStatus{OperationID: o.ID, Status: state.Status, RegistrationState: state}, Reason: ReasonPolled, TrackingID: c.track(s, ReasonPolled)}
	switch o.Status {
	case Assigning:
		answer.RetryAfter = pollAgain(r.Arrived.Sub(o.Created))
	case Assigned:
		if err := c.showResult(s, r, o, state); err != nil {
			return Answer{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
		}
	}
	return answer, nil
}

// showResult adds to the state of an assigned device what its mechanism is told. Only a TPM is given a key: the others have theirs.
func (c *Core) showResult(s *scope, r Request, o Operation, state *dps.RegistrationState) error {
	switch o.Mechanism {
	case SymmetricKey:
		state.SymmetricKey = &dps.SymmetricKeyResult{EnrollmentGroupID: o.Group}
	case X509:
		info := dps.InfoOf(r.Certificates[0]) // that proved the operation: no other may poll it
		state.X509 = &dps.X509Result{EnrollmentGroupID: o.Group, Certificate: &info}
	default:
		blob, err := c.wrapHubKey(s.ID, o)
		if err != nil {
			return err
		}
		state.TPM = &dps.TPMResult{AuthenticationKey: blob}
	}
	return nil
}

// wrapHubKey makes a fresh activation blob for the EK and owner that proved themselves in this operation.
func (c *Core) wrapHubKey(scopeID string, o Operation) ([]byte, error) {
	credential, err := c.openCredential(scopeID, o)
	if err != nil {
		return nil, err
	}
	ek, err := attest.ParseEK(o.EK)
	if err != nil {
		return nil, fmt.Errorf("the operation's EK: %w", err)
	}
	srk, err := attest.ParseSRK(o.SRK)
	if err != nil {
		return nil, fmt.Errorf("the operation's SRK: %w", err)
	}
	return c.wrap(c.rand, ek, srk, credential.Primary)
}

func (c *Core) openCredential(scopeID string, o Operation) (Credential, error) {
	encoded, err := c.sealer.Open(ContextHubKey(scopeID, dps.FoldID(o.RegistrationID)), o.SealedHubKey)
	if err != nil {
		return Credential{}, fmt.Errorf("opening the hub key: %w", err)
	}
	return DecodeCredential(encoded)
}

// operationState is what a poll shows of an operation.
func operationState(device Device, o Operation) *dps.RegistrationState {
	state := &dps.RegistrationState{RegistrationID: o.RegistrationID, Status: string(o.Status), Created: o.Created, LastUpdated: o.Updated}
	if device.Registration != nil {
		state.Created, state.ETag = device.Registration.Created, dps.ETag(int64(device.Registration.Revision))
	}
	switch o.Status {
	case Assigned:
		state.AssignedHub, state.DeviceID, state.Substatus = o.Hub, o.DeviceID, o.Substatus
		if r := device.Registration; r != nil && r.OperationID == o.ID {
			state.Payload = r.Payload
		}
	case Failed:
		state.ErrorCode, state.ErrorMessage = dps.Code(o.ErrorCode), o.ErrorMessage
	}
	return state
}

// stateOf is what the service shows of a registration; nil means never registered.
func stateOf(id string, r *Registration) *dps.RegistrationState {
	if r == nil {
		return &dps.RegistrationState{RegistrationID: id, Status: string(Unassigned)}
	}
	state := &dps.RegistrationState{RegistrationID: r.ID, Status: string(r.Status), Created: r.Created, LastUpdated: r.Updated, ETag: dps.ETag(int64(r.Revision))}
	switch r.Status {
	case Assigned:
		state.AssignedHub, state.DeviceID, state.Substatus, state.Payload = r.Hub, r.DeviceID, r.Substatus, r.Payload
	case Failed:
		state.ErrorCode, state.ErrorMessage = dps.Code(r.ErrorCode), r.ErrorMessage
	}
	return state
}
