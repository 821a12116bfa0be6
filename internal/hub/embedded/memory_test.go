package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// The rest of memory: what devices have besides their credential. It goes with their identities.

func (m *memory) Identities(_ context.Context, scope, hub, after string, limit int) (list []registration.Identity, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, id := range m.rows {
		if strings.HasPrefix(k, rowKey(scope, hub, "")) && id.DeviceID > after {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, func(a, b registration.Identity) int { return strings.Compare(a.DeviceID, b.DeviceID) })
	return list[:min(limit, len(list))], m.failRead
}

func (m *memory) DeleteIdentity(_ context.Context, scope string, d registration.IdentityDelete, audit registration.Audit) (registration.Verdict, error) {
	if m.beforePut != nil {
		m.beforePut()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := d.Check(); err != nil || d.At.IsZero() {
		m.t.Errorf("a deletion that is not whole: %+v (%v)", d, err)
	}
	byCore, byApplication := audit.Action == registration.ActionIdentityDelete, audit.Action == registration.ActionDeviceDelete && strings.HasPrefix(audit.Actor, "policy:")
	if !byCore && !byApplication || audit.Object != d.DeviceID || audit.Outcome != registration.OutcomeOK || !json.Valid([]byte(audit.Detail)) {
		m.t.Errorf("audit row: %+v", audit)
	}
	if m.failPut != nil {
		return 0, m.failPut
	}
	if d.Owner != nil && (m.owners == nil || *d.Owner != m.owners.now().ID) {
		return registration.OtherOwner, nil
	}
	k := rowKey(scope, d.Hub, d.DeviceID)
	old, known := m.rows[k]
	switch {
	case !known && d.Was != 0:
		return registration.Missing, nil
	case old.Generation != d.Was || d.WasVersion != 0 && d.WasVersion != old.Version:
		return registration.Conflict, nil
	case m.left[k] > d.Generation:
		return registration.Superseded, nil
	}
	delete(m.rows, k)
	delete(m.twins, k)
	delete(m.messages, k)
	delete(m.sessions, k)
	m.left[k], m.gone[k] = d.Generation, old.Version
	m.audits = append(m.audits, audit)
	return registration.Applied, m.losePut
}

func (m *memory) IdentityGeneration(_ context.Context, scope, hub, deviceID string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := rowKey(scope, hub, deviceID)
	return max(m.rows[k].Generation, m.left[k]), m.failRead
}

func (m *memory) Twin(_ context.Context, scope, hub, deviceID string) (registration.Twin, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failRead != nil {
		return registration.Twin{}, m.failRead
	}
	t, ok := m.twins[rowKey(scope, hub, deviceID)]
	if !ok {
		return t, registration.ErrNotFound
	}
	return t, nil
}

func (m *memory) PutTwin(_ context.Context, scope string, put registration.TwinPut) (registration.Verdict, error) {
	if m.beforeTwin != nil {
		m.beforeTwin()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := rowKey(scope, put.Hub, put.DeviceID)
	switch _, known := m.rows[k]; {
	case m.failPut != nil:
		return 0, m.failPut
	case !known:
		return registration.Missing, nil
	case m.twins[k].Version != put.Was:
		return registration.Conflict, nil
	}
	m.setTwin(k, put)
	m.order(scope, put.Outbox)
	return registration.Applied, m.losePut
}

func (m *memory) setTwin(k string, put registration.TwinPut) {
	for _, part := range [][]byte{put.Tags, put.Desired, put.Reported, put.DesiredMetadata, put.ReportedMetadata} {
		if trimmed := bytes.TrimSpace(part); !json.Valid(part) || len(trimmed) == 0 || trimmed[0] != '{' {
			m.t.Errorf("a part of a twin is no JSON object: %q", part)
		}
	}
	put.Version = put.Was + 1
	m.twins[k] = put.Twin
}

func (m *memory) EnqueueMessage(_ context.Context, scope string, message registration.HubMessage, most int) (uint64, registration.Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := rowKey(scope, message.Hub, message.DeviceID)
	switch _, known := m.rows[k]; {
	case m.failPut != nil:
		return 0, 0, m.failPut
	case !known:
		return 0, registration.Missing, nil
	case len(m.messages[k]) >= most:
		return 0, registration.Full, nil
	}
	m.lastSeq++
	message.Seq = m.lastSeq
	m.order(scope, message.Outbox)
	message.Outbox = nil
	m.messages[k] = append(m.messages[k], message)
	return message.Seq, registration.Applied, m.losePut
}

func (m *memory) Messages(_ context.Context, scope, hub, deviceID string, after uint64, limit int) (list []registration.HubMessage, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, message := range m.messages[rowKey(scope, hub, deviceID)] {
		if message.Seq > after && len(list) < limit {
			list = append(list, message)
		}
	}
	return list, m.failRead
}

func (m *memory) CountMessages(_ context.Context, scope, hub, deviceID string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.messages[rowKey(scope, hub, deviceID)]), m.failRead
}

func (m *memory) SettleMessage(_ context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := rowKey(scope, hub, deviceID)
	i := slices.IndexFunc(m.messages[k], func(message registration.HubMessage) bool { return message.Seq == seq })
	switch {
	case m.failPut != nil:
		return 0, m.failPut
	case i < 0:
		return registration.Missing, nil
	}
	m.messages[k] = slices.Delete(m.messages[k], i, i+1)
	return registration.Applied, m.losePut
}

func (m *memory) DeliveredMessage(_ context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := rowKey(scope, hub, deviceID)
	i := slices.IndexFunc(m.messages[k], func(message registration.HubMessage) bool { return message.Seq == seq })
	switch {
	case m.failPut != nil:
		return 0, m.failPut
	case i < 0:
		return registration.Missing, nil
	}
	m.messages[k][i].Deliveries++
	return registration.Applied, m.losePut
}

func (m *memory) ExpireMessages(_ context.Context, before time.Time, limit int) (expired []registration.ExpiredMessage, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, messages := range m.messages {
		scope, _, _ := strings.Cut(k, "|")
		m.messages[k] = slices.DeleteFunc(messages, func(message registration.HubMessage) bool {
			if !message.Expires.Before(before) || len(expired) >= limit {
				return false
			}
			message.Body = nil
			expired = append(expired, registration.ExpiredMessage{Scope: scope, HubMessage: message})
			return true
		})
	}
	return expired, m.failPut
}

func (m *memory) order(scope string, work *registration.Outbox) {
	if work != nil {
		m.news = append(m.news, registration.OutboxRow{Scope: scope, Outbox: *work})
	}
}

func (m *memory) ClaimOutbox(_ context.Context, claim registration.OutboxClaim) (rows []registration.OutboxRow, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if claim.Kind != registration.OutboxDevice || claim.ID == "" {
		m.t.Errorf("claim: %+v", claim)
	}
	n := min(claim.Limit, len(m.news))
	rows, m.news = m.news[:n:n], m.news[n:]
	return rows, m.failRead
}

func (m *memory) SettleOutbox(context.Context, string, registration.Outbox, string) (registration.Verdict, error) {
	return registration.Applied, m.failPut
}

func (m *memory) Session(_ context.Context, scope, hub, deviceID string) (uint32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[rowKey(scope, hub, deviceID)], m.failRead
}

func (m *memory) PutSession(_ context.Context, scope, hub, deviceID string, listens uint32) (registration.Verdict, error) {
	if m.beforeSession != nil {
		m.beforeSession()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := rowKey(scope, hub, deviceID)
	switch _, known := m.rows[k]; {
	case m.failPut != nil:
		return 0, m.failPut
	case !known:
		return registration.Missing, nil
	}
	m.sessions[k] = listens
	return registration.Applied, m.losePut
}
