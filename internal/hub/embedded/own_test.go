package embedded

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// shared are identities and a register that several hubs have in common, each as a node of its own.
type shared struct {
	store *memory
	owner *register
	seal  *sealer
}

func newShared(t *testing.T) *shared {
	s := &shared{store: newMemory(t), owner: &register{}, seal: newSealer(t)}
	s.store.owners = s.owner
	return s
}

// hub makes a node; one that serves has the hub when it returns. kill cuts it off from the register for good.
func (s *shared) hub(t *testing.T, host string, serve bool) (w *world, own *line) {
	t.Helper()
	own = &line{register: s.owner}
	w = newWorld(t, func(c *Config) {
		c.Identities, c.Sealer, c.Owners, c.News, c.Serve, c.Host, c.Lease = s.store, s.seal, own, s.store, serve, host, lease
	})
	w.store, w.sealer = s.store, s.seal
	if err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := make(chan error, 1)
	go func() { kept <- w.Keep(context.Background()) }()
	t.Cleanup(func() {
		w.shut()
		var owned *ErrOwned
		if err := <-kept; err != nil && !errors.As(err, &owned) {
			t.Errorf("keeping: %v", err)
		}
	})
	return w, own
}

func (s *shared) row(deviceID string) registration.Identity {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.store.rows[rowKey(testScope, testHub, deviceID)]
}

// elsewhere wants that a call is left to another process, and changes nothing.
func (s *shared) elsewhere(t *testing.T, w *world, key []byte, generation uint64) {
	t.Helper()
	before := s.row("dev")
	if err := w.tryEnsure("dev", key, generation); !errors.Is(err, registration.ErrElsewhere) {
		t.Errorf("got %v, want that it is another process's", err)
	}
	if after := s.row("dev"); after.Generation != before.Generation || string(after.SealedKey) != string(before.SealedKey) || after.Cutting != before.Cutting {
		t.Errorf("the identity changed: %+v", after)
	}
}

func TestANodeWithoutTheHubWritesWhatNoSessionHangsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		node, _ := s.hub(t, "beta", false)
		key := newKey()
		node.ensure("dev", key, 1)
		r := owner.login(owner.greet("dev", key), 0)
		node.ensure("dev", key, 1)
		node.ensure("dev", key, 3)
		if row := s.row("dev"); row.Generation != 3 || row.Cutting {
			t.Errorf("row %+v", row)
		}
		if err := node.tryEnsure("dev", newKey(), 2); !errors.Is(err, registration.ErrStale) {
			t.Errorf("an older generation: %v", err)
		}
		newer := newKey()
		s.elsewhere(t, node, newer, 4)
		r.send(packet(0xc0)) // it still runs
		r.expect(0xd0, 0)
		owner.ensure("dev", newer, 4)
		r.expectClosed()
		node.ensure("dev", newer, 4)
		node.ensure("dev", newer, 5)
		owner.login(owner.greet("dev", newer), 0)
	})
}

// The owner has made the new key durable and has not ended the old owner's session yet. Another node finds its own key there, and must not take
// that for the end.
func TestAHalfDoneChangeIsNotTakenForDoneByAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		node, _ := s.hub(t, "beta", false)
		key, newer := newKey(), newKey()
		owner.ensure("dev", key, 1)
		r := owner.login(owner.greet("dev", key), 0)
		s.store.set(func() { s.store.losePut = errors.New("connection lost") })
		if err := owner.tryEnsure("dev", newer, 2); err == nil {
			t.Fatal("no error")
		}
		s.store.set(func() { s.store.losePut = nil })
		if row := s.row("dev"); !row.Cutting || row.Generation != 2 {
			t.Fatalf("row %+v", row)
		}
		s.elsewhere(t, node, newer, 2) // the same operation
		s.elsewhere(t, node, newer, 3) // a later one of the same owner
		r.send(packet(0xc0))
		r.expect(0xd0, 0)
		owner.ensure("dev", newer, 3)
		r.expectClosed()
		if s.row("dev").Cutting {
			t.Error("the mark is left")
		}
		node.ensure("dev", newer, 4)
	})
}

// The owner gives up waiting for a commit, as when the device that polls has hung up, and before the commit is seen the previous owner logs in: what was read then
// had its key. Another node that finds the new key there must not take the change for done, with that session alive.
func TestALoginBeforeALateCommitIsSeenDoesNotOutliveTheChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		node, _ := s.hub(t, "beta", false)
		key, newer := newKey(), newKey()
		owner.ensure("dev", key, 1)
		var commit func()
		s.store.set(func() { s.store.latePut = func(effect func()) { commit = effect } })
		if err := owner.tryEnsure("dev", newer, 2); err == nil {
			t.Fatal("no error")
		}
		s.store.set(func() { s.store.latePut = nil })
		r := owner.login(owner.greet("dev", key), 0)
		commit()
		s.elsewhere(t, node, newer, 2)
		owner.ensure("dev", newer, 2)
		r.expectClosed()
		if s.row("dev").Cutting {
			t.Error("the mark is left")
		}
		node.ensure("dev", newer, 2)
	})
}

// The owner dies in the middle of it: its sessions die with it, and whoever comes next finishes the change.
func TestAHalfDoneChangeOfADeadOwnerIsFinishedByOthers(t *testing.T) {
	for name, finish := range map[string]func(t *testing.T, s *shared, node *world) *world{
		"another owner": func(t *testing.T, s *shared, _ *world) *world { next, _ := s.hub(t, "gamma", true); return next },
		"a node without the hub": func(t *testing.T, s *shared, node *world) *world {
			time.Sleep(2 * lease)
			return node
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShared(t)
				owner, line := s.hub(t, "alpha", true)
				node, _ := s.hub(t, "beta", false)
				key, newer := newKey(), newKey()
				owner.ensure("dev", key, 1)
				r := owner.login(owner.greet("dev", key), 0)
				s.store.set(func() { s.store.losePut = errors.New("connection lost") })
				if err := owner.tryEnsure("dev", newer, 2); err == nil {
					t.Fatal("no error")
				}
				s.store.set(func() { s.store.losePut = nil })
				line.cut(true)
				s.elsewhere(t, node, newer, 2)
				heir := finish(t, s, node)
				r.expectClosed()
				heir.ensure("dev", newer, 2)
				if row := s.row("dev"); row.Cutting || row.Generation != 2 {
					t.Errorf("row %+v", row)
				}
			})
		})
	}
}

// While the owner does not reach the store, no device has a session, gets in or is heard; then all is as before.
func TestASuspendedHubServesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, line := s.hub(t, "alpha", true)
		key := newKey()
		owner.ensure("dev", key, 1)
		h := owner.greet("dev", key)
		h.flags, h.will = 0x04, [2]string{devTopic, "a will"}
		r := owner.login(h, 0)
		synctest.Wait()
		line.cut(true)
		time.Sleep(lease)
		r.expectClosed()
		synctest.Wait()
		if n := owner.endings(causeUnowned); n != 1 {
			t.Errorf("%d connections ended for it", n)
		}
		owner.refusedWith(owner.greet("dev", key), 3)
		if owner.Reach("", "") != registration.Elsewhere {
			t.Error("it reaches the sessions that it may not have")
		}
		s.elsewhere(t, owner, newKey(), 2)
		owner.ensure("dev", key, 3) // which hangs on no session
		line.cut(false)
		time.Sleep(lease)
		owner.login(owner.greet("dev", key), 1)
		if n := len(owner.sink.records(t)); n != 0 {
			t.Errorf("%d records", n)
		}
	})
}

// An owner that was stopped for a while, as a virtual machine is, wakes up after another has taken the hub and before its own timer has rung. What it
// writes names it, and is refused; what it hears it does not take.
func TestAnOwnerThatSleptThroughItsLeaseChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, line := s.hub(t, "alpha", true)
		key := newKey()
		owner.ensure("dev", key, 1)
		r := owner.login(owner.greet("dev", key), 0)
		synctest.Wait()
		line.cut(true) // or its beat would tell it
		was := s.owner.now()
		s.owner.mu.Lock()
		s.owner.owner = registration.HubOwner{ID: "another", Host: "gamma", Beat: was.Beat + 1}
		s.owner.mu.Unlock()
		if owner.Reach("", "") != registration.Here {
			t.Fatal("the test is to be about an owner that does not know")
		}
		s.elsewhere(t, owner, newKey(), 2)
		owner.owner.mu.Lock()
		owner.owner.until = 0
		owner.owner.mu.Unlock()
		r.send(publish(0x32, devTopic, 1, "1"))
		r.expectClosed()
		if n := len(owner.sink.records(t)); n != 0 {
			t.Errorf("%d records", n)
		}
	})
}

// A node without the hub takes it for nobody's, and somebody has just taken it.
func TestANodeThatDoesNotKnowOfANewOwnerIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		node, _ := s.hub(t, "beta", false)
		if node.Reach("", "") != registration.Unserved {
			t.Fatalf("it reaches %d", node.Reach("", ""))
		}
		key, newer := newKey(), newKey()
		node.ensure("dev", key, 1)
		node.ensure("dev", newer, 2) // nobody can have a session
		synctest.Wait()
		owner, _ := s.hub(t, "alpha", true)
		if node.Reach("", "") != registration.Unserved {
			t.Fatal("the test is to be about a node that does not know")
		}
		r := owner.login(owner.greet("dev", newer), 0)
		s.elsewhere(t, node, newKey(), 3)
		r.send(packet(0xc0))
		r.expect(0xd0, 0)
		if node.Reach("", "") != registration.Elsewhere {
			t.Error("it has not learned of it")
		}
	})
}

func TestAHubIsGivenUpWhenItsLastSessionHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		key := newKey()
		owner.ensure("dev", key, 1)
		writing, goOn := make(chan struct{}), make(chan struct{})
		owner.sink.fail = func() error { close(writing); <-goOn; return nil }
		r := owner.login(owner.greet("dev", key), 0)
		r.send(publish(0x32, devTopic, 1, "1"))
		<-writing
		closed := make(chan error)
		go func() { closed <- owner.Close(context.Background()) }()
		time.Sleep(3 * lease) // its last message takes that long, and it is its own meanwhile
		if s.owner.now().Host != "alpha" {
			t.Error("the hub was given up before its last session ended")
		}
		close(goOn)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if s.owner.now().ID != "" {
			t.Error("the hub was not given up")
		}
	})
}

// The owner is found to have lost the hub, and gets it back at once, as nobody has it. What a session of before had sent is not taken any more: meanwhile its device
// may have got another key.
func TestNothingOfASessionBeforeALossIsTakenAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		key := newKey()
		owner.ensure("dev", key, 1)
		writing, goOn := make(chan struct{}), make(chan struct{})
		owner.sink.fail = func() error { close(writing); <-goOn; return nil }
		r := owner.login(owner.greet("dev", key), 0)
		r.send(publish(0x30, devTopic, 0, "1"), publish(0x30, devTopic, 0, "2"))
		<-writing
		was := s.owner.now()
		s.owner.mu.Lock()
		s.owner.owner = registration.HubOwner{Beat: was.Beat + 1}
		s.owner.mu.Unlock()
		time.Sleep(lease)
		if owner.Reach("", "") != registration.Here || s.owner.now().ID == was.ID {
			t.Fatal("the test is to be about an owner that has the hub again")
		}
		owner.sink.fail = nil
		close(goOn)
		r.expectClosed()
		synctest.Wait()
		if records := owner.sink.records(t); len(records) != 1 {
			t.Errorf("%d records", len(records))
		}
	})
}
