package embedded

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// anew is another process on the same store.
func (w *world) anew() *world {
	w.shut()
	next := newWorld(w.t, func(c *Config) { c.Identities, c.Sealer = w.store, w.sealer })
	next.store, next.sealer = w.store, w.sealer
	return next
}

func TestASessionOutlivesTheProcess(t *testing.T) {
	w, r, key := listening(t, messageFilter+"\x00"+twinAnswers+"\x00"+desiredChanges+"\x00"+methodCalls, nil)
	w.sendTo("dev", "under-way")
	r.expectMessage(false, "under-way")
	r.send(packet(0xa2, []byte{0, 5}, text(methodCalls)))
	r.expect(0xb0, 2, 0, 5)
	w = w.anew()
	again := w.login(w.greet("dev", key), 1)
	again.puback(again.expectMessage(false, "under-way")) // what was under way is sent anew
	again.send(publish(0x30, "$iothub/twin/GET/?$rid=1", 0, " "))
	again.expectTold("$iothub/twin/res/200/?$rid=1", emptyTwin)
	w.changeTwin(desired(`{"a":1}`))
	again.expectTold("$iothub/twin/PATCH/properties/desired/?$version=2", `{"$version":2,"a":1}`)
	if got := <-w.invoke("m", "", 0, time.Minute); got.err == nil {
		t.Error("it is asked though it has unsubscribed")
	}
	writes := 0
	w.store.beforeSession = func() { writes++ }
	again.subscribe(messageFilter, twinAnswers) // nothing new, nothing to write
	if writes != 0 {
		t.Errorf("%d writes", writes)
	}
}

func TestAPanicTakesNothingFromAStoredSession(t *testing.T) {
	w, r, key := listening(t, messageFilter, nil)
	w.sink.fail = func() error { panic("boom") }
	r.send(publish(0x32, devTopic, 1, "1"))
	r.expectClosed()
	w.settled()
	w.sink.fail = nil
	again := w.login(w.greet("dev", key), 1)
	w.sendTo("dev", "one")
	again.expectMessage(false, "one")
}

// A new key is durable before the session of the old one has ended, and the process may die in between. What the old owner subscribes to then is not
// found by the new one.
func TestWhatASessionSubscribesToAfterTheKeyHasChangedIsNotLeftBehind(t *testing.T) {
	for name, next := range map[string]func(*world) *world{
		"the change is repeated": func(w *world) *world { return w },
		"the process has died":   func(w *world) *world { return w.anew() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r, _ := oneDevice(t, nil)
				newer := newKey()
				w.store.set(func() { w.store.losePut = errors.New("connection lost") })
				if err := w.tryEnsure("dev", newer, 2); err == nil {
					t.Fatal("the answer was not lost")
				}
				w.store.set(func() { w.store.losePut = nil })
				r.send(subscribe(7, messageFilter))
				r.expectClosed()
				w = next(w)
				w.ensure("dev", newer, 2)
				w.login(w.greet("dev", newer), 0)
				w.shut()
			})
		})
	}
}

func TestACleanSessionEndsTheOneBeforeForGood(t *testing.T) {
	w, _, key := listening(t, twinAnswers, nil)
	w = w.anew()
	h := w.greet("dev", key)
	h.flags = 2
	clean := w.login(h, 0)
	clean.subscribe(messageFilter)
	w = w.anew()
	r := w.login(w.greet("dev", key), 0)
	w.sendTo("dev", "one")
	r.expectNothing()
}

func TestANewOwnerFindsNoSession(t *testing.T) {
	w, _, _ := listening(t, messageFilter, nil)
	w = w.anew()
	fresh := newKey()
	w.ensure("dev", fresh, 2)
	w.login(w.greet("dev", fresh), 0)
}

func TestASessionThatExpiresIsGoneAfterTheProcessToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, key := listening(t, messageFilter, func(c *Config) { c.SessionExpiry = time.Hour })
		r.send(packet(0xe0))
		r.expectClosed()
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		w = w.anew()
		w.login(w.greet("dev", key), 0)
	})
}

func TestASubscriptionThatCannotBeKeptIsNotAcknowledged(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	w.store.set(func() { w.store.failPut = errors.New("no store") })
	r.send(subscribe(1, messageFilter))
	r.expectClosed()
	w.settled()
	w.store.set(func() { w.store.failPut = nil })
	again := w.login(w.greet("dev", key), 0) // the library had it, the store had not
	again.subscribe(messageFilter)
	w = w.anew()
	again = w.login(w.greet("dev", key), 1)
	w.sendTo("dev", "one")
	again.expectMessage(false, "one")
	w.store.set(func() { w.store.failRead = errors.New("no store") })
	w = w.anew()
	w.refusedWith(w.greet("dev", key), 3)
}

func TestTheSpellingOfTheInboxOutlivesTheProcess(t *testing.T) {
	for _, deviceID := range []string{"a:b", "plain"} {
		for listens := range heard(1 << 6) {
			for filter, qos := range filtersOf(listens, deviceID) {
				l := login{deviceID: deviceID}
				if hears(filter, deviceID, qos) == 0 {
					t.Errorf("%s: %s is none of its filters", deviceID, filter)
				}
				back := l.granted(0, filter, qos)
				want := listens & (hears(filter, deviceID, 1) | hearEncoded)
				if hears(filter, deviceID, 1)&hearMessages == 0 || deviceID == "plain" {
					want &^= hearEncoded
				}
				if back != want {
					t.Errorf("%s %b: %s is %b, want %b", deviceID, listens, filter, back, want)
				}
			}
		}
	}
}
