package registration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/dps"
)

// Bounds of what one scope's groups cost: every token that fails is tried against each group with symmetric keys, and all groups are held in
// memory.
const (
	MaxDerivingGroups = 1_000  // with symmetric keys
	MaxGroups         = 10_000 // in all
	MaxNamesakes      = 6      // CAs of other groups with the same subject: all of them are tried for a certificate that names it
)

// PutGroup creates an enrollment group (ifMatch empty) or replaces it (ifMatch names its etag, or any). What it returns holds the symmetric
// keys, as the service may have made them.
func (c *Core) PutGroup(ctx context.Context, by Caller, wire dps.EnrollmentGroup, ifMatch string) (dps.EnrollmentGroup, error) {
	s, _ := c.scope(by.Scope)
	id := dps.FoldID(wire.GroupID)
	if err := c.judgeGroup(ctx, s, wire); err != nil {
		return dps.EnrollmentGroup{}, err
	}
	if err := c.judgeOrder(s, by, wire.ProvisioningStatus == dps.EnrollmentDisabled, ReasonBadGroup); err != nil {
		return dps.EnrollmentGroup{}, err
	}
	for range redeemTries {
		before, err := c.expectGroup(ctx, s, id, ifMatch)
		if err != nil {
			return dps.EnrollmentGroup{}, err
		}
		row, keys, err := c.groupRow(s, wire, before)
		if err != nil {
			return dps.EnrollmentGroup{}, err
		}
		var expect *uint64
		if before != nil {
			expect = &before.Revision
		}
		stored, verdict, err := c.store.PutGroup(ctx, s.ID, row, expect, c.callerAudit(by, ActionGroupPut, id, ReasonChanged, groupChange(before, row)), by.HubOrder)
		switch {
		case err != nil:
			return dps.EnrollmentGroup{}, c.storeFault(s, "writing a group", err)
		case verdict == Exists:
			return dps.EnrollmentGroup{}, c.fault(s, dps.CodeGroupExists, ReasonGroupExists, "", nil)
		case verdict == Taken:
			return dps.EnrollmentGroup{}, c.certificateTaken(s)
		case verdict == Applied:
			wire, err := c.wireGroup(s, stored)
			wire.Attestation.SymmetricKey = keys.wire()
			return wire, err
		}
		// Conflict or Missing: it changed between the read of the etag and the write; judge again.
	}
	return dps.EnrollmentGroup{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

// judgeGroup judges what does not depend on the group before.
func (c *Core) judgeGroup(ctx context.Context, s *scope, wire dps.EnrollmentGroup) error {
	if err := c.judgeAllocation(s, ReasonBadGroup, wire.AllocationPolicy, append(slices.Clone(wire.IotHubs), wire.IotHubHostName)); err != nil {
		return err
	}
	groups, err := c.currentGroups(ctx, s)
	if err != nil {
		return err
	}
	before := groups.byID[dps.FoldID(wire.GroupID)]
	derives := before != nil && before.Mechanism == SymmetricKey
	switch {
	case before == nil && len(groups.byID) >= MaxGroups:
		return c.fault(s, dps.CodeBadRequest, ReasonTooManyGroups, fmt.Sprintf("The scope has %d enrollment groups, as many as it may have.", MaxGroups), nil)
	case !derives && wire.Attestation.Type == dps.AttestationSymmetricKey && len(groups.deriving) >= MaxDerivingGroups:
		return c.fault(s, dps.CodeBadRequest, ReasonTooManyGroups, fmt.Sprintf("The scope has %d enrollment groups with symmetric keys, as many as it may have.", MaxDerivingGroups), nil)
	}
	return c.judgeAuthorities(ctx, s, groups, wire)
}

// currentGroups is the table as of now.
func (c *Core) currentGroups(ctx context.Context, s *scope) (*groupTable, error) {
	revision, err := c.store.GroupsRevision(ctx, s.ID)
	if err != nil {
		return nil, c.storeFault(s, "reading the groups", err)
	}
	groups, err := c.groups(ctx, s, revision)
	if err != nil {
		return nil, c.storeFault(s, "reading the groups", err)
	}
	return groups, nil
}

// judgeAuthorities: a group may refer to verified CA certificates only, and few CAs may have the same name.
func (c *Core) judgeAuthorities(ctx context.Context, s *scope, groups *groupTable, wire dps.EnrollmentGroup) error {
	x := wire.Attestation.X509
	if x == nil {
		return nil
	}
	verified := map[string][]byte{}
	if names := x.CAReferences.List(); names != nil {
		var err error
		if verified, err = c.verifiedCAs(ctx, s.ID); err != nil {
			return c.storeFault(s, "reading the CA certificates", err)
		}
		for _, name := range names {
			if verified[dps.FoldID(name)] == nil {
				return c.fault(s, dps.CodeBadRequest, ReasonBadGroup, "attestation.x509.caReferences: there is no verified CA certificate named "+name+". Add and verify it first (latchkey ca add, latchkey ca verify).", nil)
			}
		}
	}
	if subject := groups.crowdedBy(wire.GroupID, authoritiesOf(x, verified)); subject != "" {
		return c.fault(s, dps.CodeBadRequest, ReasonBadGroup, fmt.Sprintf("attestation.x509: %d CAs of other groups have the subject %s already, as many as may. Give the CAs names of their own.", MaxNamesakes, subject), nil)
	}
	return nil
}

// expectGroup turns If-Match into the group whose revision the write will compare; nil: there must be none.
func (c *Core) expectGroup(ctx context.Context, s *scope, id, ifMatch string) (*Group, error) {
	if ifMatch == "" {
		return nil, nil
	}
	before, err := c.store.Group(ctx, s.ID, id)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && !dps.MatchETag(ifMatch, dps.ETag(int64(before.Revision))):
		return nil, c.fault(s, dps.CodePreconditionFailed, ReasonEtag, "", nil)
	case err != nil:
		return nil, c.storeFault(s, "reading a group", err)
	}
	return &before, nil
}

// groupRow makes the row of a judged group, with what it takes over from the one it replaces; see settle.
func (c *Core) groupRow(s *scope, wire dps.EnrollmentGroup, before *Group) (row Group, keys symmetricKeys, err error) {
	now := c.now()
	row = Group{ID: wire.GroupID, Mechanism: Mechanism(wire.Attestation.Type), Disabled: wire.ProvisioningStatus == dps.EnrollmentDisabled, Created: now, Updated: now}
	if row.Mechanism == SymmetricKey {
		var was SealedKeys
		if before != nil {
			was = before.Keys
		}
		if row.Keys, keys, err = c.settleKeys(ContextGroupKey, s.ID, dps.FoldID(row.ID), wire.Attestation.SymmetricKey, was); err != nil {
			return Group{}, symmetricKeys{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
		}
	}
	if x := wire.Attestation.X509; x != nil && x.Signing != nil {
		signing := *x
		signing.Signing = kept(x.Signing, groupCertificates(before))
		if row.Certificates, err = c.judgeSigning(s, signing.Signing); err != nil {
			return Group{}, symmetricKeys{}, err
		}
		wire.Attestation.X509 = &signing
	}
	wire.ETag, wire.Created, wire.LastUpdated = "", time.Time{}, time.Time{}
	if row.Document, err = c.document(s, ReasonBadGroup, wire.EncodeShowing(dps.ShowCertificates)); err != nil {
		return Group{}, symmetricKeys{}, err
	}
	return row, keys, nil
}

func groupCertificates(before *Group) *dps.X509Attestation {
	if before == nil {
		return nil
	}
	wire, err := dps.DecodeGroup(before.ID, before.Document)
	if err != nil {
		return nil
	}
	return wire.Attestation.X509
}

// judgeSigning: a group needs the certificates themselves, as devices' are checked with their keys.
func (c *Core) judgeSigning(s *scope, pair *dps.CertificatePair) ([][32]byte, error) {
	refuse := func(problem string) error {
		return c.fault(s, dps.CodeBadRequest, ReasonBadGroup, "attestation.x509.signingCertificates: "+problem, nil)
	}
	for _, certificate := range pair.List() {
		if certificate.DER == nil {
			return nil, refuse("a certificate is missing; only its info was sent, and the group does not hold it")
		}
		if err := judgeCA(certificate.DER); err != nil {
			return nil, refuse(err.Error())
		}
	}
	return fingerprints(pair)
}

// wireGroup is the row as clients see it.
func (c *Core) wireGroup(s *scope, row Group) (dps.EnrollmentGroup, error) {
	wire, err := dps.DecodeGroup(row.ID, row.Document)
	if err != nil {
		return dps.EnrollmentGroup{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", fmt.Errorf("stored group %s: %w", row.ID, err))
	}
	wire.ETag, wire.Created, wire.LastUpdated = dps.ETag(int64(row.Revision)), row.Created, row.Updated
	return wire, nil
}

const noGroup = "EnrollmentGroup not found."

// groupNamed reads a group for whoever asks for it by name.
func (c *Core) groupNamed(ctx context.Context, s *scope, id string) (Group, error) {
	row, err := c.store.Group(ctx, s.ID, dps.FoldID(id))
	switch {
	case errors.Is(err, ErrNotFound):
		return Group{}, c.fault(s, dps.CodeGroupNotFound, ReasonGroupMissing, noGroup, nil)
	case err != nil:
		return Group{}, c.storeFault(s, "reading a group", err)
	}
	return row, nil
}

// Group reads one enrollment group.
func (c *Core) Group(ctx context.Context, by Caller, id string) (dps.EnrollmentGroup, error) {
	s, _ := c.scope(by.Scope)
	row, err := c.groupNamed(ctx, s, id)
	if err != nil {
		return dps.EnrollmentGroup{}, err
	}
	return c.wireGroup(s, row)
}

// GroupAttestation is EnrollmentAttestation for a group.
func (c *Core) GroupAttestation(ctx context.Context, by Caller, id string) (dps.Attestation, error) {
	s, _ := c.scope(by.Scope)
	row, err := c.groupNamed(ctx, s, id)
	if err != nil {
		return dps.Attestation{}, err
	}
	wire, err := c.wireGroup(s, row)
	if err != nil || row.Mechanism != SymmetricKey {
		return wire.Attestation, err
	}
	return c.reveal(ctx, s, by, ActionGroupReveal, dps.FoldID(id), wire.Attestation, ContextGroupKey, row.Keys)
}

// DeleteGroup removes a group. The registrations of its devices stay, and their hub keys unless the caller orders otherwise; they cannot register again.
func (c *Core) DeleteGroup(ctx context.Context, by Caller, id, ifMatch string) error {
	return c.remove(ctx, by, id, ifMatch, removal{
		read: func(ctx context.Context, scope, id string) (uint64, string, error) {
			row, err := c.store.Group(ctx, scope, id)
			if errors.Is(err, ErrNotFound) {
				return 0, "", nil
			}
			return row.Revision, changed(tellGroup(row), nil), err
		},
		write: c.store.DeleteGroup, action: ActionGroupDelete, missing: dps.CodeGroupNotFound, reason: ReasonGroupMissing, sentence: noGroup,
	})
}

// groupChange is the detail of a write: before is nil on create.
func groupChange(before *Group, row Group) string {
	if before == nil {
		return changed(nil, tellGroup(row))
	}
	after := tellGroup(row)
	after.KeysChanged = !row.Keys.same(before.Keys)
	return changed(tellGroup(*before), after)
}

// BulkGroups is Bulk for enrollment groups.
func (c *Core) BulkGroups(ctx context.Context, by Caller, bulk dps.BulkGroups) dps.BulkResult {
	var result dps.BulkResult
	for _, item := range bulk.Items {
		err := item.Err
		if err == nil {
			err = c.bulkOne(by, bulk.Mode, item.ETag, func() error { return c.DeleteGroup(ctx, by, item.GroupID, item.ETag) },
				func(match string) error { _, err := c.PutGroup(ctx, by, item.Group, match); return err })
		}
		if err != nil {
			result.Errors = append(result.Errors, bulkError(item.GroupID, err))
		}
	}
	return result
}
