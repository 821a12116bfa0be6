package storetest

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// isOrder says whether the object of such work is a DeviceOrder.
func isOrder(kind registration.OutboxKind) bool {
	return kind == registration.OutboxDeviceOrder || kind == registration.OutboxDeviceOrderEmbedded
}

// renumbered is work whose object says the number of its generation, if it has one, otherwise.
func renumbered(work registration.Outbox, number func(uint64) uint64) registration.Outbox {
	if !isOrder(work.Kind) {
		return work
	}
	var order registration.DeviceOrder
	if err := json.Unmarshal([]byte(work.Object), &order); err != nil {
		return work // of this history's own making
	}
	order.Generation = number(order.Generation)
	object, err := json.Marshal(order)
	if err != nil {
		panic(err)
	}
	work.Object = string(object)
	return work
}

// work is what a player has where others have it with the names of revisions.
func (p *player) work(scope string, named registration.Outbox) registration.Outbox {
	return renumbered(named, p.revision(scope).number)
}

// workNamed is the way back.
func (p *player) workNamed(scope string, own registration.Outbox) registration.Outbox {
	return renumbered(own, func(real uint64) uint64 { return p.revision(scope).of[real] })
}

// tpm is an enrollment that a device can close, or another scope take over.
func (h *History) tpm(id string) registration.Enrollment {
	e := h.entry(id, h.name())
	e.Mechanism, e.Certificates = registration.TPM, nil
	return e
}

// uncertified says whether an id has an enrollment that may be replaced by a TPM's without looking at certificates.
func uncertified(d registration.Device) bool {
	return d.Enrollment != nil && len(d.Enrollment.Certificates) == 0
}

func (h *History) closeRegistration() call {
	scope := h.scope()
	id := h.id(scope, uncertified)
	d, e := h.model(scope, id), h.tpm(id)
	e.Disabled, e.Revision = true, h.enrollmentName(scope, id)
	c := registration.Closing{ID: id, Generation: d.Generation, Enrollment: e, TokenDigest: sha256.Sum256([]byte(h.name())), Audit: h.audit()}
	if d.Registration != nil {
		c.RegistrationBefore = h.named(scope, d.Registration.Revision)
	}
	if h.draw(3, "others at work") == 0 {
		c.After = []string{"before-1", "before-2"}
	}
	switch h.draw(12, "stale") {
	case 0:
		c.Enrollment.Revision++
	case 1:
		c.RegistrationBefore++
	case 2:
		c.Enrollment.Disabled = false // would let the device in again
	case 3:
		c.Generation++
	}
	if !uncertified(d) {
		c.Generation++
	}
	return call{"CloseRegistration", scope + " " + show(c), func(p *player) string {
		own, n := c, p.revision(scope)
		own.Enrollment.Revision, own.RegistrationBefore = n.number(c.Enrollment.Revision), n.number(c.RegistrationBefore)
		revision, verdict, err := p.CloseRegistration(h.ctx, scope, own)
		return p.verdict(verdict, err) + " r" + n.name(revision)
	}, []key{{scope, id}}}
}

func (h *History) readClosure() call { return h.closure(h.scope(), from(h, "id", someIDs)) }

func (h *History) closure(scope, id string) call {
	return call{method: "Closure", args: scope + " " + id, run: func(p *player) string {
		closure, err := p.Closure(h.ctx, scope, id)
		if err != nil {
			return p.failed(err)
		}
		return show(closure)
	}}
}

func (h *History) putOffer() call {
	scope := h.scope()
	id := h.id(scope, uncertified)
	o := registration.Offer{ID: id, Target: from(h, "target", []string{h.scope(), h.scopes[len(h.scopes)-1], h.scopes[0]}), Code: sha256.Sum256([]byte(h.name())), EKKeyID: sha256.Sum256([]byte("another")),
		Keys: sha256.Sum256([]byte("keys " + h.name())), Enrolled: epoch, Policy: "policy " + h.name(), Created: h.now}
	if e := h.model(scope, id).Enrollment; e != nil && !h.rarely(4, "another EK") {
		o.EKKeyID = e.EKKeyID
	}
	o.Expires = h.now.Add(from(h, "span", []time.Duration{time.Minute, 20 * time.Minute, 10 * time.Hour, 10 * time.Hour, 0}))
	revision := h.enrollmentName(scope, id) + uint64(h.draw(5, "stale")/4)
	a := h.audit()
	return call{method: "PutOffer", args: fmt.Sprintf("%s %s %d %s", scope, show(o), revision, show(a)), run: func(p *player) string {
		return p.verdict(p.PutOffer(h.ctx, scope, o, p.revision(scope).number(revision), a))
	}}
}

// offer draws one that is there, mostly.
func (h *History) offer() (source string, o registration.Offer) {
	offers := h.players[0].Store.(*Model).offers
	var keys []key
	for k := range offers {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.scope, b.scope), cmp.Compare(a.id, b.id)) })
	if len(keys) == 0 || h.rarely(6, "no offer") {
		return h.scope(), registration.Offer{ID: from(h, "id", someIDs), Target: "nowhere"}
	}
	k := from(h, "offer", keys)
	return k.scope, offers[k]
}

func (h *History) deleteOffer() call {
	scope, o := h.offer()
	a := h.audit()
	return call{method: "DeleteOffer", args: fmt.Sprintf("%s %s %s", scope, o.ID, show(a)), run: func(p *player) string {
		return p.verdict(p.DeleteOffer(h.ctx, scope, o.ID, a))
	}}
}

func (h *History) listOffers() call { return h.offersOf(h.scope(), h.after(), h.limit()) }

func (h *History) offersOf(scope, after string, limit int) call {
	return call{method: "Offers", args: fmt.Sprintf("%s after %q, %d", scope, after, limit), run: func(p *player) string {
		page, err := p.Offers(h.ctx, scope, after, limit)
		return list(page, err, p, func(o registration.Offer) string { return show(o) })
	}}
}

func (h *History) readOffered() call {
	_, o := h.offer()
	return call{method: "Offered", args: fmt.Sprintf("%s %x", o.Target, o.Code), run: func(p *player) string {
		found, err := p.Offered(h.ctx, o.Target, o.Code)
		if err != nil {
			return p.failed(err)
		}
		return found.Source + " " + show(found.Offer) + " " + p.device(found.Source, found.Device)
	}}
}

func (h *History) acceptOffer() call {
	source, o := h.offer()
	d, target := h.model(source, o.ID), o.Target
	id := o.ID
	if h.rarely(3, "another id") {
		id = h.id(target, enrolled)
	}
	a := registration.Acceptance{Source: source, ID: o.ID, Code: o.Code, Enrollment: h.tpm(id), SourceAudit: h.audit(), Audit: h.audit()}
	a.SourceAudit.TrackingID += " left"
	a.EnrollmentBefore = h.enrollmentName(source, o.ID) + uint64(h.draw(6, "stale")/5)
	if d.Enrollment != nil {
		a.Enrollment.EKKeyID = d.Enrollment.EKKeyID
	}
	if d.Registration != nil {
		a.RegistrationBefore = h.named(source, d.Registration.Revision)
	}
	if !uncertified(d) || h.rarely(8, "another code") { // of a TPM's enrollment there are none
		a.Code[0]++
	}
	return call{"AcceptOffer", target + " " + show(a), func(p *player) string {
		own, n := a, p.revision(source)
		own.EnrollmentBefore, own.RegistrationBefore = n.number(a.EnrollmentBefore), n.number(a.RegistrationBefore)
		accepted, verdict, err := p.AcceptOffer(h.ctx, target, own)
		return p.verdict(verdict, err) + " " + p.enrollment(target, accepted.Enrollment) + " left r" + n.name(accepted.Left)
	}, []key{{source, o.ID}, {target, a.Enrollment.ID}}}
}
