package storetest

import (
	"maps"
	"slices"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// model is the contract in a few maps: slow, in memory, one caller at a time. It does not choose revisions: callers tell it
// the one that the store gave out.
type model struct {
	enrollments   map[key]registration.Enrollment
	registrations map[key]registration.Registration
	operations    map[key]registration.Operation // by operation id
	generations   map[key]generation
	owners        map[key][]owner // newest first
	identities    map[key]registration.Identity
	audit         map[key][]registration.Audit // by tracking id
	last          map[string]uint64            // revision of a scope
	groups        map[key]registration.Group
	groupsMoved   map[string]uint64 // the revision of the last change of a scope's groups
	outbox        map[key]waiting   // by operation id
	hub           registration.HubOwner
}

type key struct{ scope, id string }

type generation struct {
	count uint64
	moved time.Time
}

type owner struct {
	srk string
	at  time.Time
}

func newModel() *model {
	return &model{
		map[key]registration.Enrollment{}, map[key]registration.Registration{}, map[key]registration.Operation{},
		map[key]generation{}, map[key][]owner{}, map[key]registration.Identity{}, map[key][]registration.Audit{}, map[string]uint64{},
		map[key]registration.Group{}, map[string]uint64{}, map[key]waiting{}, registration.HubOwner{Since: time.UnixMicro(0).UTC()},
	}
}

func (m *model) note(scope string, a registration.Audit) registration.Verdict {
	k := key{scope, a.TrackingID}
	m.audit[k] = append(m.audit[k], a)
	return registration.Applied
}

func matches(expect *uint64, revision uint64) bool {
	return expect == nil || *expect == registration.AnyRevision || *expect == revision
}

func (m *model) put(scope string, e registration.Enrollment, expect *uint64, a registration.Audit) registration.Verdict {
	k := key{scope, dps.FoldID(e.ID)}
	old, found := m.enrollments[k]
	switch {
	case expect == nil && found:
		return registration.Exists
	case expect != nil && !found:
		return registration.Missing
	case found && !matches(expect, old.Revision):
		return registration.Conflict
	case found:
		e.Created = old.Created
	}
	m.enrollments[k] = e
	return m.note(scope, a)
}

// unknownRevision stands for the one that the store gives out and nobody has been told: no caller expects it.
const unknownRevision = registration.AnyRevision - 1

// putAll leaves unknownRevision in the enrollments that it applied.
func (m *model) putAll(scope string, puts []registration.EnrollmentPut) (verdicts []registration.Verdict, applied bool) {
	enrollments, notes := maps.Clone(m.enrollments), maps.Clone(m.audit)
	applied = true
	verdicts = []registration.Verdict{}
	for _, put := range puts {
		put.Enrollment.Revision = unknownRevision
		verdict := m.put(scope, put.Enrollment, put.Expect, put.Audit)
		verdicts, applied = append(verdicts, verdict), applied && verdict == registration.Applied
	}
	if !applied {
		m.enrollments, m.audit = enrollments, notes
	}
	return verdicts, applied
}

func (m *model) deleteEnrollment(scope, id string, expect *uint64, a registration.Audit) registration.Verdict {
	k := key{scope, dps.FoldID(id)}
	e, found := m.enrollments[k]
	if !found {
		return registration.Missing
	}
	if !matches(expect, e.Revision) {
		return registration.Conflict
	}
	delete(m.enrollments, k)
	m.forget(k, a.At)
	return m.note(scope, a)
}

func (m *model) deleteRegistration(scope, id string, expect *uint64, a registration.Audit) registration.Verdict {
	k := key{scope, dps.FoldID(id)}
	r, found := m.registrations[k]
	if !found {
		return registration.Missing
	}
	if !matches(expect, r.Revision) {
		return registration.Conflict
	}
	m.forget(k, a.At)
	return m.note(scope, a)
}

func (m *model) forget(k key, at time.Time) {
	delete(m.registrations, k)
	for ok, o := range m.operations {
		if ok.scope == k.scope && dps.FoldID(o.RegistrationID) == k.id {
			delete(m.operations, ok)
		}
	}
	if g, found := m.generations[k]; found {
		m.generations[k] = generation{g.count, at}
	}
}

func (m *model) redeem(scope string, r registration.Redemption) registration.Verdict {
	k := key{scope, dps.FoldID(r.ID)}
	e, enrolled := m.enrollments[k]
	old, registered := m.registrations[k] // Revision 0 if there is none
	entry := enrolled && e.Revision == r.EnrollmentRevision
	if r.Registration.Group != "" {
		entry = !enrolled && m.groupsMoved[scope] != 0 && m.groupsMoved[scope] == r.GroupsRevision
	}
	if !entry || old.Revision != r.RegistrationBefore || m.generations[k].count != r.Generation {
		return registration.Conflict
	}
	if registered {
		r.Registration.Created = old.Created
	}
	m.registrations[k] = r.Registration
	m.operations[key{scope, r.Operation.ID}] = r.Operation
	m.generations[k] = generation{r.Operation.Generation, r.Audit.At}
	if r.Outbox != nil {
		m.outbox[key{scope, r.Outbox.Object}] = waiting{}
	}
	return m.note(scope, r.Audit)
}

func (m *model) refuse(scope string, r registration.Refused) registration.Verdict {
	k := key{scope, dps.FoldID(r.ID)}
	if m.generations[k].count != r.Generation {
		return registration.Conflict
	}
	m.generations[k] = generation{r.Generation + 1, r.Audit.At}
	return m.note(scope, r.Audit)
}

func (m *model) finish(scope string, f registration.Finish) registration.Verdict {
	k, ok := key{scope, dps.FoldID(f.RegistrationID)}, key{scope, f.OperationID}
	r, registered := m.registrations[k]
	if !registered || r.OperationID != f.OperationID {
		return registration.Superseded
	}
	o, found := m.operations[ok]
	if !found {
		return registration.Missing
	}
	if o.Status != registration.Assigning {
		return registration.Conflict
	}
	m.operations[ok], m.registrations[k] = finished(o, f), finishedRegistration(r, f)
	delete(m.outbox, ok)
	return m.note(scope, f.Audit)
}

// prune is without a limit: which rows a limited one takes is tested elsewhere.
func (m *model) prune(operationsBefore, idleBefore time.Time) (removed int) {
	for k, o := range m.operations {
		if o.Created.Before(operationsBefore) && !m.isUnfinished(k.scope, o) {
			delete(m.operations, k)
			removed++
		}
	}
	for k, g := range m.generations {
		_, enrolled := m.enrollments[k]
		_, registered := m.registrations[k]
		if !enrolled && !registered && g.moved.Before(idleBefore) {
			delete(m.generations, k)
			removed++
		}
	}
	for k, owners := range m.owners {
		m.owners[k] = slices.DeleteFunc(owners, func(o owner) bool { return o.at.Before(idleBefore) })
		removed += len(owners) - len(m.owners[k])
	}
	return removed
}

func (m *model) isUnfinished(scope string, o registration.Operation) bool {
	r := m.registrations[key{scope, dps.FoldID(o.RegistrationID)}]
	return o.Status == registration.Assigning && r.OperationID == o.ID
}

// unfinished is without a limit.
func (m *model) unfinished(createdBefore time.Time) (list []registration.Unfinished) {
	for k, o := range m.operations {
		if o.Created.Before(createdBefore) && m.isUnfinished(k.scope, o) {
			list = append(list, registration.Unfinished{Scope: k.scope, Operation: o})
		}
	}
	return list
}

// remember expects times that do not run backwards.
func (m *model) remember(scope, id, srk string, at time.Time) {
	k := key{scope, dps.FoldID(id)}
	others := slices.DeleteFunc(slices.Clone(m.owners[k]), func(o owner) bool { return o.srk == srk })
	all := append([]owner{{srk, at}}, others...)
	m.owners[k] = all[:min(len(all), registration.MaxOwners)]
}

func (m *model) putIdentity(scope string, put registration.IdentityPut, a registration.Audit) registration.Verdict {
	k := key{scope, put.Hub + "/" + put.DeviceID}
	switch has := m.identities[k].Generation; {
	case put.Owner != nil && *put.Owner != m.hub.ID:
		return registration.OtherOwner
	case has != put.Was || has > put.Generation:
		return registration.Conflict
	}
	m.identities[k] = put.Identity
	return m.note(scope, a)
}

// putGroup and deleteGroup do not move groupsMoved: callers do, with the revision that the store gave out.
func (m *model) putGroup(scope string, g registration.Group, expect *uint64, a registration.Audit) registration.Verdict {
	k := key{scope, dps.FoldID(g.ID)}
	old, found := m.groups[k]
	switch {
	case expect == nil && found:
		return registration.Exists
	case expect != nil && !found:
		return registration.Missing
	case found && !matches(expect, old.Revision):
		return registration.Conflict
	case found:
		g.Created = old.Created
	}
	m.groups[k] = g
	return m.note(scope, a)
}

func (m *model) deleteGroup(scope, id string, expect *uint64, a registration.Audit) registration.Verdict {
	k := key{scope, dps.FoldID(id)}
	g, found := m.groups[k]
	switch {
	case !found:
		return registration.Missing
	case !matches(expect, g.Revision):
		return registration.Conflict
	}
	delete(m.groups, k)
	return m.note(scope, a)
}

func (m *model) device(scope, id string) (d registration.Device) {
	k := key{scope, dps.FoldID(id)}
	d.GroupsRevision = m.groupsMoved[scope]
	d.Generation = m.generations[k].count
	if e, found := m.enrollments[k]; found {
		d.Enrollment = &e
	}
	if r, found := m.registrations[k]; found {
		d.Registration = &r
		if o, found := m.operations[key{scope, r.OperationID}]; found {
			d.Operation = &o
		}
	}
	return d
}
