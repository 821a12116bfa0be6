package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Device implements registration.DeviceStore.
func (m *Model) Device(ctx context.Context, scope, id string) (registration.Device, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Device{}, err
	}
	defer leave()
	return m.device(scope, id), nil
}

func (m *Model) device(scope, id string) (d registration.Device) {
	k := fold(scope, id)
	d.GroupsRevision, d.Generation = m.groupsMoved[scope], m.generations[k].count
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

// Operation implements registration.DeviceStore.
func (m *Model) Operation(ctx context.Context, scope, id string) (registration.Operation, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Operation{}, err
	}
	defer leave()
	o, found := m.operations[key{scope, id}]
	if !found {
		return registration.Operation{}, registration.ErrNotFound
	}
	return o, nil
}

// Redeem implements registration.DeviceStore.
func (m *Model) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	if err := r.Check(); err != nil {
		return 0, 0, err
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer leave()
	k := fold(scope, r.ID)
	old, registered := m.registrations[k] // Revision 0 if there is none
	switch {
	case !r.RestsOn(m.enrollments[k].Revision, m.groupsMoved[scope]) || old.Revision != r.RegistrationBefore:
		return 0, registration.Conflict, nil
	case m.deviceTaken(k, r.Registration.Hub, r.Registration.DeviceID):
		return 0, registration.Taken, nil
	case m.generations[k].count != r.Generation:
		return 0, registration.Conflict, nil
	}
	if _, taken := m.operations[key{scope, r.Operation.ID}]; taken {
		return 0, 0, errors.New("the operation id is taken")
	}
	if r.Outbox != nil && m.outbox[outboxKey{scope, *r.Outbox}] != nil {
		return 0, 0, errors.New("there is such a row in the outbox")
	}
	if registered {
		r.Registration.Created = old.Created
	}
	revision := m.next(scope)
	r.Operation.Revision, r.Registration.Revision = revision, revision
	m.registrations[k], m.operations[key{scope, r.Operation.ID}] = r.Registration, r.Operation
	m.generations[k] = generation{r.Operation.Generation, r.Audit.At}
	if r.Outbox != nil {
		now := time.Now()
		m.outbox[outboxKey{scope, *r.Outbox}] = &waiting{written: now, due: now}
	}
	return revision, m.note(scope, r.Audit), nil
}

// deviceTaken says whether another registration has the device id at that hub.
func (m *Model) deviceTaken(but key, hub, deviceID string) bool {
	for k, r := range m.registrations {
		if k.scope == but.scope && k != but && r.Hub == hub && r.DeviceID == deviceID {
			return true
		}
	}
	return false
}

// Refuse implements registration.DeviceStore.
func (m *Model) Refuse(ctx context.Context, scope string, r registration.Refused) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := fold(scope, r.ID)
	if m.generations[k].count != r.Generation {
		return registration.Conflict, nil
	}
	m.generations[k] = generation{r.Generation + 1, r.Audit.At}
	return m.note(scope, r.Audit), nil
}

// Finish implements registration.DeviceStore.
func (m *Model) Finish(ctx context.Context, scope string, f registration.Finish) (registration.Verdict, error) {
	if f.Status != registration.Assigned && f.Status != registration.Failed {
		return 0, fmt.Errorf("%q is not a final status", f.Status)
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k, ok := fold(scope, f.RegistrationID), key{scope, f.OperationID}
	verdict := m.judgeMoving(k, ok)
	if verdict == registration.Applied && f.Status == registration.Assigned && m.deviceTaken(k, f.Hub, f.DeviceID) {
		verdict = registration.Taken
	}
	if verdict != registration.Applied {
		return verdict, nil
	}
	r := finishedRegistration(m.registrations[k], f)
	r.Revision = m.next(scope)
	m.operations[ok], m.registrations[k] = finished(m.operations[ok], f), r
	m.dropAdvance(scope, f.OperationID)
	return m.note(scope, f.Audit), nil
}

// judgeMoving says whether an operation is its registration's current one and is assigning.
func (m *Model) judgeMoving(k, ok key) registration.Verdict {
	r, registered := m.registrations[k]
	o, found := m.operations[ok]
	switch {
	case !registered || r.OperationID != ok.id:
		return registration.Superseded
	case !found:
		return registration.Missing
	case o.Status != registration.Assigning:
		return registration.Conflict
	}
	return registration.Applied
}

func (m *Model) dropAdvance(scope, operationID string) {
	for _, kind := range []registration.OutboxKind{registration.OutboxAdvance, registration.OutboxAdvanceRemote} {
		delete(m.outbox, outboxKey{scope, registration.Outbox{Kind: kind, Object: operationID}})
	}
}

// Allocate implements registration.DeviceStore.
func (m *Model) Allocate(ctx context.Context, scope string, a registration.Allocated) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k, ok := fold(scope, a.RegistrationID), key{scope, a.OperationID}
	verdict := m.judgeMoving(k, ok)
	switch {
	case verdict != registration.Applied:
		return verdict, nil
	case m.operations[ok].Hub != "":
		return registration.Conflict, nil
	case m.deviceTaken(k, a.Hub, a.DeviceID):
		return registration.Taken, nil
	}
	o, r := allocated(m.operations[ok], m.registrations[k], a)
	r.Revision = m.next(scope)
	m.operations[ok], m.registrations[k] = o, r
	if a.Outbox != nil {
		m.dropAdvance(scope, a.OperationID)
		m.order(scope, a.Outbox)
	}
	return registration.Applied, nil
}

// SaveMove implements registration.DeviceStore.
func (m *Model) SaveMove(ctx context.Context, scope string, s registration.SavedMove) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := fold(scope, s.RegistrationID)
	if verdict := m.judgeMoving(k, key{scope, s.OperationID}); verdict != registration.Applied {
		return verdict, nil
	}
	r := m.registrations[k]
	r.Revision, r.Saved, r.Updated = m.next(scope), s.Data, s.At
	m.registrations[k] = r
	return registration.Applied, nil
}

// DeleteRegistration implements registration.EnrollmentStore.
func (m *Model) DeleteRegistration(ctx context.Context, scope, id string, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := fold(scope, id)
	if verdict := judgeDelete(expect, m.registrations[k].Revision); verdict != registration.Applied {
		return verdict, nil
	}
	m.orderDevice(k, order, a)
	m.forget(k, a.At)
	return m.note(scope, a), nil
}

// forget removes a registration and its operations; the age of the generation counts from now.
func (m *Model) forget(k key, at time.Time) {
	delete(m.registrations, k)
	for ok, o := range m.operations {
		if fold(ok.scope, o.RegistrationID) == k {
			delete(m.operations, ok)
		}
	}
	if g, found := m.generations[k]; found {
		m.generations[k] = generation{g.count, at}
	}
}

func (m *Model) isUnfinished(scope string, o registration.Operation) bool {
	return o.Status == registration.Assigning && m.registrations[fold(scope, o.RegistrationID)].OperationID == o.ID
}

// Unfinished implements registration.DeviceStore.
func (m *Model) Unfinished(ctx context.Context, createdBefore time.Time, after registration.Unfinished, limit int) (list []registration.Unfinished, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	for k, o := range m.operations {
		o.Plan = nil
		u := registration.Unfinished{Scope: k.scope, Operation: o}
		if o.Created.Before(createdBefore) && m.isUnfinished(k.scope, o) && unfinishedOrder(u, after) > 0 {
			list = append(list, u)
		}
	}
	slices.SortFunc(list, unfinishedOrder)
	return list[:min(limit, len(list))], nil
}

// Prune implements registration.DeviceStore: the oldest go first.
func (m *Model) Prune(ctx context.Context, operationsBefore, idleBefore time.Time, limit int) (removed int, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	removed = oldest(m.operations, limit, func(k key, o registration.Operation) (time.Time, bool) {
		return o.Created, o.Created.Before(operationsBefore) && !m.isUnfinished(k.scope, o)
	})
	removed += oldest(m.generations, limit, func(k key, g generation) (time.Time, bool) {
		_, enrolled := m.enrollments[k]
		_, registered := m.registrations[k]
		return g.moved, !enrolled && !registered && g.moved.Before(idleBefore)
	})
	removed += oldest(m.left, limit, func(_ key, l leftBehind) (time.Time, bool) { return l.at, l.at.Before(idleBefore) })
	return removed + m.pruneOwners(idleBefore, limit) + m.pruneClosings(operationsBefore, limit), nil
}

// created are the times of all operations.
func (m *Model) created() (moments []time.Time) {
	for _, o := range m.operations {
		moments = append(moments, o.Created)
	}
	return moments
}

// idle are the times at which generations, as far as they are of ids without anything else, were moved.
func (m *Model) idle() (moments []time.Time) {
	for k, g := range m.generations {
		if d := m.device(k.scope, k.id); d.Enrollment == nil && d.Registration == nil {
			moments = append(moments, g.moved)
		}
	}
	for _, l := range m.left {
		moments = append(moments, l.at)
	}
	return moments
}

// oldest removes the oldest of the rows that may go, at most limit, and says how many.
func oldest[V any](rows map[key]V, limit int, may func(key, V) (age time.Time, gone bool)) int {
	var old []key
	for k, v := range rows {
		if _, gone := may(k, v); gone {
			old = append(old, k)
		}
	}
	age := func(k key) time.Time { at, _ := may(k, rows[k]); return at }
	slices.SortFunc(old, func(a, b key) int { return age(a).Compare(age(b)) })
	old = old[:min(limit, len(old))]
	for _, k := range old {
		delete(rows, k)
	}
	return len(old)
}

func (m *Model) pruneOwners(before time.Time, limit int) (removed int) {
	var old []time.Time
	for _, owners := range m.owners {
		for _, o := range owners {
			if o.at.Before(before) {
				old = append(old, o.at)
			}
		}
	}
	if len(old) > limit { // no two are remembered at one time in a history
		slices.SortFunc(old, time.Time.Compare)
		before = old[limit]
	}
	for k, owners := range m.owners {
		m.owners[k] = slices.DeleteFunc(owners, func(o owner) bool { return o.at.Before(before) })
		removed += len(owners) - len(m.owners[k])
	}
	return removed
}

// RememberOwner implements registration.OwnerMemory.
func (m *Model) RememberOwner(ctx context.Context, scope, id string, srk []byte, at time.Time) error {
	leave, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	k := fold(scope, id)
	others := slices.DeleteFunc(slices.Clone(m.owners[k]), func(o owner) bool { return o.srk == string(srk) })
	all := append([]owner{{string(srk), at}}, others...)
	m.owners[k] = all[:min(len(all), registration.MaxOwners)]
	return nil
}

// Owners implements registration.OwnerMemory.
func (m *Model) Owners(ctx context.Context, scope, id string, since time.Time) (srks [][]byte, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, o := range m.owners[fold(scope, id)] {
		if !o.at.Before(since) {
			srks = append(srks, []byte(o.srk))
		}
	}
	return srks, nil
}
