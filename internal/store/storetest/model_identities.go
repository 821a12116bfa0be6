package storetest

import (
	"context"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// hubDevices is what the embedded hub keeps: by scope, and hub and device id.
type hubDevices struct {
	identities map[key]registration.Identity
	left       map[key]leftBehind
	twins      map[key]registration.Twin
	messages   map[key][]registration.HubMessage // oldest first
	numbers    map[key]uint64                    // of the last message
	listens    map[key]uint32                    // what the session does; counts while there is a number
}

// leftBehind is what stays of a deleted identity.
type leftBehind struct {
	generation, version uint64
	at                  time.Time
}

func newHubDevices() hubDevices {
	return hubDevices{map[key]registration.Identity{}, map[key]leftBehind{}, map[key]registration.Twin{}, map[key][]registration.HubMessage{}, map[key]uint64{}, map[key]uint32{}}
}

func at(scope, hub, deviceID string) key { return key{scope, hub + "\x00" + deviceID} }

// PutIdentity implements HubStore.
func (m *Model) PutIdentity(ctx context.Context, scope string, put registration.IdentityPut, a registration.Audit) (registration.Verdict, error) {
	if err := put.Check(); err != nil {
		return 0, err
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := at(scope, put.Hub, put.DeviceID)
	has, known := m.identities[k]
	switch {
	case put.Owner != nil && *put.Owner != m.hub.ID:
		return registration.OtherOwner, nil
	case has.Generation != put.Was || has.Generation > put.Generation || put.WasVersion != 0 && put.WasVersion != has.Version:
		return registration.Conflict, nil
	case !known && m.left[k].generation > put.Generation:
		return registration.Superseded, nil
	case put.Twin != nil && m.twins[k].Version != put.Twin.Was:
		return registration.Conflict, nil
	}
	id := put.Identity
	if id.Version = has.Version + 1; known {
		id.Created = has.Created
	} else {
		id.Version += m.left[k].version
	}
	delete(m.left, k)
	m.identities[k] = id
	if put.Twin != nil {
		twin := *put.Twin
		twin.Hub, twin.DeviceID = put.Hub, put.DeviceID
		m.setTwin(k, twin)
		m.order(scope, twin.Outbox)
	}
	if put.Purge {
		delete(m.messages, k)
		delete(m.listens, k)
	}
	return m.note(scope, a), nil
}

// Identity implements HubStore.
func (m *Model) Identity(ctx context.Context, scope, hub, deviceID string) (registration.Identity, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Identity{}, err
	}
	defer leave()
	id, found := m.identities[at(scope, hub, deviceID)]
	if !found {
		return registration.Identity{}, registration.ErrNotFound
	}
	return id, nil
}

// Identities implements HubStore.
func (m *Model) Identities(ctx context.Context, scope, hub, after string, limit int) (list []registration.Identity, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	for k, id := range m.identities {
		if k.scope == scope && id.Hub == hub && id.DeviceID > after {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, func(a, b registration.Identity) int { return strings.Compare(a.DeviceID, b.DeviceID) })
	return list[:min(limit, len(list))], nil
}

// IdentityGeneration implements HubStore.
func (m *Model) IdentityGeneration(ctx context.Context, scope, hub, deviceID string) (uint64, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := at(scope, hub, deviceID)
	return max(m.identities[k].Generation, m.left[k].generation), nil
}

// DeleteIdentity implements HubStore.
func (m *Model) DeleteIdentity(ctx context.Context, scope string, d registration.IdentityDelete, a registration.Audit) (registration.Verdict, error) {
	if err := d.Check(); err != nil {
		return 0, err
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := at(scope, d.Hub, d.DeviceID)
	has, known := m.identities[k]
	left := m.left[k]
	switch {
	case d.Owner != nil && *d.Owner != m.hub.ID:
		return registration.OtherOwner, nil
	case !known && d.Was != 0:
		return registration.Missing, nil
	case has.Generation != d.Was || d.WasVersion != 0 && has.Version != d.WasVersion:
		return registration.Conflict, nil
	case left.generation > d.Generation:
		return registration.Superseded, nil
	}
	m.hubDevices.remove(k)
	m.left[k] = leftBehind{d.Generation, max(has.Version, left.version), d.At}
	return m.note(scope, a), nil
}

// remove removes an identity and what hangs on it.
func (h *hubDevices) remove(k key) {
	delete(h.identities, k)
	delete(h.twins, k)
	delete(h.messages, k)
	delete(h.numbers, k)
	delete(h.listens, k)
}

// Twin implements HubStore.
func (m *Model) Twin(ctx context.Context, scope, hub, deviceID string) (registration.Twin, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return registration.Twin{}, err
	}
	defer leave()
	t, found := m.twins[at(scope, hub, deviceID)]
	if !found {
		return registration.Twin{}, registration.ErrNotFound
	}
	return t, nil
}

// PutTwin implements HubStore.
func (m *Model) PutTwin(ctx context.Context, scope string, put registration.TwinPut) (registration.Verdict, error) {
	if err := put.Check(); err != nil {
		return 0, err
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := at(scope, put.Hub, put.DeviceID)
	if _, known := m.identities[k]; !known {
		return registration.Missing, nil
	}
	if m.twins[k].Version != put.Was {
		return registration.Conflict, nil
	}
	m.setTwin(k, put)
	m.order(scope, put.Outbox)
	return registration.Applied, nil
}

func (h *hubDevices) setTwin(k key, put registration.TwinPut) {
	put.Version = put.Was + 1
	h.twins[k] = put.Twin
}

// EnqueueMessage implements HubStore.
func (m *Model) EnqueueMessage(ctx context.Context, scope string, message registration.HubMessage, most int) (uint64, registration.Verdict, error) {
	if err := message.Check(); err != nil {
		return 0, 0, err
	}
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer leave()
	k := at(scope, message.Hub, message.DeviceID)
	if _, known := m.identities[k]; !known {
		return 0, registration.Missing, nil
	}
	if len(m.messages[k]) >= most {
		return 0, registration.Full, nil
	}
	m.queue(k)
	m.numbers[k]++
	m.order(scope, message.Outbox)
	message.Seq, message.Deliveries, message.Outbox = m.numbers[k], 0, nil
	m.messages[k] = append(m.messages[k], message)
	return message.Seq, registration.Applied, nil
}

// Messages implements HubStore.
func (m *Model) Messages(ctx context.Context, scope, hub, deviceID string, after uint64, limit int) (list []registration.HubMessage, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, message := range m.messages[at(scope, hub, deviceID)] {
		if message.Seq > after && len(list) < limit {
			list = append(list, message)
		}
	}
	return list, nil
}

// CountMessages implements HubStore.
func (m *Model) CountMessages(ctx context.Context, scope, hub, deviceID string) (int, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	return len(m.messages[at(scope, hub, deviceID)]), nil
}

// SettleMessage implements HubStore.
func (m *Model) SettleMessage(ctx context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := at(scope, hub, deviceID)
	i := m.message(k, seq)
	if i < 0 {
		return registration.Missing, nil
	}
	m.messages[k] = slices.Delete(m.messages[k], i, i+1)
	return registration.Applied, nil
}

// DeliveredMessage implements HubStore.
func (m *Model) DeliveredMessage(ctx context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := at(scope, hub, deviceID)
	i := m.message(k, seq)
	if i < 0 {
		return registration.Missing, nil
	}
	m.messages[k][i].Deliveries++
	return registration.Applied, nil
}

// message finds one by its number, or -1.
func (h *hubDevices) message(k key, seq uint64) int {
	return slices.IndexFunc(h.messages[k], func(m registration.HubMessage) bool { return m.Seq == seq })
}

// ExpireMessages implements HubStore.
func (m *Model) ExpireMessages(ctx context.Context, before time.Time, limit int) (expired []registration.ExpiredMessage, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	for k, messages := range m.messages {
		for _, message := range messages {
			if message.Expires.Before(before) {
				message.Body = nil
				expired = append(expired, registration.ExpiredMessage{Scope: k.scope, HubMessage: message})
			}
		}
	}
	slices.SortFunc(expired, func(a, b registration.ExpiredMessage) int { return a.Expires.Compare(b.Expires) })
	expired = expired[:min(limit, len(expired))]
	for _, e := range expired {
		k := at(e.Scope, e.Hub, e.DeviceID)
		m.messages[k] = slices.DeleteFunc(m.messages[k], func(m registration.HubMessage) bool { return m.Seq == e.Seq })
	}
	return expired, nil
}

// expiries are the times at which messages expire.
func (h *hubDevices) expiries() (moments []time.Time) {
	for _, messages := range h.messages {
		for _, m := range messages {
			moments = append(moments, m.Expires)
		}
	}
	return moments
}

// prune removes rows of a scope, at most so many.
func (h *hubDevices) prune(scope string, limit int) (removed int) {
	for _, of := range []func(scope string, limit int) int{without(h.identities), without(h.left), without(h.twins), without(h.numbers)} {
		removed += of(scope, limit-removed)
	}
	for k, messages := range h.messages {
		if k.scope == scope {
			n := min(len(messages), limit-removed)
			h.messages[k] = messages[n:]
			removed += n
		}
	}
	return removed
}

// HubLeftovers implements HubStore.
func (m *Model) HubLeftovers(ctx context.Context, limit int) (list []registration.HubLeftover, err error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	left := func(k key) {
		hub, deviceID, _ := strings.Cut(k.id, "\x00")
		l := registration.HubLeftover{Scope: k.scope, Hub: hub, DeviceID: deviceID}
		_, known := m.identities[k]
		if _, there := m.scopes[k.scope]; there && !known && len(list) < limit && !slices.Contains(list, l) {
			list = append(list, l)
		}
	}
	for k := range m.twins {
		left(k)
	}
	for k, messages := range m.messages {
		if len(messages) > 0 {
			left(k)
		}
	}
	return list, nil
}

// queue is the row of a device's queue and session, made if there is none.
func (h *hubDevices) queue(k key) {
	if _, there := h.numbers[k]; !there {
		h.numbers[k] = 0
		delete(h.listens, k)
	}
}

// Session implements HubStore.
func (m *Model) Session(ctx context.Context, scope, hub, deviceID string) (uint32, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := at(scope, hub, deviceID)
	if _, there := m.numbers[k]; !there {
		return 0, nil
	}
	return m.listens[k], nil
}

// PutSession implements HubStore.
func (m *Model) PutSession(ctx context.Context, scope, hub, deviceID string, listens uint32) (registration.Verdict, error) {
	leave, err := m.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	k := at(scope, hub, deviceID)
	if _, known := m.identities[k]; !known {
		return registration.Missing, nil
	}
	m.queue(k)
	m.listens[k] = listens
	return registration.Applied, nil
}
