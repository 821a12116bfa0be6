package registration

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// Caller is a management request that Authorize let in.
type Caller struct {
	Scope   string
	Policy  string
	Address string
	key     *[32]byte // SHA-256 of the key that signed its token; nil for callers that Authorize did not make
	// TrackingID of the request: answer and audit rows carry the same one.
	TrackingID string
}

// Authorize judges a management request's SAS token: right host, right path, right key, right permission. Every failure looks the same.
func (c *Core) Authorize(host, path, authorization, address string, right Right, arrived time.Time) (Caller, error) {
	table := c.scopes.Load()
	s, known := table.byHost[host]
	if !known {
		s = table.nobody
	}
	refuse := func(reason Reason, inside error) (Caller, error) {
		return Caller{}, c.fault(s, dps.CodeUnauthorized, reason, "", inside)
	}
	token, err := dps.ParseToken(authorization)
	if err != nil {
		return refuse(ReasonAdminToken, err)
	}
	if fresh := arrived.After(token.Expiry.Add(tokenLeeway)); fresh {
		return refuse(ReasonAdminToken, fmt.Errorf("the token expired at %s", token.Expiry))
	}
	policy, found := s.policies[token.KeyName]
	if !found {
		policy = policyKeys{primary: s.root, secondary: s.root} // the same work; the root signs no token
	}
	primary, secondary := token.Verify(policy.primary), token.Verify(policy.secondary)
	switch {
	case !known || !found || !(primary || secondary):
		return refuse(ReasonAdminToken, nil)
	case !token.ResourceCovers(host, path):
		return refuse(ReasonAdminToken, fmt.Errorf("the token is for %q", token.Resource))
	case policy.rights&right != right:
		return refuse(ReasonAdminRight, nil)
	}
	signed := sha256.Sum256(policy.secondary)
	if primary {
		signed = sha256.Sum256(policy.primary)
	}
	return Caller{Scope: s.ID, Policy: token.KeyName, Address: address, TrackingID: c.track(s, ReasonManaged), key: &signed}, nil
}

func (c *Core) callerAudit(by Caller, action, object string, reason Reason, detail string) Audit {
	return Audit{At: c.now(), Actor: "policy:" + by.Policy, Address: by.Address, Action: action, Object: object,
		Outcome: OutcomeOK, Reason: reason, TrackingID: by.TrackingID, Detail: detail}
}

// PutEnrollment creates an enrollment (ifMatch empty) or replaces it (ifMatch names its etag, or any).
func (c *Core) PutEnrollment(ctx context.Context, by Caller, wire dps.IndividualEnrollment, ifMatch string) (dps.IndividualEnrollment, error) {
	s, _ := c.scope(by.Scope)
	row, err := c.enrollmentRow(s, wire)
	if err != nil {
		return dps.IndividualEnrollment{}, err
	}
	id := dps.FoldID(row.ID)
	for range redeemTries {
		before, err := c.expectEnrollment(ctx, s, id, ifMatch)
		if err != nil {
			return dps.IndividualEnrollment{}, err
		}
		var expect *uint64
		if before != nil {
			expect = &before.Revision
		}
		stored, verdict, err := c.store.PutEnrollment(ctx, s.ID, row, expect, c.callerAudit(by, ActionEnrollmentPut, id, ReasonChanged, enrollmentChange(before, row)))
		switch {
		case err != nil:
			return dps.IndividualEnrollment{}, c.storeFault(s, "writing an enrollment", err)
		case verdict == Exists:
			return dps.IndividualEnrollment{}, c.fault(s, dps.CodeEnrollmentExists, ReasonEnrollmentExists, "", nil)
		case verdict == Applied:
			return c.wireEnrollment(s, stored, nil, false)
		}
		// Conflict or Missing: it changed between the read of the etag and the write; judge again.
	}
	return dps.IndividualEnrollment{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
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

// enrollmentRow judges an enrollment and makes the row of it.
func (c *Core) enrollmentRow(s *scope, wire dps.IndividualEnrollment) (Enrollment, error) {
	refuse := func(detail string, inside error) (Enrollment, error) {
		return Enrollment{}, c.fault(s, dps.CodeBadRequest, ReasonBadEnrollment, detail, inside)
	}
	if wire.Attestation.Type != dps.AttestationTPM {
		return refuse("attestation.type: only tpm is served by this release.", nil)
	}
	ek, err := c.parseEK(wire.Attestation.TPM.EndorsementKey)
	if err != nil {
		return refuse("Endorsement key is invalid, or does not match the Enrollment. "+plain(err), err)
	}
	now := c.now() // once: on create the two times are equal
	row := Enrollment{
		ID: wire.RegistrationID, EK: ek.Bytes(), EKKeyID: ek.KeyID(), DeviceID: wire.DeviceID,
		Disabled: wire.ProvisioningStatus == dps.EnrollmentDisabled, Created: now, Updated: now,
	}
	if pinned := wire.Attestation.TPM.StorageRootKey; len(pinned) > 0 {
		srk, err := c.parseSRK(pinned)
		if err != nil {
			return refuse("attestation.tpm.storageRootKey: "+plain(err), err)
		}
		if err := attest.JudgePair(ek, srk); err != nil {
			return refuse("attestation.tpm: "+plain(err), err)
		}
		row.PinnedSRK = srk.Bytes()
	}
	if wire.AllocationPolicy == dps.AllocationCustom {
		return refuse("allocationPolicy: custom is not served by this release; leave it out, or use hashed, geoLatency or static.", nil)
	}
	for _, hub := range wire.IotHubs {
		if !strings.EqualFold(hub, s.Hosts[0]) {
			return refuse("iotHubs: only the hub "+s.Hosts[0]+" is linked.", nil)
		}
	}
	wire.RegistrationState, wire.ETag, wire.Created, wire.LastUpdated = nil, "", time.Time{}, time.Time{}
	row.Document = wire.Encode()
	return row, nil
}

// wireEnrollment is the row as clients see it.
func (c *Core) wireEnrollment(s *scope, row Enrollment, r *Registration, withState bool) (dps.IndividualEnrollment, error) {
	wire, err := dps.DecodeEnrollment(row.ID, row.Document)
	if err != nil {
		return dps.IndividualEnrollment{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", fmt.Errorf("stored enrollment %s: %w", row.ID, err))
	}
	wire.ETag, wire.Created, wire.LastUpdated = dps.ETag(int64(row.Revision)), row.Created, row.Updated
	if withState {
		wire.RegistrationState = stateOf(row.ID, r)
	}
	return wire, nil
}

// Enrollment reads one enrollment with its registration state.
func (c *Core) Enrollment(ctx context.Context, by Caller, id string) (dps.IndividualEnrollment, error) {
	s, _ := c.scope(by.Scope)
	device, err := c.store.Device(ctx, s.ID, dps.FoldID(id))
	switch {
	case err != nil:
		return dps.IndividualEnrollment{}, c.storeFault(s, "reading an enrollment", err)
	case device.Enrollment == nil:
		return dps.IndividualEnrollment{}, c.fault(s, dps.CodeNotEnrolled, ReasonEnrollmentMissing, "", nil)
	}
	return c.wireEnrollment(s, *device.Enrollment, device.Registration, true)
}

// DeleteEnrollment removes an enrollment and its registration, never the device at its hub. ifMatch empty: whatever its etag.
func (c *Core) DeleteEnrollment(ctx context.Context, by Caller, id, ifMatch string) error {
	return c.remove(ctx, by, id, ifMatch, removal{
		of: func(d Device) (uint64, string) {
			if d.Enrollment == nil {
				return 0, ""
			}
			return d.Enrollment.Revision, changed(tellEnrollment(*d.Enrollment), nil)
		},
		write: c.store.DeleteEnrollment, action: ActionEnrollmentDelete, missing: dps.CodeNotEnrolled, reason: ReasonEnrollmentMissing,
	})
}

// Registration reads the registration state of one device.
func (c *Core) Registration(ctx context.Context, by Caller, id string) (*dps.RegistrationState, error) {
	s, _ := c.scope(by.Scope)
	device, err := c.store.Device(ctx, s.ID, dps.FoldID(id))
	switch {
	case err != nil:
		return nil, c.storeFault(s, "reading a registration", err)
	case device.Registration == nil:
		return nil, c.fault(s, dps.CodeRegistrationNotFound, ReasonRegistrationMissing, "", nil)
	}
	return stateOf(id, device.Registration), nil
}

// DeleteRegistration removes the record only: the enrollment and the device at its hub stay.
func (c *Core) DeleteRegistration(ctx context.Context, by Caller, id, ifMatch string) error {
	return c.remove(ctx, by, id, ifMatch, removal{
		of: func(d Device) (uint64, string) {
			if d.Registration == nil {
				return 0, ""
			}
			return d.Registration.Revision, changed(tellRegistration(*d.Registration), nil)
		},
		write: c.store.DeleteRegistration, action: ActionRegistrationDelete, missing: dps.CodeRegistrationNotFound, reason: ReasonRegistrationMissing,
	})
}

// removal is what differs between deleting an enrollment and deleting a registration.
type removal struct {
	of      func(Device) (revision uint64, detail string) // revision 0, which no row has: it is not there
	write   func(ctx context.Context, scope, id string, expect *uint64, audit Audit) (Verdict, error)
	action  string
	missing dps.Code
	reason  Reason
}

func (c *Core) remove(ctx context.Context, by Caller, id, ifMatch string, what removal) error {
	s, _ := c.scope(by.Scope)
	id = dps.FoldID(id)
	for try := range redeemTries {
		// Whatever the caller knows of it, the row is deleted as it was read, so that the audit tells what is gone. Only at the last try,
		// beside a device that keeps moving it, an unconditional delete takes it as it is.
		device, err := c.store.Device(ctx, s.ID, id)
		if err != nil {
			return c.storeFault(s, "reading before a delete", err)
		}
		revision, detail := what.of(device)
		if ifMatch != "" && revision != 0 && !dps.MatchETag(ifMatch, dps.ETag(int64(revision))) {
			return c.fault(s, dps.CodePreconditionFailed, ReasonEtag, "", nil)
		}
		if try == redeemTries-1 && ifMatch == "" {
			revision = AnyRevision
		}
		verdict, err := what.write(ctx, s.ID, id, &revision, c.callerAudit(by, what.action, id, ReasonDeleted, detail))
		switch {
		case err != nil:
			return c.storeFault(s, "deleting", err)
		case verdict == Missing:
			return c.fault(s, what.missing, what.reason, "", nil)
		case verdict == Applied:
			return nil
		}
	}
	return c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}
