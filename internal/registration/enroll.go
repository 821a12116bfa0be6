package registration

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// PutEnrollment creates an enrollment (ifMatch empty) or replaces it (ifMatch names its etag, or any). What it returns holds the symmetric
// keys, as the service may have made them.
func (c *Core) PutEnrollment(ctx context.Context, by Caller, wire dps.IndividualEnrollment, ifMatch string) (dps.IndividualEnrollment, error) {
	s, _ := c.scope(by.Scope)
	draft, err := c.draftEnrollment(s, wire)
	if err != nil {
		return dps.IndividualEnrollment{}, err
	}
	if err := c.judgeOrder(s, by, draft.row.Disabled, ReasonBadEnrollment); err != nil {
		return dps.IndividualEnrollment{}, err
	}
	id := dps.FoldID(draft.row.ID)
	for range redeemTries {
		before, err := c.expectEnrollment(ctx, s, id, ifMatch)
		if err != nil {
			return dps.IndividualEnrollment{}, err
		}
		row, keys, err := c.settle(s, draft, before)
		if err != nil {
			return dps.IndividualEnrollment{}, err
		}
		var expect *uint64
		if before != nil {
			expect = &before.Revision
		}
		stored, verdict, err := c.store.PutEnrollment(ctx, s.ID, row, expect, c.callerAudit(by, ActionEnrollmentPut, id, ReasonChanged, enrollmentChange(before, row)), by.HubOrder)
		switch {
		case err != nil:
			return dps.IndividualEnrollment{}, c.storeFault(s, "writing an enrollment", err)
		case verdict == Exists:
			return dps.IndividualEnrollment{}, c.fault(s, dps.CodeEnrollmentExists, ReasonEnrollmentExists, "", nil)
		case verdict == Taken:
			return dps.IndividualEnrollment{}, c.certificateTaken(s)
		case verdict == Applied:
			wire, err := c.wireEnrollment(s, stored, nil, false)
			wire.Attestation.SymmetricKey = keys.wire()
			return wire, err
		}
		// Conflict or Missing: it changed between the read of the etag and the write; judge again.
	}
	return dps.IndividualEnrollment{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

func (c *Core) certificateTaken(s *scope) *Fault {
	return c.fault(s, dps.CodeBadRequest, ReasonCertificateTaken, "attestation.x509: a certificate of it is in another enrollment or group already; one certificate belongs to one entry.", nil)
}

// expectEnrollment turns If-Match into the enrollment whose revision the write will compare; nil: there must be none.
func (c *Core) expectEnrollment(ctx context.Context, s *scope, id, ifMatch string) (*Enrollment, error) {
	if ifMatch == "" {
		return nil, nil
	}
	device, err := c.store.Device(ctx, s.ID, id)
	switch {
	case err != nil:
		return nil, c.storeFault(s, "reading an enrollment", err)
	case device.Enrollment == nil, !dps.MatchETag(ifMatch, dps.ETag(int64(device.Enrollment.Revision))):
		return nil, c.fault(s, dps.CodePreconditionFailed, ReasonEtag, "", nil)
	}
	return device.Enrollment, nil
}

// enrollmentDraft is a judged enrollment, but for what depends on the entry it replaces.
type enrollmentDraft struct {
	row  Enrollment
	wire dps.IndividualEnrollment

	keysWithheld bool // see ImportLine
}

// draftEnrollment judges an enrollment.
func (c *Core) draftEnrollment(s *scope, wire dps.IndividualEnrollment) (enrollmentDraft, error) {
	now := c.now() // once: on create the two times are equal
	row := Enrollment{
		ID: wire.RegistrationID, Mechanism: Mechanism(wire.Attestation.Type), DeviceID: wire.DeviceID,
		Disabled: wire.ProvisioningStatus == dps.EnrollmentDisabled, Created: now, Updated: now,
	}
	if row.Mechanism == TPM {
		if err := c.judgeTPM(s, wire.Attestation.TPM, &row); err != nil {
			return enrollmentDraft{}, err
		}
	}
	if err := c.judgeAllocation(s, ReasonBadEnrollment, wire.AllocationPolicy, append(slices.Clone(wire.IotHubs), wire.IotHubHostName)); err != nil {
		return enrollmentDraft{}, err
	}
	if wire.Latchkey != nil && len(wire.Latchkey.ExtraKeys) > 0 {
		return enrollmentDraft{}, c.fault(s, dps.CodeBadRequest, ReasonBadEnrollment, "latchkey.endorsementKeys is not taken: a device is known by one endorsement key, attestation.tpm.endorsementKey. Enroll the key that the device's SDK shows.", nil)
	}
	wire.Latchkey = nil
	wire.RegistrationState, wire.ETag, wire.Created, wire.LastUpdated = nil, "", time.Time{}, time.Time{}
	wire.ClosedByDevice, wire.TransferredFrom = time.Time{}, ""
	return enrollmentDraft{row: row, wire: wire}, nil
}

// judgeTPM judges the keys of a TPM and puts them into the row.
func (c *Core) judgeTPM(s *scope, tpm *dps.TPMKeys, row *Enrollment) error {
	refuse := func(detail string, inside error) error {
		return c.fault(s, dps.CodeBadRequest, ReasonBadEnrollment, detail, inside)
	}
	ek, err := c.parseEK(tpm.EndorsementKey)
	if err != nil {
		return refuse("Endorsement key is invalid, or does not match the Enrollment. "+plain(err), err)
	}
	row.EK, row.EKKeyID = ek.Bytes(), ek.KeyID()
	if len(tpm.StorageRootKey) == 0 {
		return nil
	}
	srk, err := c.parseSRK(tpm.StorageRootKey)
	if err != nil {
		return refuse("attestation.tpm.storageRootKey: "+plain(err), err)
	}
	if err := attest.JudgePair(ek, srk); err != nil {
		return refuse("attestation.tpm: "+plain(err), err)
	}
	row.PinnedSRK = srk.Bytes()
	return nil
}

// judgeAllocation judges what an entry says of hubs; empty names are none.
func (c *Core) judgeAllocation(s *scope, reason Reason, policy string, hubs []string) error {
	if policy == dps.AllocationCustom && c.webhooks == nil {
		return c.fault(s, dps.CodeBadRequest, reason, "allocationPolicy: custom needs webhooks, and this service calls none; leave it out, or use hashed, geoLatency or static.", nil)
	}
	for _, hub := range hubs {
		if _, linked := s.hubNamed(hub); hub != "" && !linked {
			return c.fault(s, dps.CodeBadRequest, reason, "iotHubs: the hub "+hub+" is not linked. Link it first, or name one of those that are: "+s.someHubs()+".", nil)
		}
	}
	return nil
}

// settle completes a draft with what it takes over from the entry it replaces: symmetric keys and certificates that the caller, to whom
// they are not shown, could not write back.
func (c *Core) settle(s *scope, d enrollmentDraft, before *Enrollment) (row Enrollment, keys symmetricKeys, err error) {
	row = d.row
	switch row.Mechanism {
	case SymmetricKey:
		if d.keysWithheld && (before == nil || before.Mechanism != SymmetricKey) {
			return Enrollment{}, symmetricKeys{}, c.fault(s, dps.CodeBadRequest, ReasonBadEnrollment, keysWithheld, nil)
		}
		var was SealedKeys
		if before != nil {
			was = before.Keys
		}
		if row.Keys, keys, err = c.settleKeys(ContextEnrollmentKey, s.ID, dps.FoldID(row.ID), d.wire.Attestation.SymmetricKey, was); err != nil {
			return Enrollment{}, symmetricKeys{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
		}
	case X509:
		var was *dps.X509Attestation
		if before != nil {
			if old, err := dps.DecodeEnrollment(before.ID, before.Document); err == nil {
				was = old.Attestation.X509
			}
		}
		x := *d.wire.Attestation.X509
		x.Client = kept(x.Client, was)
		d.wire.Attestation.X509 = &x
		if row.Certificates, err = fingerprints(x.Client); err != nil {
			return Enrollment{}, symmetricKeys{}, c.fault(s, dps.CodeBadRequest, ReasonBadEnrollment, err.Error(), err)
		}
	}
	d.keepWhereabouts(before)
	if row.Document, err = c.document(s, ReasonBadEnrollment, d.wire.EncodeShowing(dps.ShowCertificates)); err != nil {
		return Enrollment{}, symmetricKeys{}, err
	}
	return row, keys, nil
}

// document bounds what is stored of an entry as a message is bounded, so that it can be read again: with what was left out of the message,
// and the certificates that it keeps, it may be longer than what was sent.
func (c *Core) document(s *scope, reason Reason, document []byte) ([]byte, error) {
	if len(document) > dps.MaxMessage {
		return nil, c.fault(s, dps.CodeBadRequest, reason, fmt.Sprintf("With its certificates, and what was left out of it, it is longer than %d bytes. Shorten it.", dps.MaxMessage), nil)
	}
	return document, nil
}

// keepWhereabouts takes over what the service has written into the entry before: that its device closed it, until it is let in again, and where it
// came from.
func (d *enrollmentDraft) keepWhereabouts(before *Enrollment) {
	if before == nil || before.Mechanism != TPM || before.EKKeyID != d.row.EKKeyID {
		return
	}
	old, err := dps.DecodeEnrollment(before.ID, before.Document)
	if err != nil {
		return
	}
	if d.wire.TransferredFrom = old.TransferredFrom; d.row.Disabled {
		d.wire.ClosedByDevice = old.ClosedByDevice
	}
}

// keysWithheld is what a line is told whose keys are nowhere.
const keysWithheld = "symmetricKeys: the keys are withheld from the file, and no enrollment with symmetric keys is there. Move it with a whole export with secrets, or leave symmetricKeys out to have new keys made."

// kept gives a pair its certificates back where only their thumbprints were given and the entry before holds them.
func kept(pair *dps.CertificatePair, before *dps.X509Attestation) *dps.CertificatePair {
	if pair == nil || before == nil {
		return pair
	}
	find := func(c *dps.Certificate) *dps.Certificate {
		if c == nil || c.DER != nil {
			return c
		}
		for _, old := range append(before.Client.List(), before.Signing.List()...) {
			if strings.EqualFold(old.Info.SHA256Thumbprint, c.Info.SHA256Thumbprint) {
				return old
			}
		}
		return c
	}
	return &dps.CertificatePair{Primary: find(pair.Primary), Secondary: find(pair.Secondary)}
}

// fingerprints lists the SHA-256 of a pair's certificates, each once.
func fingerprints(pair *dps.CertificatePair) ([][32]byte, error) {
	var sums [][32]byte
	for _, c := range pair.List() {
		sum, ok := c.Info.Fingerprint()
		if !ok {
			return nil, fmt.Errorf("attestation.x509: a certificate has no SHA-256 thumbprint")
		}
		if !slices.Contains(sums, sum) {
			sums = append(sums, sum)
		}
	}
	return sums, nil
}

// judgeCA says whether a certificate can sign those of devices, in the words of whoever sent it.
func judgeCA(der []byte) error {
	certificate, err := x509.ParseCertificate(der)
	switch {
	case err != nil:
		return fmt.Errorf("is not an X.509 certificate")
	case !certificate.BasicConstraintsValid || !certificate.IsCA:
		return fmt.Errorf("is not the certificate of a CA: its basic constraints do not say so, and no device's certificate under it would be valid")
	case certificate.KeyUsage != 0 && certificate.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("may not sign certificates: its key usage lacks keyCertSign")
	}
	return nil
}

// same says whether two rows hold the very same sealed keys.
func (k SealedKeys) same(o SealedKeys) bool {
	return bytes.Equal(k.Primary, o.Primary) && bytes.Equal(k.Secondary, o.Secondary)
}
