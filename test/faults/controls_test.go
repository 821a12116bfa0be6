package faults

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// A service that answers before its commit loses what it acknowledged, and the loop finds it. The commit comes some milliseconds after the answer:
// what the kernel was given is not lost by a kill, so that a shorter moment would seldom be met.
func TestTheLoopCatchesAServiceThatAnswersBeforeItsCommit(t *testing.T) {
	weak, err := rig.Weakness{File: "internal/registration/register.go",
		Good: "revision, verdict, err := c.store.Redeem(ctx, s.ID, redemption)",
		Bad: `go func() { time.Sleep(5 * time.Millisecond); c.store.Redeem(context.WithoutCancel(ctx), s.ID, redemption) }()
			revision, verdict, err := uint64(0), Applied, error(nil)`}.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := rig.New(t, rig.Config{Programs: rig.Programs{Service: weak}})
	n := seed(t)
	load := startOn(t, s, n)
	report, err := Killing{
		Load: load, Victims: []Victim{NodeVictim("node", 10, s, load.doors[0])},
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
	found, err := checkFile(t.Context(), s, load.devices)
	if err != nil {
		t.Fatal(err)
	}
	wantFinding(t, found, Lost)
}

func wantFinding(t *testing.T, found []Finding, kind Kind) {
	t.Helper()
	if !slices.ContainsFunc(found, func(f Finding) bool { return f.Kind == kind }) {
		t.Errorf("nothing of the kind %q was found, only %v", kind, found)
	}
}

// What a device is made to remember otherwise than it was told is found: each line of the check can fail.
func TestTheCheckFindsWhatWasForged(t *testing.T) {
	s := rig.New(t, rig.Config{})
	load := startOn(t, s, seed(t))
	if err := load.Await(1000, time.Minute); err != nil {
		t.Fatal(err)
	}
	load.Stop(endLimit)
	mustHold(t, s, load)
	// A device of two owners that knows both hub keys.
	at := slices.IndexFunc(load.devices, func(d *Device) bool {
		n := len(d.proofs)
		return n > 1 && d.proofs[n-1].Assigned && d.proofs[n-2].Assigned && !bytes.Equal(d.proofs[n-1].Owner, d.proofs[n-2].Owner)
	})
	if at < 0 {
		t.Fatal("no device has two owners")
	}
	whole := load.devices[at].proofs
	last := whole[len(whole)-1]
	for name, c := range map[string]struct {
		kind  Kind
		forge func(d *Device)
	}{
		"an acknowledgement that never was": {Lost, func(d *Device) {
			d.proofs = append(d.proofs, &Proof{Owner: last.Owner, Operation: "5.0", Told: time.Now()})
		}},
		"an acknowledgement of long ago": {Lost, func(d *Device) {
			d.proofs = slices.Insert(d.proofs, 0, &Proof{Owner: last.Owner, Operation: "5.0"})
		}},
		"a registration that was not asked for": {Invented, func(d *Device) { d.proofs = d.proofs[1:] }},
		"a proof that counted twice":            {Doubled, func(d *Device) { d.proofs = d.proofs[:len(d.proofs)-1] }},
		"another order": {Wrong, func(d *Device) {
			d.proofs[len(whole)-1], d.proofs[len(whole)-2] = d.proofs[len(whole)-2], d.proofs[len(whole)-1]
		}},
		"another owner":          {Wrong, func(d *Device) { d.proofs[len(whole)-1].Owner = d.proofs[len(whole)-2].Owner }},
		"the old owner's key":    {Wrong, func(d *Device) { d.proofs[len(whole)-1].Key = d.proofs[len(whole)-2].Key }},
		"another key":            {Wrong, func(d *Device) { d.proofs[len(whole)-1].Key = make([]byte, 32) }},
		"an old owner's key now": {Wrong, func(d *Device) { d.proofs[len(whole)-2].Key = last.Key }},
		"another device id":      {Wrong, func(d *Device) { d.proofs[len(whole)-1].DeviceID = "other" }},
		"another hub":            {Wrong, func(d *Device) { d.proofs[len(whole)-1].Hub = "other.test" }},
		"nothing at all":         {Invented, func(d *Device) { d.ID = "unknown" }},
	} {
		t.Run(name, func(t *testing.T) {
			forged := *load.devices[at]
			forged.proofs = nil
			for _, p := range whole {
				again := *p
				forged.proofs = append(forged.proofs, &again)
			}
			c.forge(&forged)
			devices := slices.Clone(load.devices)
			devices[at] = &forged
			found, err := checkFile(t.Context(), s, devices)
			if err != nil {
				t.Fatal(err)
			}
			wantFinding(t, found, c.kind)
		})
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
