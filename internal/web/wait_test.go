package web_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// waiting is a route whose answer is waited for.
func waiting(most time.Duration, wait func(context.Context) (web.Reply, error)) web.Route {
	r := route(false)
	r.Handle = func(context.Context, web.Call) (web.Reply, error) {
		return web.Reply{Wait: &web.Wait{Most: most, For: wait}}, nil
	}
	return r
}

func TestWhoWaitsForOthersKeepsNobodyOut(t *testing.T) {
	limits := web.DefaultLimits
	limits.Concurrent, limits.Parked = 1, 0
	h := newHouse(t, limits)
	begun, release := make(chan struct{}), make(chan struct{})
	slow := waiting(time.Minute, func(context.Context) (web.Reply, error) {
		begun <- struct{}{}
		<-release
		return web.Reply{Status: http.StatusOK, Body: []byte(`"late"`), Reason: registration.ReasonManaged}, nil
	})
	var all sync.WaitGroup
	wait := func(scope string) {
		slow := slow
		slow.Scope = scope
		for range web.WaitPlacesPerScope {
			all.Go(func() {
				if w := h.serve(t.Context(), slow); w.Code != 200 || w.Body.String() != `"late"` {
					t.Errorf("status %d, %s", w.Code, w.Body)
				}
			})
			<-begun
		}
		if w := h.serve(t.Context(), slow); w.Code != 429 || w.Header().Get("Retry-After") == "" {
			t.Errorf("one more of scope %s: status %d", scope, w.Code)
		}
	}
	for n := range web.WaitPlaces / web.WaitPlacesPerScope { // one scope has not all places
		wait(strconv.Itoa(n))
	}
	if w := h.serve(t.Context(), route(false)); w.Code != 200 {
		t.Errorf("beside those who wait: status %d", w.Code)
	}
	slow.Scope = "another"
	if w := h.serve(t.Context(), slow); w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("one more of another scope: status %d", w.Code)
	}
	close(release)
	all.Wait()
	all.Go(func() {
		if w := h.serve(t.Context(), slow); w.Code != 200 {
			t.Errorf("after all: status %d", w.Code)
		}
	})
	<-begun
	all.Wait()
}

func TestAWaitEndsWithItsTimeItsClientAndTheService(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	wait := func(ctx context.Context) (web.Reply, error) {
		<-ctx.Done()
		return web.Reply{}, h.core.Fault(scope, dps.CodeUnavailable, registration.ReasonMethodTimeout, "", ctx.Err())
	}
	if w := h.serve(t.Context(), waiting(time.Millisecond, wait)); w.Code != 503 {
		t.Errorf("past its time: status %d", w.Code)
	}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	if w := h.serve(gone, waiting(time.Hour, wait)); w.Code != 503 {
		t.Errorf("without its client: status %d", w.Code)
	}
	h.shared.Drain()
	if w := h.serve(t.Context(), waiting(time.Hour, wait)); w.Code != 503 {
		t.Errorf("in a drain: status %d", w.Code)
	}
}

func TestAPanicWhileWaitingIsAnAnswer(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	if w := h.serve(t.Context(), waiting(time.Minute, func(context.Context) (web.Reply, error) { panic("boom") })); w.Code != 500 {
		t.Errorf("status %d", w.Code)
	}
	if w := h.serve(t.Context(), waiting(time.Minute, func(context.Context) (web.Reply, error) { return web.Reply{}, errors.New("inside") })); w.Code != 500 {
		t.Errorf("status %d", w.Code)
	}
}

func TestRefusalsTakeTheFormOfTheirAPI(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	h.server.Refusing(func(fault *registration.Fault, sentence string, _ time.Time) (map[string]string, []byte) {
		return map[string]string{"x-own": fault.Reason.String()}, []byte(`{"own":"` + sentence + `"}`)
	})
	w := h.serve(t.Context(), h.server.NotFound(scope, "not here"))
	if w.Code != 404 || w.Body.String() != `{"own":"not here"}` || len(map[string][]string(w.Header())["x-own"]) != 1 || w.Header().Get("x-ms-error-code") != "" {
		t.Errorf("status %d, %v, %s", w.Code, w.Header(), w.Body)
	}
}
