package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// outcome is what InvokeMethod returned.
type outcome struct {
	status int
	answer string
	err    error
}

// invoke asks in the background.
func (w *world) invoke(method, payload string, connect, respond time.Duration) chan outcome {
	done := make(chan outcome, 1)
	go func() {
		status, answer, err := w.InvokeMethod(context.Background(), testScope, testHub, "dev", method, json.RawMessage(payload), connect, respond)
		done <- outcome{status, string(answer), err}
	}()
	return done
}

// expectCall expects a direct method and returns its request id.
func (r *raw) expectCall(method, payload string) (rid string) {
	r.t.Helper()
	head, topic, _, got := r.receive()
	rid, ok := strings.CutPrefix(topic, "$iothub/methods/POST/"+method+"/?$rid=")
	if !ok || head != 0x30 || got != payload {
		r.t.Fatalf("got %#x %s %q", head, topic, got)
	}
	return rid
}

func (r *raw) answer(status, rid, payload string) {
	r.t.Helper()
	r.send(publish(0x30, "$iothub/methods/res/"+status+"/?$rid="+rid, 0, payload))
}

func wantOutcome(t *testing.T, got, want outcome) {
	t.Helper()
	if got.status != want.status || got.answer != want.answer || !errors.Is(got.err, want.err) {
		t.Errorf("got %d %q %v, want %d %q %v", got.status, got.answer, got.err, want.status, want.answer, want.err)
	}
}

func TestADeviceAnswersDirectMethods(t *testing.T) {
	w, r, _ := listening(t, methodCalls, nil)
	first, second := w.invoke("lock*door", `{"a":1}`, 0, patience), w.invoke("lock*door", `{"a":1}`, 0, patience)
	one, two := r.expectCall(`lock*door`, `{"a":1}`), r.expectCall(`lock*door`, `{"a":1}`)
	r.answer("200", two, `"for two"`)
	r.answer("-5", one, ``)
	got := []outcome{<-first, <-second}
	if got[0].status == 200 {
		got[0], got[1] = got[1], got[0]
	}
	wantOutcome(t, got[0], outcome{-5, "", nil})
	wantOutcome(t, got[1], outcome{200, `"for two"`, nil})
	empty := w.invoke("m", "", 0, patience)
	r.send(publish(0x32, "$iothub/methods/res/404/?$rid="+r.expectCall("m", ""), 8, `{}`))
	wantOutcome(t, <-empty, outcome{404, `{}`, nil})
	r.expect(0x40, 2, 0, 8)
}

func TestADeviceThatIsNotThereIsOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, key := oneDevice(t, nil)
		wantOutcome(t, <-w.invoke("m", "", 0, patience), outcome{err: registration.ErrOffline}) // connected, but it does not listen
		if _, _, err := w.InvokeMethod(t.Context(), testScope, testHub, "nobody", "m", nil, 0, patience); !errors.Is(err, registration.ErrNotFound) {
			t.Error(err)
		}
		r.Close()
		w.settled()
		waiting := w.invoke("m", "", patience, patience)
		synctest.Wait() // it waits: one that comes between the SUBSCRIBE and its SUBACK would be called before the SUBACK, as MQTT allows
		again := w.login(w.greet("dev", key), 1)
		again.subscribe(methodCalls)
		again.answer("200", again.expectCall("m", ""), `1`)
		wantOutcome(t, <-waiting, outcome{200, "1", nil})
		again.Close()
		w.settled()
		wantOutcome(t, <-w.invoke("m", "", 0, patience), outcome{err: registration.ErrOffline})
	})
}

func TestADeviceThatDoesNotAnswerInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := listening(t, methodCalls, nil)
		r.SetDeadline(time.Time{})
		start := time.Now()
		waiting := w.invoke("m", "", 0, 30*time.Second)
		rid := r.expectCall("m", "")
		wantOutcome(t, <-waiting, outcome{err: registration.ErrNoAnswer})
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("after %v", took)
		}
		r.answer("200", rid, `"too late"`)
		r.answer("200", "never-asked", `"unknown"`)
		next := w.invoke("m", "", 0, 30*time.Second)
		r.answer("200", r.expectCall("m", ""), `"in time"`)
		wantOutcome(t, <-next, outcome{200, `"in time"`, nil})
		if n := metric(t, w.metrics.methods.WithLabelValues("late")); n != 2 {
			t.Errorf("%v answers were late", n)
		}
		start = time.Now()
		r.send(packet(0xa2, []byte{0, 5}, text(methodCalls)))
		r.expect(0xb0, 2, 0, 5)
		wantOutcome(t, <-w.invoke("m", "", 7*time.Second, time.Hour), outcome{err: registration.ErrOffline})
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestOnlyTheDeviceThatWasAskedAnswers(t *testing.T) {
	w, r, _ := listening(t, methodCalls, nil)
	otherKey := newKey()
	w.ensure("other", otherKey, 1)
	other := w.login(w.greet("other", otherKey), 0)
	other.subscribe(methodCalls)
	waiting := w.invoke("m", "", 0, patience)
	rid := r.expectCall("m", "")
	other.answer("200", rid, `"forged"`)
	other.expectNothing()
	r.answer("200", rid, `"genuine"`)
	wantOutcome(t, <-waiting, outcome{200, `"genuine"`, nil})
}

func TestAnAnswerMayComeAfterTheTokenWasRenewed(t *testing.T) {
	w, r, key := listening(t, methodCalls, nil)
	waiting := w.invoke("m", "", 0, patience)
	rid := r.expectCall("m", "")
	again := w.login(w.greet("dev", key), 1)
	again.answer("200", rid, `1`)
	wantOutcome(t, <-waiting, outcome{200, "1", nil})
}

func TestAPreviousOwnersAnswerIsNone(t *testing.T) {
	w, r, _ := listening(t, methodCalls, nil)
	waiting := w.invoke("m", "", 0, patience)
	rid := r.expectCall("m", "")
	fresh := newKey()
	w.ensure("dev", fresh, 2)
	wantOutcome(t, <-waiting, outcome{err: registration.ErrNoAnswer})
	again := w.login(w.greet("dev", fresh), 0)
	again.subscribe(methodCalls)
	next := w.invoke("m", "", 0, patience)
	if id := again.expectCall("m", ""); id == "" || rid == "" {
		t.Error("no ids")
	} else {
		again.answer("200", id, "2")
	}
	wantOutcome(t, <-next, outcome{200, "2", nil})
}

func TestAnAnswerThatIsNoJSONIsNone(t *testing.T) {
	w, r, _ := listening(t, methodCalls, nil)
	waiting := w.invoke("m", "", 0, patience)
	r.answer("200", r.expectCall("m", ""), `{`)
	wantOutcome(t, <-waiting, outcome{err: registration.ErrNoAnswer})
}

func TestOnlySoManyMethodsWaitForADevice(t *testing.T) {
	w, r, _ := listening(t, methodCalls, nil)
	var waiting []chan outcome
	var rids []string
	for range maxCalls {
		waiting = append(waiting, w.invoke("m", "", 0, patience))
		rids = append(rids, r.expectCall("m", ""))
	}
	wantOutcome(t, <-w.invoke("m", "", 0, patience), outcome{err: registration.ErrBusy})
	for _, rid := range rids {
		r.answer("200", rid, `1`)
	}
	for _, w := range waiting {
		wantOutcome(t, <-w, outcome{200, "1", nil})
	}
	last := w.invoke("m", "", 0, patience)
	r.answer("200", r.expectCall("m", ""), `1`)
	wantOutcome(t, <-last, outcome{200, "1", nil})
	soon(t, "the callers to be forgotten", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.callers) == 0 })
}

func TestACallerThatLeavesEndsItsCall(t *testing.T) {
	w, r, _ := listening(t, methodCalls, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := w.InvokeMethod(ctx, testScope, testHub, "dev", "m", nil, 0, time.Hour)
		done <- err
	}()
	r.expectCall("m", "")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestACallThatNoTopicCanHaveIsRefused(t *testing.T) {
	w, r, _ := listening(t, methodCalls, nil)
	for _, c := range [][2]string{{"", ""}, {"a/b", ""}, {"a+", ""}, {"#", ""}, {"a?$rid=1", ""}, {"a b", ""}, {"é", ""}, {strings.Repeat("a", 101), ""},
		{"m", "{"}, {"m", `"` + strings.Repeat("x", iothub.MaxMethodPayload) + `"`}} {
		got := <-w.invoke(c[0], c[1], 0, patience)
		var refused *iothub.MessageError
		if !errors.As(got.err, &refused) {
			t.Errorf("%.20q %.20q: %v", c[0], c[1], got.err)
		}
	}
	r.expectNothing()
	largest := `"` + strings.Repeat("x", iothub.MaxMethodPayload-2) + `"`
	waiting := w.invoke(strings.Repeat("a", 100), largest, 0, patience)
	r.answer("200", r.expectCall(strings.Repeat("a", 100), largest), largest)
	wantOutcome(t, <-waiting, outcome{200, largest, nil})
}

func TestClosingTheHubEndsItsCalls(t *testing.T) {
	w, r, _ := listening(t, methodCalls, nil)
	waiting := w.invoke("m", "", 0, time.Hour)
	r.expectCall("m", "")
	w.shut()
	wantOutcome(t, <-waiting, outcome{err: registration.ErrNoAnswer})
	wantOutcome(t, <-w.invoke("m", "", time.Hour, time.Hour), outcome{err: registration.ErrElsewhere})

}
