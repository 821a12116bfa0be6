package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"latchkey.example/latchkey/test/rig"
)

// hubLimit bounds each thing that a device asks of its hub.
const hubLimit = 30 * time.Second

// worker is a device at its hub, on an MQTT client that is not ours.
type worker struct {
	t        *testing.T
	client   mqtt.Client
	deviceID string
	lost     chan struct{} // closed when the hub ends the connection
}

// login connects as the vendor's SDKs do: MQTT 3.1.1, the device id as client
// id, the SAS token as password.
func login(t *testing.T, service *rig.Service, deviceID, token string) (*worker, error) {
	t.Helper()
	lost := make(chan struct{})
	options := mqtt.NewClientOptions().
		AddBroker("ssl://" + service.MQTT).
		SetTLSConfig(service.TLS()).
		SetProtocolVersion(4).
		SetCleanSession(false).
		SetClientID(deviceID).
		SetUsername(service.Host + "/" + deviceID + "/?api-version=2021-04-12&DeviceClientType=e2e").
		SetPassword(token).
		SetAutoReconnect(false).
		SetConnectionLostHandler(func(mqtt.Client, error) { close(lost) }).
		SetConnectTimeout(hubLimit)
	client := mqtt.NewClient(options)
	if err := done(client.Connect()); err != nil {
		return nil, err
	}
	t.Cleanup(func() { client.Disconnect(0) })
	return &worker{t, client, deviceID, lost}, nil
}

func mustLogin(t *testing.T, service *rig.Service, deviceID, token string) *worker {
	t.Helper()
	w, err := login(t, service, deviceID, token)
	if err != nil {
		t.Fatalf("connect to the hub: %v", err)
	}
	return w
}

// wantRefusedLogin: the hub refuses the SAS token itself (CONNACK 4 or 5).
func wantRefusedLogin(t *testing.T, service *rig.Service, deviceID, token string) {
	t.Helper()
	_, err := login(t, service, deviceID, token)
	if !errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) && !errors.Is(err, packets.ErrorRefusedNotAuthorised) {
		t.Errorf("login with a SAS token that must not open the hub: %v", err)
	}
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(hubLimit) {
		return fmt.Errorf("the hub has not answered within %v", hubLimit)
	}
	return token.Error()
}

// send publishes telemetry and returns when the hub has taken it.
func (w *worker) send(text string) {
	w.t.Helper()
	if err := done(w.client.Publish("devices/"+w.deviceID+"/messages/events/", 1, false, text)); err != nil {
		w.t.Fatalf("send telemetry: %v", err)
	}
}

// wantTelemetry: the hub shows exactly these messages of the device. It writes
// before it acknowledges, so there is nothing to wait for.
func wantTelemetry(t *testing.T, service *rig.Service, deviceID string, want ...string) {
	t.Helper()
	messages, err := service.Telemetry()
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) != len(want) {
		t.Fatalf("the hub shows %d messages, want %d: %+v", len(messages), len(want), messages)
	}
	for i, m := range messages {
		if m.DeviceID != deviceID || m.Hub != service.Host || m.Scope != service.IDScope || string(m.BodyBase64) != want[i] {
			t.Errorf("message %d is not %q from %s: %+v", i, want[i], deviceID, m)
		}
	}
}
