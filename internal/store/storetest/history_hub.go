package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

var someOwners = []string{"", "one", "two"}

func (h *History) readHubOwner() call {
	return call{method: "HubOwner", run: func(p *player) string {
		owner, err := p.HubOwner(h.ctx)
		if err != nil {
			return p.failed(err)
		}
		return show(owner)
	}}
}

// moveHub draws an owner as seen, now and then an old one, and who is next.
func (h *History) moveHub() call {
	has, err := h.players[0].Store.HubOwner(h.ctx)
	if err != nil {
		panic(err)
	}
	if h.rarely(4, "stale") {
		has.ID, has.Beat = from(h, "from", someOwners), uint64(h.draw(4, "seen"))
	}
	to := hubOwner(from(h, "to", someOwners), uint64(h.draw(4, "beat")))
	return call{method: "MoveHub", args: show(has) + show(to), run: func(p *player) string { return p.verdict(p.MoveHub(h.ctx, has, to)) }}
}

// spans of leases and postponements: one that has run out when it is given, and one that outlives every history. Stores keep them by their own clock.
var spans = []time.Duration{shortLease, shortLease, longLease}

// claimOutbox takes all rows that are due, which has no order: rows that are claimed together are due again together.
func (h *History) claimOutbox() call {
	claim := registration.OutboxClaim{ID: h.name(), Kind: from(h, "kind", append([]registration.OutboxKind{registration.OutboxDevice, registration.OutboxDeviceOrder, registration.OutboxDeviceOrderEmbedded}, advances...)), Lease: from(h, "lease", spans), Limit: 10_000}
	if h.rarely(5, "another kind") {
		claim.Kind = "another"
	}
	h.claims = append(h.claims, claim.ID)
	return call{method: "ClaimOutbox", args: show(claim), run: func(p *player) string {
		rows, err := p.ClaimOutbox(h.ctx, claim)
		for i, r := range rows {
			rows[i].Outbox = p.workNamed(r.Scope, r.Outbox)
		}
		slices.SortFunc(rows, byObject)
		return list(rows, err, p, func(r registration.OutboxRow) string {
			if r.Age < 0 || r.Age > time.Hour {
				return "a row of this history is " + r.Age.String() + " old"
			}
			r.Age = 0
			return show(r)
		})
	}}
}

// ending draws a row that may be there, and a claim that may have it.
func (h *History) ending() (scope string, work registration.Outbox, claim string) {
	scope, work = h.scope(), *advance("none")
	var rows []outboxKey
	for k := range h.players[0].Store.(*Model).outbox {
		if k.scope == scope {
			rows = append(rows, k)
		}
	}
	slices.SortFunc(rows, func(a, b outboxKey) int { return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Kind, b.Kind)) })
	if len(rows) > 0 && !h.rarely(6, "no row") {
		k := from(h, "row", rows)
		work, claim = h.players[0].workNamed(scope, k.Outbox), h.players[0].Store.(*Model).outbox[k].claim
	}
	if len(h.claims) > 0 && h.rarely(4, "another claim") {
		claim = from(h, "claim", h.claims)
	}
	return scope, work, claim
}

func (h *History) settleOutbox() call {
	scope, work, claim := h.ending()
	return call{method: "SettleOutbox", args: fmt.Sprintf("%s %s %q", scope, show(work), claim), run: func(p *player) string {
		return p.verdict(p.SettleOutbox(h.ctx, scope, p.work(scope, work), claim))
	}}
}

func (h *History) postponeOutbox() call {
	scope, work, claim := h.ending()
	by, why := from(h, "by", spans), "why "+h.name()
	return call{method: "PostponeOutbox", args: fmt.Sprintf("%s %s %q %s %q", scope, show(work), claim, by, why), run: func(p *player) string {
		return p.verdict(p.PostponeOutbox(h.ctx, scope, p.work(scope, work), claim, by, why))
	}}
}

func (h *History) passOutbox() call {
	scope, work, claim := h.ending()
	next := []registration.Outbox{{Kind: from(h, "kind", advances), Object: h.name()}, {Kind: from(h, "kind", advances), Object: from(h, "object", []string{"shared", "common"})}}
	if isOrder(work.Kind) && h.draw(2, "to the embedded hub") == 1 {
		next = append(next, registration.Outbox{Kind: registration.OutboxDeviceOrderEmbedded, Object: work.Object})
	}
	return call{method: "PassOutbox", args: fmt.Sprintf("%s %s %q %s", scope, show(work), claim, show(next)), run: func(p *player) string {
		own := slices.Clone(next)
		for i := range own {
			own[i] = p.work(scope, own[i])
		}
		return p.verdict(p.PassOutbox(h.ctx, scope, p.work(scope, work), claim, own))
	}}
}

func (h *History) outboxClaimed() call {
	scope, work, _ := h.ending()
	return call{method: "OutboxClaimed", args: fmt.Sprintf("%s %s", scope, show(work)), run: func(p *player) string {
		claimed, err := p.OutboxClaimed(h.ctx, scope, p.work(scope, work))
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprint(claimed)
	}}
}

func (h *History) outboxBacklog() call {
	return call{method: "OutboxBacklog", run: func(p *player) string {
		backlog, err := p.OutboxBacklog(h.ctx)
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprintf("%d wait", backlog.Waiting)
	}}
}
