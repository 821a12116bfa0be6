package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime/debug"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// What the hub sends to a device of its own accord goes past the MQTT library, which would queue it and drop silently what does not fit. It is
// written to the connection at once, by the one goroutine that a connection has for it while there is something, or not at all: what was not written
// is still in the store. So a device that reads nothing costs one message of memory until its write has been waiting for too long; then it is cut off.

// news is what may be new for a device.
type news uint8

const (
	newTwin     news = 1 << iota
	newMessages      // or room for them
	newSession       // what the session has not acknowledged is to be sent again
)

// heard is what a connection listens to.
type heard uint8

const (
	hearTwinAnswers heard = 1 << iota
	hearDesired
	hearMethods
	hearMessages
	hearMessagesSurely // with QoS 1
)

// hears is what a topic filter, and the QoS granted for it, make the device listen to.
func hears(filter, deviceID string, qos byte) heard {
	switch filter {
	case twinAnswers:
		return hearTwinAnswers
	case desiredChanges:
		return hearDesired
	case methodCalls:
		return hearMethods
	}
	if _, rest, ok := cutDevice(filter, deviceID); !ok || rest != "/messages/devicebound/#" {
		return 0
	}
	if qos > 0 {
		return hearMessages | hearMessagesSurely
	}
	return hearMessages
}

func (c *conn) listens(to heard) bool { return heard(c.hears.Load())&to == to }

// listen notes a topic filter, if it is one that is granted.
func (h *Hub) listen(c *conn, filter string, qos byte) {
	to := hears(filter, c.login.deviceID, qos)
	if to&hearDesired != 0 {
		if !c.listens(hearDesired) { // else it is told what changes already, maybe at this moment
			h.beginDesired(c)
		}
		return
	}
	drop := heard(0)
	if to&hearMessages != 0 {
		spelled, _, _ := cutDevice(filter, c.login.deviceID)
		c.inbox.Store(&spelled)
		drop = hearMessagesSurely // the last SUBSCRIBE decides about the QoS
	}
	for { // in one step: a message may be on its way out
		old := c.hears.Load()
		if c.hears.CompareAndSwap(old, old&^uint32(drop)|uint32(to)) {
			return
		}
	}
}

// listens acts on what the device listens to by now.
func (h *Hub) listens(c *conn) {
	if c.listens(hearMethods) {
		h.arrived(c.login.key())
	}
	if c.listens(hearMessages) {
		h.wake(c, newMessages)
	}
}

// resume takes over what the session listened to before this connection.
func (h *Hub) resume(c *conn, cl *mqtt.Client) {
	for filter, s := range cl.State.Subscriptions.GetAll() {
		h.listen(c, filter, min(s.Qos, 1))
		c.noted = c.login.granted(c.noted, filter, min(s.Qos, 1))
	}
	if len(c.flights.ordered()) > 0 {
		h.wake(c, newSession)
	}
	h.listens(c)
}

// subscribing makes a SUBSCRIBE durable, before it is answered.
func (h *Hub) subscribing(c *conn, filters packets.Subscriptions) {
	listens := c.noted
	for _, s := range filters {
		listens = c.login.granted(listens, s.Filter, min(s.Qos, 1))
	}
	h.noteSession(c, listens)
}

// subscribed acts on those topic filters of a SUBSCRIBE that are for what is named.
func (h *Hub) subscribed(c *conn, filters packets.Subscriptions, what heard) {
	for _, s := range filters {
		if hears(s.Filter, c.login.deviceID, 0)&what != 0 {
			h.listen(c, s.Filter, min(s.Qos, 1))
		}
	}
}

func (h *Hub) unsubscribed(c *conn, filters packets.Subscriptions) {
	listens := c.noted
	for _, s := range filters {
		c.hears.And(^uint32(hears(s.Filter, c.login.deviceID, 1)))
		listens &^= hears(s.Filter, c.login.deviceID, 1)
	}
	h.noteSession(c, listens)
}

// connection is the device's, if it has one here.
func (h *Hub) connection(key string) *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.devices[key]; d != nil {
		return d.conn
	}
	return nil
}

// wakeDevice has what is new sent to the device, if it has a connection here.
func (h *Hub) wakeDevice(key string, what news) {
	if c := h.connection(key); c != nil {
		h.wake(c, what)
	}
}

// wake has what is new sent on the connection, if it listens.
func (h *Hub) wake(c *conn, what news) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.todo |= what
	if c.sending || c.over {
		return
	}
	c.sending = true
	c.senders.Add(1)
	go h.sendNews(c)
}

// sendNews sends until there is nothing new.
func (h *Hub) sendNews(c *conn) {
	defer c.senders.Done()
	defer h.recovered(c)
	for {
		c.mu.Lock()
		what := c.todo
		c.todo = 0
		if c.over || what == 0 {
			c.sending = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if err := h.send(c, what); err != nil && c.context.Err() == nil {
			h.log.Error("hub: what is new cannot be sent to a device, which is cut off, so that it asks for it when it is back", "scope", c.login.scope, "hub", c.login.hub,
				"device", c.login.deviceID, "error", err)
			c.cut(causeUnavailable)
		}
	}
}

// recovered ends the connection that a goroutine beside its own panicked for.
func (h *Hub) recovered(c *conn) {
	if p := recover(); p != nil {
		h.metrics.panics.Inc()
		h.log.Error("hub: a connection panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "remote", c.remote)
		c.cut(causePanic)
	}
}

func (h *Hub) send(c *conn, what news) error {
	if why := h.over(c); why != "" {
		c.cut(why)
		return nil
	}
	ctx, cancel := context.WithTimeout(c.context, deviceTimeout)
	defer cancel()
	if what&newTwin != 0 && c.listens(hearDesired) {
		if err := h.sendDesired(ctx, c); err != nil {
			return err
		}
	}
	if what&newSession != 0 {
		if err := h.sendAgain(ctx, c); err != nil {
			return err
		}
	}
	if what&newMessages != 0 && c.listens(hearMessages) {
		return h.sendMessages(ctx, c)
	}
	return nil
}

// beginSending says whether somebody beside the connection's own goroutine may use it; who may calls c.senders.Done.
func (c *conn) beginSending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.senders.Add(1)
	return true
}

// endSending returns when nobody beside the connection's own goroutine uses it any more. The connection is closed.
func (c *conn) endSending() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.stop()
	c.senders.Wait()
}

// publishPacket is a PUBLISH (MQTT 3.1.1, 3.3); id is 0 for QoS 0. The topic has less than 64 KiB.
func publishPacket(topic string, id uint16, again bool, payload []byte) []byte {
	head, length := byte(typePublish<<4), 2+len(topic)+len(payload)
	if id != 0 {
		head |= 1 << 1
		length += 2
	}
	if again {
		head |= 1 << 3
	}
	p := append(make([]byte, 0, length+5), head)
	for n := length; ; {
		d := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			p = append(p, d|0x80)
			continue
		}
		p = append(p, d)
		break
	}
	p = binary.BigEndian.AppendUint16(p, uint16(len(topic)))
	p = append(p, topic...)
	if id != 0 {
		p = binary.BigEndian.AppendUint16(p, id)
	}
	return append(p, payload...)
}
