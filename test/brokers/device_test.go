package brokers

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

// patience bounds each thing that a test waits for, on a loaded machine.
const patience = 60 * time.Second

func background() context.Context { return context.Background() }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// client is an MQTT client at the broker.
type client struct {
	mqtt.Client
	t        *testing.T
	lost     chan struct{} // closed when the broker ends the connection
	messages chan mqtt.Message
}

// connect comes over TLS and expects the broker's name.
func connect(t *testing.T, user, id, password string, clean bool) (*client, error) {
	t.Helper()
	c := &client{t: t, lost: make(chan struct{}), messages: make(chan mqtt.Message, 16)}
	c.Client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + broker.mqtt).SetTLSConfig(&tls.Config{RootCAs: broker.ca, ServerName: brokerName}).
		SetProtocolVersion(4).SetCleanSession(clean).SetClientID(id).SetUsername(user).SetPassword(password).SetAutoReconnect(false).SetConnectTimeout(patience).
		SetConnectionLostHandler(func(mqtt.Client, error) { close(c.lost) }).SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { c.messages <- m }))
	if err := done(c.Connect()); err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c, nil
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(patience) {
		return fmt.Errorf("no answer within %v", patience)
	}
	return token.Error()
}

func mustConnect(t *testing.T, user, id, password string, clean bool) *client {
	t.Helper()
	c, err := connect(t, user, id, password, clean)
	must(t, err)
	return c
}

// wantRefused: the broker refuses the login itself.
func wantRefused(t *testing.T, why, user, id, password string) {
	t.Helper()
	_, err := connect(t, user, id, password, true)
	if !errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) && !errors.Is(err, packets.ErrorRefusedNotAuthorised) {
		t.Errorf("%s: %v", why, err)
	}
}

// mayNotPublish: the broker ends the connection of who publishes where he may not (RabbitMQ 3.10).
func mayNotPublish(t *testing.T, c *client, topic string) {
	t.Helper()
	_ = c.Publish(topic, 1, false, "not mine").WaitTimeout(time.Millisecond)
	c.wantLost("a publication to " + topic)
}

func (c *client) wantLost(why string) {
	c.t.Helper()
	select {
	case <-c.lost:
	case <-time.After(patience):
		c.t.Fatalf("%s: the connection is still open", why)
	}
}

func (c *client) stillThere(why string) {
	c.t.Helper()
	select {
	case <-c.lost:
		c.t.Fatalf("%s: the connection was ended", why)
	default:
	}
}

// maySubscribe says whether the broker granted a filter. RabbitMQ 3.10 ends the connection of who asks for another.
func (c *client) maySubscribe(filter string) bool {
	c.t.Helper()
	token := c.Subscribe(filter, 1, nil)
	if err := done(token); err != nil {
		c.wantLost("a subscription that failed: " + err.Error())
		return false
	}
	granted, there := token.(*mqtt.SubscribeToken).Result()[filter]
	return there && granted < 0x80
}

func (c *client) want(topic, text string) {
	c.t.Helper()
	select {
	case m := <-c.messages:
		if m.Topic() != topic || string(m.Payload()) != text {
			c.t.Errorf("%s came on %s", m.Payload(), m.Topic())
		}
	case <-time.After(patience):
		c.t.Fatalf("nothing came on %s", topic)
	}
}

// application is a user of the broker's own, who reads what devices send.
func application(t *testing.T) *client {
	t.Helper()
	c := mustConnect(t, appUser, "the-application", appPass, true)
	if !c.maySubscribe("devices/+/messages/events/#") {
		t.Fatal("the application may not read")
	}
	return c
}

// other is a device without a TPM, which signs with a key that the operator gave.
type other struct {
	id  string
	key []byte
}

// enroll makes an enrollment that leads to the broker.
func enroll(t *testing.T, id string, attestation map[string]any) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"registrationId": id, "attestation": attestation, "allocationPolicy": "static", "iotHubs": []string{brokerName}})
	must(t, err)
	must(t, service.Put(t.Context(), "/enrollments/"+id, string(text)))
}

func newOther(t *testing.T, id string) other {
	t.Helper()
	o := other{id, []byte(strings.Repeat(id, 64)[:64])}
	enroll(t, id, map[string]any{"type": "symmetricKey", "symmetricKey": map[string]string{
		"primaryKey": base64.StdEncoding.EncodeToString(o.key), "secondaryKey": base64.StdEncoding.EncodeToString([]byte(strings.Repeat("-", 64)))}})
	token, err := dps.NewToken(dps.KeySigner(o.key), service.IDScope+"/registrations/"+id, time.Now().Add(time.Hour), "registration")
	must(t, err)
	operation := ask(t, http.MethodPut, "/register", `{"registrationId":"`+id+`"}`, id, token)
	for operation.Status != "assigned" {
		if operation.Status != "assigning" {
			t.Fatalf("%s is %+v", id, operation)
		}
		operation = ask(t, http.MethodGet, "/operations/"+operation.OperationID, "", id, token)
	}
	if operation.State.AssignedHub != brokerName {
		t.Fatalf("%s was led to %s", id, operation.State.AssignedHub)
	}
	return o
}

type operation struct {
	OperationID, Status string
	State               struct{ AssignedHub, DeviceID string } `json:"registrationState"`
}

func ask(t *testing.T, method, path, body, id, token string) (o operation) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, service.URL("/"+service.IDScope+"/registrations/"+id+path+"?api-version=2021-06-01"), strings.NewReader(body))
	must(t, err)
	request.Header.Set("Authorization", token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := service.Client().Do(request)
	must(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	if answer.StatusCode > 202 {
		t.Fatalf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	must(t, json.Unmarshal(text, &o))
	return o
}

// token signs in for the hub.
func (o other) token(t *testing.T, life time.Duration) string {
	t.Helper()
	token, err := dps.NewToken(dps.KeySigner(o.key), brokerName+"/devices/"+o.id, time.Now().Add(life), "")
	must(t, err)
	return token
}

// agent is a device with a TPM, which the built agent looks after.
type agent struct {
	t      *testing.T
	device rig.Device
}

type (
	identity   struct{ RegistrationID, EndorsementKey string }
	assignment struct{ RegistrationID, AssignedHub, DeviceID, Status string }
	hubLogin   struct{ Hub, DeviceID, Username, SASToken string }
)

func run[T any](a *agent, arguments ...string) (value T) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 3*time.Minute)
	defer cancel()
	result, err := service.Agent(ctx, a.device, append(arguments, "--json")...)
	must(a.t, err)
	if err := json.Unmarshal([]byte(result.Stdout), &value); err != nil {
		a.t.Fatalf("the agent printed no JSON: %v\n%s", err, result.Stdout)
	}
	return value
}

// latchkey runs an operator's command.
func latchkey(t *testing.T, arguments ...string) {
	t.Helper()
	_, err := service.Latchkey(t.Context(), arguments...)
	must(t, err)
}

func (a *agent) enroll() identity {
	a.t.Helper()
	id := run[identity](a, "ek")
	enroll(a.t, id.RegistrationID, map[string]any{"type": "tpm", "tpm": map[string]string{"endorsementKey": id.EndorsementKey}})
	return id
}
