package e2e

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

// rivalRounds is how often two agents meet; how they interleave differs from one
// to the next.
const rivalRounds = 8

// P2: two runs of the agent at the same time, as a timer and an administrator
// bring about. Each ends with the device's one assignment or says what to do.
func TestTwoAgentsRegisterOneDeviceAtTheSameTime(t *testing.T) {
	service := rig.New(t, rig.Config{})
	tpm, spec := referenceTPM(t)
	a := newAgent(t, service, spec)
	twin := newAgent(t, service, spec)
	id := a.enroll("--algorithm", "ecc-p256")
	good := 0
	for range rivalRounds {
		good += registerTogether(t, a, twin)
		wantNothingOpen(t, tpm)
	}
	t.Logf("%d of %d runs ended with the assignment, the others were told to register again", good, 2*rivalRounds)

	want := assignment{id.RegistrationID, service.Host, id.RegistrationID, "assigned", "initialAssignment"}
	for i, agent := range []*agent{a, twin} {
		if got := agent.register(); got != want {
			t.Errorf("agent %d: assignment %+v, want %+v", i, got, want)
		}
	}
	// What each of them has kept is a key to the one place at the hub.
	first, second := a.token(), twin.token()
	mustLogin(t, service, first.DeviceID, first.SASToken).send("one")
	mustLogin(t, service, second.DeviceID, second.SASToken).send("two")
	wantTelemetry(t, service, id.RegistrationID, "one", "two")
}

// outcome is how one run ended.
type outcome struct {
	rig.Result
	err error
}

// together runs the same command of all agents at the same time.
func together(agents []*agent, arguments ...string) []outcome {
	outcomes := make([]outcome, len(agents))
	var all sync.WaitGroup
	for i, a := range agents {
		ctx := a.context()
		all.Go(func() { outcomes[i].Result, outcomes[i].err = a.service.Agent(ctx, a.device, arguments...) })
	}
	all.Wait()
	return outcomes
}

// registerTogether lets all agents register and gives how many were assigned.
func registerTogether(t *testing.T, agents ...*agent) int {
	t.Helper()
	good := 0
	for _, o := range together(agents, "register", "--json") {
		switch {
		case o.err == nil:
			good++
			if got := printed[assignment](t, o.Result, nil); got.Status != "assigned" || got.DeviceID != got.RegistrationID {
				t.Errorf("assignment %+v", got)
			}
		case o.ExitCode != 1 || !strings.Contains(strings.ToLower(o.Stderr), "register again"):
			t.Errorf("a rival ended with %v", o.err)
		}
	}
	if good == 0 {
		t.Error("neither was assigned")
	}
	return good
}

// The first start of a device can be two starts.
func TestTwoAgentsAgreeOnTheKeysOfANewTPM(t *testing.T) {
	service := rig.New(t, rig.Config{})
	tpm, spec := referenceTPM(t)
	agents := []*agent{newAgent(t, service, spec), newAgent(t, service, spec)}
	results := together(agents, "ek", "--json")
	first, second := printed[identity](t, results[0].Result, results[0].err), printed[identity](t, results[1].Result, results[1].err)
	if first != second {
		t.Errorf("one TPM, two identities:\n%+v\n%+v", first, second)
	}
	wantNothingOpen(t, tpm)
}

// The slower of two rivals, step by step: its operation was accepted, and before
// it asked for the outcome the other's took its place.
func TestOvertakenOperationSaysToRegisterAgain(t *testing.T) {
	service := rig.New(t, rig.Config{})
	tpm, spec := referenceTPM(t)
	h := newHand(t, service, tpm)
	overtaken := h.prove()
	if got := newAgent(t, service, spec).register(); got.Status != "assigned" {
		t.Errorf("assignment %+v", got)
	}
	status, body, err := h.send(http.MethodGet, h.path("/operations/"+overtaken), h.token, nil)
	if err != nil || status != http.StatusOK {
		t.Fatalf("poll: %d, error %v, body %s", status, err, body)
	}
	answer, err := dps.DecodeOperationStatus(body)
	if err != nil {
		t.Fatal(err)
	}
	state := answer.RegistrationState
	if answer.Status != dps.StatusFailed || state == nil || state.TPM != nil || !strings.Contains(state.ErrorMessage, "Register again") {
		t.Errorf("the overtaken operation: %s", body)
	}
	if again := h.poll(h.prove()); again.DeviceID != h.tpm.RegistrationID() {
		t.Errorf("after registering again: %+v", again)
	}
}
