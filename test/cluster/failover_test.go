package cluster

import (
	"context"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/faults"
	"latchkey.example/latchkey/test/rig"
)

// How long devices may take to be acknowledged again, and to end what they have begun.
const (
	flowLimit = 60 * time.Second
	endLimit  = 60 * time.Second
)

// seed is drawn, or the one of SEED, and printed.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if given := os.Getenv("SEED"); given != "" {
		var err error
		if n, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("SEED: %v", err)
		}
	}
	t.Logf("SEED=%d", n)
	return n
}

// The database's machine dies while devices register, and the synchronous standby is promoted: again and again in the long form, each time with
// a standby that was built anew. What any device was told is there.
func TestAPromotedStandbyHasAllThatWasAcknowledged(t *testing.T) {
	failovers := 1
	if os.Getenv("LATCHKEY_LONG") == "1" {
		failovers = 8
	}
	p := newPair(t)
	p.synchronous()
	c := New(t, Config{Store: p.address()})
	load := register(t, c, seed(t))
	must(t, load.Await(200, flowLimit))
	for n := range failovers {
		if n > 0 {
			p.rebuild()
			must(t, load.Await(100, flowLimit))
		}
		began := time.Now()
		p.fail()
		promoted := time.Since(began)
		must(t, load.Await(1, flowLimit))
		t.Logf("failover %d: promoted after %v, the first acknowledgement after %v", n+1, promoted.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		must(t, load.Await(100, flowLimit))
	}
	load.Stop(endLimit)
	t.Log(load)
	fsck(t, c)
	stopNodes(t, c)
	found, err := load.check(t.Context(), c, p.primary)
	must(t, err)
	must(t, faults.Judge(found))
}

// The same without replication that commits wait for, and with a standby that has lost sight of its primary: the check finds what is missing.
func TestTheCheckFindsWhatAStandbyMisses(t *testing.T) {
	p := newPair(t)
	c := New(t, Config{Store: p.address(), Nodes: 1})
	load := register(t, c, seed(t))
	must(t, load.Await(100, flowLimit))
	must(t, p.standby.Unfollow(t.Context()))
	must(t, load.Await(100, flowLimit))
	p.fail()
	load.Stop(endLimit)
	stopNodes(t, c)
	found, err := load.check(t.Context(), c, p.primary)
	must(t, err)
	if !slices.ContainsFunc(found, func(f faults.Finding) bool { return f.Kind == faults.Lost }) {
		t.Errorf("nothing is missing, of %v", found)
	}
}

// A commit that waits for a standby out of reach is not acknowledged, and neither is it when the device asks again: it would be gone if the standby
// were promoted. In the pause devices are told to come again.
func TestWhatTheStandbyLacksIsNotAcknowledged(t *testing.T) {
	p := newPair(t)
	p.synchronous()
	c := New(t, Config{Store: p.address(), Env: []string{"LATCHKEY_LIMITS_HANDLER_TIME=1s"}})
	d, other := newDevice(t, &c.Access, 0), newDevice(t, &c.Access, 1)
	d.contact()
	other.contact()
	must(t, p.standby.Unfollow(t.Context()))
	for try := range 2 {
		if got, err := d.send(http.MethodPut, "/register", d.token, d.body()); err == nil && !comeAgain(got) {
			t.Errorf("try %d while the standby is away: status %d, Retry-After %q: %s", try, got.status, got.header.Get("Retry-After"), got.body)
		}
	}
	acknowledgedTooEarly(t, p, other)
	must(t, p.primary.Crash())
	d.wantComeAgain(c)
	p.promote()
	d.prove()
	d.poll()
	if got, err := other.send(http.MethodGet, "/operations/"+other.operation, other.token, nil); err != nil || got.status != http.StatusUnauthorized {
		t.Errorf("what was acknowledged too early is not missing: status %d, %v", got.status, err)
	}
	fsck(t, c)
}

// acknowledgedTooEarly is the control: somebody at the server has the commits wait no more. It then shows what the standby lacks, and the device is told.
func acknowledgedTooEarly(t *testing.T, p *pair, d *device) {
	t.Helper()
	told, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-told:
				watched <- nil
				return
			case <-time.After(10 * time.Millisecond):
			}
			if err := p.primary.Psql(t.Context(), "postgres", `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`); err != nil {
				watched <- err
				return
			}
		}
	}()
	d.prove()
	close(told)
	must(t, <-watched)
}

func comeAgain(got reply) bool {
	seconds, err := strconv.Atoi(got.header.Get("Retry-After"))
	return got.status == http.StatusServiceUnavailable && err == nil && seconds > 0
}

// wantComeAgain: once the load balancer knows that no node is ready, it leads to those that live, who say so themselves.
func (d *device) wantComeAgain(c *Cluster) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	if _, err := rig.Poll(ctx, func() (struct{}, bool, error) {
		return struct{}{}, strings.Contains(c.Balancer.Output(), "backend 'nodes' has no server available"), nil
	}); err != nil {
		d.t.Fatalf("the load balancer has not noticed: %v; it said:\n%s", err, c.Balancer.Output())
	}
	got, err := d.send(http.MethodPut, "/register", d.token, d.body())
	if err != nil || !comeAgain(got) {
		d.t.Errorf("without a database: %v, status %d, %v", err, got.status, got.header)
	}
}
