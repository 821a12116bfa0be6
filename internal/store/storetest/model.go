package storetest

import (
	"context"
	"errors"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Model is the contract in a few maps: a Store that is slow, in memory, and plain enough to be believed. Histories hold the real stores
// against it, and it passes the sentences of the contract like any of them.
//
// Keys are pairs of scope and id, the id folded where ids are compared so.
type Model struct {
	mu     sync.Mutex
	closed bool
	calls  map[string]int // by method

	scopes   map[string]registration.Scope
	moved    uint64                  // the revision of the scopes
	deleted  map[string]deletedScope // by folded id: never used again
	log      []registration.AuditLine
	logOf    []string // scope of each row of log
	lastSeq  uint64
	revision map[string]uint64 // the last one given out, by scope

	entries
	registrations map[key]registration.Registration
	operations    map[key]registration.Operation // by operation id
	generations   map[key]generation
	owners        map[key][]owner // newest first
	hubDevices
	hub    registration.HubOwner
	outbox map[outboxKey]*waiting
	closings
}

// entries is what an operator has put into scopes.
type entries struct {
	enrollments map[key]registration.Enrollment
	groups      map[key]registration.Group
	authorities map[key]registration.CACertificate
	groupsMoved map[string]uint64 // the revision of the last change of a scope's groups
}

type key struct{ scope, id string }

func fold(scope, id string) key { return key{scope, dps.FoldID(id)} }

type deletedScope struct {
	id   string
	at   time.Time
	done bool
}

type generation struct {
	count uint64
	moved time.Time
}

type owner struct {
	srk string
	at  time.Time
}

// NewModel is an empty store.
func NewModel() *Model {
	return &Model{
		calls: map[string]int{}, scopes: map[string]registration.Scope{}, deleted: map[string]deletedScope{}, revision: map[string]uint64{},
		entries: entries{
			map[key]registration.Enrollment{}, map[key]registration.Group{}, map[key]registration.CACertificate{}, map[string]uint64{},
		},
		registrations: map[key]registration.Registration{}, operations: map[key]registration.Operation{},
		generations: map[key]generation{}, owners: map[key][]owner{}, hubDevices: newHubDevices(),
		moved: 1, hub: registration.HubOwner{Since: time.UnixMicro(0).UTC()}, outbox: map[outboxKey]*waiting{},
		closings: newClosings(),
	}
}

var errClosed = errors.New("the model is closed")

// enter lets one caller in at a time, and none that has given up. It counts the method that calls it.
func (m *Model) enter(ctx context.Context) (leave func(), err error) {
	caller, _, _, _ := runtime.Caller(1)
	m.mu.Lock()
	m.calls[path.Ext(runtime.FuncForPC(caller).Name())[1:]]++
	if err = ctx.Err(); m.closed {
		err = errClosed
	}
	if err != nil {
		m.mu.Unlock()
		return nil, err
	}
	return m.mu.Unlock, nil
}

// Calls says how often each method was called.
func (m *Model) Calls() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.calls)
}

// Close implements Store.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// next gives out a revision.
func (m *Model) next(scope string) uint64 {
	m.revision[scope]++
	return m.revision[scope]
}

// moveGroups gives out the revision of a change of groups or CA certificates.
func (m *Model) moveGroups(scope string) uint64 {
	m.groupsMoved[scope] = m.next(scope)
	return m.groupsMoved[scope]
}

func (m *Model) note(scope string, a registration.Audit) registration.Verdict {
	m.lastSeq++
	m.log, m.logOf = append(m.log, registration.AuditLine{Seq: m.lastSeq, Audit: a}), append(m.logOf, scope)
	return registration.Applied
}

// judge compares what a caller expects with the revision of the row that is there, 0 if none is.
func judge(expect *uint64, revision uint64) registration.Verdict {
	switch {
	case expect == nil && revision != 0:
		return registration.Exists
	case expect != nil && revision == 0:
		return registration.Missing
	case expect != nil && *expect != registration.AnyRevision && *expect != revision:
		return registration.Conflict
	}
	return registration.Applied
}

// judgeDelete is judge for a caller who deletes: nil is any.
func judgeDelete(expect *uint64, revision uint64) registration.Verdict {
	if expect == nil {
		expect = anyRevision
	}
	return judge(expect, revision)
}

// CreateScope implements registration.ScopeStore.
func (m *Model) CreateScope(ctx context.Context, scope registration.Scope, a registration.Audit) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	home := slices.ContainsFunc(slices.Collect(maps.Values(m.scopes)), func(s registration.Scope) bool { return s.Home })
	if _, used := m.deleted[dps.FoldID(scope.ID)]; used || scope.Home && home || m.scopeTaken(scope) {
		return registration.Exists, nil
	}
	for i, host := range scope.Hosts {
		if scope.Hosts = slices.Clone(scope.Hosts); slices.Contains(scope.Hosts[:i], dps.FoldID(host)) {
			return registration.Exists, nil
		}
		scope.Hosts[i] = dps.FoldID(host)
	}
	scope.Policies = slices.Clone(scope.Policies)
	m.setScope(scope)
	m.note(scope.ID, a)
	m.tellHome(scope.ID, a)
	return registration.Applied, nil
}

func (m *Model) setScope(scope registration.Scope) {
	m.scopes[scope.ID] = scope
	m.moved++
}

// ScopesRevision implements registration.ScopeStore.
func (m *Model) ScopesRevision(ctx context.Context) (uint64, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	return m.moved, nil
}

func (m *Model) scopeTaken(scope registration.Scope) bool {
	for id, other := range m.scopes {
		if dps.FoldID(id) == dps.FoldID(scope.ID) {
			return true
		}
		for _, host := range scope.Hosts {
			if slices.Contains(other.Hosts, dps.FoldID(host)) || hubAt(other.Hubs, dps.FoldID(host)) >= 0 {
				return true
			}
		}
	}
	return false
}

func (m *Model) tellHome(scope string, a registration.Audit) {
	for id, home := range m.scopes {
		if home.Home && id != scope {
			m.note(id, a)
		}
	}
}

// Scopes implements registration.ScopeStore.
func (m *Model) Scopes(ctx context.Context) ([]registration.Scope, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	list := slices.SortedFunc(maps.Values(m.scopes), func(a, b registration.Scope) int { return strings.Compare(a.ID, b.ID) })
	for i := range list {
		list[i].Policies, list[i].Hubs = slices.Clone(list[i].Policies), slices.Clone(list[i].Hubs)
	}
	return list, nil
}

// DeleteScope implements registration.ScopeStore.
func (m *Model) DeleteScope(ctx context.Context, id string, a registration.Audit) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	switch scope, found := m.scopes[id]; {
	case !found:
		return registration.Missing, nil
	case scope.Home:
		return registration.LastOne, nil
	}
	delete(m.scopes, id)
	m.moved++
	m.deleted[dps.FoldID(id)] = deletedScope{id: id, at: a.At}
	m.note(id, a)
	m.tellHome(id, a)
	return registration.Applied, nil
}

// PruneScopes implements registration.ScopeStore. Which rows a limited call takes, and what counts as a row, is each store's own.
func (m *Model) PruneScopes(ctx context.Context, settledBefore time.Time, limit int) (removed int, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	for folded, d := range m.deleted {
		if d.done {
			continue
		}
		if removed += m.pruneScope(d.id, limit-removed); removed >= limit {
			return removed, nil
		}
		d.done = d.at.Before(settledBefore)
		m.deleted[folded] = d
	}
	return removed, nil
}

func (m *Model) pruneScope(scope string, limit int) (removed int) {
	for _, of := range []func(scope string, limit int) int{
		without(m.enrollments), without(m.groups), without(m.authorities), without(m.registrations), without(m.operations), without(m.generations),
		without(m.owners), m.hubDevices.prune, without(m.closures), without(m.awaited), without(m.offers),
	} {
		removed += of(scope, limit-removed)
	}
	for k := range m.outbox {
		if k.scope == scope && removed < limit {
			delete(m.outbox, k)
			removed++
		}
	}
	if removed < limit {
		delete(m.groupsMoved, scope)
		delete(m.revision, scope)
	}
	return removed
}

// without removes rows of a scope from a table, at most so many.
func without[V any](rows map[key]V) func(scope string, limit int) int {
	return func(scope string, limit int) (removed int) {
		for k := range rows {
			if k.scope == scope && removed < limit {
				delete(rows, k)
				removed++
			}
		}
		return removed
	}
}

// PutScopeCertificate implements registration.ScopeStore.
func (m *Model) PutScopeCertificate(ctx context.Context, id string, chain, sealedKey []byte, a registration.Audit) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	scope, found := m.scopes[id]
	if !found {
		return registration.Missing, nil
	}
	scope.Certificate, scope.SealedCertificateKey = chain, sealedKey
	m.setScope(scope)
	return m.note(id, a), nil
}
