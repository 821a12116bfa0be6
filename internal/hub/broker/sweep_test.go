package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/hub/broker"
	"latchkey.example/latchkey/internal/registration"
)

func (w *world) sweep(want int) {
	w.t.Helper()
	closed, err := w.hub.Sweep(w.t.Context(), testScope, testHub)
	w.must(err)
	if closed != want {
		w.t.Fatalf("%d connections were closed, not %d", closed, want)
	}
}

// A broker does not look again at what it has let in. The sweep does.
func TestAConnectionEndsWithItsToken(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	for i, device := range []string{"dev-1", "dev-2", "dev-3"} {
		w.must(w.ensure(device, uint64(i+1), keyOne))
	}
	w.arrive("c1", "dev-1", keyOne)
	w.clock.pass(30 * time.Minute)
	w.arrive("c2", "dev-2", keyOne)
	w.rabbit.connect("c3", testHub+"/dev-3/?api-version=x", "dev-3") // let in by another process
	w.clock.pass(29 * time.Minute)
	w.sweep(0)
	w.clock.pass(2 * time.Minute)
	w.sweep(1)
	if w.rabbit.has("c1") || !w.rabbit.has("c2") {
		t.Fatal("the wrong one was closed")
	}
	w.clock.pass(time.Hour)
	w.sweep(1)
	if w.rabbit.has("c2") || !w.rabbit.has("c3") {
		t.Fatal("the wrong one was closed")
	}
	w.restart()
	w.clock.pass(22 * time.Hour) // no token lives longer than a day and five minutes
	w.sweep(0)
	w.clock.pass(time.Hour)
	w.sweep(1)
}

// A device that has logged in again elsewhere is not cut off when the token of its login here ends.
func TestARenewedConnectionIsNotTakenForTheOldOne(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.arrive("c1", "dev-1", keyOne)
	w.clock.pass(45 * time.Minute)
	deleted(w.rabbit.conns, "c1")
	w.rabbit.connect("c2", "dev-1", "dev-1") // by another process
	w.clock.pass(20 * time.Minute)
	w.sweep(0)
}

func TestASweepEndsWhoHasNoPlaceAndTouchesNobodyElse(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	for i, device := range []string{"a", "b", "d"} {
		w.must(w.ensure(device, uint64(i+1), keyOne))
	}
	w.must(w.hub.DisableDevice(t.Context(), testScope, testHub, "b", 4))
	w.rabbit.connect("fine", "a", "a")
	w.rabbit.connect("disabled", "b", "b")
	w.rabbit.connect("removed", testHub+"/c/?api-version=2021-04-12", "c")
	w.rabbit.connect("another's client id", "d", "a")
	w.rabbit.connect("the application", "backend", "backend-1") // a user of the broker's own
	w.rabbit.connect("an administrator", "admin", "")
	w.rabbit.connect("another hub's", "other.example/x/?api-version=1", "x")
	w.clock.pass(time.Minute)
	w.sweep(3)
	for _, name := range []string{"fine", "the application", "an administrator", "another hub's"} {
		if !w.rabbit.has(name) {
			t.Errorf("%s was closed", name)
		}
	}
	w.rabbit.turn(true)
	if _, err := w.hub.Sweep(t.Context(), testScope, testHub); err == nil {
		t.Error("the management API is away, and all was looked at")
	}
}

// A login whose answer was on its way when the key was changed, longer than anybody waited, is found by the sweep.
func TestALateLoginUnderTheOldKeyIsFound(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.clock.pass(time.Minute)
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyOne))
	w.clock.pass(10 * time.Second)
	w.must(w.ensure("dev-1", 2, keyTwo))
	w.clock.pass(time.Second)
	w.rabbit.connect("late", "dev-1", "dev-1")
	w.clock.pass(listDelay)
	w.sweep(1)
}

// With more connections than one attempt can list, a sweep that began late enough stands in for it.
func TestASweepDoesWhatACallHadNoTimeFor(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.arrive("c1", "dev-1", keyOne)
	w.clock.pass(time.Minute)
	w.rabbit.turn(true)
	if err := w.ensure("dev-1", 2, keyTwo); err == nil {
		t.Fatal("the management API is away")
	}
	w.rabbit.turn(false)
	w.clock.pass(10 * time.Second)
	w.sweep(1)
	w.rabbit.turn(true)
	w.must(w.ensure("dev-1", 2, keyTwo))
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyTwo))
}

func TestADroppedHubEndsWhatItKnowsOf(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.arrive("short", "dev-1", keyOne)
	w.rabbit.connect("long", testHub+"/dev-2/?api-version=1", "dev-2")
	w.rabbit.connect("the application", "backend", "backend-1")
	w.clock.pass(time.Minute)
	w.linked.Name = "gone.example"
	w.must(w.hub.Drop(t.Context(), testScope, testHub))
	if w.rabbit.has("short") || w.rabbit.has("long") || !w.rabbit.has("the application") {
		t.Error("dropping ended too much or too little")
	}
	w.must(w.hub.Drop(t.Context(), testScope, testHub))
}

// A process that was restarted knows whom the one before has let in, and closes what has ended.
func TestARestartRemembersWhenTokensEnd(t *testing.T) {
	w := newWorld(t, broker.RabbitMQ)
	w.config.Remember = filepath.Join(t.TempDir(), "logins")
	w.restart()
	w.must(w.ensure("dev-1", 1, keyOne))
	w.must(w.ensure("dev-2", 2, keyOne))
	w.arrive("c1", "dev-1", keyOne)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	w.must(w.hub.Keep(ctx)) // which ends at once, and writes down what it knows
	w.restart()
	w.rabbit.connect("c2", "dev-2", "dev-2") // let in by a process that has not written it down
	w.clock.pass(61 * time.Minute)
	w.sweep(1)
	if w.rabbit.has("c1") || !w.rabbit.has("c2") {
		t.Fatal("the wrong one was closed")
	}
	// A file that is none is forgotten, and is no reason not to start.
	for _, text := range []string{"", "something else\n", "latchkey logins at brokers 1\nx\nx/y\nx/y z 1\n \n/ 1 1\n"} {
		w.must(os.WriteFile(w.config.Remember, []byte(text), 0o600))
		w.restart()
		w.sweep(0)
	}
	w.config.Remember = filepath.Join(t.TempDir(), "there is no such folder", "logins")
	w.restart()
	w.arrive("c3", "dev-1", keyOne)
	w.must(w.hub.Keep(ctx))
}
