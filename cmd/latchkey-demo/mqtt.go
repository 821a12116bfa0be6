package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
)

const mqttTime = 10 * time.Second

// session is an MQTT connection as a device has it.
type session struct {
	client mqtt.Client
	lost   chan struct{}
}

// connect logs in at the hub with a SAS token.
func (d *drama) connect(ctx context.Context, token string) (*session, error) {
	s := &session{lost: make(chan struct{})}
	options := mqtt.NewClientOptions().AddBroker("ssl://" + d.service.Host + ":8883").SetProtocolVersion(4)
	options.SetClientID(d.device).SetUsername(device.HubUsername(d.hub, d.device)).SetPassword(token).SetCleanSession(false)
	options.SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(mqttTime)
	options.SetConnectionLostHandler(func(mqtt.Client, error) { close(s.lost) })
	options.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		return (&tls.Dialer{Config: d.service.TLS()}).DialContext(ctx, "tcp", d.service.MQTT)
	})
	s.client = mqtt.NewClient(options)
	return s, done(s.client.Connect())
}

func (d *drama) tryConnect(ctx context.Context, token string) error {
	s, err := d.connect(ctx, token)
	if err == nil {
		s.close()
	}
	return err
}

// isBadLogin says that the hub refused the login itself: CONNACK 4 or 5, not a broken connection.
func isBadLogin(err error) bool {
	return errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) || errors.Is(err, packets.ErrorRefusedNotAuthorised)
}

func (s *session) publish(topic, body string) error {
	return done(s.client.Publish(topic, 1, false, body))
}

func (s *session) alive() bool { return s.client.IsConnectionOpen() }

func (s *session) close() { s.client.Disconnect(100) }

func (s *session) waitDead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mqttTime)
	defer cancel()
	select {
	case <-s.lost:
		return nil
	case <-ctx.Done():
		return errors.New("it is still open")
	}
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(mqttTime) {
		return fmt.Errorf("no answer of the hub within %s", mqttTime)
	}
	return token.Error()
}

func newProof(key *device.Key, resource string) (string, error) {
	return dps.NewToken(key, resource, time.Now().Add(time.Hour), "registration")
}
