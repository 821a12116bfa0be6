package faults

import (
	"context"
	"testing"
	"time"

	"latchkey.example/latchkey/test/cluster"
	"latchkey.example/latchkey/test/rig"
)

// A database server that comes back from a crash and would not flush what it acknowledges, any more, is not used: nodes send devices away until
// it is mended, and nothing is acknowledged meanwhile.
func TestNothingIsAcknowledgedOnAServerThatDoesNotFlush(t *testing.T) {
	h := newHouse(t, cluster.Config{Nodes: 1})
	load := h.load(t, seed(t))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	for _, setting := range []string{"fsync", "synchronous_commit"} {
		must(load.Await(50, time.Minute))
		must(h.Database.Psql(t.Context(), "postgres", "ALTER SYSTEM SET "+setting+" = off"))
		must(h.Database.Crash())
		must(h.Database.Run())
		sendAway(t, load, 50) // answers from before the crash may be under way
		told := load.Told()
		sendAway(t, load, 100)
		if now := load.Told(); now != told {
			t.Errorf("%s = off, and %d registrations were acknowledged", setting, now-told)
		}
		must(h.Database.Psql(t.Context(), "postgres", "ALTER SYSTEM RESET "+setting))
		must(h.Database.Psql(t.Context(), "postgres", "SELECT pg_reload_conf()"))
	}
	must(load.Await(50, time.Minute))
	load.Stop(endLimit)
	mustBeSound(t, h.Nodes[0].DataDir)
	found, err := h.check(t.Context(), load.devices)
	must(err)
	must(Judge(append(load.Findings(), found...)))
}

// sendAway waits until so many more questions were answered with a time to come again.
func sendAway(t *testing.T, load *Load, more int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before := load.Unserved()
	if _, err := rig.Poll(ctx, func() (struct{}, bool, error) { return struct{}{}, load.Unserved() >= before+more, nil }); err != nil {
		t.Fatalf("%d devices of %d were sent away: %v", load.Unserved()-before, more, err)
	}
}
