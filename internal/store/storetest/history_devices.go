package storetest

import (
	"fmt"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// look shows all that is known of an id.
func (h *History) look(scope, id string) call {
	return call{method: "Device", args: scope + " " + id, run: func(p *player) string {
		d, err := p.Device(h.ctx, scope, id)
		if err != nil {
			return p.failed(err)
		}
		return p.device(scope, d)
	}}
}

func (h *History) readDevice() call { return h.look(h.scope(), from(h, "id", someIDs)) }

// inNames turns the model's numbers in a redemption into names.
func (h *History) inNames(scope string, r registration.Redemption) registration.Redemption {
	r.EnrollmentRevision, r.RegistrationBefore = h.named(scope, r.EnrollmentRevision), h.named(scope, r.RegistrationBefore)
	r.GroupsRevision = h.named(scope, r.GroupsRevision)
	return r
}

// in turns the names in a redemption into a player's numbers.
func (p *player) in(scope string, r registration.Redemption) registration.Redemption {
	n := p.revision(scope)
	r.EnrollmentRevision, r.RegistrationBefore, r.GroupsRevision = n.number(r.EnrollmentRevision), n.number(r.RegistrationBefore), n.number(r.GroupsRevision)
	return r
}

func (h *History) redeem() call {
	scope := h.scope()
	return h.redeemed(scope, h.id(scope, enrolled), "")
}

// redeemInGroup is the proof of a device that a group lets in, if it has no enrollment of its own.
func (h *History) redeemInGroup() call {
	scope := h.scope()
	return h.redeemed(scope, h.id(scope, unenrolled), from(h, "group", someGroups))
}

func (h *History) redeemed(scope, id, group string) call {
	op := h.name()
	if h.rarely(30, "operation id again") && len(h.ops) > 0 {
		op = from(h, "operation", h.ops)
	}
	d := h.model(scope, id)
	r := redemption(id, d, op, h.now)
	r.Audit = h.audit()
	r.Registration.Group, r.Operation.Group = group, group
	if group != "" {
		r.GroupsRevision = d.GroupsRevision
	}
	if h.draw(2, "remote") == 1 {
		r.Outbox = &registration.Outbox{Kind: from(h, "kind", advances), Object: op}
	}
	h.at(&r.Registration.Hub, &r.Registration.DeviceID)
	if h.draw(3, "allocated later") == 0 {
		r.Operation.Hub = ""
	}
	r = h.inNames(scope, r)
	switch h.draw(12, "stale") {
	case 0:
		r.EnrollmentRevision, r.GroupsRevision = r.EnrollmentRevision+1, r.GroupsRevision+1
	case 1:
		r.RegistrationBefore++
	case 2:
		r.Generation, r.Operation.Generation = r.Generation+1, r.Operation.Generation+1
	case 3:
		r.Operation.Generation++ // contradicts itself
	}
	h.ops = append(h.ops, op)
	return call{"Redeem", scope + " " + show(r), func(p *player) string {
		revision, verdict, err := p.Redeem(h.ctx, scope, p.in(scope, r))
		return p.verdict(verdict, err) + " r" + p.revision(scope).name(revision)
	}, []key{{scope, id}}}
}

func (h *History) refuse() call {
	scope, id := h.scope(), from(h, "id", someIDs)
	r := registration.Refused{ID: id, Generation: h.model(scope, id).Generation + uint64(h.draw(4, "stale")/3), Audit: h.audit()}
	return call{"Refuse", scope + " " + show(r), func(p *player) string { return p.verdict(p.Refuse(h.ctx, scope, r)) }, []key{{scope, id}}}
}

func (h *History) finish() call {
	scope := h.scope()
	id := from(h, "id", someIDs)
	if h.draw(3, "settled") > 0 {
		id = h.id(scope, assigning)
	}
	operation := "none"
	if r := h.model(scope, id).Registration; r != nil && !h.rarely(8, "another operation") {
		operation = r.OperationID
	} else if len(h.ops) > 0 {
		operation = from(h, "operation", h.ops)
	}
	status := from(h, "status", []registration.Status{registration.Assigned, registration.Assigned, registration.Failed, registration.Assigned, registration.Assigning})
	f := finish(id, operation, status, h.now)
	f.Audit = h.audit()
	h.at(&f.Hub, &f.DeviceID)
	return call{"Finish", scope + " " + show(f), func(p *player) string { return p.verdict(p.Finish(h.ctx, scope, f)) }, []key{{scope, id}}}
}

// moving draws an operation that is likely to be one that can move on, and its id.
func (h *History) moving(scope string) (id, operation string) {
	id = h.id(scope, assigning)
	if r := h.model(scope, id).Registration; r != nil && !h.rarely(8, "another operation") {
		return id, r.OperationID
	}
	if len(h.ops) == 0 {
		return id, "none"
	}
	return id, from(h, "operation", h.ops)
}

func (h *History) allocate() call {
	scope := h.scope()
	id, operation := h.moving(scope)
	a := allocation(id, operation, h.now)
	h.at(&a.Hub, &a.DeviceID)
	if h.draw(2, "ordered") == 1 {
		a.Outbox = &registration.Outbox{Kind: from(h, "kind", advances), Object: operation}
	}
	return call{"Allocate", scope + " " + show(a), func(p *player) string { return p.verdict(p.Allocate(h.ctx, scope, a)) }, []key{{scope, id}}}
}

func (h *History) saveMove() call {
	scope := h.scope()
	id, operation := h.moving(scope)
	m := savedMove(id, operation, h.now)
	return call{"SaveMove", scope + " " + show(m), func(p *player) string { return p.verdict(p.SaveMove(h.ctx, scope, m)) }, []key{{scope, id}}}
}

func (h *History) readOperation() call {
	scope, operation := h.scope(), "none"
	if len(h.ops) > 0 {
		operation = from(h, "operation", h.ops)
	}
	return h.showOperation(scope, operation)
}

func (h *History) showOperation(scope, id string) call {
	return call{method: "Operation", args: scope + " " + id, run: func(p *player) string {
		o, err := p.Operation(h.ctx, scope, id)
		if err != nil {
			return p.failed(err)
		}
		return p.operation(scope, o)
	}}
}

func (h *History) unfinished() call {
	return h.unfinishedBefore(h.then("created"), h.limit())
}

// unfinishedBefore reads the list to its end.
func (h *History) unfinishedBefore(created time.Time, limit int) call {
	return call{method: "Unfinished", args: fmt.Sprintf("%s, %d at a time", show(created), limit), run: func(p *player) string {
		all, err := unfinishedPages(h.ctx, p, created, limit)
		return list(all, err, p, func(u registration.Unfinished) string { return u.Scope + " " + p.operation(u.Scope, u.Operation) })
	}}
}

func (h *History) prune() call {
	model := h.players[0].Store.(*Model)
	operations, idle, limit := h.edge("created", model.created()), h.edge("idle", model.idle()), h.limit()
	return call{method: "Prune", args: fmt.Sprintf("%s, %s, %d", show(operations), show(idle), limit), run: func(p *player) string {
		n, err := p.Prune(h.ctx, operations, idle, limit)
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprintf("%d removed", n)
	}}
}

func (h *History) remember() call {
	scope, id, srk := h.scope(), from(h, "id", someIDs), fmt.Sprintf("srk %d", h.draw(registration.MaxOwners+3, "srk"))
	at := h.now
	return call{method: "RememberOwner", args: fmt.Sprintf("%s %s %q %s", scope, id, srk, show(at)), run: func(p *player) string {
		if err := p.RememberOwner(h.ctx, scope, id, []byte(srk), at); err != nil {
			return p.failed(err)
		}
		return h.owners(scope, id, time.Time{}).run(p)
	}}
}

func (h *History) readOwners() call {
	return h.owners(h.scope(), from(h, "id", someIDs), h.then("since"))
}

func (h *History) owners(scope, id string, since time.Time) call {
	return call{method: "Owners", args: scope + " " + id + " " + show(since), run: func(p *player) string {
		srks, err := p.Owners(h.ctx, scope, id, since)
		return list(srks, err, p, func(srk []byte) string { return string(srk) })
	}}
}

func (h *History) deleteRegistration() call {
	scope, id := h.scope(), from(h, "id", someIDs)
	var current uint64
	if r := h.model(scope, id).Registration; r != nil {
		current = h.named(scope, r.Revision)
	}
	expect, a := h.expect(current), h.audit()
	return call{"DeleteRegistration", fmt.Sprintf("%s %s %s %s", scope, id, expect, show(a)), func(p *player) string {
		return p.verdict(p.DeleteRegistration(h.ctx, scope, id, expect.of(p, scope), a, ""))
	}, []key{{scope, id}}}
}
