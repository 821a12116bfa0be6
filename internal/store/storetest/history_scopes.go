package storetest

import (
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// tenants are the scopes as the model has them.
func (h *History) tenants() []registration.Scope {
	scopes, err := h.players[0].Store.Scopes(h.ctx)
	if err != nil {
		panic(err)
	}
	return scopes
}

// createScope makes the home scope first, and then others: of a new id mostly, else of one that is or was there, but for case perhaps.
func (h *History) createScope() call {
	home := len(h.scopes) == 0
	scope := registration.Scope{ID: fmt.Sprintf("scope-%d", h.steps), SealedRoot: []byte("root " + h.name()), Created: h.now, Home: home}
	if !home && h.rarely(4, "id again") {
		scope.ID = from(h, "id", append([]string{"SCOPE-0"}, h.scopes...))
	}
	for range h.draw(2, "hosts") {
		scope.Hosts = append(scope.Hosts, from(h, "host", someHosts))
	}
	scope.Hosts = append(scope.Hosts, h.name()+".example")
	if h.draw(2, "certificate") == 1 {
		scope.Certificate, scope.SealedCertificateKey = []byte("chain "+h.name()), []byte("chain key "+h.name())
	}
	for _, name := range []string{"owner", "reader"} {
		scope.Policies = append(scope.Policies, h.policy(name, registration.AllRights))
	}
	if !slices.Contains(h.scopes, scope.ID) {
		h.scopes = append(h.scopes, scope.ID)
	}
	a := h.audit()
	return call{method: "CreateScope", args: show(scope) + show(a), run: func(p *player) string {
		given := scope
		given.Hosts = slices.Clone(scope.Hosts)
		return p.verdict(p.CreateScope(h.ctx, given, a))
	}}
}

func (h *History) policy(name string, rights registration.Right) registration.AccessPolicy {
	return registration.AccessPolicy{Name: name, Rights: rights, SealedPrimary: []byte("p " + name + h.name()), SealedSecondary: []byte("s " + name + h.name())}
}

func (h *History) deleteScope() call {
	id, a := h.scope(), h.audit()
	return call{method: "DeleteScope", args: id + " " + show(a), run: func(p *player) string {
		verdict, err := p.DeleteScope(h.ctx, id, a)
		if verdict == registration.Applied && err == nil {
			h.gone[dps.FoldID(id)] = deletedScope{id: id, at: a.At}
		}
		return p.verdict(verdict, err)
	}}
}

func (h *History) readScopes() call {
	return call{method: "Scopes", run: func(p *player) string {
		scopes, err := p.Scopes(h.ctx)
		return list(scopes, err, p, p.scope)
	}}
}

// followScopes does as a node does: it reads the scopes again if their revision has moved, and only then.
func (h *History) followScopes() call {
	return call{method: "ScopesRevision", run: func(p *player) string {
		revision, err := p.ScopesRevision(h.ctx)
		if err != nil {
			return p.failed(err)
		}
		scopes, err := p.Scopes(h.ctx)
		is := list(scopes, err, p, p.scope)
		before, moved := p.scopes, revision != p.moved
		p.scopes, p.moved = is, revision
		if is != before && !moved {
			return "the scopes are others, and their revision has not moved"
		}
		return "as the scopes are"
	}}
}

// pruneScopes calls it until nothing is left. Of a scope that was emptied nobody remembers the revisions.
func (h *History) pruneScopes() call {
	settled, limit := h.then("settled"), h.limit()
	var emptied []string
	for folded, d := range h.gone {
		if !d.done {
			emptied = append(emptied, d.id)
			d.done = d.at.Before(settled)
			h.gone[folded] = d
		}
	}
	return call{method: "PruneScopes", args: fmt.Sprintf("%s, %d at a time", show(settled), limit), run: func(p *player) string {
		for _, id := range emptied {
			delete(p.revisions, id)
		}
		for {
			n, err := p.PruneScopes(h.ctx, settled, limit)
			switch {
			case err != nil:
				return p.failed(err)
			case n > limit:
				return fmt.Sprintf("%d rows for a limit of %d", n, limit)
			case n == 0:
				return "nothing left"
			}
		}
	}}
}

func (h *History) putScopeCertificate() call {
	id, a := h.scope(), h.audit()
	chain, key := []byte("new chain "+h.name()), []byte("new chain key "+h.name())
	return call{method: "PutScopeCertificate", args: fmt.Sprintf("%s %q %q %s", id, chain, key, show(a)), run: func(p *player) string {
		return p.verdict(p.PutScopeCertificate(h.ctx, id, chain, key, a))
	}}
}

// stored are the access policies of a scope.
func (h *History) stored(id string) []registration.AccessPolicy {
	for _, s := range h.tenants() {
		if s.ID == id {
			return s.Policies
		}
	}
	return nil
}

var somePolicies = []string{"owner", "reader", "Reader", "writer"}

func (h *History) putPolicy() call {
	id, name, a := h.scope(), from(h, "policy", somePolicies), h.audit()
	p := h.policy(name, from(h, "rights", []registration.Right{registration.AllRights, registration.EnrollmentRead, registration.EnrollmentRead, registration.ServiceConfig}))
	var was *registration.AccessPolicy
	stored := h.stored(id)
	switch at := named(stored, name); {
	case at >= 0 && h.draw(4, "was") > 0:
		was = &registration.AccessPolicy{Name: name, Rights: stored[at].Rights, SealedPrimary: stored[at].SealedPrimary, SealedSecondary: stored[at].SealedSecondary}
		if h.rarely(4, "changed since") {
			was.SealedSecondary = []byte("another")
		}
	case h.rarely(3, "was"):
		was = &p
	}
	return call{method: "PutPolicy", args: fmt.Sprintf("%s %s %s %s", id, show(was), show(p), show(a)), run: func(pl *player) string {
		return pl.verdict(pl.PutPolicy(h.ctx, id, was, p, a))
	}}
}

func (h *History) deletePolicy() call {
	id, name, a := h.scope(), from(h, "policy", somePolicies), h.audit()
	return call{method: "DeletePolicy", args: id + " " + name + " " + show(a), run: func(p *player) string {
		return p.verdict(p.DeletePolicy(h.ctx, id, name, a))
	}}
}

func (h *History) appendAudit() call {
	scope, a := h.scope(), h.audit()
	return call{method: "AppendAudit", args: scope + " " + show(a), run: func(p *player) string {
		if err := p.AppendAudit(h.ctx, scope, a); err != nil {
			return p.failed(err)
		}
		return "applied"
	}}
}

func (h *History) auditByTrackingID() call {
	id := "shared"
	if h.steps > 1 && h.draw(2, "own") == 1 {
		id = fmt.Sprintf("step-%d", 1+h.draw(h.steps-1, "step"))
	}
	return h.tracked(h.scope(), id)
}

func (h *History) tracked(scope, id string) call {
	return call{method: "AuditByTrackingID", args: scope + " " + id, run: func(p *player) string {
		rows, err := p.AuditByTrackingID(h.ctx, scope, id)
		return list(rows, err, p, func(a registration.Audit) string { return show(a) })
	}}
}

// auditPage begins at the first row, or behind one of the rows that were seen.
func (h *History) auditPage() call {
	scope := h.scope()
	after := h.draw(len(h.players[0].place(scope).real)+1, "after")
	return h.page(scope, uint64(after), h.limit())
}

func (h *History) page(scope string, after uint64, limit int) call {
	return call{method: "AuditPage", args: fmt.Sprintf("%s after %d, %d", scope, after, limit), run: func(p *player) string {
		page, err := p.AuditPage(h.ctx, scope, p.place(scope).number(after), limit)
		return list(page, err, p, func(l registration.AuditLine) string { return p.line(scope, l) })
	}}
}

func (h *History) expireAudit() call {
	scope, before, limit := h.scope(), h.then("before"), h.limit()
	newest, a := h.audit(), h.audit()
	newest.At = before.Add(time.Second)
	note := &a
	if h.draw(2, "note") == 1 {
		note = nil
	}
	return call{method: "ExpireAudit", args: fmt.Sprintf("%s %s %d %s, behind %s", scope, show(before), limit, show(note), show(newest)), run: func(p *player) string {
		if err := p.AppendAudit(h.ctx, scope, newest); err != nil {
			return p.failed(err)
		}
		n, err := p.ExpireAudit(h.ctx, scope, before, limit, note)
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprintf("%d removed", n)
	}}
}

// listSealed reads the listing to its end, and each page twice.
func (h *History) listSealed() call { return h.sealed(from(h, "limit", []int{2, 10, 1000})) }

func (h *History) sealed(limit int) call {
	return call{method: "SealedValues", args: fmt.Sprintf("%d at a time", limit), run: func(p *player) string {
		var all []registration.SealedValue
		for cursor := ""; ; {
			page, next, err := p.SealedValues(h.ctx, cursor, limit)
			again, same, err2 := p.SealedValues(h.ctx, cursor, limit)
			switch {
			case err != nil || err2 != nil:
				return p.failed(err)
			case len(page) > limit || same != next || diff(again, page) != "":
				return "a page that is too long, or not the same again"
			}
			if all = append(all, page...); next == "" {
				slices.SortFunc(all, func(a, b registration.SealedValue) int { return comparePlaces(place(a), place(b)) })
				return list(all, nil, p, func(v registration.SealedValue) string {
					return fmt.Sprintf("%s %s %q %q", v.Kind, v.Scope, v.Key, v.Sealed)
				})
			}
			cursor = next
		}
	}}
}

// replaceSealed seals some values anew, one of them perhaps as it was not.
func (h *History) replaceSealed() call {
	values, _, err := h.players[0].Store.SealedValues(h.ctx, "", 1000)
	if err != nil {
		panic(err)
	}
	var some []registration.SealedReplacement
	for range h.draw(4, "values") {
		if len(values) == 0 {
			break
		}
		h.sums++
		v := registration.SealedReplacement{SealedValue: from(h, "value", values), New: fmt.Appendf(nil, "sealed anew %d", h.sums)}
		if h.rarely(4, "changed since") {
			v.Sealed = []byte("another")
		}
		some = append(some, v)
	}
	return call{method: "ReplaceSealed", args: show(some), run: func(p *player) string {
		n, err := p.ReplaceSealed(h.ctx, some)
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprintf("%d replaced", n)
	}}
}

// all reads everything there is.
func (h *History) all() error {
	calls := []call{h.readScopes(), h.followScopes(), h.readHubOwner(), h.outboxBacklog(), h.hubLeftovers(), h.sealed(1000), h.unfinishedBefore(h.now.Add(time.Hour), 3)}
	for _, scope := range append([]string{"nowhere"}, h.scopes...) {
		calls = append(calls, h.enrollments(scope, "", 1000), h.registrations(scope, "", "", 1000), h.groups(scope, "", 1000), h.authorities(scope, "", 1000),
			h.holdings(scope), h.tracked(scope, "shared"), h.identities(scope, "", 1000),
			h.enrollments(scope, "", 2), h.registrations(scope, "", "", 2), h.groups(scope, "", 2), h.page(scope, 0, 2))
		for _, id := range someIDs {
			calls = append(calls, h.look(scope, id), h.owners(scope, id, time.Time{}), h.showIdentity(scope, id), h.showGeneration(scope, id), h.showTwin(scope, id),
				h.messages(scope, id, 0, 1000), h.closure(scope, id))
		}
		calls = append(calls, h.page(scope, 0, 100_000), h.offersOf(scope, "", 2))
	}
	for _, op := range h.ops[max(0, len(h.ops)-50):] {
		for _, scope := range h.scopes {
			calls = append(calls, h.showOperation(scope, op))
		}
	}
	for _, c := range calls {
		if err := h.play(c); err != nil {
			return err
		}
	}
	return nil
}
