package storetest

import (
	"bytes"
	"context"
	"slices"

	"latchkey.example/latchkey/internal/registration"
)

func named(policies []registration.AccessPolicy, name string) int {
	return slices.IndexFunc(policies, func(p registration.AccessPolicy) bool { return p.Name == name })
}

// managedWithout says whether an access policy other than the named one has ServiceConfig.
func managedWithout(policies []registration.AccessPolicy, name string) bool {
	return slices.ContainsFunc(policies, func(p registration.AccessPolicy) bool {
		return p.Name != name && p.Rights&registration.ServiceConfig != 0
	})
}

func samePolicy(a, b registration.AccessPolicy) bool {
	return a.Rights == b.Rights && bytes.Equal(a.SealedPrimary, b.SealedPrimary) && bytes.Equal(a.SealedSecondary, b.SealedSecondary)
}

// PutPolicy implements registration.ScopeStore.
func (m *Model) PutPolicy(ctx context.Context, id string, was *registration.AccessPolicy, p registration.AccessPolicy, a registration.Audit) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	scope, found := m.scopes[id]
	at := named(scope.Policies, p.Name)
	switch {
	case was == nil && !found:
		return registration.Missing, nil
	case was == nil && at >= 0:
		return registration.Exists, nil
	case was == nil:
		scope.Policies = append(slices.Clone(scope.Policies), p)
		m.setScope(scope)
		return m.note(id, a), nil
	case at < 0:
		return registration.Missing, nil
	case !samePolicy(scope.Policies[at], *was):
		return registration.Conflict, nil
	case p.Rights&registration.ServiceConfig == 0 && scope.Policies[at].Rights&registration.ServiceConfig != 0 && !managedWithout(scope.Policies, p.Name):
		return registration.LastOne, nil
	}
	scope.Policies = slices.Clone(scope.Policies)
	scope.Policies[at] = p
	m.setScope(scope)
	return m.note(id, a), nil
}

// DeletePolicy implements registration.ScopeStore.
func (m *Model) DeletePolicy(ctx context.Context, id, name string, a registration.Audit) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	scope := m.scopes[id]
	at := named(scope.Policies, name)
	switch {
	case at < 0:
		return registration.Missing, nil
	case scope.Policies[at].Rights&registration.ServiceConfig != 0 && !managedWithout(scope.Policies, name):
		return registration.LastOne, nil
	}
	scope.Policies = slices.Delete(slices.Clone(scope.Policies), at, at+1)
	m.setScope(scope)
	return m.note(id, a), nil
}
