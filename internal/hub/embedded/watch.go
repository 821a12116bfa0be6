package embedded

import (
	"context"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

const (
	watchersPerScope = 8
	watcherRecords   = 256     // that wait for one who watches; later ones he misses
	watcherBytes     = 1 << 20 // of these
	recentRecords    = 4096    // that are remembered, of all scopes
	recentBytes      = 8 << 20 // of these
	watchBeat        = 5 * time.Second
)

// watching is who looks on while telemetry comes, and what came lately. It never holds up a device.
type watching struct {
	mu      sync.Mutex
	by      map[string]map[*watcher]struct{} // by scope
	recent  []seen                           // oldest first
	recalls int                              // bytes of these
}

// seen is a record that came.
type seen struct {
	scope, deviceID string
	at              time.Time
	line            []byte
}

// watcher is one who looks on. Its fields are guarded by the lock of watching.
type watcher struct {
	deviceID string // empty: all
	lines    [][]byte
	bytes    int
	missed   uint64
	news     chan struct{} // has room for one
}

// show tells those who watch the scope, and remembers.
func (w *watching) show(s seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recent = append(w.recent, s)
	for w.recalls += len(s.line); w.recalls > recentBytes || len(w.recent) > recentRecords; w.recent = w.recent[1:] {
		w.recalls -= len(w.recent[0].line)
		w.recent[0] = seen{} // its line is not kept by the array
	}
	for one := range w.by[s.scope] {
		one.take(s)
	}
}

func (one *watcher) take(s seen) {
	if one.deviceID != "" && one.deviceID != s.deviceID {
		return
	}
	if len(one.lines) >= watcherRecords || len(one.lines) > 0 && one.bytes+len(s.line) > watcherBytes {
		one.missed++
	} else {
		one.lines, one.bytes = append(one.lines, s.line), one.bytes+len(s.line)
	}
	select {
	case one.news <- struct{}{}:
	default:
	}
}

// enter adds one who watches, with what is remembered since a time.
func (w *watching) enter(scope, deviceID string, since time.Time) (*watcher, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.by[scope]) >= watchersPerScope {
		return nil, registration.ErrManyWatchers
	}
	one := &watcher{deviceID: deviceID, news: make(chan struct{}, 1)}
	if !since.IsZero() {
		for _, s := range w.recent {
			if s.scope == scope && !s.at.Before(since) && (deviceID == "" || deviceID == s.deviceID) { // more than waits otherwise: it is all in memory
				one.lines, one.bytes = append(one.lines, s.line), one.bytes+len(s.line)
			}
		}
	}
	if w.by == nil {
		w.by = map[string]map[*watcher]struct{}{}
	}
	if w.by[scope] == nil {
		w.by[scope] = map[*watcher]struct{}{}
	}
	w.by[scope][one] = struct{}{}
	return one, nil
}

func (w *watching) leave(scope string, one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.by[scope], one)
	if len(w.by[scope]) == 0 {
		delete(w.by, scope)
	}
}

func (w *watching) next(one *watcher) (lines [][]byte, missed uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines, missed = one.lines, one.missed
	one.lines, one.bytes, one.missed = nil, 0, 0
	return lines, missed
}

// Watch gives what the scope's devices send to this process's hubs, from what it still remembers since a time on (zero: from now on), until ctx ends or each
// returns an error. When nothing comes it is called all the same, every few seconds, and once at the beginning. Whoever is slow misses records, and is
// told how many; devices do not wait for him. deviceID may be empty: all devices.
//
// ErrElsewhere if this process does not serve the hubs; ErrManyWatchers.
func (h *Hub) Watch(ctx context.Context, scope, deviceID string, since time.Time, each func(registration.HubEvent) error) error {
	if !h.owner.serving() {
		return registration.ErrElsewhere
	}
	one, err := h.watching.enter(scope, deviceID, since)
	if err != nil {
		return err
	}
	defer h.watching.leave(scope, one)
	beat := time.NewTicker(watchBeat)
	defer beat.Stop()
	for err := each(registration.HubEvent{}); ; {
		if err != nil {
			return err
		}
		lines, missed := h.watching.next(one)
		for _, line := range lines {
			if err := each(registration.HubEvent{Record: line}); err != nil {
				return err
			}
		}
		if missed > 0 {
			if err := each(registration.HubEvent{Missed: missed}); err != nil {
				return err
			}
		}
		select {
		case <-one.news:
		case <-beat.C:
			err = each(registration.HubEvent{})
		case <-ctx.Done():
			return nil
		case <-h.base.Done():
			return nil
		}
	}
}
