package embedded

import (
	"context"
	"fmt"
	"slices"

	"github.com/mochi-mqtt/server/v2/packets"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// What a session without clean flag listens to is durable before its SUBACK, and so outlives the process: clients that ask for such a session may
// subscribe once in their life. (The Node SDK does so with twins.) What is under way to the device is not: it is sent anew.

// hearEncoded says that the device spells its id percent-encoded where it listens to messages.
const hearEncoded heard = 1 << 5

// filtersOf are the topic filters, with their QoS, that a stored session had subscribed to.
func filtersOf(listens heard, deviceID string) map[string]byte {
	filters := map[string]byte{}
	for filter, bit := range map[string]heard{twinAnswers: hearTwinAnswers, desiredChanges: hearDesired, methodCalls: hearMethods} {
		if listens&bit != 0 {
			filters[filter] = 0
		}
	}
	spelled, qos := deviceID, byte(0)
	if listens&hearEncoded != 0 {
		spelled = iothub.EscapeText(deviceID)
	}
	if listens&hearMessagesSurely != 0 {
		qos = 1
	}
	if listens&hearMessages != 0 {
		filters["devices/"+spelled+"/messages/devicebound/#"] = qos
	}
	return filters
}

// granted is what a topic filter makes of what the session listens to.
func (l *login) granted(before heard, filter string, qos byte) heard {
	to := hears(filter, l.deviceID, qos)
	if to&hearMessages != 0 {
		before &^= hearMessagesSurely | hearEncoded // the last SUBSCRIBE decides
		if spelled, _, _ := cutDevice(filter, l.deviceID); spelled != l.deviceID {
			to |= hearEncoded
		}
	}
	return before | to
}

// restore prepares the library for a session that this process does not know and the store does. A clean session ends it there. The caller has locked the device.
func (h *Hub) restore(ctx context.Context, c *conn, l *login) cause {
	h.mu.Lock()
	known := h.devices[l.key()] != nil
	h.mu.Unlock()
	if known && !c.clean {
		return ""
	}
	stored, err := h.config.Identities.Session(ctx, l.scope, l.hub, l.deviceID)
	if err != nil {
		h.log.Error("hub: reading a session", "error", err)
		return causeUnavailable
	}
	if stored == 0 {
		return ""
	}
	if c.clean {
		return h.storeSession(ctx, l, 0)
	}
	past := h.server.NewClient(nil, "hub", l.key(), false)
	for filter, qos := range filtersOf(heard(stored), l.deviceID) {
		past.State.Subscriptions.Add(filter, packets.Subscription{Filter: filter, Qos: qos})
	}
	h.server.Clients.Add(past)
	return ""
}

// unprepare takes back what restore has prepared for a login that was refused after all.
func (h *Hub) unprepare(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.devices[key] == nil {
		h.server.Clients.Delete(key)
	}
}

// noteSession makes durable what the session listens to from now on, if that is new.
func (h *Hub) noteSession(c *conn, listens heard) {
	if c.clean || listens == c.noted {
		return
	}
	if !h.afford(c) {
		c.distrusted = true
		return
	}
	ctx, cancel := context.WithTimeout(c.context, deviceTimeout)
	defer cancel()
	why := h.storeSession(ctx, c.login, listens)
	if why == "" {
		why = h.keepSession(ctx, c.login)
	}
	if why != "" {
		c.distrusted = true // it has the subscription already: the next login begins with what is stored
		c.cut(why)
		return
	}
	c.noted = listens
}

// keepSession takes back what was stored of a session whose key the device has no more. Another key purges what is stored in its own transaction, and is durable before
// the session has ended: so either that came later and has purged this too, or it is seen here.
func (h *Hub) keepSession(ctx context.Context, l *login) cause {
	identity, known, err := h.readIdentity(ctx, l.scope, l.hub, l.deviceID)
	if err != nil || !known {
		return causeUnavailable // of a device that is not there nothing is stored
	}
	credential, err := h.credentialOf(l.scope, identity)
	if err != nil {
		return causeUnavailable
	}
	if slices.Contains(digestsOf(credential), l.digest) {
		return ""
	}
	if why := h.storeSession(ctx, l, 0); why != "" {
		return why
	}
	return causeRekeyed
}

func (h *Hub) storeSession(ctx context.Context, l *login, listens heard) cause {
	verdict, err := h.config.Identities.PutSession(ctx, l.scope, l.hub, l.deviceID, uint32(listens))
	if err == nil && verdict != registration.Applied && verdict != registration.Missing {
		err = fmt.Errorf("verdict %d", verdict)
	}
	if err != nil {
		if ctx.Err() == nil {
			h.log.Error("hub: writing a session", "error", err)
		}
		return causeUnavailable
	}
	return ""
}
