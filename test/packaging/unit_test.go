package packaging

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

// exposure is the most that `systemd-analyze security` may find, in tenths of its scale from 0 (nothing) to 10. What is left: the service listens on
// the network and speaks to local sockets, may bind low ports, and shares the machine's root directory, users and list of devices.
const exposure = "14"

// unit writes the unit file, changed, with the program where it is on this machine.
func unit(t *testing.T, change func(string) string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(source(t), "packaging/latchkey.service"))
	must(t, err)
	program := filepath.Join(source(t), "bin", runtime.GOARCH, "latchkey")
	path := filepath.Join(t.TempDir(), "latchkey.service")
	must(t, os.WriteFile(path, []byte(change(strings.ReplaceAll(string(text), "/usr/bin/latchkey", program))), 0o600))
	return path
}

func same(text string) string { return text }

func analyze(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	result, err := rig.Run(t.Context(), rig.Command{Path: "systemd-analyze", Args: arguments})
	return result.Stdout + result.Stderr, err
}

func TestSystemdUnderstandsTheUnit(t *testing.T) {
	if said, err := analyze(t, "verify", "--man=no", unit(t, same)); err != nil || strings.Contains(said, "latchkey.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, said)
	}
	misspelt := unit(t, func(text string) string { return strings.Replace(text, "ProtectHome=", "ProtectHomes=", 1) })
	if said, _ := analyze(t, "verify", "--man=no", misspelt); !strings.Contains(said, "ProtectHomes") {
		t.Errorf("a misspelt line was not found: %s", said)
	}
}

// Lines that the score weighs are each needed to stay below the bound.
func TestTheUnitGivesTheServiceNoMoreThanItNeeds(t *testing.T) {
	security := func(path string) error {
		_, err := analyze(t, "security", "--no-pager", "--offline=true", "--threshold="+exposure, path)
		return err
	}
	if err := security(unit(t, same)); err != nil {
		t.Errorf("the unit is exposed by more than %s tenths: %v", exposure, err)
	}
	for _, line := range []string{"User=", "CapabilityBoundingSet=", "NoNewPrivileges=", "ProtectSystem=", "ProtectHome=", "PrivateTmp=", "PrivateDevices=",
		"ProtectKernelModules=", "RestrictNamespaces=", "RestrictAddressFamilies=", "SystemCallFilter=~"} {
		without := regexp.MustCompile(`(?m)^` + line + `.*\n`)
		path := unit(t, func(text string) string { return without.ReplaceAllString(text, "") })
		if security(path) == nil {
			t.Errorf("without %s the unit passes too", line)
		}
	}
}
