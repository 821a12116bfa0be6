package registration

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// How long an offer may be open.
const (
	OfferLife    = 24 * time.Hour
	MaxOfferLife = 30 * 24 * time.Hour
)

// MayOffer is what an operator needs in a scope to let a device go from it: he deletes its enrollment and its registration.
const MayOffer = EnrollmentWrite | RegistrationStatusWrite

// codeMark begins every code, so that one is known for what it is where it should not be.
const codeMark = "lkt1-"

var codeText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newCode makes a secret of 160 bits, and what is kept of it.
func (c *Core) newCode() (code string, kept [32]byte, err error) {
	var b [20]byte
	if _, err := io.ReadFull(c.rand, b[:]); err != nil {
		return "", kept, err
	}
	code = codeMark + codeText.EncodeToString(b[:])
	return code, hashCode(code), nil
}

// hashCode names a code, which is too long to be guessed from that.
func hashCode(code string) [32]byte {
	return sha256.Sum256([]byte("latchkey transfer code v1\x00" + strings.ToLower(strings.TrimSpace(code))))
}

// OfferDevice lets the operator of another scope take a device over, once, with the code that is returned for the one time that it is shown. Whether there
// is such a scope is not told: to all but the home scope the others do not exist.
func (c *Core) OfferDevice(ctx context.Context, by Caller, id, target string, life time.Duration) (o Offer, code string, err error) {
	s, _ := c.scope(by.Scope)
	id = dps.FoldID(id)
	switch {
	case target == "" || len(target) > 64 || target == s.ID:
		return o, "", c.fault(s, dps.CodeBadRequest, ReasonBadOffer, "to: name the ID scope that may take the device, another than this one.", nil)
	case life < time.Minute || life > MaxOfferLife:
		return o, "", c.fault(s, dps.CodeBadRequest, ReasonBadOffer, "validSeconds: from a minute to 30 days.", nil)
	}
	device, err := c.store.Device(ctx, s.ID, id)
	e := device.Enrollment
	switch {
	case err != nil:
		return o, "", c.storeFault(s, "reading an enrollment", err)
	case e == nil:
		return o, "", c.fault(s, dps.CodeNotEnrolled, ReasonEnrollmentMissing, "", nil)
	case e.Mechanism != TPM:
		return o, "", c.fault(s, dps.CodeBadRequest, ReasonBadOffer, "Only a device with a TPM is transferred. The secret of another goes with the device: enroll it anew in the other scope, with new keys.", nil)
	}
	code, kept, err := c.newCode()
	if err != nil {
		return o, "", c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	now := c.now()
	o = Offer{ID: e.ID, Target: target, Code: kept, EKKeyID: e.EKKeyID, Keys: e.keysDigest(), Enrolled: e.Created, Policy: by.Policy, Created: now, Expires: now.Add(life)}
	verdict, err := c.store.PutOffer(ctx, s.ID, o, e.Revision, c.callerAudit(by, ActionOfferPut, id, ReasonManaged, tellOffer(o)))
	switch {
	case err != nil:
		return o, "", c.storeFault(s, "writing an offer", err)
	case verdict == Exists:
		return o, "", c.fault(s, dps.CodeConflict, ReasonOfferExists, "There is an offer of this device already. Withdraw it first, or wait for its end.", nil)
	case verdict != Applied:
		return o, "", c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
	}
	return o, code, nil
}

// keysDigest names all EKs of an enrollment.
func (e *Enrollment) keysDigest() [32]byte { return sha256.Sum256(e.EKKeyID[:]) }

func tellOffer(o Offer) string {
	detail, err := json.Marshal(struct {
		To      string `json:"to"`
		EKKeyID string `json:"ekKeyId"`
		Expires string `json:"expires"`
	}{o.Target, hex.EncodeToString(o.EKKeyID[:]), dps.FormatTime(o.Expires)})
	if err != nil {
		panic(err) // texts
	}
	return string(detail)
}

// Offers lists a page of the offers that the caller's scope has made.
func (c *Core) Offers(ctx context.Context, by Caller, after string, limit int) ([]Offer, error) {
	s, _ := c.scope(by.Scope)
	page, err := c.store.Offers(ctx, s.ID, after, limit)
	if err != nil {
		return nil, c.storeFault(s, "reading offers", err)
	}
	return page, nil
}

// WithdrawOffer ends an offer.
func (c *Core) WithdrawOffer(ctx context.Context, by Caller, id string) error {
	s, _ := c.scope(by.Scope)
	verdict, err := c.store.DeleteOffer(ctx, s.ID, id, c.callerAudit(by, ActionOfferDelete, dps.FoldID(id), ReasonDeleted, ""))
	switch {
	case err != nil:
		return c.storeFault(s, "withdrawing an offer", err)
	case verdict == Missing:
		return c.fault(s, dps.CodeNotFound, ReasonOfferMissing, "There is no offer of this device: it was taken, withdrawn, or never made.", nil)
	}
	return nil
}

// TakeDevice moves a device here that another scope has offered. What the enrollment is besides its EKs the caller says; the owner that the source may
// have pinned is not taken along.
func (c *Core) TakeDevice(ctx context.Context, by Caller, code string, wanted func(id string, ek []byte) (dps.IndividualEnrollment, error)) (dps.IndividualEnrollment, error) {
	s, _ := c.scope(by.Scope)
	kept := hashCode(code)
	for range redeemTries {
		found, err := c.store.Offered(ctx, s.ID, kept)
		switch {
		case errors.Is(err, ErrNotFound):
			return dps.IndividualEnrollment{}, c.offerMissing(s)
		case err != nil:
			return dps.IndividualEnrollment{}, c.storeFault(s, "reading an offer", err)
		}
		if err := c.judgeOffered(s, found); err != nil {
			return dps.IndividualEnrollment{}, err
		}
		wire, err := wanted(found.Device.Enrollment.ID, found.Device.Enrollment.EK)
		if err != nil {
			return dps.IndividualEnrollment{}, err
		}
		a, err := c.acceptance(s, by, found, kept, wire)
		if err != nil {
			return dps.IndividualEnrollment{}, err
		}
		accepted, verdict, err := c.store.AcceptOffer(ctx, s.ID, a)
		switch {
		case err != nil:
			return dps.IndividualEnrollment{}, c.storeFault(s, "taking an offer", err)
		case verdict == Missing:
			return dps.IndividualEnrollment{}, c.offerMissing(s)
		case verdict == Exists:
			return dps.IndividualEnrollment{}, c.fault(s, dps.CodeEnrollmentExists, ReasonEnrollmentExists, "This scope has an enrollment of the registration id already. Take the device under another id, or delete that enrollment first.", nil)
		case verdict == Taken:
			return dps.IndividualEnrollment{}, c.fault(s, dps.CodeConflict, ReasonEKTakenThere, "An enrollment of this scope has the device's endorsement key already. Delete that one first, with its device at the hub (hubDevice=remove).", nil)
		case verdict == Applied:
			c.nudge()
			return c.wireEnrollment(s, accepted.Enrollment, nil, false)
		}
	}
	return dps.IndividualEnrollment{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

func (c *Core) offerMissing(s *scope) error {
	return c.fault(s, dps.CodeNotFound, ReasonOfferMissing, "No offer of this code was made to this scope, or it was taken or withdrawn. The offer must name the ID scope "+s.ID+".", nil)
}

// judgeOffered looks whether the offer still holds: for what it was made of, in time, and by somebody who may still let the device go.
func (c *Core) judgeOffered(s *scope, found Offered) error {
	o, e := found.Offer, found.Device.Enrollment
	source, known := c.scope(found.Source)
	policy, may := source.policies[o.Policy]
	switch {
	case !c.now().Before(o.Expires):
		return c.fault(s, dps.CodeBadRequest, ReasonOfferDead, "The offer has ended. Ask for another.", nil)
	case !known || !may || policy.rights&MayOffer != MayOffer,
		e == nil || e.Mechanism != TPM || e.EKKeyID != o.EKKeyID || e.keysDigest() != o.Keys || !e.Created.Equal(o.Enrolled):
		return c.fault(s, dps.CodeBadRequest, ReasonOfferDead, "The offer does not hold any more: what it was made of has changed. Ask for another.", nil)
	}
	return nil
}

// acceptance composes the rows of a transfer.
func (c *Core) acceptance(s *scope, by Caller, found Offered, code [32]byte, wire dps.IndividualEnrollment) (Acceptance, error) {
	source, _ := c.scope(found.Source)
	draft, err := c.draftEnrollment(s, wire)
	if err != nil {
		return Acceptance{}, err
	}
	draft.wire.TransferredFrom = found.Source
	row := draft.row
	if row.Document, err = c.document(s, ReasonBadEnrollment, draft.wire.EncodeShowing(dps.ShowCertificates)); err != nil {
		return Acceptance{}, err
	}
	if row.EKKeyID != found.Device.Enrollment.EKKeyID || row.PinnedSRK != nil {
		return Acceptance{}, c.fault(s, dps.CodeBadRequest, ReasonBadEnrollment, "attestation: it comes with the device.", nil)
	}
	a := Acceptance{Source: found.Source, ID: found.Offer.ID, Code: code, EnrollmentBefore: found.Device.Enrollment.Revision, After: afterFor(found.Device), Enrollment: row,
		Audit: c.callerAudit(by, ActionOfferAccept, dps.FoldID(row.ID), ReasonTransferred, tellTransfer("from", found.Source, row))}
	a.SourceAudit = Audit{At: a.Audit.At, Actor: ActorService, Action: ActionOfferLeave, Object: dps.FoldID(found.Offer.ID), Outcome: OutcomeOK, Reason: ReasonTransferred,
		TrackingID: c.track(source, ReasonTransferred), Detail: tellTransfer("to", s.ID, *found.Device.Enrollment)}
	if found.Device.Registration != nil {
		a.RegistrationBefore = found.Device.Registration.Revision
	}
	return a, nil
}

func tellTransfer(way, scope string, e Enrollment) string {
	detail, err := json.Marshal(map[string]string{way: scope, "ekKeyId": hex.EncodeToString(e.EKKeyID[:]), "defaultId": attest.RegistrationID(e.EK)})
	if err != nil {
		panic(err) // texts
	}
	return string(detail)
}
