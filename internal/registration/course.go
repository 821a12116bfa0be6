package registration

import (
	"net/netip"
	"time"

	"latchkey.example/latchkey/dps"
)

// Substatus of an assigned registration, spelled as on the wire.
const (
	substatusInitial  = "initialAssignment"  // the first assignment to any hub
	substatusMigrated = "deviceDataMigrated" // it has another hub, and there what it had before
	substatusReset    = "deviceDataReset"    // it has what its entry says
)

// course is what a redemption decides about hubs.
type course struct {
	hub       string // empty: chosen, or found to be none, when the operation is advanced
	substatus string // of the operation; a move may end in another
	plan      plan
}

// course looks at the entry that lets the device in, at where it is and at the hubs that are linked.
func (c *Core) course(s *scope, r Request, p proof) (course, error) {
	steering, err := p.steering()
	if err != nil {
		return course{}, err
	}
	before, last := p.device.Registration, ""
	if before != nil {
		last = before.Hub
	}
	way := course{plan: plan{After: afterFor(p.device), Start: starting{steering.start.Tags, steering.start.Desired, steering.start.IoTEdge}}}
	if last != "" {
		way.plan.Keep, way.plan.Reset = steering.keepsHub(r.APIVersion), steering.resets()
	}
	if steering.policy == dps.AllocationCustom {
		way.plan.Custom, way.plan.Payload, way.plan.Address = true, r.Body.Payload, r.Address
		if p.mechanism == X509 {
			way.plan.Certificate = r.Certificates[0].Raw
		}
		return way, nil
	}
	if way.hub, _ = c.choose(s, steering, way.plan.Keep, r.ID, r.Address, last); way.hub != "" {
		way.substatus, way.plan.Leaving = way.plan.toward(before, way.hub)
	} else {
		way.plan.Address = r.Address
	}
	return way, nil
}

// steering is that of the entry that lets the device in.
func (p *proof) steering() (steering, error) {
	if p.group != nil {
		return p.group.steering, nil
	}
	wire, err := dps.DecodeEnrollment(p.enrollment.ID, p.enrollment.Document)
	return steeringOf(wire), err
}

// choose chooses the hub of a device that has the last one, or none; empty if there is none, and then why, in public words.
func (c *Core) choose(s *scope, steering steering, keep bool, id, address, last string) (hub, why string) {
	if keep && last != "" {
		if _, linked := s.hubNamed(last); !linked {
			return "", "the device stays at its hub, as its entry or its api-version has it, and that hub is not linked any more"
		}
		return last, ""
	}
	chosen := allocate(s.hubs, s.Allocation, placement{scope: s.ID, id: id, address: addressOf(address), policy: steering.policy, named: steering.hubs,
		current: last, measured: func(hub string) (time.Duration, bool) { return c.watch.Latency(s.ID, hub) }})
	return chosen.hub, chosen.why
}

// addressOf reads the address of a peer, with a port or without; nowhere if it is none.
func addressOf(peer string) netip.Addr {
	if with, err := netip.ParseAddrPort(peer); err == nil {
		return with.Addr()
	}
	bare, _ := netip.ParseAddr(peer)
	return bare
}

// toward says what the way of a registration to a hub is, as far as that can be said before it is gone.
func (p *plan) toward(before *Registration, hub string) (substatus string, leaving []string) {
	leaving = leavingFor(before, hub)
	switch {
	case before == nil || before.Hub == "" && len(leaving) == 0:
		return substatusInitial, nil
	case p.Reset:
		return substatusReset, leaving
	case len(leaving) > 0:
		return substatusMigrated, leaving
	}
	return before.Substatus, nil
}

// settle puts into the next registration where it goes. As long as that is not known it keeps what it has.
func (w *course) settle(next *Registration, before *Registration) {
	if w.hub != "" {
		next.Hub, next.Leaving = w.hub, w.plan.Leaving
		return
	}
	if before != nil {
		next.Hub, next.Leaving = before.Hub, before.Leaving
	}
	if next.Hub == "" { // without a hub its device id is nobody's: the id, which no other registration has, stands in
		next.DeviceID = dps.FoldID(next.ID)
	}
}

// reaches says which hubs advancing an operation calls: embedded ones, such over the network (as a webhook is), and whether all of the embedded ones are served here.
func (c *Core) reaches(scopeID string, o Operation, p plan) (embedded, remote, all bool) {
	all = true
	for _, hub := range append([]string{o.Hub}, p.Leaving...) {
		if hub == "" {
			remote = remote || p.Custom
			continue
		}
		switch c.hub.Reach(scopeID, hub) {
		case Remote:
			remote = true
		case Here:
			embedded = true
		default:
			embedded, all = true, false
		}
	}
	return embedded, remote, all
}

// order is the work that a redemption leaves to the outbox; nil: none. Where a hub is another process's, a call from here may not be able to do all of
// it, and where it is far away a request does not wait for it. Where all of it is done here, a crash is repaired by the sweep.
func (c *Core) order(scopeID string, o Operation, p plan) *Outbox {
	embedded, remote, all := c.reaches(scopeID, o, p)
	switch {
	case !remote && all && !p.Awaits:
		return nil
	case embedded, !remote:
		return &Outbox{Kind: OutboxAdvance, Object: o.ID}
	}
	return &Outbox{Kind: OutboxAdvanceRemote, Object: o.ID}
}
