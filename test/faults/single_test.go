package faults

import (
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// One node on the embedded store is killed again and again while devices register. What any of them was told holds afterwards.
func TestOneNodeKilledLosesNothingAcknowledged(t *testing.T) {
	s := rig.New(t, rig.Config{})
	n := seed(t)
	load := startOn(t, s, n)
	report, err := Killing{
		Load: load, Victims: []Victim{NodeVictim("node", kills(t, 30, 1), s, load.doors[0])},
		Seed: n, Least: 10, Most: 30, Floor: 10, Grace: 15 * time.Second, Look: looking(t, s.DataDir),
	}.Run()
	load.Stop(endLimit)
	t.Logf("%v\n%v", report, load)
	if err != nil {
		t.Error(err)
	}
	mustRemember(t, load, report.Kills["node"]) // its file is not flushed, but a kill leaves it
	mustWork(t, &s.Access, load)
	mustHold(t, s, load)
}

// startOn has a fleet register on one service.
func startOn(t *testing.T, s *rig.Service, seed uint64) *Load {
	t.Helper()
	devices, err := Enroll(t.Context(), s, 0, 200)
	if err != nil {
		t.Fatal(err)
	}
	return Start(Plan{Scope: s.IDScope, Doors: []*Door{DoorOf(s)}, Devices: devices, Workers: workers, Seed: seed})
}

// mustHold checks the store beside the running service with latchkey fsck, and then all that the devices were told.
func mustHold(t *testing.T, s *rig.Service, load *Load) {
	t.Helper()
	mustBeSound(t, s.DataDir)
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if err := Judge(append(load.Findings(), checkFile(t, s, load.devices)...)); err != nil {
		t.Error(err)
	}
}
