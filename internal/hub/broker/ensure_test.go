package broker_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/hub/broker"
	"latchkey.example/latchkey/internal/registration"
)

func TestAnotherKeyEndsWhatTheOldOneLetIn(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.must(w.ensure("dev-1", 5, keyOne))
	w.arrive("c1", "dev-1", keyOne)
	w.clock.pass(time.Minute)
	w.must(w.ensure("dev-1", 6, keyOne)) // the same key: a running device is not cut off
	if !w.rabbit.has("c1") {
		t.Fatal("the connection was ended though its key is unchanged")
	}
	w.must(w.ensure("dev-1", 7, keyTwo))
	if w.rabbit.has("c1") || w.rabbit.queues["mqtt-subscription-dev-1qos1"] || w.rabbit.queues["mqtt-will-dev-1"] {
		t.Fatal("the connection, the session or the will of the old key is still there")
	}
	if id := w.identity("dev-1"); id.Cutting || id.Generation != 7 {
		t.Fatalf("the identity is %+v", id)
	}
	w.wantReason(registration.ReasonTokenSignature, w.login("dev-1", keyOne))
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyTwo))
	if err := w.ensure("dev-1", 6, keyOne); !errors.Is(err, registration.ErrStale) {
		t.Fatalf("a proof before the last one: %v", err)
	}
}

// While the management API is away nothing is said to be done, and the old key is dead all the same: it logs in to nothing, and the connection it
// has may do nothing more.
func TestWhatCannotBeEndedYetMayDoNothing(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.arrive("c1", "dev-1", keyOne)
	w.wantReason(registration.ReasonBrokerTopic, w.topic("dev-1"))
	w.clock.pass(time.Minute)
	w.rabbit.turn(true)
	for range 2 {
		if err := w.ensure("dev-1", 2, keyTwo); err == nil || !strings.Contains(err.Error(), "503") {
			t.Fatalf("the management API is away, and it is done: %v", err)
		}
		w.wantReason(registration.ReasonTokenSignature, w.login("dev-1", keyOne))
		w.wantReason(registration.ReasonBrokerSettling, w.login("dev-1", keyTwo))
		w.wantReason(registration.ReasonBrokerSettling, w.topic("dev-1"))
		w.restart() // another process goes on
	}
	w.rabbit.turn(false)
	w.clock.pass(time.Minute)
	w.must(w.ensure("dev-1", 2, keyTwo))
	if w.rabbit.has("c1") {
		t.Fatal("the connection is still there")
	}
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyTwo))
	w.wantReason(registration.ReasonBrokerTopic, w.topic("dev-1"))
}

// The management API shows a new connection late. Whoever comes in just before the key is changed is found all the same.
func TestAConnectionThatIsNotShownYetIsWaitedFor(t *testing.T) {
	for name, alone := range map[string]bool{"one process": true, "several": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, broker.RabbitMQ)
			w.config.Alone = alone
			w.restart()
			w.clock.pass(time.Minute)
			w.must(w.ensure("dev-1", 1, keyOne))
			w.clock.pass(time.Minute)
			if !alone { // it came in through another process
				w.rabbit.connect("c1", "dev-1", "dev-1")
			} else {
				w.arrive("c1", "dev-1", keyOne)
			}
			if err := w.ensure("dev-1", 2, keyTwo); err == nil {
				t.Fatal("done, with a connection that nobody has seen")
			}
			w.clock.pass(listDelay)
			w.must(w.ensure("dev-1", 2, keyTwo))
			if w.rabbit.has("c1") {
				t.Fatal("the connection is still there")
			}
		})
	}
}

func TestADeviceIsDisabledEnabledAndRemoved(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.must(w.hub.DisableDevice(t.Context(), testScope, testHub, "dev-1", 3)) // nobody is there
	w.must(w.ensure("dev-1", 3, keyOne))
	w.arrive("c1", "dev-1", keyOne)
	w.clock.pass(time.Minute)
	w.must(w.hub.DisableDevice(t.Context(), testScope, testHub, "dev-1", 4))
	if w.rabbit.has("c1") {
		t.Fatal("a disabled device is still connected")
	}
	w.wantReason(registration.ReasonDisabled, w.login("dev-1", keyOne))
	w.wantReason(registration.ReasonDisabled, w.topic("dev-1"))
	w.must(w.hub.DisableDevice(t.Context(), testScope, testHub, "dev-1", 4))
	if err := w.ensure("dev-1", 3, keyOne); !errors.Is(err, registration.ErrStale) {
		t.Fatalf("a call from before enables it: %v", err)
	}
	w.must(w.ensure("dev-1", 5, keyOne))
	w.arrive("c2", "dev-1", keyOne)
	w.clock.pass(time.Minute)
	for _, stale := range []error{w.hub.DisableDevice(t.Context(), testScope, testHub, "dev-1", 4), w.hub.RemoveDevice(t.Context(), testScope, testHub, "dev-1", 4)} {
		if !errors.Is(stale, registration.ErrStale) || !w.rabbit.has("c2") {
			t.Fatalf("a call from before has an effect: %v", stale)
		}
	}
	if _, err := w.hub.DeviceData(t.Context(), testScope, testHub, "dev-1"); err != nil {
		t.Fatal(err)
	}
	w.must(w.hub.RemoveDevice(t.Context(), testScope, testHub, "dev-1", 6))
	w.must(w.hub.RemoveDevice(t.Context(), testScope, testHub, "dev-1", 6))
	if w.rabbit.has("c2") {
		t.Fatal("a removed device is still connected")
	}
	w.wantReason(registration.ReasonUnknownID, w.login("dev-1", keyOne))
	w.wantReason(registration.ReasonUnknownID, w.topic("dev-1"))
	if _, err := w.hub.DeviceData(t.Context(), testScope, testHub, "dev-1"); !errors.Is(err, registration.ErrNotFound) {
		t.Fatal(err)
	}
	if err := w.ensure("dev-1", 5, keyOne); !errors.Is(err, registration.ErrStale) {
		t.Fatalf("a call from before brings it back: %v", err)
	}
	w.must(w.ensure("dev-1", 7, keyOne))
}

func TestAHubThatIsNotLinkedIsRefused(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	for _, at := range [][2]string{{"0ne00000002", testHub}, {testScope, "other.example"}} {
		err := w.hub.EnsureDevice(t.Context(), at[0], at[1], registration.HubDevice{DeviceID: "d", Generation: 1, Credential: registration.Credential{Primary: keyOne}})
		if !errors.Is(err, registration.ErrUnlinked) {
			t.Errorf("%v: %v", at, err)
		}
	}
	w.linked.Kind = registration.HubAzure
	if err := w.ensure("d", 1, keyOne); !errors.Is(err, registration.ErrUnlinked) {
		t.Errorf("a hub of another kind: %v", err)
	}
}

func TestWhatABrokerCanNeverHoldIsRefusedForGood(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	certificate := registration.Credential{Certificate: make([]byte, 32)}
	for name, d := range map[string]registration.HubDevice{
		"a dot":         {DeviceID: "dev.1", Generation: 1, Credential: registration.Credential{Primary: keyOne}},
		"a star":        {DeviceID: "dev*", Generation: 1, Credential: registration.Credential{Primary: keyOne}},
		"a slash":       {DeviceID: "dev/1", Generation: 1, Credential: registration.Credential{Primary: keyOne}},
		"a certificate": {DeviceID: "dev-1", Generation: 1, Credential: certificate},
	} {
		if _, ok := errors.AsType[*registration.RefusedError](w.hub.EnsureDevice(t.Context(), testScope, testHub, d)); !ok {
			t.Errorf("%s was not refused", name)
		}
	}
	w = newWorld(t, broker.EMQX)
	w.linked.Settings = []byte(`{"product":"emqx","managementUrl":"http://127.0.0.1:1","managementUser":"u"}`)
	w.must(w.hub.EnsureDevice(t.Context(), testScope, testHub, registration.HubDevice{DeviceID: "dev.1", Generation: 1, Credential: certificate}))
}

// Mosquitto has no management API: the connection of the old key stays and is mute, until the new key logs in and takes its client id.
func TestWithoutAManagementAPIAnOldConnectionIsMute(t *testing.T) {
	w := newWorld(t, broker.Mosquitto)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyOne))
	w.wantReason(registration.ReasonBrokerTopic, w.topic("dev-1"))
	w.must(w.ensure("dev-1", 2, keyTwo))
	w.wantReason(registration.ReasonBrokerSettling, w.topic("dev-1"))
	w.wantReason(registration.ReasonTokenSignature, w.login("dev-1", keyOne))
	w.wantReason(registration.ReasonBrokerSettling, w.topic("dev-1"))
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyTwo))
	w.wantReason(registration.ReasonBrokerTopic, w.topic("dev-1"))
	w.clock.pass(2 * time.Hour)
	w.wantReason(registration.ReasonTokenExpired, w.topic("dev-1"))
	w.must(w.hub.DisableDevice(t.Context(), testScope, testHub, "dev-1", 3))
	w.wantReason(registration.ReasonDisabled, w.topic("dev-1"))
	w.must(w.hub.RemoveDevice(t.Context(), testScope, testHub, "dev-1", 4))
	w.wantReason(registration.ReasonUnknownID, w.topic("dev-1"))
}

// A change that comes while a login is judged is seen by it, or sees it.
func TestAChangeWhileALoginIsJudged(t *testing.T) {
	w := newWorld(t, broker.Mosquitto)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.must(w.ensure("dev-1", 2, keyTwo))
	w.store.moved = func() { // before the mark is taken off
		w.must(w.ensure("dev-1", 3, keyOne))
	}
	w.wantReason(registration.ReasonBrokerSettling, w.login("dev-1", keyTwo))
	w.wantReason(registration.ReasonBrokerSettling, w.topic("dev-1"))
}

// Every write fails once before and once after its effect. The call is made again until it is done, by another process each time, and nothing that the
// old credential let in is left.
func TestEveryFailureIsMadeUpFor(t *testing.T) {
	calls := map[string]func(w *world) error{
		"rekey":   func(w *world) error { return w.ensure("dev-1", 2, keyTwo) },
		"disable": func(w *world) error { return w.hub.DisableDevice(w.t.Context(), testScope, testHub, "dev-1", 2) },
		"remove":  func(w *world) error { return w.hub.RemoveDevice(w.t.Context(), testScope, testHub, "dev-1", 2) },
	}
	for name, call := range calls {
		for write := 1; write <= 3; write++ {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprint(name, write, after), func(t *testing.T) {
					w := newWorld(t, broker.RabbitMQ)
					w.must(w.ensure("dev-1", 1, keyOne))
					w.arrive("c1", "dev-1", keyOne)
					w.clock.pass(time.Minute)
					w.store.failAt, w.store.after = write, after
					tries := 0
					for ; tries < 10; tries++ {
						if err := call(w); err == nil {
							break
						}
						w.restart()
						w.clock.pass(time.Minute)
					}
					if tries == 10 || w.rabbit.has("c1") {
						t.Fatalf("%d tries, connected: %v", tries, w.rabbit.has("c1"))
					}
					if reason := w.login("dev-1", keyOne); reason == registration.ReasonBrokerLogin {
						t.Fatal("the old key lets in")
					}
					if name == "rekey" {
						w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyTwo))
					}
				})
			}
		}
	}
}

// The key is changed when a login under the old one has read the identity: it is not let in, though it matched what was read.
func TestALoginThatMatchedWhatIsNoMoreIsRefused(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.clock.pass(time.Minute)
	w.store.read = func() { w.must(w.ensure("dev-1", 2, keyTwo)) }
	w.wantReason(registration.ReasonBrokerSettling, w.login("dev-1", keyOne))
	w.wantReason(registration.ReasonTokenSignature, w.login("dev-1", keyOne))
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyTwo))
}

// A hub that becomes a RabbitMQ lets nobody in whose id would mean another's topics there.
func TestADeviceWithADotIsNotLetInWhereDotsAreSlashes(t *testing.T) {
	w := newWorld(t, broker.Generic)
	w.must(w.ensure("dev.1", 1, keyOne))
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev.1", keyOne))
	w.linked.Settings = []byte(`{"product":"rabbitmq","managementUrl":"` + w.rabbit.server.URL + `","managementUser":"latchkey"}`)
	w.linked.Revision++
	w.wantReason(registration.ReasonBrokerUser, w.login("dev.1", keyOne))
	w.wantReason(registration.ReasonBrokerUser, w.topic("dev.1"))
}
