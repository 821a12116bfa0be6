package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"latchkey.example/latchkey/internal/registration"
)

// sealedRow is a sealed value and how to write another in its place.
type sealedRow struct {
	registration.SealedValue
	set func(sealed []byte)
}

// sealedRows lists all sealed values that are not empty, in order of kind, scope and key.
func (m *Model) sealedRows() (rows []sealedRow) {
	add := func(kind registration.SealedKind, scope, key string, sealed []byte, set func([]byte)) {
		if len(sealed) > 0 {
			rows = append(rows, sealedRow{registration.SealedValue{Kind: kind, Scope: scope, Key: key, Sealed: sealed}, set})
		}
	}
	for id, s := range m.scopes {
		add(registration.SealedScopeRoot, id, "", s.SealedRoot, func(b []byte) { s := m.scopes[id]; s.SealedRoot = b; m.setScope(s) })
		add(registration.SealedScopeCertificate, id, "", s.SealedCertificateKey, func(b []byte) { s := m.scopes[id]; s.SealedCertificateKey = b; m.setScope(s) })
		add(registration.SealedWebhookKey, id, "", s.Allocation.SealedWebhookKey, func(b []byte) { s := m.scopes[id]; s.Allocation.SealedWebhookKey = b; m.setScope(s) })
		for i, h := range s.Hubs {
			add(registration.SealedHubSecret, id, h.Name, h.SealedSecret, func(b []byte) { s := m.scopes[id]; s.Hubs[i].SealedSecret = b; m.setScope(s) })
		}
		for i, p := range s.Policies {
			add(registration.SealedPolicyPrimary, id, p.Name, p.SealedPrimary, func(b []byte) { s := m.scopes[id]; s.Policies[i].SealedPrimary = b; m.setScope(s) })
			add(registration.SealedPolicySecondary, id, p.Name, p.SealedSecondary, func(b []byte) { s := m.scopes[id]; s.Policies[i].SealedSecondary = b; m.setScope(s) })
		}
	}
	for k, e := range m.enrollments {
		add(registration.SealedEnrollmentFirst, k.scope, k.id, e.Keys.Primary, func(b []byte) { e := m.enrollments[k]; e.Keys.Primary = b; m.enrollments[k] = e })
		add(registration.SealedEnrollmentSecond, k.scope, k.id, e.Keys.Secondary, func(b []byte) { e := m.enrollments[k]; e.Keys.Secondary = b; m.enrollments[k] = e })
	}
	for k, g := range m.groups {
		add(registration.SealedGroupFirst, k.scope, k.id, g.Keys.Primary, func(b []byte) { g := m.groups[k]; g.Keys.Primary = b; m.groups[k] = g })
		add(registration.SealedGroupSecond, k.scope, k.id, g.Keys.Secondary, func(b []byte) { g := m.groups[k]; g.Keys.Secondary = b; m.groups[k] = g })
	}
	for k, r := range m.registrations {
		add(registration.SealedRegistrationKey, k.scope, k.id, r.SealedHubKey, func(b []byte) { r := m.registrations[k]; r.SealedHubKey = b; m.registrations[k] = r })
	}
	for k, o := range m.operations {
		both := k.id + "\x00" + fold(k.scope, o.RegistrationID).id
		add(registration.SealedOperationKey, k.scope, k.id, o.SealedKey, func(b []byte) { o := m.operations[k]; o.SealedKey = b; m.operations[k] = o })
		add(registration.SealedOperationHubKey, k.scope, both, o.SealedHubKey, func(b []byte) { o := m.operations[k]; o.SealedHubKey = b; m.operations[k] = o })
	}
	for k, i := range m.identities {
		add(registration.SealedHubIdentity, k.scope, k.id, i.SealedKey, func(b []byte) { i := m.identities[k]; i.SealedKey = b; m.identities[k] = i })
	}
	slices.SortFunc(rows, func(a, b sealedRow) int { return comparePlaces(place(a.SealedValue), place(b.SealedValue)) })
	return rows
}

func comparePlaces(a, b sealedPlace) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.scope, b.scope), cmp.Compare(a.key, b.key))
}

// SealedValues implements registration.SealedStore. The cursor is the place of the last value.
func (m *Model) SealedValues(ctx context.Context, cursor string, limit int) (values []registration.SealedValue, next string, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, "", err
	}
	defer leave()
	if limit < 1 {
		return nil, "", errors.New("a page holds one value at least")
	}
	after := sealedPlace{}
	if parts := strings.SplitN(cursor, "\x00", 3); len(parts) == 3 {
		after = sealedPlace{registration.SealedKind(parts[0]), parts[1], parts[2]}
	}
	for _, row := range m.sealedRows() {
		if comparePlaces(place(row.SealedValue), after) <= 0 {
			continue
		}
		if len(values) == limit {
			last := values[limit-1]
			return values, string(last.Kind) + "\x00" + last.Scope + "\x00" + last.Key, nil
		}
		values = append(values, row.SealedValue)
	}
	return values, "", nil
}

// ReplaceSealed implements registration.SealedStore.
func (m *Model) ReplaceSealed(ctx context.Context, values []registration.SealedReplacement) (replaced int, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	for _, v := range values {
		rows := m.sealedRows()
		at := slices.IndexFunc(rows, func(r sealedRow) bool { return place(r.SealedValue) == place(v.SealedValue) })
		switch {
		case v.Kind == "":
			return 0, fmt.Errorf("no sealed column named %q", v.Kind)
		case at >= 0 && bytes.Equal(rows[at].Sealed, v.Sealed):
			rows[at].set(v.New)
			replaced++
		}
	}
	return replaced, nil
}
