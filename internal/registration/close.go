package registration

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"latchkey.example/latchkey/dps"
)

// ClosingAnswer is what a device gets that closes its own registration.
type ClosingAnswer struct {
	Challenge  []byte        // activation blob: answer 401 with it
	Closing    bool          // a hub key may be alive still: ask again
	RetryAfter time.Duration // set with Closing
	TrackingID string
	Reason     Reason
}

// closesTPMs is said to everybody whose proof is not good, alike.
const closesTPMs = "Unauthorized. Only a device with a TPM closes its registration, with a SAS token of a challenge that was made for that."

// Close answers a device that closes its own registration, as one that is to be sold does: the registration ends, the enrollment is disabled, and the
// device is removed from every hub where it may be. Without a token it gets a challenge, which is made for closing and good for nothing else; nor is one for
// registering good here. Closing is so destructive that it takes the one proof that counts once: only a TPM's. Whoever asks again with the token
// that closed it hears how far that is, as long as nothing was proved since; a new proof closes again what is closed, and changes no more.
func (c *Core) Close(ctx context.Context, r Request) (ClosingAnswer, error) {
	r.closing = true
	if r.Authorization != "" {
		return c.proveClosing(ctx, r)
	}
	if r.Body.TPM == nil {
		s, err := c.admit(r)
		if err == nil {
			err = c.fault(s, dps.CodeBadRequest, ReasonMissingTPM, "Send a tpm object with endorsementKey and storageRootKey: only a device with a TPM closes its registration.", nil)
		}
		return ClosingAnswer{}, err
	}
	answer, err := c.challenge(ctx, r)
	return ClosingAnswer{Challenge: answer.Challenge, TrackingID: answer.TrackingID, Reason: answer.Reason}, err
}

func (c *Core) proveClosing(ctx context.Context, r Request) (ClosingAnswer, error) {
	s, err := c.admit(r)
	if err != nil {
		return ClosingAnswer{}, err
	}
	token, err := c.parseToken(s, r)
	if err != nil {
		return ClosingAnswer{}, err
	}
	k := claim{scope: s, request: r, token: token}
	if r.Body.TPM != nil {
		if k.shown, err = c.judge(s, r.Body.TPM); err != nil {
			return ClosingAnswer{}, err
		}
	}
	for range redeemTries {
		closure, err := c.readClosing(ctx, &k)
		if err != nil {
			return ClosingAnswer{}, err
		}
		if c.repeats(k, closure) {
			return c.closingAnswer(s, closure), nil
		}
		p, err := c.closingProof(ctx, k)
		if err != nil {
			return ClosingAnswer{}, err
		}
		verdict, err := c.closeProven(ctx, s, r, p)
		switch {
		case err != nil:
			return ClosingAnswer{}, err
		case verdict == Applied:
			return c.closed(ctx, s, r)
		}
	}
	return ClosingAnswer{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

// readClosing reads what is known of an id: first what was closed of it, so that a closing in between is found by its generation.
func (c *Core) readClosing(ctx context.Context, k *claim) (closure Closure, err error) {
	closure, err = c.store.Closure(ctx, k.scope.ID, dps.FoldID(k.request.ID))
	if err == nil {
		k.device, err = c.store.Device(ctx, k.scope.ID, dps.FoldID(k.request.ID))
	}
	if err != nil {
		return Closure{}, c.storeFault(k.scope, "reading a device", err)
	}
	return closure, nil
}

// repeats says whether the token is the one that closed the registration last, and nothing was proved since. It counts for as long as an operation's does, and
// past its own expiry.
func (c *Core) repeats(k claim, closure Closure) bool {
	digest := k.token.Digest()
	same := subtle.ConstantTimeCompare(digest[:], closure.TokenDigest[:]) == 1
	age := k.request.Arrived.Sub(closure.At)
	return same && closure.Generation != 0 && closure.Generation == k.device.Generation && age >= -clockSkew && age <= operationWindow
}

// closingProof judges a token by the challenges for closing alone. Whatever fails, the work and the answer are the same.
func (c *Core) closingProof(ctx context.Context, k claim) (proof, error) {
	refuse := func(reason Reason) error { return c.fault(k.scope, dps.CodeUnauthorized, reason, closesTPMs, nil) }
	if reason := fresh(k.token, k.request.Arrived); reason != ReasonNone {
		return proof{}, refuse(reason)
	}
	p, ok, err := c.byChallenge(ctx, k)
	if err != nil {
		return proof{}, err
	}
	if !ok {
		reason := ReasonTokenSignature
		switch _, known := c.scope(k.request.Scope); {
		case !known:
			reason = ReasonUnknownScope
		case k.device.Enrollment != nil && k.device.Enrollment.Mechanism != TPM:
			reason = ReasonOtherMechanism
		}
		return proof{}, refuse(reason)
	}
	if err := k.sameKeys(TPM, p.ek.Bytes(), p.srk.Bytes()); err != nil {
		return proof{}, c.fault(k.scope, dps.CodeBadRequest, ReasonOtherKeys, err.Error(), nil)
	}
	p.device, p.digest, p.generation = k.device, k.token.Digest(), k.device.Generation
	return p, nil
}

// closeProven writes what a proof earned. A Conflict means nothing was written.
func (c *Core) closeProven(ctx context.Context, s *scope, r Request, p proof) (Verdict, error) {
	if p.enrollment.PinnedSRK != nil && !bytes.Equal(p.enrollment.PinnedSRK, p.srk.Bytes()) {
		_, verdict, err := c.refuse(ctx, s, r, p, c.fault(s, dps.CodeRefusedOwner, ReasonPinnedSRK, "", nil))
		return verdict, err
	}
	closing, err := c.closing(s, r, p)
	if err != nil {
		return 0, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	_, verdict, err := c.store.CloseRegistration(ctx, s.ID, closing)
	if err != nil {
		return 0, c.storeFault(s, "closing a registration", err)
	}
	if verdict == Applied {
		c.nudge()
	}
	return verdict, nil
}

// closing composes the rows of an accepted proof.
func (c *Core) closing(s *scope, r Request, p proof) (Closing, error) {
	now := c.now()
	entry := *p.enrollment
	wire, err := dps.DecodeEnrollment(entry.ID, entry.Document)
	if err != nil {
		return Closing{}, fmt.Errorf("stored enrollment %s: %w", entry.ID, err)
	}
	wire.ProvisioningStatus, wire.ClosedByDevice = dps.EnrollmentDisabled, now
	entry.Disabled, entry.Document, entry.Updated = true, wire.EncodeShowing(dps.ShowCertificates), now
	closing := Closing{ID: entry.ID, Generation: p.generation, Enrollment: entry, After: afterFor(p.device), TokenDigest: p.digest,
		Audit: c.deviceAudit(r, ActionClose, OutcomeOK, ReasonClosed, c.track(s, ReasonClosed), p.toldClosing())}
	if p.device.Registration != nil {
		closing.RegistrationBefore = p.device.Registration.Revision
	}
	return closing, nil
}

// toldClosing is what the audit tells of a closing.
func (p *proof) toldClosing() string {
	told := struct {
		Owner        string            `json:"owner"` // name of the SRK, hex
		WasDisabled  bool              `json:"wasDisabled,omitempty"`
		Registration *registrationTold `json:"registration"` // null: there was none
	}{Owner: hex.EncodeToString(p.srk.Name()), WasDisabled: p.enrollment.Disabled}
	if r := p.device.Registration; r != nil {
		is := tellRegistration(*r)
		told.Registration = &is
	}
	detail, err := json.Marshal(told)
	if err != nil {
		panic(err) // only for types that JSON cannot hold
	}
	return string(detail)
}

// closed is the answer to a closing that has just been written. What is to be done at hubs has only begun.
func (c *Core) closed(ctx context.Context, s *scope, r Request) (ClosingAnswer, error) {
	closure, err := c.store.Closure(ctx, s.ID, dps.FoldID(r.ID))
	if err != nil { // it is closed all the same; whoever asks again hears the rest
		return ClosingAnswer{}, c.storeFault(s, "reading what was closed", err)
	}
	return c.closingAnswer(s, closure), nil
}

func (c *Core) closingAnswer(s *scope, closure Closure) ClosingAnswer {
	answer := ClosingAnswer{TrackingID: closure.TrackingID, Reason: ReasonClosed}
	if closure.Awaited > 0 {
		// An embedded hub takes no second, and no SDK that lifts smaller values knows of this.
		answer.Closing, answer.RetryAfter = true, max(time.Second, pollAgain(c.now().Sub(closure.At))-pollAdvice)
	}
	return answer
}

// errAwaited is said of an operation whose device may have a live key from before.
var errAwaited = fmt.Errorf("the key that the device had before is not known to be dead yet: %w", errOthers)

// awaits says whether an operation of the device has to wait until hubs have done what was ordered when its registration was closed, here or in the scope
// that it came from. Only an id that was redeemed before, or came from elsewhere, can have anything to wait for.
func (c *Core) awaits(ctx context.Context, s *scope, p proof) (bool, error) {
	if p.mechanism != TPM || p.device.Registration != nil && p.device.Registration.Status == Assigned {
		return false, nil
	}
	if p.device.Generation == 0 {
		wire, err := dps.DecodeEnrollment(p.enrollment.ID, p.enrollment.Document)
		if err != nil || wire.TransferredFrom == "" {
			return false, err
		}
	}
	closure, err := c.store.Closure(ctx, s.ID, dps.FoldID(p.enrollment.ID))
	return closure.Awaited > 0, err
}

// awaited is what an operation that awaits orders is held up by; nil once they are carried out.
func (c *Core) awaited(ctx context.Context, scopeID string, o Operation) error {
	closure, err := c.store.Closure(ctx, scopeID, dps.FoldID(o.RegistrationID))
	if err == nil && closure.Awaited > 0 {
		err = &RetryError{After: firstPostponement, Err: errAwaited}
	}
	return err
}

// isAwaiting says whether an error is one that only time mends.
func isAwaiting(err error) bool { return errors.Is(err, errAwaited) }
