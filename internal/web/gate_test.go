package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/web"
)

// In these tests the clock is synctest's: a minute's wait takes no time, and "is parked" is "all goroutines are blocked".

func TestAFullGateParksThenRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := web.NewGate(1, 1, 5*time.Second)
		leave, entered := gate.Enter(t.Context())
		if !entered {
			t.Fatal("an empty gate refused")
		}
		begin := time.Now()
		parked := make(chan time.Duration)
		go func() {
			if _, entered := gate.Enter(t.Context()); entered {
				t.Error("entered a full gate")
			}
			parked <- time.Since(begin)
		}()
		synctest.Wait()
		if _, entered := gate.Enter(t.Context()); entered || time.Since(begin) != 0 {
			t.Errorf("with the only room taken: entered %t after %s, want a refusal at once", entered, time.Since(begin))
		}
		if waited := <-parked; waited != 5*time.Second {
			t.Errorf("the parked one was refused after %s, want 5 s", waited)
		}
		leave()
		if _, entered := gate.Enter(t.Context()); !entered {
			t.Error("a gate that was left refused")
		}
	})
}

func TestThoseParkedEnterInOrderAsPlacesBecomeFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := web.NewGate(1, 3, time.Minute)
		leave, _ := gate.Enter(t.Context())
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				leave, entered := gate.Enter(t.Context())
				if !entered {
					t.Errorf("number %d was refused", i)
					return
				}
				order <- i
				leave()
			}()
			synctest.Wait()
		}
		leave()
		for want := range 3 {
			if got := <-order; got != want {
				t.Errorf("number %d entered, want %d", got, want)
			}
		}
	})
}

func TestAClientThatGoesWhileParkedLeavesItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := web.NewGate(1, 1, time.Minute)
		leave, _ := gate.Enter(t.Context())
		for range 100 { // a leak of one room would show in the second round
			ctx, gone := context.WithCancel(t.Context())
			done := make(chan bool)
			go func() { _, entered := gate.Enter(ctx); done <- entered }()
			synctest.Wait()
			select {
			case <-done:
				t.Fatal("was refused at once: somebody who had gone still takes up the room")
			default:
			}
			gone()
			if <-done {
				t.Fatal("entered a full gate")
			}
		}
		leave()
		if _, entered := gate.Enter(t.Context()); !entered {
			t.Error("a place was taken for somebody who had gone")
		}
	})
}

// bubble runs f on synctest's clock, with a gate that is of the bubble too.
func (h *house) bubble(t *testing.T, limits web.Limits, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h.shared.Set(limits)
		f(t)
	})
}

// busy sends n requests that stay at work until the function it returns is called.
func (h *house) busy(t *testing.T, n int) (done func()) {
	t.Helper()
	release, answers := make(chan struct{}), make(chan int)
	work := route(false)
	work.Handle = func(_ context.Context, call web.Call) (web.Reply, error) { <-release; return ok(call) }
	for range n {
		go func() { answers <- h.serve(t.Context(), work).Code }()
	}
	synctest.Wait()
	return func() {
		close(release)
		for range n {
			if code := <-answers; code != http.StatusOK {
				t.Errorf("a request at work was answered %d", code)
			}
		}
	}
}

func TestAFullServerAnswers429WithASpreadRetryAfter(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	h.bubble(t, web.Limits{Body: time.Second, Handler: time.Hour, Concurrent: 2, Parked: 3, Wait: 5 * time.Second}, func(t *testing.T) {
		done := h.busy(t, 2)
		parked := make(chan *httptest.ResponseRecorder)
		for range 3 {
			go func() { parked <- h.serve(t.Context(), route(false)) }()
		}
		synctest.Wait()
		begin, seen := time.Now(), map[int]int{}
		for range 100 {
			seen[overloaded(t, h.serve(t.Context(), route(false)))]++
		}
		if time.Since(begin) != 0 {
			t.Errorf("refusals waited %s", time.Since(begin))
		}
		if len(seen) < 10 { // 100 draws of 26 values: fewer than 10 different ones do not happen
			t.Errorf("Retry-After is not spread out: %v", seen)
		}
		for range 3 {
			overloaded(t, <-parked)
		}
		if waited := time.Since(begin); waited != 5*time.Second {
			t.Errorf("the parked were refused after %s, want 5 s", waited)
		}
		done()
		if w := h.serve(t.Context(), route(false)); w.Code != http.StatusOK {
			t.Errorf("afterwards: %d", w.Code)
		}
	})
	if n, lines := h.counted("overload"), len(h.log.requests("overload")); n != 103 || lines != 103 {
		t.Errorf("%v counted and %d logged, want 103 of each", n, lines)
	}
}

// overloaded checks a refusal and gives its Retry-After in seconds.
func overloaded(t *testing.T, w *httptest.ResponseRecorder) int {
	t.Helper()
	seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
	if w.Code != http.StatusTooManyRequests || err != nil || seconds < 5 || seconds > 30 {
		t.Errorf("status %d, Retry-After %q; want 429 and 5 to 30", w.Code, w.Header().Get("Retry-After"))
	}
	return seconds
}

func TestNewLimitsCountFromTheNextRequestOn(t *testing.T) {
	limits := web.Limits{Body: time.Second, Handler: time.Hour, Concurrent: 1, Parked: 0, Wait: time.Second}
	h := newHouse(t, limits)
	h.bubble(t, limits, func(t *testing.T) {
		done := h.busy(t, 1)
		overloaded(t, h.serve(t.Context(), route(false)))
		limits.Concurrent = 2
		h.shared.Set(limits)
		more := h.busy(t, 2) // those at work before do not count
		overloaded(t, h.serve(t.Context(), route(false)))
		done() // under the old limits: frees nothing of the new ones
		overloaded(t, h.serve(t.Context(), route(false)))
		more()
		if w := h.serve(t.Context(), route(false)); w.Code != http.StatusOK {
			t.Errorf("afterwards: %d", w.Code)
		}
	})
}

func TestTheHandlersDeadlineEndsItsContext(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	h.bubble(t, web.Limits{Body: time.Second, Handler: 20 * time.Second, Concurrent: 1, Parked: 0, Wait: time.Second}, func(t *testing.T) {
		slow, begin := route(false), time.Now()
		slow.Handle = func(ctx context.Context, _ web.Call) (web.Reply, error) {
			<-ctx.Done()
			return web.Reply{}, fmt.Errorf("store: %w", ctx.Err())
		}
		if w := h.serve(t.Context(), slow); w.Code != http.StatusInternalServerError || time.Since(begin) != 20*time.Second {
			t.Errorf("status %d after %s, want 500 after 20 s", w.Code, time.Since(begin))
		}
	})
}

func TestAHandlerThatPanicsFreesItsPlaceAndIsAnsweredAndWrittenDown(t *testing.T) {
	h := newHouse(t, web.Limits{Body: time.Second, Handler: time.Second, Concurrent: 1, Parked: 0, Wait: time.Second})
	broken := route(false)
	broken.Handle = func(context.Context, web.Call) (web.Reply, error) { panic("a secret detail") }
	for range 3 {
		w := h.serve(t.Context(), broken)
		answer := refusal(t, w.Body.Bytes())
		if w.Code != http.StatusInternalServerError || answer.ErrorCode != 500001 || w.Header().Get("Retry-After") != "10" {
			t.Fatalf("status %d: %+v", w.Code, answer)
		}
		if x := h.why(answer.TrackingID); x.Reason.String() != "internal" || x.Recent == nil {
			t.Errorf("why: %+v", x)
		}
	}
	if n, lines := h.counted("internal"), len(h.log.requests("internal")); n != 3 || lines != 3 {
		t.Errorf("%v counted and %d logged, want 3 of each", n, lines)
	}
	if w := h.serve(t.Context(), route(false)); w.Code != http.StatusOK {
		t.Errorf("afterwards: %d", w.Code)
	}
}
