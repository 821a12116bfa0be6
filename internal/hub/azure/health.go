package azure

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Circuit says whether a hub is called.
type Circuit string

// The circuit opens when calls fail one after the other, and is tried again by one call at a time.
const (
	Closed   Circuit = "closed"    // calls go out
	Open     Circuit = "open"      // none goes out until a moment
	HalfOpen Circuit = "half-open" // one is out to see whether the hub is well again; the others wait for it
)

// State is the health of a hub as this process has seen it.
type State struct {
	Circuit    Circuit
	NextTry    time.Time     // of an open circuit, or of a hub that throttles; zero if calls go out
	Throttled  bool          // the hub has asked to be left alone until NextTry
	Failures   int           // one after the other; 0 if the last call was answered well
	LastError  string        // a sentence for the operator, without secrets; kept after the hub is well again
	FailedAt   time.Time     // of LastError
	AnsweredAt time.Time     // when the hub last answered as it should; zero: never
	Latency    time.Duration // of the calls of late, smoothed; 0: none was answered
}

// How the circuit goes.
const (
	openAfter  = 5 // failures one after the other
	firstOpen  = time.Second
	lastOpen   = time.Minute
	halfWait   = time.Second     // for those that come while one tries
	throttle   = 5 * time.Second // if a hub that throttles says nothing
	maxAdvised = registration.OutboxHorizon
	smoothing  = 5 // weight of the past against one new call, less one
)

// health is the circuit of one hub.
type health struct {
	now    func() time.Time
	random func() float64
	log    *slog.Logger

	mu      sync.Mutex
	state   State
	opens   int  // circuits opened one after the other
	probing bool // one call is out while the circuit is open
}

var errThrottled = &registration.HubError{Message: "it has asked to be left alone for a while"}

// State reads the health of the hub.
func (h *Hub) State() State {
	h.health.mu.Lock()
	defer h.health.mu.Unlock()
	s := h.health.state
	switch now := h.config.Now(); {
	case h.health.probing:
		s.Circuit = HalfOpen
	case s.Circuit == "":
		s.Circuit = Closed
	case s.Circuit == Closed && !s.NextTry.After(now):
		s.NextTry, s.Throttled = time.Time{}, false
	}
	return s
}

// enter lets a call out, or says when to come back.
func (h *health) enter() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	wait := h.state.NextTry.Sub(h.now())
	switch {
	case wait > 0 && wait <= maxAdvised: // longer only if the clock was set back
		if h.state.Throttled {
			return &registration.RetryError{After: wait, Err: errThrottled}
		}
		return &registration.RetryError{After: wait, Err: registration.ErrCircuitOpen}
	case h.state.Circuit != Open:
		return nil
	case h.probing:
		return &registration.RetryError{After: halfWait, Err: registration.ErrCircuitOpen}
	}
	h.probing = true
	return nil
}

// answered notes a call that the hub has answered as hubs do, be it with a refusal.
func (h *health) answered(took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state.Circuit == Open {
		h.log.Info("hub: it answers again", "failures", h.state.Failures)
	}
	h.probing, h.opens = false, 0
	h.state.Circuit, h.state.Failures, h.state.AnsweredAt = Closed, 0, h.now()
	if !h.state.Throttled {
		h.state.NextTry = time.Time{}
	}
	if h.state.Latency == 0 {
		h.state.Latency = took
	}
	h.state.Latency += (took - h.state.Latency) / smoothing
}

// failed notes a call that was not answered, or not by a hub.
func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.Failures++
	h.note(err)
	if !h.probing && h.state.Failures < openAfter {
		return
	}
	h.probing = false
	whole := lastOpen
	if h.opens < 6 {
		whole = min(whole, firstOpen<<h.opens)
	}
	h.opens++
	h.state.Circuit, h.state.Throttled = Open, false
	rest := whole/2 + time.Duration(h.random()*float64(whole/2))
	h.state.NextTry = h.now().Add(rest)
	h.log.Warn("hub: it does not answer as it should and is left alone", "failures", h.state.Failures, "for", rest.Round(time.Millisecond), "err", err)
}

// throttled notes that the hub wants to be left alone: at least as long as it says, and a little more so that what waits does not come back
// together.
func (h *health) throttled(advice time.Duration, err error) *registration.RetryError {
	if advice <= 0 {
		advice = throttle
	}
	after := min(advice+time.Duration(h.random()*float64(min(advice, throttle)/2)), maxAdvised)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(err)
	h.state.Throttled, h.state.NextTry = true, h.now().Add(after)
	h.log.Warn("hub: it asks to be left alone", "for", after.Round(time.Millisecond), "err", err)
	return &registration.RetryError{After: after, Err: err}
}

// refused keeps a refusal for the operator; the hub is well.
func (h *health) refused(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(err)
}

// abandoned frees the place of a call whose caller has gone: that says nothing about the hub.
func (h *health) abandoned() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probing = false
}

func (h *health) note(err error) {
	h.state.LastError, h.state.FailedAt = fmt.Sprint(err), h.now()
}
