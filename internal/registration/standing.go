package registration

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"latchkey.example/latchkey/dps"
)

// standing says what became of an operation since its proof: ReasonNone if it may still end in an assignment. Whatever the operator has
// changed about the entry that let the device in counts at once: who could not prove himself again now is not assigned.
func (c *Core) standing(ctx context.Context, s *scope, device Device, o Operation) (Reason, error) {
	if device.Registration == nil || device.Registration.OperationID != o.ID {
		if o.Group == "" && (device.Enrollment == nil || device.Enrollment.Disabled) {
			return ReasonDisabled, nil
		}
		return ReasonSuperseded, nil
	}
	if o.Group != "" {
		return c.groupStanding(ctx, s, device, o)
	}
	switch enrollment := device.Enrollment; {
	case enrollment == nil || enrollment.Disabled:
		return ReasonDisabled, nil
	case enrollment.Mechanism != o.Mechanism:
		return ReasonSuperseded, nil
	case o.Mechanism == X509:
		return supersededUnless(slices.Contains(enrollment.Certificates, o.TokenDigest)), nil
	case o.Mechanism == SymmetricKey:
		return c.keyStanding(s, o, func() (symmetricKeys, error) {
			return c.openKeys(ContextEnrollmentKey, s.ID, dps.FoldID(enrollment.ID), enrollment.Keys)
		})
	case enrollment.PinnedSRK != nil && !bytes.Equal(enrollment.PinnedSRK, o.SRK):
		return ReasonPinnedSRK, nil
	case device.Registration.EKKeyID != enrollment.EKKeyID: // the operator replaced the chip: the one that proved itself is not wanted any more
		return ReasonSuperseded, nil
	}
	return ReasonNone, nil
}

// unlessFallen gives the operation unless the operator has changed the entry that it rests on: then what proved it is judged anew.
func (c *Core) unlessFallen(ctx context.Context, s *scope, device Device, o *Operation) (*Operation, error) {
	standing, err := c.standing(ctx, s, device, *o)
	if err != nil || standing != ReasonNone {
		return nil, err
	}
	return o, nil
}

func supersededUnless(good bool) Reason {
	if good {
		return ReasonNone
	}
	return ReasonSuperseded
}

// groupStanding: the group must still be there, and its key still be the one that the device's was derived from. The chain that a
// certificate was judged by is not kept; a group whose CAs changed since the proof is as good as another.
func (c *Core) groupStanding(ctx context.Context, s *scope, device Device, o Operation) (Reason, error) {
	groups, err := c.groups(ctx, s, device.GroupsRevision)
	if err != nil {
		return 0, c.storeFault(s, "reading the groups", err)
	}
	group := groups.byID[dps.FoldID(o.Group)]
	switch {
	case device.Enrollment != nil: // its own entry decides from now on
		return ReasonSuperseded, nil
	case group == nil || group.Disabled:
		return ReasonDisabled, nil
	case group.Mechanism != o.Mechanism, o.Mechanism == X509 && group.Revision > o.Revision: // not by their times: clocks of nodes differ
		return ReasonSuperseded, nil
	case o.Mechanism == SymmetricKey:
		return c.keyStanding(s, o, func() (symmetricKeys, error) { return group.keys.derive(o.RegistrationID), nil })
	}
	return ReasonNone, nil
}

// keyStanding compares the key that proved an operation with those that count now.
func (c *Core) keyStanding(s *scope, o Operation, now func() (symmetricKeys, error)) (Reason, error) {
	current, err := now()
	if err != nil {
		return 0, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	key, err := c.sealer.Open(ContextChallengeKey(s.ID, o.ID), o.SealedKey)
	if err != nil {
		return 0, c.fault(s, dps.CodeInternal, ReasonInternal, "", fmt.Errorf("opening an operation's key: %w", err))
	}
	return supersededUnless(current.holds(key)), nil
}
