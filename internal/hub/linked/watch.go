package linked

import (
	"context"
	"errors"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// key names a hub of a scope, in lower case.
type key struct{ scope, hub string }

// freshLatency is how long a measured latency counts.
const freshLatency = 5 * time.Minute

// watch holds how hubs do. There is one entry for each hub that is or was linked a moment ago: sweep removes the others.
type watch struct {
	now func() time.Time

	mu   sync.Mutex
	hubs map[key]*health
}

type health struct {
	registration.HubHealth
	revision uint64        // of the hub that it is about: one that was changed is unknown again
	smooth   time.Duration // of the latencies of late
	measured time.Time
}

func (w *watch) init(now func() time.Time) { w.now, w.hubs = now, map[key]*health{} }

// of gives the entry of a hub as it is linked now. The caller holds mu.
func (w *watch) of(k key, revision uint64) *health {
	h := w.hubs[k]
	if h == nil || h.revision != revision {
		h = &health{revision: revision, HubHealth: registration.HubHealth{State: registration.HubUnknown}}
		w.hubs[k] = h
	}
	return h
}

// used notes what a call for a device came to.
func (w *watch) used(k key, revision uint64, err error, began time.Time) {
	if !tells(err) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.of(k, revision); !h.CheckedAt.After(began) || err != nil { // a look that began later knows better
		h.note(err, w.now())
	}
}

// tells says whether an error says something of the hub and not of the device or of us.
func tells(err error) bool {
	for _, ours := range []error{registration.ErrStale, registration.ErrNotFound, registration.ErrUnlinked, registration.ErrElsewhere, registration.ErrNotYet, context.Canceled} {
		if errors.Is(err, ours) {
			return false
		}
	}
	return true
}

// looked notes what a look came to.
func (w *watch) looked(k key, revision uint64, err error, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h, now := w.of(k, revision), w.now()
	h.CheckedAt = now
	switch {
	case errors.Is(err, registration.ErrElsewhere):
		h.become(registration.HubUnknown, now)
		return
	case errors.Is(err, registration.ErrUnseen): // what calls come to is all that there is
		return
	case err != nil:
		h.note(err, now)
		return
	}
	h.note(nil, now)
	if h.measured.IsZero() || now.Sub(h.measured) > freshLatency {
		h.smooth = took
	} else {
		h.smooth += (took - h.smooth) / 4
	}
	h.Latency, h.measured = took, now
}

func (h *health) note(err error, now time.Time) {
	var retry *registration.RetryError
	switch {
	case err == nil:
		h.become(registration.HubOK, now)
		return
	case errors.Is(err, registration.ErrCircuitOpen), errors.As(err, &retry):
		h.become(registration.HubCircuitOpen, now)
	default:
		h.become(registration.HubFailing, now)
	}
	if text := words(err); !errors.Is(err, registration.ErrCircuitOpen) || h.LastError == "" { // why the circuit was opened says more
		h.LastError, h.FailedAt = text, now
	}
}

func (h *health) become(state registration.HubState, now time.Time) {
	if h.State != state {
		h.State, h.Since = state, now
	}
}

func (w *watch) health(k key) registration.HubHealth {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.hubs[k]; h != nil {
		return h.HubHealth
	}
	return registration.HubHealth{State: registration.HubUnknown}
}

// knows says whether a hub was looked at since it was linked as it is.
func (w *watch) knows(k key, revision uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hubs[k]
	return h != nil && h.revision == revision && !h.CheckedAt.IsZero()
}

func (w *watch) latency(k key) (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hubs[k]
	if h == nil || h.measured.IsZero() || w.now().Sub(h.measured) > freshLatency {
		return 0, false
	}
	return h.smooth, true
}

func (w *watch) forget(k key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.hubs, k)
}

// sweep forgets hubs that are linked no more.
func (w *watch) sweep(linked map[key]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range w.hubs {
		if !linked[k] {
			delete(w.hubs, k)
		}
	}
}
