package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// PutEnrollment implements registration.EnrollmentStore.
func (m *Model) PutEnrollment(ctx context.Context, scope string, e registration.Enrollment, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Enrollment, registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Enrollment{}, 0, err
	}
	defer leave()
	if verdict := m.put(scope, registration.EnrollmentPut{Enrollment: e, Expect: expect, Audit: a}); verdict != registration.Applied {
		return registration.Enrollment{}, verdict, nil
	}
	m.orderDevice(fold(scope, e.ID), order, a)
	return m.enrollments[fold(scope, e.ID)], registration.Applied, nil
}

func (m *Model) put(scope string, put registration.EnrollmentPut) registration.Verdict {
	e, k := put.Enrollment, fold(scope, put.Enrollment.ID)
	old, found := m.enrollments[k]
	if verdict := judge(put.Expect, old.Revision); verdict != registration.Applied {
		return verdict
	}
	if m.certificateTaken(scope, e.Certificates, k, key{}) {
		return registration.Taken
	}
	if found {
		e.Created = old.Created
	}
	e.Revision = m.next(scope)
	m.enrollments[k] = e
	if m.offers[k].EKKeyID != e.EKKeyID {
		delete(m.offers, k)
	}
	return m.note(scope, put.Audit)
}

// certificateTaken says whether an entry of the scope, other than the enrollment or the group named, has one of the certificates.
func (m *Model) certificateTaken(scope string, certificates [][32]byte, enrollment, group key) bool {
	has := func(theirs [][32]byte) bool {
		return slices.ContainsFunc(theirs, func(sum [32]byte) bool { return slices.Contains(certificates, sum) })
	}
	if len(certificates) == 0 {
		return false
	}
	for k, e := range m.enrollments {
		if k.scope == scope && k != enrollment && has(e.Certificates) {
			return true
		}
	}
	for k, g := range m.groups {
		if k.scope == scope && k != group && has(g.Certificates) {
			return true
		}
	}
	return false
}

// PutEnrollments implements registration.EnrollmentStore.
func (m *Model) PutEnrollments(ctx context.Context, scope string, puts []registration.EnrollmentPut) ([]registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if len(puts) > registration.MaxPuts {
		return nil, errors.New("too many enrollments at once")
	}
	verdicts, _ := m.putEach(scope, puts)
	return verdicts, nil
}

func (m *Model) putEach(scope string, puts []registration.EnrollmentPut) (verdicts []registration.Verdict, all bool) {
	all = true
	for _, put := range puts {
		verdict := m.put(scope, put)
		verdicts, all = append(verdicts, verdict), all && verdict == registration.Applied
	}
	return verdicts, all
}

// PutAllEnrollments implements registration.EnrollmentStore.
func (m *Model) PutAllEnrollments(ctx context.Context, scope string, puts []registration.EnrollmentPut) ([]registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if len(puts) > registration.MaxAtomic {
		return nil, errors.New("too many enrollments at once")
	}
	enrollments, offers, revision, rows := maps.Clone(m.enrollments), maps.Clone(m.offers), m.revision[scope], len(m.log)
	verdicts, all := m.putEach(scope, puts)
	if !all {
		m.enrollments, m.offers, m.revision[scope], m.log, m.logOf = enrollments, offers, revision, m.log[:rows], m.logOf[:rows]
	}
	return verdicts, nil
}

// DeleteEnrollment implements registration.EnrollmentStore.
func (m *Model) DeleteEnrollment(ctx context.Context, scope, id string, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := fold(scope, id)
	if verdict := judgeDelete(expect, m.enrollments[k].Revision); verdict != registration.Applied {
		return verdict, nil
	}
	m.orderDevice(k, order, a)
	delete(m.enrollments, k)
	delete(m.offers, k)
	m.forget(k, a.At)
	return m.note(scope, a), nil
}

// PutGroup implements registration.GroupStore.
func (m *Model) PutGroup(ctx context.Context, scope string, g registration.Group, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Group, registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Group{}, 0, err
	}
	defer leave()
	k := fold(scope, g.ID)
	old, found := m.groups[k]
	if verdict := judge(expect, old.Revision); verdict != registration.Applied {
		return registration.Group{}, verdict, nil
	}
	if m.certificateTaken(scope, g.Certificates, key{}, k) {
		return registration.Group{}, registration.Taken, nil
	}
	if found {
		g.Created = old.Created
	}
	g.Revision = m.moveGroups(scope)
	m.groups[k] = g
	m.orderAll(scope, registration.OrderForGroup(order, g.ID, g.Revision, a.TrackingID))
	return g, m.note(scope, a), nil
}

// DeleteGroup implements registration.GroupStore.
func (m *Model) DeleteGroup(ctx context.Context, scope, id string, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := fold(scope, id)
	if verdict := judgeDelete(expect, m.groups[k].Revision); verdict != registration.Applied {
		return verdict, nil
	}
	delete(m.groups, k)
	m.orderAll(scope, registration.OrderForGroup(order, id, m.moveGroups(scope), a.TrackingID))
	return m.note(scope, a), nil
}

// Group implements registration.GroupStore.
func (m *Model) Group(ctx context.Context, scope, id string) (registration.Group, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Group{}, err
	}
	defer leave()
	g, found := m.groups[fold(scope, id)]
	if !found {
		return registration.Group{}, registration.ErrNotFound
	}
	return g, nil
}

// Groups implements registration.GroupStore.
func (m *Model) Groups(ctx context.Context, scope, after string, limit int) ([]registration.Group, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return paged(m.groups, scope, after, limit, func(registration.Group) bool { return true }), nil
}

// PutCACertificate implements registration.GroupStore.
func (m *Model) PutCACertificate(ctx context.Context, scope string, c registration.CACertificate, expect *uint64, a registration.Audit) (registration.CACertificate, registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.CACertificate{}, 0, err
	}
	defer leave()
	k := fold(scope, c.Name)
	old, found := m.authorities[k]
	if verdict := judge(expect, old.Revision); verdict != registration.Applied {
		return registration.CACertificate{}, verdict, nil
	}
	if found {
		c.Created = old.Created
	}
	c.Revision = m.moveGroups(scope)
	m.authorities[k] = c
	return c, m.note(scope, a), nil
}

// DeleteCACertificate implements registration.GroupStore.
func (m *Model) DeleteCACertificate(ctx context.Context, scope, name string, expect *uint64, a registration.Audit) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := fold(scope, name)
	if verdict := judgeDelete(expect, m.authorities[k].Revision); verdict != registration.Applied {
		return verdict, nil
	}
	delete(m.authorities, k)
	m.moveGroups(scope)
	return m.note(scope, a), nil
}

// CACertificates implements registration.GroupStore.
func (m *Model) CACertificates(ctx context.Context, scope, after string, limit int) ([]registration.CACertificate, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return paged(m.authorities, scope, after, limit, func(registration.CACertificate) bool { return true }), nil
}

// GroupsRevision implements registration.GroupStore.
func (m *Model) GroupsRevision(ctx context.Context, scope string) (uint64, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	return m.groupsMoved[scope], nil
}

// paged gives the rows of a scope behind an id, in order of their ids.
func paged[V any](rows map[key]V, scope, after string, limit int, wanted func(V) bool) (page []V) {
	var keys []key
	for k, v := range rows {
		if k.scope == scope && k.id > after && wanted(v) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int { return strings.Compare(a.id, b.id) })
	for _, k := range keys[:min(limit, len(keys))] {
		page = append(page, rows[k])
	}
	return page
}

// Enrollments implements registration.ListStore.
func (m *Model) Enrollments(ctx context.Context, scope, after string, limit int) (page []registration.Listed, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, e := range paged(m.enrollments, scope, after, limit, func(registration.Enrollment) bool { return true }) {
		page = append(page, registration.Listed{Enrollment: e, Registration: m.device(scope, e.ID).Registration})
	}
	return page, nil
}

// Registrations implements registration.ListStore.
func (m *Model) Registrations(ctx context.Context, scope, group, after string, limit int) ([]registration.Registration, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return paged(m.registrations, scope, after, limit, func(r registration.Registration) bool {
		return group == "" || dps.FoldID(r.Group) == dps.FoldID(group)
	}), nil
}

// Holdings implements registration.ListStore.
func (m *Model) Holdings(ctx context.Context, scope string) (registration.Holdings, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Holdings{}, err
	}
	defer leave()
	h := registration.Holdings{Enrollments: map[registration.Mechanism]uint64{}, Groups: map[registration.Mechanism]uint64{},
		Registrations: map[registration.Status]uint64{}}
	for k, e := range m.enrollments {
		if k.scope == scope {
			h.Enrollments[e.Mechanism]++
			if e.Disabled {
				h.Disabled++
			}
		}
	}
	for k, g := range m.groups {
		if k.scope == scope {
			h.Groups[g.Mechanism]++
		}
	}
	for k, r := range m.registrations {
		if k.scope == scope {
			h.Registrations[r.Status]++
		}
	}
	return h, nil
}
