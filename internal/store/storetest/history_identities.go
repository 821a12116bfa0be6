package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// someDevices have an identity now and then; differing by case alone they are different devices.
var someDevices = []string{"a", "A", "b", "c-1"}

// hubHere is the model's own, for drawing what is likely to be interesting.
func (h *History) hubHere() *hubDevices { return &h.players[0].Store.(*Model).hubDevices }

// deviceAtHub draws a device, mostly one that has an identity.
func (h *History) deviceAtHub(scope string) string {
	id := from(h, "device", someDevices)
	for range 4 {
		if _, known := h.hubHere().identities[at(scope, "hub", id)]; known {
			break
		}
		id = from(h, "another device", someDevices)
	}
	return id
}

// readBefore is what a caller has read: what is there now, mostly.
func (h *History) readBefore(now uint64) uint64 {
	if h.rarely(5, "stale") {
		return uint64(h.draw(6, "was"))
	}
	return now
}

// putIdentity replaces what is there as it was read, mostly; now and then for an owner that may have the hub or not.
func (h *History) putIdentity() call {
	scope, id := h.scope(), from(h, "id", someIDs)
	is := identity("hub", id, h.name(), uint64(h.draw(6, "generation")))
	is.Cutting, is.Disabled, is.IoTEdge = h.draw(2, "cutting") == 1, h.draw(3, "disabled") == 1, h.draw(3, "edge") == 1
	is.Created, is.Updated = h.now, h.now.Add(time.Second)
	if is.Disabled {
		is.StatusReason, is.StatusUpdated = "by "+h.name(), h.now
	}
	now := h.hubHere().identities[at(scope, "hub", id)]
	put, a := identityPut(is, now.Generation), h.audit()
	if h.draw(3, "newer") > 0 {
		put.Generation = max(put.Was, h.hubHere().left[at(scope, "hub", id)].generation) + 1
	}
	put.Was = h.readBefore(put.Was)
	if h.draw(3, "by version") == 0 {
		put.WasVersion = h.readBefore(now.Version)
	}
	put.Owner, put.Purge = h.hubNow(), h.draw(4, "purge") == 0
	if h.draw(3, "with a twin") == 0 {
		put.Twin = pointer(h.twin(scope, id))
	}
	return call{method: "PutIdentity", args: scope + " " + show(put) + show(a), run: func(p *player) string {
		return p.verdict(p.PutIdentity(h.ctx, scope, put, a))
	}}
}

// hubNow draws an owner that a write names, or none.
func (h *History) hubNow() *string {
	return from(h, "owner", []*string{nil, nil, nil, nil, pointer(h.players[0].Store.(*Model).hub.ID), pointer("one"), pointer("two")})
}

func (h *History) readIdentity() call { return h.showIdentity(h.scope(), from(h, "id", someIDs)) }

func (h *History) showIdentity(scope, id string) call {
	return call{method: "Identity", args: scope + " " + id, run: func(p *player) string {
		i, err := p.Identity(h.ctx, scope, "hub", id)
		if err != nil {
			return p.failed(err)
		}
		return show(i)
	}}
}

func (h *History) deleteIdentity() call {
	scope := h.scope()
	id, a := h.deviceAtHub(scope), h.audit()
	now := h.hubHere().identities[at(scope, "hub", id)]
	d := registration.IdentityDelete{Hub: "hub", DeviceID: id, Was: h.readBefore(now.Generation), At: h.now, Owner: h.hubNow()}
	d.Generation = d.Was + uint64(h.draw(3, "later"))
	if h.draw(3, "by version") == 0 {
		d.WasVersion = h.readBefore(now.Version)
	}
	return call{method: "DeleteIdentity", args: scope + " " + show(d) + show(a), run: func(p *player) string {
		return p.verdict(p.DeleteIdentity(h.ctx, scope, d, a))
	}}
}

func (h *History) listIdentities() call {
	return h.identities(h.scope(), from(h, "after", append([]string{""}, someIDs...)), h.limit())
}

func (h *History) identities(scope, after string, limit int) call {
	return call{method: "Identities", args: fmt.Sprintf("%s %q %d", scope, after, limit), run: func(p *player) string {
		page, err := p.Identities(h.ctx, scope, "hub", after, limit)
		return list(page, err, p, func(i registration.Identity) string { return show(i) })
	}}
}

func (h *History) readGeneration() call { return h.showGeneration(h.scope(), from(h, "id", someIDs)) }

func (h *History) showGeneration(scope, id string) call {
	return call{method: "IdentityGeneration", args: scope + " " + id, run: func(p *player) string {
		generation, err := p.IdentityGeneration(h.ctx, scope, "hub", id)
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprint(generation)
	}}
}

// twin draws what is written in the place of a twin as it was read, mostly.
func (h *History) twin(scope, id string) registration.TwinPut {
	part := func(what string) []byte { return fmt.Appendf(nil, `{%q:%q}`, what, h.name()) }
	return registration.TwinPut{Outbox: h.news(id), Was: h.readBefore(h.hubHere().twins[at(scope, "hub", id)].Version), Twin: registration.Twin{
		Hub: "hub", DeviceID: id, Tags: part("tag"), Desired: part("wish"), Reported: part("is"), DesiredMetadata: part("since"), ReportedMetadata: part("was"),
		DesiredVersion: uint64(h.draw(9, "desired")), ReportedVersion: uint64(h.draw(9, "reported")), Updated: h.now,
	}}
}

// news draws a row that tells of something new, or none.
func (h *History) news(id string) *registration.Outbox {
	if h.draw(2, "news") == 0 {
		return nil
	}
	return registration.DeviceNews("hub", id, h.name())
}

func (h *History) putTwin() call {
	scope := h.scope()
	put := h.twin(scope, h.deviceAtHub(scope))
	return call{method: "PutTwin", args: scope + " " + show(put), run: func(p *player) string { return p.verdict(p.PutTwin(h.ctx, scope, put)) }}
}

func (h *History) readTwin() call {
	scope := h.scope()
	return h.showTwin(scope, h.deviceAtHub(scope))
}

func (h *History) showTwin(scope, id string) call {
	return call{method: "Twin", args: scope + " " + id, run: func(p *player) string {
		t, err := p.Twin(h.ctx, scope, "hub", id)
		if err != nil {
			return p.failed(err)
		}
		return show(t)
	}}
}

// enqueueMessage: each expires at a time of its own, since the order of those that expire together is left to the stores.
func (h *History) enqueueMessage() call {
	scope := h.scope()
	m := registration.HubMessage{
		Hub: "hub", DeviceID: h.deviceAtHub(scope), ID: h.name(), CorrelationID: "about " + h.name(), UserID: "user", Ack: from(h, "ack", []string{"", "full"}),
		Properties: []byte("a=b"), Body: []byte("do " + h.name()), Enqueued: h.now, Expires: h.now.Add(time.Duration(1+h.draw(3, "minutes")) * time.Minute).Truncate(time.Minute).Add(time.Duration(h.steps) * time.Microsecond),
	}
	m.Outbox = h.news(m.DeviceID)
	if h.rarely(30, "too large") {
		m.Body = make([]byte, registration.MaxMessageBody+1)
	}
	most := from(h, "most", []int{1, 2, 3, 50})
	args := m
	args.Body = args.Body[:min(20, len(args.Body))]
	return call{method: "EnqueueMessage", args: fmt.Sprintf("%s %s %d", scope, show(args), most), run: func(p *player) string {
		seq, verdict, err := p.EnqueueMessage(h.ctx, scope, m, most)
		return fmt.Sprintf("%s %d", p.verdict(verdict, err), seq)
	}}
}

// waiting draws a message, mostly one that is there.
func (h *History) waiting(scope string) (id string, seq uint64) {
	id = h.deviceAtHub(scope)
	messages := h.hubHere().messages[at(scope, "hub", id)]
	if len(messages) == 0 || h.rarely(5, "no message") {
		return id, uint64(h.draw(5, "seq"))
	}
	return id, from(h, "message", messages).Seq
}

func (h *History) settleMessage() call {
	scope := h.scope()
	id, seq := h.waiting(scope)
	return call{method: "SettleMessage", args: fmt.Sprintf("%s %s %d", scope, id, seq), run: func(p *player) string {
		return p.verdict(p.SettleMessage(h.ctx, scope, "hub", id, seq))
	}}
}

func (h *History) deliveredMessage() call {
	scope := h.scope()
	id, seq := h.waiting(scope)
	return call{method: "DeliveredMessage", args: fmt.Sprintf("%s %s %d", scope, id, seq), run: func(p *player) string {
		return p.verdict(p.DeliveredMessage(h.ctx, scope, "hub", id, seq))
	}}
}

func (h *History) readMessages() call {
	scope := h.scope()
	id, seq := h.waiting(scope)
	return h.messages(scope, id, seq, h.limit())
}

func (h *History) messages(scope, id string, after uint64, limit int) call {
	return call{method: "Messages", args: fmt.Sprintf("%s %s after %d, %d", scope, id, after, limit), run: func(p *player) string {
		page, err := p.Messages(h.ctx, scope, "hub", id, after, limit)
		return list(page, err, p, func(m registration.HubMessage) string { return show(m) })
	}}
}

func (h *History) countMessages() call {
	scope := h.scope()
	id := h.deviceAtHub(scope)
	return call{method: "CountMessages", args: scope + " " + id, run: func(p *player) string {
		count, err := p.CountMessages(h.ctx, scope, "hub", id)
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprint(count)
	}}
}

func (h *History) readSession() call {
	scope := h.scope()
	id := h.deviceAtHub(scope)
	return call{method: "Session", args: scope + " " + id, run: func(p *player) string {
		listens, err := p.Session(h.ctx, scope, "hub", id)
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprint(listens)
	}}
}

func (h *History) putSession() call {
	scope, listens := h.scope(), uint32(h.draw(64, "listens"))
	id := h.deviceAtHub(scope)
	return call{method: "PutSession", args: fmt.Sprintf("%s %s %d", scope, id, listens), run: func(p *player) string {
		return p.verdict(p.PutSession(h.ctx, scope, "hub", id, listens))
	}}
}

func (h *History) expireMessages() call {
	before, limit := h.edge("expires", h.hubHere().expiries()), h.limit()
	return call{method: "ExpireMessages", args: fmt.Sprintf("%s, %d", show(before), limit), run: func(p *player) string {
		expired, err := p.ExpireMessages(h.ctx, before, limit)
		slices.SortFunc(expired, func(a, b registration.ExpiredMessage) int {
			return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.DeviceID, b.DeviceID), cmp.Compare(a.Seq, b.Seq))
		})
		return list(expired, err, p, func(m registration.ExpiredMessage) string { return show(m) })
	}}
}

func (h *History) hubLeftovers() call {
	return call{method: "HubLeftovers", run: func(p *player) string {
		left, err := p.HubLeftovers(h.ctx, 10)
		return list(left, err, p, func(l registration.HubLeftover) string { return show(l) })
	}}
}
