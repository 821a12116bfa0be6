package hubs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// limit bounds each thing that is waited for.
const limit = 60 * time.Second

// machine is a device with a TPM that the built agent looks after.
type machine struct {
	t       *testing.T
	service *rig.Service // that provisions it
	tpm     simtpm.TPM
	device  rig.Device
	id      string
}

// What the agent prints with --json, as far as the tests look.
type (
	assignment struct{ AssignedHub, DeviceID, Status, Substatus string }
	ticket     struct{ Hub, DeviceID, Username, SASToken string }
)

func newMachine(t *testing.T, service *rig.Service) *machine {
	tpm := simtpm.NewSimulator(t)
	return &machine{t: t, service: service, tpm: tpm, device: rig.Device{TPM: simtpm.NewFront(t, tpm).Spec(), StateDir: t.TempDir()}}
}

// agent runs the agent and reads what it prints.
func (m *machine) agent(into any, arguments ...string) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), 3*limit)
	defer cancel()
	result, err := m.service.Agent(ctx, m.device, append(arguments, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(result.Stdout), into)
}

// ek creates the keys of the device and names it.
func (m *machine) ek() string {
	m.t.Helper()
	var identity struct{ RegistrationID, EndorsementKey string }
	must(m.t, m.agent(&identity, "ek"))
	m.id = identity.RegistrationID
	return identity.EndorsementKey
}

func (m *machine) register() assignment {
	m.t.Helper()
	var a assignment
	must(m.t, m.agent(&a, "register"))
	return a
}

// comesTo registers the device and expects it to be assigned like this.
func (m *machine) comesTo(hub *rig.Service, substatus string) {
	m.t.Helper()
	if a := m.register(); a != (assignment{hub.Host, m.id, "assigned", substatus}) {
		m.t.Fatalf("the device comes to %+v, want %s, %s", a, hub.Host, substatus)
	}
}

func (m *machine) ticket() ticket {
	m.t.Helper()
	var k ticket
	must(m.t, m.agent(&k, "token"))
	return k
}

// session is a device at its hub, on an MQTT client that is not ours.
type session struct {
	t      *testing.T
	client mqtt.Client
	id     string
	twins  chan string
	lost   chan struct{} // closed when the hub ends the connection
}

func login(t *testing.T, hub *rig.Service, k ticket) (*session, error) {
	t.Helper()
	s := &session{t: t, id: k.DeviceID, twins: make(chan string, 8), lost: make(chan struct{})}
	options := mqtt.NewClientOptions().AddBroker("ssl://" + hub.MQTT).SetTLSConfig(hub.TLS()).SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false).
		SetClientID(k.DeviceID).SetUsername(k.Username).SetPassword(k.SASToken).SetConnectTimeout(limit).
		SetConnectionLostHandler(func(mqtt.Client, error) { close(s.lost) })
	s.client = mqtt.NewClient(options)
	if err := done(s.client.Connect()); err != nil {
		return nil, err
	}
	t.Cleanup(func() { s.client.Disconnect(0) })
	return s, done(s.client.Subscribe("$iothub/twin/res/#", 0, func(_ mqtt.Client, m mqtt.Message) { s.twins <- m.Topic() + " " + string(m.Payload()) }))
}

func (m *machine) logsIn(hub *rig.Service) *session {
	m.t.Helper()
	s, err := login(m.t, hub, m.ticket())
	if err != nil {
		m.t.Fatalf("the device does not get in at %s: %v", hub.Host, err)
	}
	return s
}

func wantShutOut(t *testing.T, hub *rig.Service, k ticket) {
	t.Helper()
	_, err := login(t, hub, k)
	if !errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) && !errors.Is(err, packets.ErrorRefusedNotAuthorised) {
		t.Errorf("a login that %s must refuse: %v", hub.Host, err)
	}
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(limit) {
		return errors.New("the hub does not answer")
	}
	return token.Error()
}

// ask asks for or reports to the twin, and gives the answer's body.
func (s *session) ask(topic, body string) string {
	s.t.Helper()
	must(s.t, done(s.client.Publish(topic, 0, false, body)))
	select {
	case answer := <-s.twins:
		head, body, _ := strings.Cut(answer, " ")
		if !strings.HasPrefix(head, "$iothub/twin/res/20") {
			s.t.Fatalf("the hub answers %s", answer)
		}
		return body
	case <-time.After(limit):
		s.t.Fatal("the hub does not answer about the twin")
	}
	return ""
}

func (s *session) twin() string { return s.ask("$iothub/twin/GET/?$rid=1", " ") }

func (s *session) report(patch string) {
	s.ask("$iothub/twin/PATCH/properties/reported/?$rid=2", patch)
}

func (s *session) wantCut() {
	s.t.Helper()
	select {
	case <-s.lost:
	case <-time.After(limit):
		s.t.Error("the session is still open")
	}
}

// at asks the service side of a hub for a device and gives what it shows; nil if there is none.
func at(t *testing.T, hub *rig.Service, path string) map[string]any {
	t.Helper()
	status, text, err := request(t.Context(), hub, http.MethodGet, path, "", "")
	if err != nil || status != http.StatusOK && status != http.StatusNotFound {
		t.Fatalf("%s %s: %d %s %v", hub.Host, path, status, text, err)
	}
	if status == http.StatusNotFound {
		return nil
	}
	var object map[string]any
	must(t, json.Unmarshal(text, &object))
	return object
}

// request asks the management API or the service side of a hub, which take the same access policy, on a condition or on none.
func request(ctx context.Context, hub *rig.Service, method, path, body, ifMatch string) (int, []byte, error) {
	c, err := dps.ParseConnectionString(hub.ConnectionString)
	if err != nil {
		return 0, nil, err
	}
	token, err := dps.NewToken(c.Signer(), c.HostName, time.Now().Add(time.Minute), c.SharedAccessKeyName)
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, hub.URL(path+"?api-version=2021-10-01"), strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", token)
	r.Header.Set("Content-Type", "application/json")
	if ifMatch != "" {
		r.Header.Set("If-Match", ifMatch)
	}
	client := hub.Client()
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return answer.StatusCode, text, err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// where is what the provisioning service shows of the device's registration.
func (m *machine) where() (status, hub string) {
	m.t.Helper()
	text, err := m.service.Call(m.t.Context(), http.MethodGet, "/registrations/"+m.id, "")
	must(m.t, err)
	var state struct{ Status, AssignedHub string }
	must(m.t, json.Unmarshal(text, &state))
	return state.Status, state.AssignedHub
}

// part gives a part of a twin as text, without what the hub notes of it.
func part(twin map[string]any, names ...string) string {
	var value any = twin
	for _, name := range names {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	if object, ok := value.(map[string]any); ok {
		delete(object, "$metadata")
		delete(object, "$version")
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(text)
}
