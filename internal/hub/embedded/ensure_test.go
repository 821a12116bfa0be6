package embedded

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func TestTheFirstKeyOfADeviceIsSealedAndAudited(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("Dev", key, 3)
	row := w.store.rows[rowKey(testScope, testHub, "Dev")]
	opened, err := w.sealer.Open(registration.ContextIdentityKey(testScope, testHub, "Dev"), row.SealedKey)
	if err != nil || string(opened) != string(registration.Credential{Primary: key}.Encode()) || row.Generation != 3 {
		t.Errorf("row %+v: %v", row, err)
	}
	if len(w.store.audits) != 1 {
		t.Fatalf("%d audit rows", len(w.store.audits))
	}
	mustContain(t, w.store.audits[0].Detail, `"generation":3,"rekeyed":false`)
}

func TestAnUnchangedKeyTouchesNothing(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	r.send(subscribe(1, twinAnswers))
	r.expect(0x90, 3, 0, 1, 1)
	w.ensure("dev", key, 1)
	w.ensure("dev", key, 4)
	if row := w.store.rows[rowKey(testScope, testHub, "dev")]; row.Generation != 4 {
		t.Errorf("generation %d", row.Generation)
	}
	if n := len(w.store.audits); n != 2 {
		t.Errorf("%d audit rows: the same key and generation is not worth one", n)
	}
	r.send(publish(0x32, devTopic, 1, "1"))
	r.expect(0x40, 2, 0, 1)
	if n := metric(t, w.metrics.rekeyed); n != 0 {
		t.Errorf("%v devices rekeyed", n)
	}
}

func TestAnotherKeyEndsTheOldSessionAfterItIsDurableAndBeforeTheAnswer(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	newer := newKey()
	w.store.beforePut = func() {
		r.send(packet(0xc0)) // until the new key is durable, the old session runs
		r.expect(0xd0, 0)
	}
	w.ensure("dev", newer, 2)
	w.store.beforePut = nil
	r.expectClosed()
	w.mu.Lock()
	if len(w.devices) != 0 || w.server.Clients.Len() != 0 {
		t.Errorf("left over: %v", w.devices)
	}
	w.mu.Unlock()
	w.settled()
	if w.endings(causeRekeyed) != 1 || metric(t, w.metrics.rekeyed) != 1 {
		t.Error("not counted")
	}
	w.refusedWith(w.greet("dev", key), 5)
	w.login(w.greet("dev", newer), 0) // nothing of the old session is present
}

func TestTheOldOwnerFindsNothingLeft(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxTokenLife = 11 * 365 * 24 * time.Hour })
	old := newKey()
	w.ensure("dev", old, 1)
	h := w.greet("dev", old)
	h.password = token(t, old, testHub+"/devices/dev", time.Now().AddDate(10, 0, 0))
	h.flags, h.will = 0x04, [2]string{devTopic, "the old owner's will"}
	session := w.login(h, 0)
	session.send(subscribe(1, "devices/dev/messages/devicebound/#"))
	session.expect(0x90, 3, 0, 1, 1)

	newer := newKey()
	w.ensure("dev", newer, 2)
	session.expectClosed()
	w.refusedWith(h, 5)
	if subs := w.server.Topics.Subscribers("devices/dev/messages/devicebound/x").Subscriptions; len(subs) != 0 {
		t.Errorf("subscriptions left: %v", subs)
	}
	w.login(w.greet("dev", newer), 0)
	if n := len(w.sink.records(t)); n != 0 {
		t.Errorf("%d records: a will of the old owner", n)
	}
}

func TestASessionThatOutlivedItsConnectionDiesWithItsKey(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	r.send(subscribe(1, twinAnswers))
	r.expect(0x90, 3, 0, 1, 1)
	r.send(packet(0xe0))
	r.expectClosed()
	w.settled()
	newer := newKey()
	w.ensure("dev", newer, 2)
	if n := w.server.Clients.Len(); n != 0 {
		t.Errorf("%d clients left", n)
	}
	w.login(w.greet("dev", newer), 0)
}

func TestAnOlderGenerationIsStale(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	w.ensure("dev", key, 5)
	if err := w.tryEnsure("dev", newKey(), 4); !errors.Is(err, registration.ErrStale) {
		t.Errorf("got %v", err)
	}
	r.send(packet(0xc0))
	r.expect(0xd0, 0)

	// The store decides, also when the row moved after it was read.
	w.store.beforePut = func() {
		w.store.set(func() {
			k := rowKey(testScope, testHub, "dev")
			row := w.store.rows[k]
			row.Generation = 9
			w.store.rows[k] = row
		})
	}
	if err := w.tryEnsure("dev", newKey(), 6); !errors.Is(err, registration.ErrStale) {
		t.Errorf("got %v", err)
	}
}

func TestARepeatedCallFinishesAHalfDoneOne(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	newer := newKey()
	// Failed and not applied: the old owner stays.
	w.store.set(func() { w.store.failPut = errors.New("disk full") })
	if err := w.tryEnsure("dev", newer, 2); err == nil {
		t.Fatal("no error")
	}
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
	// Failed but applied: the row is there, the session still runs; the repeat sees its own key and must not stop there.
	w.store.set(func() { w.store.failPut, w.store.losePut = nil, errors.New("connection lost") })
	if err := w.tryEnsure("dev", newer, 2); err == nil {
		t.Fatal("no error")
	}
	w.store.set(func() { w.store.losePut = nil })
	w.ensure("dev", newer, 2)
	r.expectClosed()
	w.refusedWith(w.greet("dev", key), 5)
	w.login(w.greet("dev", newer), 0)
}

func TestALoginUnderTheNewKeyInheritsNothingWhenTheCallWasNeverRepeated(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	r.send(subscribe(1, twinAnswers))
	r.expect(0x90, 3, 0, 1, 1)
	newer := newKey()
	w.store.set(func() { w.store.losePut = errors.New("connection lost") })
	if err := w.tryEnsure("dev", newer, 2); err == nil {
		t.Fatal("no error")
	}
	w.login(w.greet("dev", newer), 0) // no session present: that one was the old owner's
	r.expectClosed()
	if n := len(w.server.Topics.Subscribers("$iothub/twin/res/1").Subscriptions); n != 0 {
		t.Errorf("%d subscriptions of the old owner", n)
	}
}

func TestACallThatRanOutOfTimeIsRepeatable(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	writing, goOn := make(chan struct{}), make(chan struct{})
	w.sink.fail = func() error { close(writing); <-goOn; return nil }
	r.send(publish(0x32, devTopic, 1, "1"))
	<-writing // the old session cannot end now
	ctx, cancel := context.WithCancel(t.Context())
	newer := newKey()
	device := registration.HubDevice{DeviceID: "dev", Credential: registration.Credential{Primary: newer}, Generation: 2}
	failed := make(chan error)
	go func() { failed <- w.EnsureDevice(ctx, testScope, testHub, device) }()
	r.expectClosed()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(goOn)
	w.ensure("dev", newer, 2)
	if n := w.server.Clients.Len(); n != 0 {
		t.Errorf("%d clients left", n)
	}
	w.login(w.greet("dev", newer), 0)
}

func TestWhatCannotBeADeviceIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	for name, c := range map[string]struct {
		scope, hub, id string
		key            []byte
	}{
		"unknown hub":     {testScope, "hub.example", "dev", newKey()},
		"hub of another":  {testScope, otherHub, "dev", newKey()},
		"empty id":        {testScope, testHub, "", newKey()},
		"slash in the id": {testScope, testHub, "a/b", newKey()},
		"wildcard id":     {testScope, testHub, "#", newKey()},
		"long id":         {testScope, testHub, strings.Repeat("a", 129), newKey()},
		"short key":       {testScope, testHub, "dev", newKey()[:15]},
		"no key":          {testScope, testHub, "dev", nil},
	} {
		err := w.EnsureDevice(t.Context(), c.scope, c.hub, registration.HubDevice{DeviceID: c.id, Credential: registration.Credential{Primary: c.key}, Generation: 1})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(w.store.rows) != 0 {
		t.Errorf("written: %v", w.store.rows)
	}
	// The hub name may be spelled as a device would.
	err := w.EnsureDevice(t.Context(), testScope, strings.ToUpper(testHub)+":8883", registration.HubDevice{DeviceID: "dev", Credential: registration.Credential{Primary: newKey()}, Generation: 1})
	if _, ok := w.store.rows[rowKey(testScope, testHub, "dev")]; err != nil || !ok {
		t.Errorf("got %v and %v", err, w.store.rows)
	}
}

func TestALoginThatWasVerifiedBeforeTheKeyChangedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, key := oneDevice(t, nil)
		var late *raw
		w.store.beforePut = func() {
			late = w.dial()
			late.send(w.greet("dev", key).packet())
			synctest.Wait() // its SAS token has verified under the old key; it waits for its turn
			if n := w.store.reads; n != 5 {
				t.Errorf("%d reads: first EnsureDevice, login twice, second EnsureDevice, late login", n)
			}
		}
		w.ensure("dev", newKey(), 2)
		late.expect(0x20, 2, 0, 5)
		late.expectClosed()
		r.expectClosed()
	})
}

// TestNoLoginSlipsThroughWhileTheKeyChanges lets 100 devices of the old owner race with EnsureDevice. Whatever the order, after
// it has returned no session of the old key is alive and none can begin.
func TestNoLoginSlipsThroughWhileTheKeyChanges(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	for round := range 5 {
		generation := uint64(round + 2)
		h := w.greet("dev", key)
		h.flags = byte(random.IntN(2) << 1) // clean or not
		start := make(chan struct{})
		var ready, done sync.WaitGroup
		sessions := make([]*raw, 100)
		accepted := make([]bool, 100)
		for i := range sessions {
			sessions[i] = w.dial()
			ready.Add(1)
			done.Go(func() {
				ready.Done()
				<-start
				accepted[i] = sessions[i].tryLogin(h)
			})
		}
		newer := newKey()
		after := random.IntN(100)
		done.Go(func() {
			<-start
			for range after * 10 { // a random moment
				_, _ = w.sealer.Seal("", newer)
			}
			w.ensure("dev", newer, generation)
			w.noSessionBut("dev", newer)
		})
		ready.Wait()
		close(start)
		done.Wait()
		winners := 0
		for i, r := range sessions {
			if accepted[i] {
				winners++
				r.expectClosed()
			}
			r.Close()
		}
		t.Logf("round %d: %d logins were accepted before the key changed", round, winners)
		w.settled()
		w.refusedWith(h, 5)
		key = newer
	}
	w.login(w.greet("dev", key), 0)
}

func (r *raw) tryLogin(h hello) bool {
	if _, err := r.Write(h.packet()); err != nil {
		return false
	}
	answer := make([]byte, 4)
	for i := range answer {
		b, err := r.r.ReadByte()
		if err != nil {
			return false
		}
		answer[i] = b
	}
	return answer[3] == 0
}

// noSessionBut fails if the device has a session under another key.
func (w *world) noSessionBut(deviceID string, key []byte) {
	if w.boundToOther(deviceKey(testHub, deviceID), digestOf(withKey, key)) {
		w.t.Error("a session under the old key is alive")
	}
	cl, ok := w.server.Clients.Get(deviceKey(testHub, deviceID))
	if ok {
		w.t.Errorf("the library still knows %s", fmt.Sprint(cl.ID))
	}
}
