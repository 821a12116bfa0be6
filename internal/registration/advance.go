package registration

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// Advance moves an operation as far as it can go now, and is idempotent. It is all that moves an operation: the PUT, every poll, the outbox
// (Deliver) and the sweep (Resume) call it, so a crash after the 202 needs no repair. The order is the promise: the hub holds the key first, then the assignment and its
// audit row become durable, and only then can an answer carry the key. An error leaves the operation assigning.
//
// A device that moves is read at the hub where it was, what it had is saved, it is removed there, and then made at its new hub: never is it at two.
func (c *Core) Advance(ctx context.Context, scopeID string, o Operation) (Operation, error) {
	if o.Status != Assigning {
		return o, nil
	}
	p, err := decodePlan(o.Plan)
	if err != nil {
		return o, err
	}
	if o.Hub == "" {
		if o, p, err = c.allocateLate(ctx, scopeID, o, p); err != nil || o.Status != Assigning {
			return o, err
		}
		if _, remote, _ := c.reaches(scopeID, o, p); remote { // its turn at that hub comes with the row that was just written
			c.nudge()
			return o, nil
		}
	}
	a := arrival{substatus: o.Substatus}
	if !p.Start.IsZero() || p.Reset {
		a.data = p.Start.data(p.Reset)
	}
	if len(p.Leaving) > 0 {
		current := false
		if a, current, err = c.leave(ctx, scopeID, o, p); err == nil && !current {
			return c.overtaken(ctx, scopeID, o)
		}
	}
	if err == nil {
		err = c.arrive(ctx, scopeID, o, a)
	}
	var refused *RefusedError
	switch {
	case err == nil:
		return c.finish(ctx, scopeID, o, p, a)
	case errors.Is(err, ErrStale):
		return c.overtaken(ctx, scopeID, o)
	case errors.Is(err, ErrUnlinked):
		if gone, followed := c.unlinked(ctx, scopeID, o.Hub); !gone || followed != nil {
			return o, errors.Join(err, followed)
		}
		return c.fail(ctx, scopeID, o, dps.CodeNoHub, ReasonNoHub, "The hub "+o.Hub+" was unlinked before the device came to it. Register again.")
	case errors.As(err, &refused):
		return c.fail(ctx, scopeID, o, dps.CodeHubRefused, ReasonHubFailed, refused.Message)
	}
	return o, err
}

// arrive makes the device at its hub.
func (c *Core) arrive(ctx context.Context, scopeID string, o Operation, a arrival) error {
	credential, err := c.openCredential(scopeID, o)
	if err != nil {
		return err
	}
	err = c.hub.EnsureDevice(ctx, scopeID, o.Hub, HubDevice{DeviceID: o.DeviceID, Credential: credential, Generation: o.Revision, Data: a.data})
	if err != nil {
		return &hubFailure{o.Hub, err}
	}
	return nil
}

// overtaken gives an operation whose place another one took as it is shown, unless it has ended before that.
func (c *Core) overtaken(ctx context.Context, scopeID string, o Operation) (Operation, error) {
	now, err := c.store.Operation(ctx, scopeID, o.ID)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && now.Status == Assigning:
		return superseded(o), nil
	case err != nil:
		return o, fmt.Errorf("reading what it is now: %w", err)
	}
	return now, nil
}

// tryAdvance is Advance for a request, which an error does not end: the operation stays assigning, and its outbox row, the next poll or the sweep
// goes on. What is done over the network is left to the outbox.
func (c *Core) tryAdvance(ctx context.Context, s *scope, o Operation) Operation {
	if c.overNetwork(s.ID, o) {
		return o
	}
	o, err := c.Advance(ctx, s.ID, o)
	switch {
	case errors.Is(err, ErrElsewhere):
		c.log.Debug("advance: left to the process that serves the hub", "operation", o.ID)
	case err != nil:
		c.notAdvanced(o, err)
	}
	return o
}

// overNetwork says whether advancing an operation now calls what is far away. Requests do not wait for that.
func (c *Core) overNetwork(scopeID string, o Operation) bool {
	p, err := decodePlan(o.Plan)
	if o.Status != Assigning || err != nil {
		return false
	}
	_, remote, _ := c.reaches(scopeID, o, p)
	return remote
}

// finish writes the assignment, and what the audit tells of it.
func (c *Core) finish(ctx context.Context, scopeID string, o Operation, p plan, a arrival) (Operation, error) {
	o.Substatus = a.substatus
	told, err := json.Marshal(struct {
		Operation string   `json:"operation"`
		Hub       string   `json:"hub"`
		DeviceID  string   `json:"deviceId"`
		Substatus string   `json:"substatus,omitempty"`
		Left      []string `json:"left,omitempty"` // hubs that it was removed from
		Lost      []string `json:"lost,omitempty"` // hubs that are linked no more, with what it had there
	}{o.ID, o.Hub, o.DeviceID, a.substatus, p.Leaving, a.gone})
	if err != nil {
		return o, err
	}
	return c.end(ctx, scopeID, o, Finish{Status: Assigned, Hub: o.Hub, Payload: p.Returned,
		Audit: Audit{Outcome: OutcomeOK, Reason: ReasonRegistered, Detail: string(told)}})
}

// fail ends an operation without an assignment. What is shown of the registration says so; where its device may be, it keeps.
func (c *Core) fail(ctx context.Context, scopeID string, o Operation, code dps.Code, reason Reason, sentence string) (Operation, error) {
	sentence = shownText(sentence)
	told, err := json.Marshal(struct {
		Operation string `json:"operation"`
		Hub       string `json:"hub,omitempty"`
		Message   string `json:"message"`
	}{o.ID, o.Hub, sentence})
	if err != nil {
		return o, err
	}
	return c.end(ctx, scopeID, o, Finish{Status: Failed, Hub: o.Hub, ErrorCode: int(code), ErrorMessage: sentence,
		Audit: Audit{Outcome: OutcomeRefused, Reason: reason, Detail: string(told)}})
}

// maxFailureText bounds what a registration tells of its failure, in bytes: part of it may be a hub's own.
const maxFailureText = 1024

// shownText makes text that any store takes of what a hub said.
func shownText(said string) string {
	said = strings.ToValidUTF8(strings.ReplaceAll(said, "\x00", ""), "")
	return strings.ToValidUTF8(said[:min(len(said), maxFailureText)], "")
}

func (c *Core) end(ctx context.Context, scopeID string, o Operation, f Finish) (Operation, error) {
	now, id := c.now(), dps.FoldID(o.RegistrationID)
	f.OperationID, f.RegistrationID, f.Substatus, f.DeviceID, f.At = o.ID, id, o.Substatus, o.DeviceID, now
	f.Audit.At, f.Audit.Actor, f.Audit.Action, f.Audit.Object, f.Audit.TrackingID = now, ActorService, ActionAssign, id, o.TrackingID
	verdict, err := c.store.Finish(ctx, scopeID, f)
	if err != nil {
		return o, fmt.Errorf("writing the end of the operation: %w", err)
	}
	switch verdict {
	case Applied:
		o.Status, o.Updated, o.ErrorCode, o.ErrorMessage, o.Plan = f.Status, now, f.ErrorCode, f.ErrorMessage, nil
		return o, nil
	case Conflict: // somebody else finished it: read what it is now
		return c.overtaken(ctx, scopeID, o)
	}
	return superseded(o), nil
}

// superseded is an operation whose place a newer one took, or whose chip the operator replaced or whose registration he deleted. It is
// shown, never stored: the stored row stays as it is, and is pruned with its window unless it is still its registration's current one.
func superseded(o Operation) Operation {
	o.Status, o.ErrorCode, o.ErrorMessage = Failed, int(dps.CodeConflict), "A newer registration of this device took the place of this operation. Register again."
	return o
}

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

// pruneBatch bounds one round of Maintain, so that it never holds the writer for long.
const pruneBatch = 1000

// generationLife is how long the redemption count of a deleted registration is kept: longer than any challenge lives, so that none made
// before can be redeemed after.
const generationLife = 15 * time.Minute

// Maintain moves on what nobody polls, then removes operations whose window has passed, generations of ids that are long gone, what deleted
// scopes have left and audit rows past their retention, and renews certificates of scopes.
func (c *Core) Maintain(ctx context.Context) error {
	return errors.Join(c.Resume(ctx), c.prune(ctx), c.pruneScopes(ctx), c.renewCertificates(ctx), c.expireAudit(ctx))
}

// sweepTime bounds one call of maintenance to the store.
const sweepTime = time.Minute

// patiently bounds work that no request waits for and that nobody else gives up: a server whose host is gone while it has a statement of ours
// is else waited for as long as the system resends, a quarter of an hour.
func patiently[T any](ctx context.Context, span time.Duration, work func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	return work(ctx)
}

// resumeAge keeps Resume away from operations whose own request is still at work.
const resumeAge = 5 * time.Second

// resumePage is how many operations Resume holds in memory at a time.
const resumePage = 1000

// Resume advances operations that are still assigning: a crash, a cut connection or a hub that was down left them, and their device may
// never come back to poll. Until it is done a previous owner's key is still good at the hub. What fails now is tried again the next time.
// It looks at all of them, a page at a time: those that stay, as a disabled group's do, never hide those behind them. Those that a clock ahead of
// this one has left are among them, but for what another node may be at just now. Where the hub's sessions are another process's it leaves them to
// that, and to the outbox what is done over the network, where one alone is at it at a time.
func (c *Core) Resume(ctx context.Context) error {
	if c.embeddedReach() == Elsewhere {
		return nil
	}
	now := c.now()
	past := c.resumeAll(ctx, Unfinished{}, now.Add(-resumeAge))
	return errors.Join(past, c.resumeAll(ctx, Unfinished{Operation: Operation{Created: now.Add(clockSkew + time.Microsecond)}}, now.AddDate(100, 0, 0)))
}

func (c *Core) resumeAll(ctx context.Context, after Unfinished, before time.Time) (failed error) {
	for last := after; ; {
		page, err := patiently(ctx, sweepTime, func(ctx context.Context) ([]Unfinished, error) {
			return c.store.Unfinished(ctx, before, last, resumePage)
		})
		if err != nil {
			return errors.Join(failed, fmt.Errorf("listing unfinished operations: %w", err))
		}
		for _, last = range page {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if _, err := c.resume(ctx, last, false); err != nil && !errors.Is(err, errUnknownScope) && !errors.Is(err, errShutOut) {
				failed = fmt.Errorf("operation %s: %w", last.Operation.ID, err)
			}
		}
		if len(page) < resumePage {
			return failed
		}
	}
}

// resume advances one operation unless the operator has shut its device out since: what a poll would refuse is not assigned either. One whose place
// another took is given back as superseded, and one that calls over the network, unless that is wanted, as it is.
func (c *Core) resume(ctx context.Context, u Unfinished, far bool) (Operation, error) {
	o := u.Operation
	device, err := patiently(ctx, outboxTime, func(ctx context.Context) (Device, error) {
		return c.store.Device(ctx, u.Scope, dps.FoldID(o.RegistrationID))
	})
	if err != nil {
		return o, err
	}
	if device.Operation != nil && device.Operation.ID == o.ID {
		o = *device.Operation // with its plan
	}
	s, known := c.scope(u.Scope)
	if !known {
		return o, errUnknownScope
	}
	standing, err := patiently(ctx, outboxTime, func(ctx context.Context) (Reason, error) { return c.standing(ctx, s, device, o) })
	switch {
	case err != nil:
		return o, err
	case standing == ReasonSuperseded:
		return superseded(o), nil
	case standing != ReasonNone:
		return o, errShutOut
	case !far && c.overNetwork(u.Scope, o):
		return o, nil
	}
	return c.advanceInTime(ctx, u.Scope, o)
}

// advanceInTime bounds the time, and what is asked of hubs over the network.
func (c *Core) advanceInTime(ctx context.Context, scopeID string, o Operation) (advanced Operation, err error) {
	p, err := decodePlan(o.Plan)
	if err != nil {
		return o, err
	}
	if _, remote, _ := c.reaches(scopeID, o, p); !remote {
		return patiently(ctx, outboxTime, func(ctx context.Context) (Operation, error) { return c.Advance(ctx, scopeID, o) })
	}
	span, hubs := remoteTime, []string(nil)
	for _, hub := range append([]string{o.Hub}, p.Leaving...) {
		if hub != "" && c.hub.Reach(scopeID, hub) == Remote {
			hubs = append(hubs, hub)
		}
	}
	if o.Hub == "" {
		span, hubs = webhookTime, []string{webhooks}
	}
	advanced = o
	err = c.overTheNetwork(ctx, span, scopeID, hubs, func(ctx context.Context) error {
		advanced, err = c.Advance(ctx, scopeID, o)
		return err
	})
	return advanced, err
}

func (c *Core) prune(ctx context.Context) error {
	for {
		removed, err := patiently(ctx, sweepTime, func(ctx context.Context) (int, error) {
			return c.store.Prune(ctx, c.now().Add(-operationWindow-time.Minute), c.now().Add(-generationLife), pruneBatch)
		})
		if err != nil || removed < pruneBatch {
			return err
		}
	}
}
