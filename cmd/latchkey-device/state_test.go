package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func goodState() state {
	return state{Version: stateVersion, Endpoint: "e", IDScope: "s", RegistrationID: "r", AssignedHub: "h", DeviceID: "d", HubKey: []byte{1}}
}

func TestStateComesBack(t *testing.T) {
	dir := t.TempDir()
	for _, device := range []string{"first", "second"} {
		want := goodState()
		want.DeviceID = device
		if _, err := saveState(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := loadState(dir)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v %v", got, err)
		}
	}
	mustHoldOnly(t, dir, stateFile)
}

func TestStateThatCannotBeReplacedLeavesNoLitter(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, stateFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := saveState(dir, goodState()); err == nil {
		t.Error("replaced a directory")
	}
	mustHoldOnly(t, dir, stateFile)
}

func TestPreparingTheDirectoryLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := prepareState(dir); err != nil {
		t.Fatal(err)
	}
	mustHoldOnly(t, dir)
}

func TestDamagedStateIsToldAsSuch(t *testing.T) {
	for name, content := range map[string]string{
		"empty":           "",
		"half":            `{"version":1,"endpo`,
		"unknown member":  `{"version":1,"assignedHub":"h","deviceId":"d","hubKey":"AQ==","hubKeys":[]}`,
		"other version":   `{"version":2,"assignedHub":"h","deviceId":"d","hubKey":"AQ=="}`,
		"no key":          `{"version":1,"assignedHub":"h","deviceId":"d"}`,
		"key of no bytes": `{"version":1,"assignedHub":"h","deviceId":"d","hubKey":"%"}`,
		"huge":            `{"version":1,"assignedHub":"` + strings.Repeat("h", maxState) + `"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadState(dir); err == nil || !strings.Contains(err.Error(), "register again") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustHoldOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(names) {
		t.Errorf("%v in the directory, want %v", entries, names)
	}
}
