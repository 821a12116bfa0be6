package storetest

import (
	"context"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

func (m *Model) hubTaken(scope, name string) bool {
	for id, s := range m.scopes {
		if id != scope && (slices.Contains(s.Hosts, name) || hubAt(s.Hubs, name) >= 0) {
			return true
		}
	}
	return false
}

func hubAt(hubs []registration.LinkedHub, name string) int {
	return slices.IndexFunc(hubs, func(h registration.LinkedHub) bool { return h.Name == name })
}

// micro is a time as stores keep it.
func micro(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

// PutHub implements registration.HubStore.
func (m *Model) PutHub(ctx context.Context, id string, hub registration.LinkedHub, expect *uint64, a registration.Audit) (registration.LinkedHub, registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.LinkedHub{}, 0, err
	}
	defer leave()
	hub.Name = dps.FoldID(hub.Name)
	scope, found := m.scopes[id]
	switch {
	case !found:
		return registration.LinkedHub{}, registration.Missing, nil
	case m.hubTaken(id, hub.Name):
		return registration.LinkedHub{}, registration.Taken, nil
	}
	var was registration.LinkedHub
	at := hubAt(scope.Hubs, hub.Name)
	if at >= 0 {
		was = scope.Hubs[at]
	}
	if verdict := judge(expect, was.Revision); verdict != registration.Applied {
		return registration.LinkedHub{}, verdict, nil
	}
	hub.Revision, hub.Created, hub.Updated = m.next(id), micro(hub.Created), micro(hub.Updated)
	scope.Hubs = slices.Clone(scope.Hubs)
	if at >= 0 {
		hub.Created = was.Created
		scope.Hubs[at] = hub
	} else {
		scope.Hubs = append(scope.Hubs, hub)
		slices.SortFunc(scope.Hubs, func(a, b registration.LinkedHub) int { return strings.Compare(a.Name, b.Name) })
	}
	m.setScope(scope)
	return hub, m.note(id, a), nil
}

// DeleteHub implements registration.HubStore.
func (m *Model) DeleteHub(ctx context.Context, id, name string, expect *uint64, a registration.Audit) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	scope := m.scopes[id]
	at := hubAt(scope.Hubs, dps.FoldID(name))
	if at < 0 {
		return registration.Missing, nil
	}
	if verdict := judgeDelete(expect, scope.Hubs[at].Revision); verdict != registration.Applied {
		return verdict, nil
	}
	scope.Hubs = slices.Delete(slices.Clone(scope.Hubs), at, at+1)
	m.setScope(scope)
	return m.note(id, a), nil
}

// PutAllocation implements registration.HubStore.
func (m *Model) PutAllocation(ctx context.Context, id string, settings registration.AllocationSettings, expect *uint64, a registration.Audit) (registration.AllocationSettings, registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.AllocationSettings{}, 0, err
	}
	defer leave()
	settings.SealedWebhookKey = m.scopes[id].Allocation.SealedWebhookKey
	return m.setAllocation(id, settings, expect, a)
}

// PutWebhookKey implements registration.HubStore.
func (m *Model) PutWebhookKey(ctx context.Context, id string, sealed []byte, expect *uint64, a registration.Audit) (registration.AllocationSettings, registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.AllocationSettings{}, 0, err
	}
	defer leave()
	settings := m.scopes[id].Allocation
	settings.SealedWebhookKey, settings.Updated = sealed, a.At
	return m.setAllocation(id, settings, expect, a)
}

func (m *Model) setAllocation(id string, settings registration.AllocationSettings, expect *uint64, a registration.Audit) (registration.AllocationSettings, registration.Verdict, error) {
	scope, found := m.scopes[id]
	if !found {
		return registration.AllocationSettings{}, registration.Missing, nil
	}
	if verdict := judge(expect, scope.Allocation.Revision); verdict != registration.Applied {
		return registration.AllocationSettings{}, verdict, nil
	}
	settings.Revision, settings.Updated = m.next(id), micro(settings.Updated)
	scope.Allocation = settings
	m.setScope(scope)
	return settings, m.note(id, a), nil
}

// HubDevices implements registration.HubStore.
func (m *Model) HubDevices(ctx context.Context, id string) (map[string]registration.HubCount, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	devices := map[string]registration.HubCount{}
	for k, r := range m.registrations {
		if k.scope == id && r.Hub != "" {
			count := devices[r.Hub]
			if count.Devices++; r.Status == registration.Assigning {
				count.Assigning++
			}
			devices[r.Hub] = count
		}
		for _, hub := range r.Leaving {
			if k.scope == id && r.Status != registration.Assigned {
				count := devices[hub]
				count.Leaving++
				devices[hub] = count
			}
		}
	}
	return devices, nil
}
