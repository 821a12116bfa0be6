package registration

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

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
	// HubOrder is what is to become of the devices at their hubs that the request shuts out.
	HubOrder HubOrder
}

// Authorize judges a management request's SAS token: right host, right path, right key, right permission. Every failure looks the same. It looks
// first whether another node has changed access policies or scopes: what was taken there is refused here from that answer on.
func (c *Core) Authorize(ctx context.Context, host, path, authorization, address string, right Right, arrived time.Time) (Caller, error) {
	return c.AuthorizeAny(ctx, host, path, authorization, address, arrived, right)
}

// AuthorizeAny is Authorize for what any of several rights allows.
func (c *Core) AuthorizeAny(ctx context.Context, host, path, authorization, address string, arrived time.Time, enough ...Right) (Caller, error) {
	if err := c.FollowScopes(ctx); err != nil {
		return Caller{}, c.storeFault(c.scopes.Load().nobody, "following the scopes", err)
	}
	table := c.scopes.Load()
	s, known := table.byHost[host]
	return c.authorized(table, s, known, host, path, authorization, address, arrived, enough)
}

// AuthorizeHub is AuthorizeAny for the service side of embedded hubs, which is under the names of further ones too.
func (c *Core) AuthorizeHub(ctx context.Context, host, path, authorization, address string, arrived time.Time, enough ...Right) (Caller, error) {
	if err := c.FollowScopes(ctx); err != nil {
		return Caller{}, c.storeFault(c.scopes.Load().nobody, "following the scopes", err)
	}
	table := c.scopes.Load()
	s, known := table.byHost[host]
	if !known {
		s, known = table.byHub[host]
	}
	return c.authorized(table, s, known, host, path, authorization, address, arrived, enough)
}

// authorized judges a token at a scope; of one that is not known the same work is done.
func (c *Core) authorized(table *scopeTable, s *scope, known bool, host, path, authorization, address string, arrived time.Time, enough []Right) (Caller, error) {
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
	case !slices.ContainsFunc(enough, func(right Right) bool { return policy.rights&right == right }):
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

// EnrollmentAttestation reads how a device proves itself, with its symmetric keys. That it showed them is in the audit.
func (c *Core) EnrollmentAttestation(ctx context.Context, by Caller, id string) (dps.Attestation, error) {
	s, _ := c.scope(by.Scope)
	id = dps.FoldID(id)
	device, err := c.store.Device(ctx, s.ID, id)
	switch {
	case err != nil:
		return dps.Attestation{}, c.storeFault(s, "reading an enrollment", err)
	case device.Enrollment == nil:
		return dps.Attestation{}, c.fault(s, dps.CodeNotEnrolled, ReasonEnrollmentMissing, "", nil)
	}
	wire, err := c.wireEnrollment(s, *device.Enrollment, nil, false)
	if err != nil || device.Enrollment.Mechanism != SymmetricKey {
		return wire.Attestation, err
	}
	return c.reveal(ctx, s, by, ActionEnrollmentReveal, id, wire.Attestation, ContextEnrollmentKey, device.Enrollment.Keys)
}

// reveal puts the symmetric keys of an entry into its attestation, after the audit tells who asked for them.
func (c *Core) reveal(ctx context.Context, s *scope, by Caller, action, id string, a dps.Attestation, context keyContext, sealed SealedKeys) (dps.Attestation, error) {
	keys, err := c.openKeys(context, s.ID, id, sealed)
	if err != nil {
		return dps.Attestation{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	if err := c.store.AppendAudit(ctx, s.ID, c.callerAudit(by, action, id, ReasonManaged, "")); err != nil {
		return dps.Attestation{}, c.storeFault(s, "writing that keys are shown", err)
	}
	a.SymmetricKey = keys.wire()
	return a, nil
}

// DeleteEnrollment removes an enrollment and its registration; the device at its hub only if the caller orders that. ifMatch empty: whatever its etag.
func (c *Core) DeleteEnrollment(ctx context.Context, by Caller, id, ifMatch string) error {
	return c.remove(ctx, by, id, ifMatch, removal{
		read: c.readFor(func(d Device) (uint64, string) {
			if d.Enrollment == nil {
				return 0, ""
			}
			return d.Enrollment.Revision, changed(tellEnrollment(*d.Enrollment), nil)
		}),
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

// DeleteRegistration removes the record only: the enrollment stays, and the device at its hub unless the caller orders otherwise.
func (c *Core) DeleteRegistration(ctx context.Context, by Caller, id, ifMatch string) error {
	return c.remove(ctx, by, id, ifMatch, removal{
		read: c.readFor(func(d Device) (uint64, string) {
			if d.Registration == nil {
				return 0, ""
			}
			return d.Registration.Revision, changed(tellRegistration(*d.Registration), nil)
		}),
		write: c.store.DeleteRegistration, action: ActionRegistrationDelete, missing: dps.CodeRegistrationNotFound, reason: ReasonRegistrationMissing,
	})
}

// removal is what differs between the things that can be deleted.
type removal struct {
	// read gives what is there now, and what the audit tells of it; revision 0, which no row has, if nothing is.
	read     func(ctx context.Context, scope, id string) (revision uint64, detail string, err error)
	write    func(ctx context.Context, scope, id string, expect *uint64, audit Audit, order HubOrder) (Verdict, error)
	action   string
	missing  dps.Code
	reason   Reason
	sentence string // in place of the code's
}

// readFor reads an id's snapshot for a removal.
func (c *Core) readFor(of func(Device) (uint64, string)) func(context.Context, string, string) (uint64, string, error) {
	return func(ctx context.Context, scope, id string) (uint64, string, error) {
		device, err := c.store.Device(ctx, scope, id)
		revision, detail := of(device)
		return revision, detail, err
	}
}

func (c *Core) remove(ctx context.Context, by Caller, id, ifMatch string, what removal) error {
	s, _ := c.scope(by.Scope)
	id = dps.FoldID(id)
	for try := range redeemTries {
		// Whatever the caller knows of it, the row is deleted as it was read, so that the audit tells what is gone. Only at the last try,
		// beside a device that keeps moving it, an unconditional delete takes it as it is.
		revision, detail, err := what.read(ctx, s.ID, id)
		if err != nil {
			return c.storeFault(s, "reading before a delete", err)
		}
		if ifMatch != "" && revision != 0 && !dps.MatchETag(ifMatch, dps.ETag(int64(revision))) {
			return c.fault(s, dps.CodePreconditionFailed, ReasonEtag, "", nil)
		}
		if try == redeemTries-1 && ifMatch == "" {
			revision = AnyRevision
		}
		verdict, err := what.write(ctx, s.ID, id, &revision, c.callerAudit(by, what.action, id, ReasonDeleted, detail), by.HubOrder)
		switch {
		case err != nil:
			return c.storeFault(s, "deleting", err)
		case verdict == Missing:
			return c.fault(s, what.missing, what.reason, what.sentence, nil)
		case verdict == Applied:
			return nil
		}
	}
	return c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}
