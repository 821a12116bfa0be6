package registration

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// keys are a device's two public keys after judgement.
type keys struct {
	ek  *attest.EK
	srk *attest.SRK
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
		return Answer{}, c.fault(s, dps.CodeBadRequest, ReasonMissingTPM, "Nothing here proves a device: send a tpm object with endorsementKey and storageRootKey, or a SAS token of a symmetric key, or connect with a client certificate.", nil)
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
	case device.Enrollment.Mechanism != TPM:
		return ReasonOtherMechanism
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
	subject := challengeSubject{s.ID, id, ek.Name(), srk.Name(), device.Generation, device.Enrollment.Created, r.closing}
	blob, err := c.wrap(c.rand, ek, srk, subject.key(s.root, slotOf(r.Arrived)))
	if err != nil {
		return nil, err
	}
	if device.Registration != nil && bytes.Equal(device.Registration.SRK, srk.Bytes()) {
		return blob, nil // the last proven owner is remembered by the registration
	}
	// Only clients that omit the tpm object later need this memory, so its loss must not refuse the others.
	if err := c.store.RememberOwner(ctx, s.ID, id, srk.Bytes(), r.Arrived); err != nil {
		c.complain(slog.LevelWarn, "remembering an owner", err)
	}
	return blob, nil
}

// sameKeys holds the rule that EK and SRK come from the redeemed challenge: a body may omit them, but not name others. What a device with
// another mechanism says of a TPM proves nothing and is not looked at.
func (k *claim) sameKeys(mechanism Mechanism, ek, srk []byte) error {
	if k.shown.ek == nil || mechanism != TPM {
		return nil
	}
	proven, err := attest.ParsePublic(ek)
	if err != nil || proven.KeyID() != k.shown.ek.KeyID() {
		return fmt.Errorf("tpm.endorsementKey is not the one that the challenge was made for")
	}
	if !bytes.Equal(srk, k.shown.srk.Bytes()) {
		return fmt.Errorf("tpm.storageRootKey is not the one that the challenge was made for")
	}
	return nil
}

// byChallenge tries the owner in the body, then the last proven one, then those remembered; the slots that are accepted now each. Before it fails it has
// parsed one EK and tried ownersTried owners, whatever is enrolled or remembered, so that its cost does not tell. Without an
// enrollment of a TPM it never succeeds.
func (c *Core) byChallenge(ctx context.Context, k claim) (proof, bool, error) {
	ek, err := c.challengedEK(k)
	if err != nil {
		return proof{}, false, c.fault(k.scope, dps.CodeInternal, ReasonInternal, "", err)
	}
	var enrolled time.Time
	if k.ofTPM() {
		enrolled = k.device.Enrollment.Created
	}
	owners, forgotten := c.owners(ctx, k)
	for i, owner := range padOwners(owners) {
		srk, err := c.parseSRK(owner)
		if err != nil {
			continue // was acceptable when remembered; a newer release may be stricter
		}
		subject := challengeSubject{k.scope.ID, dps.FoldID(k.request.ID), ek.Name(), srk.Name(), k.device.Generation, enrolled, k.request.closing}
		key, ok := subject.open(k.scope.root, k.request.Arrived, k.token)
		if ok && k.ofTPM() && i < len(owners) {
			return proof{mechanism: TPM, enrollment: k.device.Enrollment, ek: ek, srk: srk, key: key}, true, nil
		}
	}
	if forgotten != nil { // only now: it is needed by none but clients that omit the tpm object
		return proof{}, false, c.storeFault(k.scope, "reading remembered owners", forgotten)
	}
	return proof{}, false, nil
}

// ofTPM says whether the device is enrolled with a TPM.
func (k *claim) ofTPM() bool {
	return k.device.Enrollment != nil && k.device.Enrollment.Mechanism == TPM
}

// challengedEK is the EK that challenges of this id are made for: the enrolled one, else one that stands in for it. One parse each time.
func (c *Core) challengedEK(k claim) (*attest.EK, error) {
	switch {
	case k.ofTPM():
		return c.enrolledEK(k.device.Enrollment, nil)
	case k.shown.ek != nil:
		return c.parseEK(k.shown.ek.Bytes())
	}
	return c.parseEK(standInKey)
}

// owners lists the SRKs whose challenges may be open, likeliest first; with an error the remembered ones are missing.
func (c *Core) owners(ctx context.Context, k claim) ([][]byte, error) {
	remembered, err := c.store.Owners(ctx, k.scope.ID, dps.FoldID(k.request.ID), k.request.Arrived.Add(-slotsAccepted*slotLength))
	var owners [][]byte
	if k.shown.srk != nil {
		owners = append(owners, k.shown.srk.Bytes())
	}
	if before := k.device.Registration; before != nil && len(before.SRK) > 0 {
		owners = append(owners, before.SRK)
	}
	return append(owners, remembered...), err
}
