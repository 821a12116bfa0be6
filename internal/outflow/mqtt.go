package outflow

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const (
	mqttSpecial = "+#/" // what must not come from a name into a topic
	mqttWindow  = 100   // messages on their way to a broker
	brokerWait  = 20 * time.Second
	mqttWrite   = 3 * time.Second // the library waits so long for a connection that is gone

	// A broker of MQTT 3.1.1 has no other way to say that a message is too large than to end the connection. One of more bytes than mqttLarge that has
	// ended so many one after the other, the later ones when it was alone on its way, is refused. Brokers that come and go seldom meet the same large one each time.
	mqttLarge = 8 << 10
	mqttAlone = 3
	mqttEnds  = 8
)

// ToMQTT publishes each record to an MQTT 3.1.1 broker with QoS 1.
type ToMQTT struct {
	URL          string // mqtts://host:8883, or mqtt://host:1883 for no TLS
	ClientID     string
	Topic        string // with {scope}, {hub} and {deviceId}
	Payload      Payload
	Username     string
	PasswordFile string
	Trust        Trust
}

func (t ToMQTT) open(Config) (sender, error) {
	u, err := url.Parse(t.URL)
	if err != nil || u.Host == "" || u.Scheme != "mqtt" && u.Scheme != "mqtts" {
		return nil, errors.New("url must be mqtts://HOST:PORT, or mqtt://HOST:PORT for a broker without TLS")
	}
	if u.User != nil {
		return nil, errors.New("url must not hold a user name or password: use username and passwordFile")
	}
	topic := template(t.Topic)
	if err := topic.check("+#"); err != nil {
		return nil, fmt.Errorf("topic: %w", err)
	}
	s := &mqttSender{to: t, topic: topic}
	_, err = s.options()
	return s, err
}

// mqttSender has a session of its own for each connection: what the broker has not acknowledged is sent again by the pump, in order.
type mqttSender struct {
	to     ToMQTT
	topic  template
	client mqtt.Client // nil: none
	stale  atomic.Bool // secrets were read anew

	suspect string // id of the message that was the first without acknowledgement when the last connection ended
	ends    int    // how many one after the other ended so
}

func (s *mqttSender) options() (*mqtt.ClientOptions, error) {
	password, err := readPassword(s.to.PasswordFile)
	if err != nil {
		return nil, err
	}
	trust, err := s.to.Trust.config()
	if err != nil {
		return nil, err
	}
	o := mqtt.NewClientOptions().AddBroker(s.to.URL).SetClientID(s.to.ClientID).SetUsername(s.to.Username).SetPassword(password).SetTLSConfig(trust)
	o.SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false)
	o.SetConnectTimeout(brokerWait / 2).SetWriteTimeout(mqttWrite).SetKeepAlive(30 * time.Second)
	return o, nil
}

func (s *mqttSender) reload() error {
	_, err := s.options()
	if err == nil {
		s.stale.Store(true)
	}
	return err
}

func (s *mqttSender) send(ctx context.Context, messages []message) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, brokerWait)
	defer cancel()
	if err := s.connect(ctx); err != nil {
		return 0, err
	}
	for n < len(messages) && err == nil {
		most := mqttWindow
		if s.ends >= mqttAlone && messages[n].ID == s.suspect {
			most = 1
		}
		var accepted int
		accepted, err = s.publish(ctx, messages[n:min(n+most, len(messages))])
		n += accepted
	}
	if err != nil {
		s.drop()
	}
	if errors.Is(err, errEnded) {
		err = s.ended(messages[n], err)
	}
	return n, err
}

// ended notes that a connection has ended before a message was acknowledged, and refuses one that ends each.
func (s *mqttSender) ended(m message, err error) error {
	if s.suspect != m.ID {
		s.suspect, s.ends = m.ID, 0
	}
	if s.ends++; s.ends < mqttEnds || len(s.to.Payload.of(m)) <= mqttLarge {
		return err
	}
	s.suspect, s.ends = "", 0
	return &refused{fmt.Errorf("the broker has ended %d connections at this message of %d bytes", mqttEnds, len(s.to.Payload.of(m))), true}
}

// errEnded says that the connection ended, and not that the broker is silent.
var errEnded = errors.New("the connection was lost")

func (s *mqttSender) connect(ctx context.Context) error {
	if s.stale.Swap(false) {
		s.drop()
	}
	if s.client != nil && s.client.IsConnectionOpen() {
		return nil
	}
	s.drop()
	options, err := s.options()
	if err != nil {
		return err
	}
	s.client = mqtt.NewClient(options)
	if err := await(ctx, s.client.Connect()); err != nil {
		s.drop()
		return fmt.Errorf("connecting to the broker: %w", err)
	}
	return nil
}

// publish has so many messages, from the first on, acknowledged. Brokers acknowledge in order (MQTT 3.1.1, 4.6).
func (s *mqttSender) publish(ctx context.Context, window []message) (int, error) {
	var tokens []mqtt.Token
	for _, m := range window {
		if !s.client.IsConnectionOpen() { // each message would wait for it
			break
		}
		tokens = append(tokens, s.client.Publish(s.topic.fill(m, mqttSpecial), 1, false, s.to.Payload.of(m)))
	}
	for i, token := range tokens {
		if err := await(ctx, token); err != nil && ctx.Err() == nil {
			return i, fmt.Errorf("publishing to the broker: %w: %w", errEnded, err)
		} else if err != nil {
			return i, fmt.Errorf("publishing to the broker: %w", err)
		}
	}
	if len(tokens) < len(window) {
		return len(tokens), fmt.Errorf("publishing to the broker: %w", errEnded)
	}
	return len(window), nil
}

func await(ctx context.Context, token mqtt.Token) error {
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return errors.New("the broker does not answer")
	}
}

func (s *mqttSender) drop() {
	if s.client != nil {
		s.client.Disconnect(0)
		s.client = nil
	}
}

func (s *mqttSender) close() error {
	s.drop()
	return nil
}
