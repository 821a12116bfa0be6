package handover

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/pgserver"
)

// changed has a device registered and connected, and then registered anew with another key at a node that cannot end its session.
func (s *site) changed(at, hub *node, id string) (p proven, old, newer []byte, open *session) {
	s.Helper()
	old, newer = newKey(), newKey()
	at.enroll(id, old)
	at.shows(at.register(id, old), dps.StatusAssigned) // nobody else is needed for it
	open = hub.loggedIn(id, old)
	at.enroll(id, newer)
	p = at.register(id, newer)
	at.shows(p, dps.StatusAssigning)
	return p, old, newer, open
}

// The assignment of a changed key is shown when the session under the old one is gone, whichever node shows it.
func TestAKeyThatChangesAtAnotherNodeEndsTheSessionFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.node("alpha", false), s.node("beta", true)
	p, old, newer, open := s.changed(a, b, "valve")
	if a.deliver() != (registration.Delivery{}) || a.waiting() != 1 {
		t.Error("a node that does not serve the hub has claimed its work")
	}
	must(t, a.core.Maintain(t.Context()))
	a.shows(p, dps.StatusAssigning)
	if !open.alive("valve") {
		t.Error("the old session was cut before anything could take its place")
	}
	if got := b.deliver(); got != (registration.Delivery{Done: 1}) {
		t.Errorf("delivered %+v", got)
	}
	a.shows(p, dps.StatusAssigned)
	open.ended(t)
	if _, err := b.login("valve", old); err == nil {
		t.Error("the old key was let in")
	}
	b.loggedIn("valve", newer)
	if n := a.waiting(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// The poll that comes to the node which serves the hub needs no outbox, and the row does no harm.
func TestAPollAtTheNodeThatServesTheHubDoesTheWork(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.node("alpha", false), s.node("beta", true)
	p, _, _, open := s.changed(a, b, "valve")
	b.shows(p, dps.StatusAssigned)
	open.ended(t)
	a.shows(p, dps.StatusAssigned)
	if b.deliver() != (registration.Delivery{}) || b.waiting() != 0 {
		t.Error("the row is left")
	}
}

// The node that had claimed the work is killed in the middle of it. Whoever serves the hub next takes it over; the device is told to come again until
// then, never more.
func TestWorkOfAKilledNodeIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.node("alpha", false), s.node("beta", true)
	p, old, newer, open := s.changed(a, b, "valve")
	claimed, err := b.store.ClaimOutbox(t.Context(), registration.OutboxClaim{ID: "the dead node's", Kind: registration.OutboxAdvance, Lease: lease, Limit: 10})
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claimed %+v, %v", claimed, err)
	}
	b.kill()
	open.ended(t)
	a.shows(p, dps.StatusAssigning)
	begun := time.Now()
	c := s.node("gamma", true)
	if waited := time.Since(begun); waited < lease*3/4 {
		t.Errorf("the hub of a killed node was taken after %s", waited)
	}
	for deadline := time.Now().Add(patience); c.deliver().Done == 0; {
		if a.poll(p) != dps.StatusAssigning || time.Now().After(deadline) {
			t.Fatal("not delivered")
		}
	}
	a.shows(p, dps.StatusAssigned)
	if _, err := c.login("valve", old); err == nil {
		t.Error("the old key was let in")
	}
	c.loggedIn("valve", newer)
	rows, err := a.store.AuditByTrackingID(t.Context(), s.scope, claimedTracking(t, a, p))
	must(t, err)
	assigned := 0
	for _, row := range rows {
		if row.Action == registration.ActionAssign {
			assigned++
		}
	}
	if assigned != 1 {
		t.Errorf("assigned %d times", assigned)
	}
}

func claimedTracking(t *testing.T, n *node, p proven) string {
	t.Helper()
	o, err := n.store.Operation(t.Context(), n.scope, p.operation)
	must(t, err)
	return o.TrackingID
}

// With the only node that served the hub all sessions are gone: when that is certain, any node does the work.
func TestWhenNobodyServesTheHubAnybodyDoesItsWork(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.node("alpha", false), s.node("beta", true)
	p, old, newer, open := s.changed(a, b, "valve")
	b.kill()
	open.ended(t)
	for deadline := time.Now().Add(patience); a.deliver().Done == 0 && a.poll(p) == dps.StatusAssigning; { // either does it
		if time.Now().After(deadline) {
			t.Fatal("not delivered")
		}
	}
	a.shows(p, dps.StatusAssigned)
	again := s.node("beta", true)
	if _, err := again.login("valve", old); err == nil {
		t.Error("the old key was let in")
	}
	again.loggedIn("valve", newer)
}

func TestASecondNodeThatIsToServeTheHubDoesNotStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	other, first := s.node("gamma", false), s.node("alpha", true)
	_, err := s.start("beta", true, 0)
	var owned *embedded.ErrOwned
	if !errors.As(err, &owned) || !strings.Contains(err.Error(), "the node on alpha since") || !strings.Contains(err.Error(), "hub.serve: false") {
		t.Fatalf("started: %v", err)
	}
	key := newKey()
	first.enroll("valve", key)
	first.shows(first.register("valve", key), dps.StatusAssigned)
	first.loggedIn("valve", key)
	first.stop()
	if owner, err := other.store.HubOwner(t.Context()); err != nil || owner.ID != "" {
		t.Errorf("after its end the hub is owned by %+v, %v", owner, err)
	}
	second := s.node("beta", true)
	second.loggedIn("valve", key)
}

// The database dies under the node that serves the hub. Before anybody else could have the hub its devices are cut and nobody gets in; when the
// database is back, and nobody has taken it, all is as it was.
func TestAHubWithoutItsDatabaseServesNobody(t *testing.T) {
	t.Parallel()
	own, err := pgserver.Start()
	must(t, err)
	defer own.Stop()
	s := siteOn(t, own)
	a, b := s.node("alpha", false), s.node("beta", true)
	key := newKey()
	a.enroll("valve", key)
	a.shows(a.register("valve", key), dps.StatusAssigned)
	open := b.loggedIn("valve", key)
	must(t, own.Crash())
	open.ended(t)
	if b.hub.Reach("", "") != registration.Elsewhere {
		t.Error("it still has the hub")
	}
	if _, err := b.login("valve", key); err == nil {
		t.Error("a device was let in")
	}
	must(t, own.Run())
	for deadline := time.Now().Add(patience); b.hub.Reach("", "") != registration.Here; {
		if time.Now().After(deadline) {
			t.Fatal("the hub is not served again")
		}
		runtime.Gosched()
	}
	b.loggedIn("valve", key)
	b.stop()
	a.stop()
}

// Nodes whose clocks are minutes and a day apart.
func TestClocksOfNodesDoNotMatter(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{2 * time.Minute, -2 * time.Minute, 24 * time.Hour, -24 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			a := s.node("alpha", false)
			b, err := s.start("beta", true, skew)
			must(t, err)
			old, newer := newKey(), newKey()
			a.enroll("valve", old)
			a.shows(a.register("valve", old), dps.StatusAssigned)
			a.enroll("valve", newer)
			p := a.register("valve", newer)
			a.shows(p, dps.StatusAssigning)
			if got := b.deliver(); got != (registration.Delivery{Done: 1}) {
				t.Errorf("delivered %+v", got)
			}
			a.shows(p, dps.StatusAssigned)
		})
	}
}

// Devices change their keys at two nodes while the hub goes from one owner to the next, by a stop and by a kill. In the end each has its new
// key, and its old one is worth nothing.
func TestKeysThatChangeWhileTheHubChangesHands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, c := s.node("alpha", false), s.node("gamma", false)
	owner := s.node("beta 0", true)
	const devices = 12
	var work sync.WaitGroup
	old, newer := make([][]byte, devices), make([][]byte, devices)
	last := make([]proven, devices)
	for i := range devices {
		work.Go(func() {
			id, n := fmt.Sprint("valve-", i), []*node{a, c}[i%2]
			old[i] = newKey()
			n.enroll(id, old[i])
			n.register(id, old[i])
			for range 4 {
				newer[i] = newKey()
				n.enroll(id, newer[i])
				last[i] = n.register(id, newer[i])
				n.deliver()
			}
		})
	}
	for round := range 3 {
		if round == 1 {
			owner.kill()
		} else {
			owner.stop()
		}
		owner = s.node(fmt.Sprint("beta ", round+1), true)
	}
	work.Wait()
	for deadline := time.Now().Add(patience); a.waiting() > 0; {
		owner.deliver()
		if time.Now().After(deadline) {
			t.Fatalf("%d rows are left", a.waiting())
		}
	}
	for i, p := range last {
		a.shows(p, dps.StatusAssigned)
		owner.loggedIn(p.id, newer[i])
		if _, err := owner.login(p.id, old[i]); err == nil {
			t.Errorf("the first key of %s was let in", p.id)
		}
	}
}
