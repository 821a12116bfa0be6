package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

// agentLimit bounds one run of the agent: an RSA 3072 key pair takes long on a
// software TPM.
const agentLimit = 3 * time.Minute

// agent is a device that the built agent looks after.
type agent struct {
	t       *testing.T
	service *rig.Service
	device  rig.Device
}

// What the agent prints with --json, as far as the tests look.
type (
	identity struct {
		RegistrationID, EndorsementKey, StorageRootKey, Algorithm, Hierarchy, Manufacturer string
	}
	assignment struct{ RegistrationID, AssignedHub, DeviceID, Status, Substatus string }
	hubLogin   struct{ Hub, DeviceID, Username, SASToken string }
)

func newAgent(t *testing.T, service *rig.Service, tpm string) *agent {
	return &agent{t, service, rig.Device{TPM: tpm, StateDir: t.TempDir()}}
}

func printed[T any](t *testing.T, result rig.Result, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var value T
	if err := json.Unmarshal([]byte(result.Stdout), &value); err != nil {
		t.Fatalf("the program printed no JSON: %v\n%s", err, result.Stdout)
	}
	return value
}

func (a *agent) context() context.Context {
	ctx, cancel := context.WithTimeout(a.t.Context(), agentLimit)
	a.t.Cleanup(cancel)
	return ctx
}

func (a *agent) ek(arguments ...string) identity {
	a.t.Helper()
	result, err := a.service.Agent(a.context(), a.device, append([]string{"ek", "--json"}, arguments...)...)
	return printed[identity](a.t, result, err)
}

// enroll creates the keys and enrolls the device.
func (a *agent) enroll(arguments ...string) identity {
	a.t.Helper()
	id := a.ek(arguments...)
	if err := a.service.Enroll(a.context(), id.RegistrationID, id.EndorsementKey); err != nil {
		a.t.Fatal(err)
	}
	return id
}

func (a *agent) register() assignment {
	a.t.Helper()
	result, err := a.service.Register(a.context(), a.device, "--json")
	return printed[assignment](a.t, result, err)
}

func (a *agent) token(arguments ...string) hubLogin {
	a.t.Helper()
	result, err := a.service.Agent(a.context(), a.device, append([]string{"token", "--json"}, arguments...)...)
	return printed[hubLogin](a.t, result, err)
}

// referenceTPM and swtpm make a TPM and name it as the agent does.
func referenceTPM(t *testing.T) (simtpm.TPM, string) {
	tpm := simtpm.NewSimulator(t)
	return tpm, simtpm.NewFront(t, tpm).Spec()
}

func swtpm(t *testing.T) (simtpm.TPM, string) {
	tpm := simtpm.NewSwtpm(t)
	return tpm, tpm.Spec()
}

func TestAgentProvisionsItselfAndSends(t *testing.T) {
	for _, c := range []struct {
		name, algorithm string
		make            func(*testing.T) (simtpm.TPM, string)
	}{
		{"reference TPM, RSA 2048", "rsa2048", referenceTPM},
		{"reference TPM, ECC P-256", "ecc-p256", referenceTPM},
		{"swtpm, RSA 2048", "rsa2048", swtpm},
		{"swtpm, ECC P-256", "ecc-p256", swtpm},
		{"swtpm, RSA 3072 of the high range", "rsa3072", swtpm},
	} {
		t.Run(c.name, func(t *testing.T) {
			service := rig.New(t, rig.Config{})
			tpm, spec := c.make(t)
			a := newAgent(t, service, spec)
			id := a.enroll("--algorithm", c.algorithm)
			if id.Algorithm != c.algorithm || id.Hierarchy != "endorsement" {
				t.Errorf("identity: %+v", id)
			}
			provision(t, a, id)
			wantNothingOpen(t, tpm)
		})
	}
}

// provision takes an enrolled device to its hub.
func provision(t *testing.T, a *agent, id identity) {
	t.Helper()
	got := a.register()
	if want := (assignment{id.RegistrationID, a.service.Host, id.RegistrationID, "assigned", "initialAssignment"}); got != want {
		t.Errorf("assignment %+v, want %+v", got, want)
	}
	login := a.token()
	if login.Hub != a.service.Host || login.DeviceID != got.DeviceID || !strings.HasPrefix(login.Username, login.Hub+"/"+login.DeviceID+"/") {
		t.Errorf("login for %s at %s as %q", login.DeviceID, login.Hub, login.Username)
	}
	mustLogin(t, a.service, login.DeviceID, login.SASToken).send("hello")
	wantTelemetry(t, a.service, login.DeviceID, "hello")
}

// wantNothingOpen: the agent left no object and no session in the TPM, whose
// few slots others need too.
func wantNothingOpen(t *testing.T, tpm simtpm.TPM) {
	t.Helper()
	open, err := simtpm.OpenHandles(tpm)
	if err != nil || len(open) != 0 {
		t.Errorf("left in the TPM: %x, error %v", open, err)
	}
}

func TestStrangeDeviceIsRefusedAndTheOperatorLearnsWhy(t *testing.T) {
	service := rig.New(t, rig.Config{})
	_, spec := swtpm(t)
	a := newAgent(t, service, spec)
	result, err := service.Register(a.context(), a.device)
	if result.ExitCode != 1 || !strings.Contains(result.Stderr, "404201") {
		t.Fatalf("exit code %d, error %v", result.ExitCode, err)
	}
	why, err := service.Latchkey(t.Context(), "why", trackingID(t, result.Stderr))
	if err != nil || !strings.Contains(why.Stdout, "unknown-id") {
		t.Errorf("error %v, latchkey why says:\n%s", err, why.Stdout)
	}
}

func TestRestartedDeviceKeepsItsHubKey(t *testing.T) {
	service := rig.New(t, rig.Config{})
	tpm, spec := swtpm(t)
	a := newAgent(t, service, spec)
	a.enroll()
	a.register()
	before := a.token()
	session := mustLogin(t, service, before.DeviceID, before.SASToken)
	session.send("one")

	if err := tpm.PowerCycle(); err != nil {
		t.Fatal(err)
	}
	a.token() // the saved key loads again
	a.register()
	session.send("two") // registering again has not cut the running device off
	mustLogin(t, service, before.DeviceID, before.SASToken).send("three")
	wantTelemetry(t, service, before.DeviceID, "one", "two", "three")
}
