package hubs

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

// secondHub runs a Latchkey that is a hub alone, always at the same address, and links it to a service as the kind azure: with a policy that may do no more than it must, through
// the address, as the name leads nowhere here.
func secondHub(t *testing.T, service *rig.Service) *rig.Service {
	t.Helper()
	hub := rig.New(t, rig.Config{Host: "hub-b.latchkey.test", Listen: rig.Addresses{HTTPS: freeAddress(t)}, Flags: []string{"--provision=false"}})
	policy, err := hub.Latchkey(t.Context(), "access-policy", "add", "provisioning", "--rights", "RegistryRead,RegistryWrite,ServiceConnect")
	must(t, err)
	ca, err := os.ReadFile(hub.CAFile)
	must(t, err)
	link := func(connection string) (int, string) {
		body, err := json.Marshal(map[string]any{"kind": "azure", "settings": map[string]string{"ca": string(ca), "address": hub.HTTPS}, "secret": map[string]string{"connectionString": connection}})
		must(t, err)
		status, text, err := request(t.Context(), service, http.MethodPut, "/latchkey/v1/hubs/"+hub.Host, string(body), "")
		must(t, err)
		return status, string(text)
	}
	connection := strings.TrimSpace(policy.Stdout)
	if status, text := link(wrongKey(connection)); status != http.StatusBadRequest || !strings.Contains(text, "does not accept the connection string") {
		t.Errorf("with another key it is linked: %d %s", status, text)
	}
	if status, text := link(connection); status != http.StatusOK {
		t.Fatalf("it is not linked: %d %s", status, text)
	}
	return hub
}

// wrongKey is the connection string with one letter of the key changed.
func wrongKey(connection string) string {
	head, key, _ := strings.Cut(connection, "SharedAccessKey=")
	first := "A"
	if key[0] == 'A' {
		first = "B"
	}
	return head + "SharedAccessKey=" + first + key[1:]
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// enroll makes the device's entry lead to one hub, with a twin for the first time there.
func (m *machine) enroll(endorsementKey string, hub *rig.Service) {
	m.t.Helper()
	body := fmt.Sprintf(`{"registrationId":%q,"attestation":{"type":"tpm","tpm":{"endorsementKey":%q}},"allocationPolicy":"static","iotHubs":[%q],
		"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true},"capabilities":{"iotEdge":false},
		"initialTwin":{"tags":{"line":4},"properties":{"desired":{"rate":5}}}}`, m.id, endorsementKey, hub.Host)
	path, condition := "/enrollments/"+m.id, ""
	if status, _, err := request(m.t.Context(), m.service, http.MethodGet, path, "", ""); err == nil && status == http.StatusOK {
		condition = "*"
	}
	status, text, err := request(m.t.Context(), m.service, http.MethodPut, path, body, condition)
	must(m.t, err)
	if status != http.StatusOK {
		m.t.Fatalf("the entry is refused: %d %s", status, text)
	}
}

// TestADeviceWorksAtASecondLatchkeyThatIsLinkedAsAnIoTHub walks a device with a TPM through a life at a hub that is another process: it comes there with its first twin, changes hands, moves home and
// back with all that it has, and comes there though the hub was killed meanwhile.
func TestADeviceWorksAtASecondLatchkeyThatIsLinkedAsAnIoTHub(t *testing.T) {
	service := rig.New(t, rig.Config{})
	hub := secondHub(t, service)
	m := newMachine(t, service)
	ek := m.ek()
	m.enroll(ek, hub)

	m.comesTo(hub, "initialAssignment")
	first := m.logsIn(hub)
	if twin := first.twin(); !strings.Contains(twin, `"rate":5`) {
		t.Errorf("the device finds the twin %s", twin)
	}
	if twin := at(t, hub, "/twins/"+m.id); part(twin, "tags") != `{"line":4}` {
		t.Errorf("the hub shows the twin %v", twin)
	}
	if d := at(t, hub, "/devices/"+m.id); d["status"] != "enabled" || !strings.HasPrefix(fmt.Sprint(d["statusReason"]), "latchkey generation ") {
		t.Errorf("the hub shows the device %v", d)
	}
	first.report(`{"temp":21.5}`)

	m.changesHands(hub, first)
	m.isShutOut(hub)
	m.movesHomeAndBack(ek, hub)
	m.comesThoughTheHubWasKilled(hub)
}

// changesHands: a new owner clears the TPM; the old one's key, session and SAS token are dead at the hub, the twin stays.
func (m *machine) changesHands(hub *rig.Service, old *session) {
	t := m.t
	before := m.ticket()
	must(t, simtpm.Clear(m.tpm))
	m.comesTo(hub, "initialAssignment")
	old.wantCut()
	wantShutOut(t, hub, before)
	m.logsIn(hub)
	if twin := at(t, hub, "/twins/"+m.id); part(twin, "properties", "reported") != `{"temp":21.5}` {
		t.Errorf("the twin of the new owner is %v", twin)
	}
}

// isShutOut: an operator disables the enrollment and the device at its hub with it.
func (m *machine) isShutOut(hub *rig.Service) {
	t := m.t
	there := m.logsIn(hub)
	_, err := m.service.Latchkey(t.Context(), "enroll", "set", m.id, "--disable", "--hub-device", "disable")
	must(t, err)
	there.wantCut()
	wantShutOut(t, hub, m.ticket())
	if d := at(t, hub, "/devices/"+m.id); d["status"] != "disabled" {
		t.Errorf("the hub shows the device %v", d)
	}
}

// movesHomeAndBack: the device is at one hub at a time and takes along what it has, what it has reported too.
func (m *machine) movesHomeAndBack(ek string, hub *rig.Service) {
	t, home := m.t, m.service
	var away *session
	for _, c := range []struct{ from, to *rig.Service }{{hub, home}, {home, hub}} {
		m.enroll(ek, c.to)
		m.comesTo(c.to, "deviceDataMigrated")
		if at(t, c.from, "/devices/"+m.id) != nil {
			t.Errorf("the device is still at %s", c.from.Host)
		}
		twin := at(t, c.to, "/twins/"+m.id)
		if part(twin, "tags") != `{"line":4}` || part(twin, "properties", "desired") != `{"rate":5}` || part(twin, "properties", "reported") != `{"temp":21.5}` {
			t.Errorf("at %s the twin is %v", c.to.Host, twin)
		}
		if away != nil {
			away.wantCut()
		}
		away = m.logsIn(c.to)
	}
}

// comesThoughTheHubWasKilled: while the hub is down the device is shown as assigning, and it is assigned when the hub is back.
func (m *machine) comesThoughTheHubWasKilled(hub *rig.Service) {
	t := m.t
	must(t, simtpm.Clear(m.tpm)) // or there would be nothing for the hub to do
	must(t, hub.Kill())
	registered := make(chan error, 1)
	var a assignment
	go func() { registered <- m.agent(&a, "register") }()
	_, err := rig.Poll(t.Context(), func() (struct{}, bool, error) {
		status, _ := m.where()
		return struct{}{}, status == "assigning", nil
	})
	must(t, err)
	if _, err := rig.Poll(t.Context(), func() (struct{}, bool, error) { // it has been tried
		text, err := m.service.Call(t.Context(), http.MethodGet, "/latchkey/v1/hubs/"+hub.Host, "")
		return struct{}{}, strings.Contains(string(text), `"failing"`) || strings.Contains(string(text), `"circuit open"`), err
	}); err != nil {
		t.Fatal(err)
	}
	if status, _ := m.where(); status != "assigning" {
		t.Errorf("while its hub is down the device is %s", status)
	}
	must(t, hub.Run())
	must(t, <-registered)
	if a.Status != "assigned" || a.AssignedHub != hub.Host {
		t.Errorf("in the end it is %+v", a)
	}
	m.logsIn(hub)
}
