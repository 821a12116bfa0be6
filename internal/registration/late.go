package registration

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"latchkey.example/latchkey/dps"
)

// allocateLate chooses the hub of an operation that has none, or ends it.
func (c *Core) allocateLate(ctx context.Context, scopeID string, o Operation, p plan) (Operation, plan, error) {
	s, device, current, err := c.stillCurrent(ctx, scopeID, o)
	if err != nil {
		return o, p, err
	}
	if !current {
		return superseded(o), p, nil
	}
	steering, err := c.steeringFor(ctx, s, device, o)
	if err != nil {
		return o, p, err
	}
	var none *unallocated
	switch err = c.chooseLate(ctx, s, device, steering, &o, &p); {
	case errors.As(err, &none):
		reason := ReasonNoHub
		if none.code == dps.CodeAllocationFailed {
			reason = ReasonAllocationFailed
		}
		o, err = c.fail(ctx, scopeID, o, none.code, reason, none.message)
		return o, p, err
	case err != nil:
		return o, p, err
	}
	return c.writeAllocation(ctx, scopeID, o, p)
}

// chooseLate gives the operation a hub, and its plan the way there. For good there is none if the error is an *unallocated.
func (c *Core) chooseLate(ctx context.Context, s *scope, device Device, steering steering, o *Operation, p *plan) error {
	last := device.Registration.Hub
	p.Custom = p.Custom && steering.policy == dps.AllocationCustom // as it is by now
	if !p.Custom {
		hub, why := c.choose(s, steering, p.Keep, o.RegistrationID, p.Address, last)
		if hub == "" {
			return &unallocated{dps.CodeNoHub, "There is no hub for this device: " + why + "."}
		}
		o.Hub = hub
		o.Substatus, p.Leaving = p.toward(device.Registration, hub)
		return nil
	}
	// At every registration: where the device must stay the webhook may choose its hub alone, and what it has for the device is passed on.
	hubs := customChoice(s, steering, p.Keep, last)
	if len(hubs) == 0 {
		return &unallocated{dps.CodeNoHub, "There is no hub for this device: none that its webhook could choose from is linked."}
	}
	request, url, err := c.customQuestion(ctx, s, device, *o, *p, hubs)
	if err != nil {
		return err
	}
	answer, err := c.askWebhook(ctx, s, o.ID, url, request)
	if err != nil {
		return err
	}
	o.Hub = answer.Hub
	o.Substatus, p.Leaving = p.toward(device.Registration, answer.Hub)
	if twin := answer.InitialTwin; twin != nil && (o.Substatus == substatusInitial || p.Reset && len(p.Leaving) > 0) {
		p.Start.Tags, p.Start.Desired = twin.Tags, twin.Desired
	}
	p.Returned = answer.Payload
	p.Custom, p.Payload, p.Address, p.Certificate = false, nil, "", nil // it is asked once
	return nil
}

// customQuestion is what the webhook is asked about a device.
func (c *Core) customQuestion(ctx context.Context, s *scope, device Device, o Operation, p plan, hubs []string) (request dps.AllocationRequest, url string, err error) {
	request = dps.AllocationRequest{LinkedHubs: hubs, Device: dps.DeviceRuntimeContext{RegistrationID: o.RegistrationID, Payload: p.Payload}}
	if r := device.Registration; r.Hub != "" {
		request.Device.CurrentHub, request.Device.CurrentDeviceID = r.Hub, r.DeviceID
	}
	switch o.Mechanism {
	case TPM:
		request.Device.TPM = &dps.TPMKeys{EndorsementKey: o.EK, StorageRootKey: o.SRK}
	case X509:
		certificate, err := x509.ParseCertificate(p.Certificate)
		if err != nil {
			return request, "", fmt.Errorf("the device's certificate in the plan: %w", err)
		}
		info := dps.InfoOf(certificate)
		request.Device.Certificate = &info
	}
	if o.Group == "" {
		entry, err := c.wireEnrollment(s, *device.Enrollment, nil, false)
		request.Enrollment = &entry
		return request, webhookOf(entry.CustomAllocation), err
	}
	row, err := c.store.Group(ctx, s.ID, dps.FoldID(o.Group))
	if err != nil {
		return request, "", err
	}
	entry, err := c.wireGroup(s, row)
	request.Group = &entry
	return request, webhookOf(entry.CustomAllocation), err
}

func webhookOf(custom *dps.CustomAllocation) string {
	if custom == nil {
		return ""
	}
	return custom.WebhookURL
}

// customChoice lists the hubs that a webhook may choose from: those that the entry names, or all that take part, as far as they are linked and take
// somebody new; where the device must stay, or there is no other, the one it has.
func customChoice(s *scope, steering steering, keep bool, last string) (hubs []string) {
	for _, hub := range s.hubs {
		named := len(steering.hubs) > 0 && slices.Contains(steering.hubs, hub.Name)
		switch {
		case keep && last != "":
			if hub.Name == last {
				return []string{last}
			}
		case len(steering.hubs) > 0 && !named, len(steering.hubs) == 0 && !hub.Allocate, hub.Draining && hub.Name != last:
		default:
			hubs = append(hubs, hub.Name)
		}
	}
	return hubs
}

// writeAllocation makes the choice durable. The work that is left may be another kind's from here on.
func (c *Core) writeAllocation(ctx context.Context, scopeID string, o Operation, p plan) (Operation, plan, error) {
	verdict, err := c.store.Allocate(ctx, scopeID, Allocated{OperationID: o.ID, RegistrationID: dps.FoldID(o.RegistrationID), Hub: o.Hub, DeviceID: o.DeviceID,
		Leaving: p.Leaving, Substatus: o.Substatus, Plan: p.encode(), Outbox: c.order(scopeID, o, p), At: c.now()})
	switch {
	case err != nil:
		return o, p, err
	case verdict == Applied:
		return o, p, nil
	case verdict == Taken:
		o.Hub = ""
		o, err = c.fail(ctx, scopeID, o, dps.CodeConflict, ReasonDeviceIDTaken, "The device id is in use by another registration. Ask the operator for another device id.")
		return o, p, err
	case verdict == Conflict: // somebody else did it, or has ended it
		if o, err = c.store.Operation(ctx, scopeID, o.ID); err == nil {
			p, err = decodePlan(o.Plan)
		}
		return o, p, err
	}
	return superseded(o), p, nil
}

// stillCurrent reads the device and says whether the operation is still the one that moves its registration.
func (c *Core) stillCurrent(ctx context.Context, scopeID string, o Operation) (*scope, Device, bool, error) {
	s, known := c.scope(scopeID)
	if !known {
		return nil, Device{}, false, errUnknownScope
	}
	device, err := c.store.Device(ctx, scopeID, dps.FoldID(o.RegistrationID))
	return s, device, err == nil && device.Registration != nil && device.Registration.OperationID == o.ID, err
}

var errNoEntry = errors.New("the entry that let the device in is gone")

// steeringFor is that of the entry that let a device in.
func (c *Core) steeringFor(ctx context.Context, s *scope, device Device, o Operation) (steering, error) {
	if o.Group == "" {
		if device.Enrollment == nil {
			return steering{}, errNoEntry
		}
		wire, err := dps.DecodeEnrollment(device.Enrollment.ID, device.Enrollment.Document)
		return steeringOf(wire), err
	}
	groups, err := c.groups(ctx, s, device.GroupsRevision)
	if err != nil {
		return steering{}, err
	}
	group := groups.byID[dps.FoldID(o.Group)]
	if group == nil {
		return steering{}, errNoEntry
	}
	return group.steering, nil
}
