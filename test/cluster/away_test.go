package cluster

import (
	"context"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/faults"
	"latchkey.example/latchkey/test/rig"
)

// The standby is away while devices register at full rate, until nodes give up waiting for their commits. Once it is back all
// goes on by itself, and nothing that any device was told is missing.
func TestTheStandbyIsAwayAndComesBack(t *testing.T) {
	p := newPair(t)
	p.synchronous()
	c := New(t, Config{Store: p.address(), Env: []string{"LATCHKEY_LIMITS_HANDLER_TIME=1s"}})
	load := register(t, c, seed(t))
	must(t, load.Await(50, flowLimit))
	must(t, p.standby.Unfollow(t.Context()))
	givenUp(t, c)
	must(t, p.standby.Refollow(t.Context()))
	must(t, load.Await(100, flowLimit))
	load.Stop(endLimit)
	t.Log(load)
	stopNodes(t, c)
	found, err := load.check(t.Context(), c, p.primary)
	must(t, err)
	must(t, faults.Judge(found))
}

// givenUp waits until a node waits for a commit no longer.
func givenUp(t *testing.T, c *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), flowLimit)
	defer cancel()
	if _, err := rig.Poll(ctx, func() (struct{}, bool, error) {
		return struct{}{}, slices.ContainsFunc(c.Nodes, func(s *rig.Service) bool { return strings.Contains(s.Log(), "the outcome is unknown") }), nil
	}); err != nil {
		t.Fatalf("no commit was given up: %v", err)
	}
}
