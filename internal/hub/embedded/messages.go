package embedded

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// Messages from the cloud wait in the store until the device has acknowledged them. On a connection they go out in their order, at most
// window of them unacknowledged; a session that outlives its connection has them sent again on the next one, under the same packet ids and marked as
// duplicates (MQTT 3.1.1, 4.4). What a device did not acknowledge on so many connections as iothub.MaxDeliveries is given up.

const (
	window     = 16
	batch      = 4 // messages read at a time, of 64 KiB at most
	sweepEvery = 30 * time.Second
	sweepLimit = 200
)

// flights is what a session has been sent and has not acknowledged.
type flights struct {
	mu     sync.Mutex
	sent   map[uint16]flight // by packet id
	lastID uint16
	last   uint64 // message that was sent last
}

// flight is a message under way: its number, and what is noted of it at its end.
type flight struct {
	seq     uint64
	id, ack string
}

// room is how many more may be sent, and after which one.
func (f *flights) room() (free int, after uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return window - len(f.sent), f.last
}

// passed notes that a message needs no sending, or none any more.
func (f *flights) passed(seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = max(f.last, seq)
}

// begin notes a message as sent and gives it a packet id. There is room.
func (f *flights) begin(m registration.HubMessage) uint16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sent == nil {
		f.sent = map[uint16]flight{}
	}
	for f.lastID++; f.lastID == 0 || f.sent[f.lastID].seq != 0; f.lastID++ {
	}
	f.sent[f.lastID] = flight{m.Seq, m.ID, m.Ack}
	f.last = max(f.last, m.Seq)
	return f.lastID
}

// of is what was sent under a packet id; the zero value if nothing was.
func (f *flights) of(id uint16) flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent[id]
}

func (f *flights) end(id uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sent, id)
}

// clear forgets all: the session is a new one.
func (f *flights) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent, f.last = nil, 0
}

// ordered are the packet ids in the order of their messages.
func (f *flights) ordered() []uint16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := slices.Collect(maps.Keys(f.sent))
	slices.SortFunc(ids, func(a, b uint16) int { return cmp.Compare(f.sent[a].seq, f.sent[b].seq) })
	return ids
}

// SendMessage puts a message into the device's durable queue, and has it delivered if the device listens: at once if it is connected to this
// process, else within a few seconds. Its Enqueued is set here, and its Expires if it is zero. The error is an *iothub.MessageError if the message is
// to blame, registration.ErrFull if iothub.MaxWaitingMessages are waiting, registration.ErrNotFound without such a device.
func (h *Hub) SendMessage(ctx context.Context, scope string, m registration.HubMessage) error {
	m.Hub = hostOf(m.Hub)
	m.Enqueued, m.Deliveries = h.config.Now(), 0
	if m.Expires.IsZero() {
		m.Expires = m.Enqueued.Add(iothub.DefaultMessageLife)
	}
	if err := checkMessage(m); err != nil {
		return err
	}
	m.Outbox = h.newsFor(m.Hub, m.DeviceID)
	_, verdict, err := h.config.Identities.EnqueueMessage(ctx, scope, m, iothub.MaxWaitingMessages)
	switch {
	case err != nil:
		return fmt.Errorf("hub: writing a message: %w", err)
	case verdict == registration.Missing:
		return registration.ErrNotFound
	case verdict == registration.Full:
		return registration.ErrFull
	case verdict != registration.Applied:
		return fmt.Errorf("hub: writing a message: verdict %d", verdict)
	}
	h.metrics.messagesTo.WithLabelValues("enqueued").Inc()
	h.wakeDevice(deviceKey(m.Hub, m.DeviceID), newMessages)
	return nil
}

func checkMessage(m registration.HubMessage) error {
	for name, id := range map[string]string{"messageId": m.ID, "correlationId": m.CorrelationID, "userId": m.UserID} {
		if err := iothub.CheckSystemProperty(name, id); err != nil {
			return err
		}
	}
	if len(m.Body)+len(m.Properties) > iothub.MaxMessage || len(m.Properties) > registration.MaxMessageProperties {
		return &iothub.MessageError{Member: "message", Problem: fmt.Sprintf("has more than %d bytes, or its properties more than %d", iothub.MaxMessage, registration.MaxMessageProperties)}
	}
	if err := iothub.CheckAck(m.Ack); err != nil {
		return err
	}
	if err := iothub.CheckBag(m.Properties); err != nil {
		return err
	}
	return iothub.CheckLife(m.Enqueued, m.Expires)
}

// PurgeMessages empties the device's queue and says how many messages there were. A message that is on its way to the device may still arrive there.
// registration.ErrNotFound without such a device.
func (h *Hub) PurgeMessages(ctx context.Context, scope, hub, deviceID string) (purged int, err error) {
	hub = hostOf(hub)
	if _, err := h.config.Identities.Identity(ctx, scope, hub, deviceID); err != nil {
		return 0, err
	}
	for after := uint64(0); ; {
		messages, err := h.config.Identities.Messages(ctx, scope, hub, deviceID, after, batch)
		if err != nil || len(messages) == 0 {
			return purged, err
		}
		for _, m := range messages {
			verdict, err := h.config.Identities.SettleMessage(ctx, scope, hub, deviceID, m.Seq)
			if err != nil {
				return purged, err
			}
			if after = m.Seq; verdict == registration.Applied {
				h.ended(scope, m, "purged")
				purged++
			}
		}
	}
}

// messageTopic is the topic that a message is sent on, with its properties. Two clients find these by the percent sign: the first must be the hub's own.
func (c *conn) messageTopic(m registration.HubMessage) string {
	spelled := m.DeviceID
	if inbox := c.inbox.Load(); inbox != nil {
		spelled = *inbox
	}
	topic := "devices/" + spelled + "/messages/devicebound/"
	for _, p := range [][2]string{
		{"$.mid", m.ID}, {"$.cid", m.CorrelationID}, {"$.uid", m.UserID}, {"$.to", "/devices/" + m.DeviceID + "/messages/devicebound"},
		{"$.exp", m.Expires.UTC().Format(time.RFC3339)}, {"iothub-ack", m.Ack},
	} {
		if p[1] != "" {
			topic += iothub.BagField(p[0], p[1]) + "&"
		}
	}
	if len(m.Properties) == 0 {
		return topic[:len(topic)-1]
	}
	return topic + string(m.Properties)
}

// sendMessages sends what waits, as far as there is room.
func (h *Hub) sendMessages(ctx context.Context, c *conn) error {
	for {
		free, after := c.flights.room()
		if free <= 0 {
			return nil // an acknowledgement makes room, and wakes
		}
		l := c.login
		messages, err := h.config.Identities.Messages(ctx, l.scope, l.hub, l.deviceID, after, min(free, batch))
		if err != nil {
			return fmt.Errorf("reading its messages: %w", err)
		}
		if len(messages) == 0 {
			return nil
		}
		for _, m := range messages {
			if err := h.sendMessage(ctx, c, m); err != nil || c.context.Err() != nil {
				return err
			}
		}
		// A device that takes one after the other may take longer than one call to the store.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(c.context, deviceTimeout)
		defer cancel()
	}
}

func (h *Hub) sendMessage(ctx context.Context, c *conn, m registration.HubMessage) error {
	if why := h.over(c); why != "" {
		c.cut(why)
		return nil
	}
	if deliver, err := h.countDelivery(ctx, c, m); err != nil || !deliver {
		c.flights.passed(m.Seq)
		return err
	}
	if !c.listens(hearMessagesSurely) { // QoS 0: sent is done
		if _, err := c.Write(publishPacket(c.messageTopic(m), 0, false, m.Body)); err != nil {
			return nil
		}
		c.flights.passed(m.Seq)
		return h.settle(ctx, c.login, m, "sent")
	}
	id := c.flights.begin(m)
	c.Write(publishPacket(c.messageTopic(m), id, false, m.Body)) // an error has ended the connection; the session sends it again
	return nil
}

// countDelivery counts an attempt before it is made, so that no crash makes it one of none. It reports false if the message is not to be sent.
func (h *Hub) countDelivery(ctx context.Context, c *conn, m registration.HubMessage) (bool, error) {
	if !h.config.Now().Before(m.Expires) {
		return false, nil // the sweep removes it
	}
	if m.Deliveries >= iothub.MaxDeliveries {
		return false, h.settle(ctx, c.login, m, "dead-lettered")
	}
	verdict, err := h.config.Identities.DeliveredMessage(ctx, c.login.scope, m.Hub, m.DeviceID, m.Seq)
	if err != nil {
		return false, fmt.Errorf("counting a delivery: %w", err)
	}
	return verdict == registration.Applied, nil
}

// sendAgain sends what the session has not acknowledged. What is not in the queue any more (expired, purged) is let go.
func (h *Hub) sendAgain(ctx context.Context, c *conn) error {
	for _, id := range c.flights.ordered() {
		seq := c.flights.of(id).seq
		if seq == 0 {
			continue
		}
		l := c.login
		messages, err := h.config.Identities.Messages(ctx, l.scope, l.hub, l.deviceID, seq-1, 1)
		if err != nil {
			return fmt.Errorf("reading its messages: %w", err)
		}
		if len(messages) == 0 || messages[0].Seq != seq {
			c.flights.end(id)
			continue
		}
		deliver, err := h.countDelivery(ctx, c, messages[0])
		if err != nil {
			return err
		}
		if !deliver {
			c.flights.end(id)
			continue
		}
		if _, err := c.Write(publishPacket(c.messageTopic(messages[0]), id, true, messages[0].Body)); err != nil {
			return nil
		}
	}
	return nil
}

// acknowledge removes the message that a PUBACK is about. One that is about none is passed over (MQTT 3.1.1 leaves it open).
func (h *Hub) acknowledge(c *conn, id uint16) cause {
	sent := c.flights.of(id)
	if sent.seq == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(c.context, deviceTimeout)
	defer cancel()
	l := c.login
	if err := h.settle(ctx, l, registration.HubMessage{Hub: l.hub, DeviceID: l.deviceID, Seq: sent.seq, ID: sent.id, Ack: sent.ack}, "completed"); err != nil {
		h.log.Error("hub: a message that a device has acknowledged cannot be removed, and is sent again when the device is back", "scope", l.scope, "hub", l.hub, "device", l.deviceID, "error", err)
		return causeUnavailable
	}
	c.flights.end(id)
	h.wake(c, newMessages)
	return ""
}

func (h *Hub) settle(ctx context.Context, l *login, m registration.HubMessage, how string) error {
	verdict, err := h.config.Identities.SettleMessage(ctx, l.scope, m.Hub, m.DeviceID, m.Seq)
	if err != nil {
		return fmt.Errorf("removing a message: %w", err)
	}
	if verdict == registration.Applied {
		h.ended(l.scope, m, how)
	}
	return nil
}

// ended counts the end of a message and writes the line that stands for feedback.
func (h *Hub) ended(scope string, m registration.HubMessage, how string) {
	h.metrics.messagesTo.WithLabelValues(how).Inc()
	h.log.Info("hub: message to a device ended", "scope", scope, "hub", m.Hub, "device", m.DeviceID, "how", how, "seq", m.Seq, "messageId", clip(m.ID), "ack", m.Ack)
}

// sweep removes messages that nobody took in time, as long as the hub is served here.
func (h *Hub) sweep() {
	for h.pause(sweepEvery) {
		if h.owner.serving() {
			h.sweepOnce(h.base)
		}
	}
}

func (h *Hub) sweepOnce(ctx context.Context) {
	for {
		call, cancel := context.WithTimeout(ctx, deviceTimeout)
		expired, err := h.config.Identities.ExpireMessages(call, h.config.Now(), sweepLimit)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				h.log.Error("hub: removing messages that have expired", "error", err)
			}
			return
		}
		for _, m := range expired {
			h.ended(m.Scope, m.HubMessage, "expired")
		}
		if len(expired) < sweepLimit {
			return
		}
	}
}
