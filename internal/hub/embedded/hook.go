package embedded

import (
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"latchkey.example/latchkey/dps"
)

// maxKeepAlive in seconds, times 1.5, is the longest silence of a device: about that of the imitated hub. It also stands for
// "no keep-alive", and keeps the library's 16-bit arithmetic from wrapping.
const maxKeepAlive = 1177

// hook is where the MQTT library asks. All methods run on the goroutine of the connection they are about.
type hook struct {
	mqtt.HookBase
	hub *Hub
}

func (*hook) ID() string { return "latchkey" }

func (*hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPacketRead, mqtt.OnPublish, mqtt.OnWill,
		mqtt.OnSessionEstablished, mqtt.OnSubscribed, mqtt.OnUnsubscribed, mqtt.OnPacketProcessed:
		return true
	}
	return false
}

// connOf finds our end of a client. The library keeps clients under cl.ID, which is the client id, the same at two hubs: it is
// replaced by the device's key at login.
func connOf(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

// OnConnect decides about the login, before the library touches any session.
func (k *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	c := connOf(cl)
	c.user = string(pk.Connect.Username)
	why := k.hub.login(c, &pk.Connect)
	if why != "" {
		return k.refuse(cl, c, why)
	}
	cl.ID = c.login.key()
	c.user, c.login.token, cl.Properties.Username = "", dps.Token{}, nil // the last holds the whole CONNECT, SAS token and all, for as long as the session lives
	if cl.State.Keepalive == 0 || cl.State.Keepalive > maxKeepAlive {
		cl.State.Keepalive = maxKeepAlive
	}
	k.hub.metrics.logins.Inc()
	k.hub.log.Info("hub: connected", "scope", c.login.scope, "hub", c.login.hub, "device", c.login.deviceID,
		"until", c.login.expires.UTC(), "remote", c.remote)
	return nil
}

// refuse answers "not authorized" (5) whatever the reason, except that "server unavailable" (3) asks to come again.
func (k *hook) refuse(cl *mqtt.Client, c *conn, why cause) error {
	c.end(why)
	code := packets.ErrBadUsernameOrPassword // the library's name for 5
	if why == causeUnavailable || why == causeShutdown || why == causeUnowned {
		code = packets.ErrServerUnavailable
	}
	_ = k.hub.server.SendConnack(cl, code, false, nil)
	return errEnded
}

func (k *hook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	return connOf(cl).login != nil
}

// OnPacketRead ends a connection that publishes where it may not: the library would swallow such a message silently.
func (k *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	switch pk.FixedHeader.Type {
	case packets.Disconnect:
		c.end(causeClient)
	case packets.Publish:
		if why := judgePublish(c.login.deviceID, &pk, k.hub.config.Limits.Message); why != "" {
			c.end(why)
			return pk, packets.ErrRejectPacket
		}
	case packets.Puback:
		if why := k.hub.acknowledge(c, pk.PacketID); why != "" {
			c.cut(why)
			return pk, packets.ErrRejectPacket
		}
	}
	return pk, nil
}

// OnSessionEstablished comes after the CONNACK, when the library has taken over what the session had subscribed to.
func (k *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	k.hub.resume(connOf(cl), cl)
	for filter := range cl.State.Subscriptions.GetAll() {
		k.hub.unindex(cl, filter)
	}
}

// unindex takes a filter out of the library's index of who listens to what, which nobody asks: what a device listens to is in its session. The index would be
// a quarter of what an idle connection costs.
func (h *Hub) unindex(cl *mqtt.Client, filter string) { h.server.Topics.Unsubscribe(filter, cl.ID) }

// OnSubscribed comes before the SUBACK: with that the device may count on being asked and told.
func (k *hook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, _ []byte) {
	c, now := connOf(cl), hearDesired|hearMethods|hearTwinAnswers
	if c.listens(hearMessages) {
		now |= hearMessages // another QoS counts at once
	}
	k.hub.subscribing(c, pk.Filters)
	k.hub.subscribed(c, pk.Filters, now)
	for _, s := range pk.Filters {
		k.hub.unindex(cl, s.Filter)
	}
}

// OnUnsubscribed comes before the UNSUBACK, and also when the library forgets a session, for no packet then.
func (k *hook) OnUnsubscribed(cl *mqtt.Client, pk packets.Packet) {
	if c := connOf(cl); c != nil && pk.PacketID != 0 {
		k.hub.unsubscribed(c, pk.Filters)
	}
}

// OnPacketProcessed comes after the SUBACK, which messages that wait are to follow.
func (k *hook) OnPacketProcessed(cl *mqtt.Client, pk packets.Packet, err error) {
	if err != nil || pk.FixedHeader.Type != packets.Subscribe {
		return
	}
	c := connOf(cl)
	k.hub.subscribed(c, pk.Filters, hearMessages)
	if c.listens(hearMessages) && !k.hub.afford(c) { // they are looked for
		return
	}
	k.hub.listens(c)
}

// judgePublish judges topic and size; properties are read when the message is written.
func judgePublish(deviceID string, pk *packets.Packet, maxMessage int) cause {
	switch {
	case len(pk.TopicName) > maxTopic, len(pk.Payload) > maxMessage:
		return causeTooLarge
	case !mayPublish(pk.TopicName, deviceID):
		return causeTopic
	}
	return ""
}

// OnACLCheck is asked for each topic filter of a SUBSCRIBE, and for each PUBLISH, which was judged before.
func (k *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	c := connOf(cl)
	if write {
		return mayPublish(topic, c.login.deviceID)
	}
	if maySubscribe(topic, c.login.deviceID) {
		return true
	}
	k.hub.metrics.refusedFilters.Inc()
	if !c.scolded {
		c.scolded = true
		k.hub.log.Info("hub: refused a topic filter", "scope", c.login.scope, "hub", c.login.hub, "device", c.login.deviceID,
			"filter", clip(topic))
	}
	return false
}

// OnPublish does the work of a message before the library acknowledges it. "Ignore" means: acknowledge if QoS 1, keep nothing,
// pass it to nobody. Any other error but "reject" would be acknowledged too, so what fails closes the connection and rejects.
func (k *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	why := k.hub.over(c)
	if why == "" {
		why = k.hub.take(c, &pk)
	}
	if why != "" {
		c.cut(why)
		cl.Stop(errEnded)
		return pk, packets.ErrRejectPacket
	}
	return pk, packets.CodeSuccessIgnore
}

// over says why the connection may not be used any more. It is looked at for each message too, in either direction: a process that was stopped for a while may
// not know yet.
func (h *Hub) over(c *conn) cause {
	switch {
	case !h.owner.serving(), c.why() == causeUnowned:
		return causeUnowned
	case !h.config.Now().Before(c.login.expires):
		return causeExpired
	}
	return ""
}

func mayPublish(topic, deviceID string) bool {
	return isEvents(topic, deviceID) || isTwinRequest(topic) || isMethodAnswer(topic)
}

func (h *Hub) take(c *conn, pk *packets.Packet) cause {
	switch {
	case isTwinRequest(pk.TopicName):
		return h.takeTwinRequest(c, pk.TopicName, pk.Payload)
	case isMethodAnswer(pk.TopicName):
		return h.takeAnswer(c, pk.TopicName, pk.Payload)
	}
	return h.takeEvent(c.login, event{topic: pk.TopicName, payload: pk.Payload, retain: pk.FixedHeader.Retain, qos: pk.FixedHeader.Qos})
}

// OnWill turns a will into a telemetry message. The will of an owner who was cut off is void, and a hub that stops or was suspended sends none
// (MQTT 3.1.1, 3.1.2.5 lets it wait). An error here would make the library go on with the device's own will.
func (k *hook) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	c := connOf(cl)
	switch c.why() {
	case causeRekeyed, causeDropped, causeRemoved, causeDisabled, causeShutdown, causeUnowned:
	default:
		k.hub.takeEvent(c.login, event{topic: will.TopicName, payload: will.Payload, retain: will.Retain, qos: will.Qos, will: true})
	}
	return mqtt.Will{TopicName: "devices/" + c.login.deviceID + "/messages/events/"}, nil
}
