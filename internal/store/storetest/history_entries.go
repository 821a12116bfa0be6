package storetest

import (
	"fmt"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// entry is an enrollment that no other call puts. Few have certificates, some have no keys.
func (h *History) entry(id, salt string) registration.Enrollment {
	e := enrollment(id, salt)
	e.Created, e.Updated, e.Certificates = h.now, h.now, h.certificates()
	e.Mechanism = from(h, "mechanism", []registration.Mechanism{registration.TPM, registration.SymmetricKey, registration.X509})
	e.Disabled = h.draw(2, "disabled") == 1
	if h.rarely(3, "keyless") {
		e.Keys, e.PinnedSRK = registration.SealedKeys{}, nil
	}
	return e
}

func (h *History) enrollmentName(scope, id string) uint64 {
	if e := h.model(scope, id).Enrollment; e != nil {
		return h.named(scope, e.Revision)
	}
	return 0
}

func (h *History) putEnrollment() call {
	scope, id := h.scope(), from(h, "id", someIDs)
	e, expect, a := h.entry(id, h.name()), h.expect(h.enrollmentName(scope, id)), h.audit()
	return call{"PutEnrollment", fmt.Sprintf("%s %s %s %s", scope, show(e), expect, show(a)), func(p *player) string {
		stored, verdict, err := p.PutEnrollment(h.ctx, scope, e, expect.of(p, scope), a, "")
		return p.verdict(verdict, err) + " " + p.enrollment(scope, stored)
	}, []key{{scope, id}}}
}

// rows are puts of several ids, some of them the same but for case, with what each expects in names.
func (h *History) rows(scope string) (puts []registration.EnrollmentPut, expects []expectation, looks []key) {
	met := map[string]bool{}
	for i := range h.draw(5, "rows") {
		id := from(h, "id", someIDs)
		expect := h.expect(h.enrollmentName(scope, id))
		if met[dps.FoldID(id)] { // the row before it may have a revision that nobody knows
			expect = from(h, "again", []expectation{{none: true}, {any: true}, {any: true}})
		}
		met[dps.FoldID(id)] = true
		puts = append(puts, registration.EnrollmentPut{Enrollment: h.entry(id, fmt.Sprintf("%s row %d", h.name(), i)), Audit: h.audit()})
		expects, looks = append(expects, expect), append(looks, key{scope, id})
	}
	return puts, expects, looks
}

// expecting turns what puts expect into a player's numbers.
func (p *player) expecting(scope string, puts []registration.EnrollmentPut, expects []expectation) []registration.EnrollmentPut {
	own := make([]registration.EnrollmentPut, len(puts))
	for i, put := range puts {
		put.Expect = expects[i].of(p, scope)
		own[i] = put
	}
	return own
}

func (h *History) putEnrollments() call {
	scope := h.scope()
	puts, expects, looks := h.rows(scope)
	return call{"PutEnrollments", fmt.Sprintf("%s %s %v", scope, show(puts), expects), func(p *player) string {
		verdicts, err := p.PutEnrollments(h.ctx, scope, p.expecting(scope, puts, expects))
		return list(verdicts, err, p, func(v registration.Verdict) string { return p.verdict(v, nil) })
	}, looks}
}

func (h *History) putAllEnrollments() call {
	scope := h.scope()
	puts, expects, looks := h.rows(scope)
	return call{"PutAllEnrollments", fmt.Sprintf("%s %s %v", scope, show(puts), expects), func(p *player) string {
		verdicts, err := p.PutAllEnrollments(h.ctx, scope, p.expecting(scope, puts, expects))
		return list(verdicts, err, p, func(v registration.Verdict) string { return p.verdict(v, nil) })
	}, looks}
}

func (h *History) deleteEnrollment() call {
	scope := h.scope()
	id := h.id(scope, enrolled)
	expect, a := h.expect(h.enrollmentName(scope, id)), h.audit()
	return call{"DeleteEnrollment", fmt.Sprintf("%s %s %s %s", scope, id, expect, show(a)), func(p *player) string {
		return p.verdict(p.DeleteEnrollment(h.ctx, scope, id, expect.of(p, scope), a, ""))
	}, []key{{scope, id}}}
}

func (h *History) putGroup() call {
	scope, id := h.scope(), from(h, "group", someGroups)
	g := group(id, h.name())
	g.Created, g.Updated, g.Certificates = h.now, h.now, h.certificates()
	g.Mechanism = from(h, "mechanism", []registration.Mechanism{registration.SymmetricKey, registration.X509})
	expect, a := h.expect(h.groupName(scope, id)), h.audit()
	return call{"PutGroup", fmt.Sprintf("%s %s %s %s", scope, show(g), expect, show(a)), func(p *player) string {
		stored, verdict, err := p.PutGroup(h.ctx, scope, g, expect.of(p, scope), a, "")
		return p.verdict(verdict, err) + " " + p.group(scope, stored)
	}, []key{{scope, "a"}}}
}

func (h *History) groupName(scope, id string) uint64 {
	g, err := h.players[0].Store.Group(h.ctx, scope, id)
	if err != nil {
		return 0
	}
	return h.named(scope, g.Revision)
}

func (h *History) deleteGroup() call {
	scope, id := h.scope(), from(h, "group", someGroups)
	expect, a := h.expect(h.groupName(scope, id)), h.audit()
	return call{"DeleteGroup", fmt.Sprintf("%s %s %s %s", scope, id, expect, show(a)), func(p *player) string {
		return p.verdict(p.DeleteGroup(h.ctx, scope, id, expect.of(p, scope), a, ""))
	}, []key{{scope, "a"}}}
}

func (h *History) readGroup() call {
	scope, id := h.scope(), from(h, "group", someGroups)
	return call{method: "Group", args: scope + " " + id, run: func(p *player) string {
		g, err := p.Group(h.ctx, scope, id)
		if err != nil {
			return p.failed(err)
		}
		return p.group(scope, g)
	}}
}

func (h *History) putAuthority() call {
	scope, name := h.scope(), from(h, "CA", someNames)
	c := caCertificate(name, h.name())
	c.Created, c.Updated, c.Verified = h.now, h.now, h.draw(2, "verified") == 1
	expect, a := h.expect(h.authorityName(scope, name)), h.audit()
	return call{"PutCACertificate", fmt.Sprintf("%s %s %s %s", scope, show(c), expect, show(a)), func(p *player) string {
		stored, verdict, err := p.PutCACertificate(h.ctx, scope, c, expect.of(p, scope), a)
		return p.verdict(verdict, err) + " " + p.authority(scope, stored)
	}, []key{{scope, "a"}}}
}

func (h *History) authorityName(scope, name string) uint64 {
	page, err := h.players[0].Store.CACertificates(h.ctx, scope, "", 1000)
	if err != nil {
		panic(err)
	}
	for _, c := range page {
		if dps.FoldID(c.Name) == dps.FoldID(name) {
			return h.named(scope, c.Revision)
		}
	}
	return 0
}

func (h *History) deleteAuthority() call {
	scope, name := h.scope(), from(h, "CA", someNames)
	expect, a := h.expect(h.authorityName(scope, name)), h.audit()
	return call{"DeleteCACertificate", fmt.Sprintf("%s %s %s %s", scope, name, expect, show(a)), func(p *player) string {
		return p.verdict(p.DeleteCACertificate(h.ctx, scope, name, expect.of(p, scope), a))
	}, []key{{scope, "a"}}}
}

func (h *History) readGroupsRevision() call {
	scope := h.scope()
	return call{method: "GroupsRevision", args: scope, run: func(p *player) string {
		revision, err := p.GroupsRevision(h.ctx, scope)
		if err != nil {
			return p.failed(err)
		}
		return "r" + p.revision(scope).name(revision)
	}}
}

// after draws where a page begins: at the first row, at one of those that may be there, or between them.
func (h *History) after() string {
	return from(h, "after", []string{"", "", "a", "b", "bb", "line", "zz"})
}

func (h *History) listEnrollments() call { return h.enrollments(h.scope(), h.after(), h.limit()) }

func (h *History) enrollments(scope, after string, limit int) call {
	return call{method: "Enrollments", args: fmt.Sprintf("%s after %q, %d", scope, after, limit), run: func(p *player) string {
		page, err := p.Enrollments(h.ctx, scope, after, limit)
		return list(page, err, p, func(l registration.Listed) string {
			if l.Registration == nil {
				return p.enrollment(scope, l.Enrollment)
			}
			return p.enrollment(scope, l.Enrollment) + " with " + p.registration(scope, *l.Registration)
		})
	}}
}

func (h *History) listRegistrations() call {
	return h.registrations(h.scope(), from(h, "group", append([]string{"", ""}, someGroups...)), h.after(), h.limit())
}

func (h *History) registrations(scope, group, after string, limit int) call {
	return call{method: "Registrations", args: fmt.Sprintf("%s group %q after %q, %d", scope, group, after, limit), run: func(p *player) string {
		page, err := p.Registrations(h.ctx, scope, group, after, limit)
		return list(page, err, p, func(r registration.Registration) string { return p.registration(scope, r) })
	}}
}

func (h *History) listGroups() call { return h.groups(h.scope(), h.after(), h.limit()) }

func (h *History) groups(scope, after string, limit int) call {
	return call{method: "Groups", args: fmt.Sprintf("%s after %q, %d", scope, after, limit), run: func(p *player) string {
		page, err := p.Groups(h.ctx, scope, after, limit)
		return list(page, err, p, func(g registration.Group) string { return p.group(scope, g) })
	}}
}

func (h *History) listAuthorities() call { return h.authorities(h.scope(), h.after(), h.limit()) }

func (h *History) authorities(scope, after string, limit int) call {
	return call{method: "CACertificates", args: fmt.Sprintf("%s after %q, %d", scope, after, limit), run: func(p *player) string {
		page, err := p.CACertificates(h.ctx, scope, after, limit)
		return list(page, err, p, func(c registration.CACertificate) string { return p.authority(scope, c) })
	}}
}

func (h *History) countHoldings() call { return h.holdings(h.scope()) }

func (h *History) holdings(scope string) call {
	return call{method: "Holdings", args: scope, run: func(p *player) string {
		held, err := p.Holdings(h.ctx, scope)
		if err != nil {
			return p.failed(err)
		}
		return show(held)
	}}
}
