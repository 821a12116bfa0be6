package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

// The device's side of a resale: the agent closes the registration, and forgets the key only then. Its hub key is dead, it is not let in again
// before the operator wants it, and a second run finds nothing to do.
func TestAgentForgetsItsOwner(t *testing.T) {
	service := rig.New(t, rig.Config{})
	_, spec := swtpm(t)
	a := newAgent(t, service, spec)
	id := a.enroll("--algorithm", "ecc-p256")
	provision(t, a, id)
	login := a.token()
	if result, err := service.Agent(a.context(), a.device, "forget"); err == nil && result.ExitCode != 2 {
		t.Fatalf("unasked: exit code %d, %s", result.ExitCode, result.Stderr)
	}
	if _, err := os.Stat(filepath.Join(a.device.StateDir, "hub.json")); err != nil {
		t.Fatal("nobody said yes, and the key is gone")
	}
	type forgotten struct{ RegistrationID, Service, Removed string }
	result, err := service.Agent(a.context(), a.device, "forget", "--yes", "--json", "--algorithm", "ecc-p256")
	got := printed[forgotten](t, result, err)
	if got.Service != "closed" || got.RegistrationID != id.RegistrationID || got.Removed == "" {
		t.Fatalf("%+v", got)
	}
	if _, err := os.Stat(got.Removed); !os.IsNotExist(err) {
		t.Errorf("the key is still kept: %v", err)
	}
	wantRefusedLogin(t, service, login.DeviceID, login.SASToken)
	result, err = service.Register(a.context(), a.device, "--algorithm", "ecc-p256")
	if err == nil || result.ExitCode != 1 || !strings.Contains(result.Stderr, "403001") {
		t.Errorf("it registers again: %v %s", err, result.Stderr)
	}
	result, err = service.Agent(a.context(), a.device, "forget", "--yes", "--json", "--algorithm", "ecc-p256")
	if again := printed[forgotten](t, result, err); again.Service != "closed" || again.Removed != "" {
		t.Errorf("a second run: %+v", again)
	}
}
