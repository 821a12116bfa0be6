package faults

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// A service that answers before its commit loses what it acknowledged, and the loop finds it. The commit comes a moment after the answer: what the
// kernel was given is not lost by a kill, so that a shorter moment would seldom be met.
func TestTheLoopCatchesAServiceThatAnswersBeforeItsCommit(t *testing.T) {
	weak, err := rig.Weakness{File: "internal/registration/register.go",
		Good: "revision, verdict, err := c.store.Redeem(ctx, s.ID, redemption)",
		Bad: `go func() { time.Sleep(50 * time.Millisecond); c.store.Redeem(context.WithoutCancel(ctx), s.ID, redemption) }()
			revision, verdict, err := uint64(0), Applied, error(nil)`}.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := rig.New(t, rig.Config{Programs: rig.Programs{Service: weak}})
	n := seed(t)
	load := startOn(t, s, n)
	report, err := Killing{
		Load: load, Victims: []Victim{NodeVictim("node", 5, s, load.doors[0])},
		Seed: n, Least: 20, Most: 60, Floor: 10, Grace: 15 * time.Second,
	}.Run()
	load.Stop(endLimit)
	t.Logf("%v\n%v", report, load)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	wantFinding(t, checkFile(t, s, load.devices), Lost)
}

func wantFinding(t *testing.T, found []Finding, kind Kind) {
	t.Helper()
	if !slices.ContainsFunc(found, func(f Finding) bool { return f.Kind == kind }) {
		t.Errorf("nothing of the kind %q was found, only %v", kind, found)
	}
}

// A run without load shows nothing, and says so: devices that find nobody, or nobody who answers.
func TestARunWhoseLoadStallsIsInvalid(t *testing.T) {
	s := rig.New(t, rig.Config{})
	devices, err := Enroll(t.Context(), s, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	nobody, silent := NewDoor(s.Host, s.TLS()), NewDoor(s.Host, s.TLS())
	silent.Move(mute.Addr().String())
	for name, door := range map[string]*Door{"nobody is there": nobody, "nobody answers": silent} {
		t.Run(name, func(t *testing.T) {
			load := Start(Plan{Scope: s.IDScope, Doors: []*Door{door}, Devices: devices, Workers: 4})
			none := func() error { return nil }
			_, err := Killing{Load: load, Victims: []Victim{{Name: "node", Times: 1, Kill: none, Run: none}}, Least: 1, Most: 1, Floor: 10}.Run()
			if err == nil || !strings.Contains(err.Error(), "invalid") {
				t.Errorf("error %v", err)
			}
			load.Stop(0)
			wantFinding(t, load.Findings(), Stalled)
		})
	}
}
