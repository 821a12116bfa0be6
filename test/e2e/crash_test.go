package e2e

import (
	"net/http"
	"testing"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

// P1 and P2, as far as the death of a process can show them. (What a lost disk
// cache does is shown elsewhere: the page cache outlives kill -9.)
func TestAcceptedRegistrationSurvivesKill(t *testing.T) {
	service := rig.New(t, rig.Config{})
	h := newHand(t, service, simtpm.NewSimulator(t))

	operation := h.prove()
	if err := service.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := service.Run(); err != nil {
		t.Fatal(err)
	}
	h.client.CloseIdleConnections()

	if again := h.operationID(h.put(h.token, http.StatusAccepted)); again != operation {
		t.Errorf("the repeated PUT gave operation %q, the first %q", again, operation)
	}
	state := h.poll(operation)
	if state.AssignedHub != service.Host || state.DeviceID != h.tpm.RegistrationID() {
		t.Errorf("assigned %q at %q", state.DeviceID, state.AssignedHub)
	}
	mustLogin(t, service, state.DeviceID, h.hubToken(state)).send("after the crash")
	wantTelemetry(t, service, state.DeviceID, "after the crash")
}

func TestAssignedDeviceKeepsItsHubKeyAcrossKill(t *testing.T) {
	service := rig.New(t, rig.Config{})
	h := newHand(t, service, simtpm.NewSwtpm(t))

	state := h.poll(h.prove())
	token := h.hubToken(state)
	mustLogin(t, service, state.DeviceID, token).send("before")
	if err := service.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := service.Run(); err != nil {
		t.Fatal(err)
	}
	mustLogin(t, service, state.DeviceID, token).send("behind")
	wantTelemetry(t, service, state.DeviceID, "before", "behind")
}
