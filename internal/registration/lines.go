package registration

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// How hubs over the network are treated.
const (
	hubPlaces   = 16  // calls for one hub, and for the webhooks of a scope, at a time
	hubQueue    = 48  // pieces of work that wait for a place there
	scopePlaces = 128 // at a time and waiting for one scope, so that its hubs do not hold up those of others
	hubPatience = 10 * time.Second
	firstRest   = time.Second
	longestRest = time.Minute
)

// hubLines keeps hubs from holding each other up: so many pieces of work at a time for each, one alone after a failure, and none for a while after
// that. The time is this process's own.
type hubLines struct {
	mu      sync.Mutex
	lines   map[string]*hubLine // by scope and hub
	changed chan struct{}       // closed when a place is free; nil: nobody waits
}

type hubLine struct {
	busy, waiting int
	failures      int       // in a row
	rests         time.Time // until then nobody calls it
}

// Lines besides those of hubs: no hub has these names.
const (
	wholeScope = ""
	webhooks   = "\x00"
)

func lineOf(scope, hub string) string { return scope + "\x00" + hub }

// enter takes a place at each of some hubs. It waits for one where others are quick, and not where a hub rests or too many wait: then the error says how
// long that is to last.
func (l *hubLines) enter(ctx context.Context, keys []string, now func() time.Time) error {
	patience := time.NewTimer(hubPatience)
	defer patience.Stop()
	for {
		changed, wait := l.tryEnter(keys, now())
		if changed == nil && wait == 0 {
			return nil
		}
		if changed == nil {
			return &RetryError{After: wait, Err: errHubRests}
		}
		select {
		case <-changed:
		case <-patience.C:
			l.add(keys, -1)
			return &RetryError{After: firstRest, Err: errHubRests}
		case <-ctx.Done():
			l.add(keys, -1)
			return ctx.Err()
		}
		l.add(keys, -1)
	}
}

// tryEnter takes the places; or says how long they are not to be had; or gives what is closed when one may be free, and has the caller wait in line.
func (l *hubLines) tryEnter(keys []string, now time.Time) (changed <-chan struct{}, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := false
	for _, key := range keys {
		line := l.lines[key]
		whole := strings.HasSuffix(key, "\x00") && !strings.HasSuffix(key, "\x00\x00")
		switch {
		case line == nil:
		case now.Before(line.rests):
			wait = max(wait, line.rests.Sub(now))
		case whole && line.busy+line.waiting >= scopePlaces, !whole && line.waiting >= hubQueue, line.failures > 0 && line.busy > 0:
			wait = max(wait, firstRest)
		case !whole && line.busy >= hubPlaces:
			full = true
		}
	}
	if wait > 0 {
		return nil, wait
	}
	if !full {
		l.each(keys, func(line *hubLine) { line.busy++ })
		return nil, 0
	}
	l.each(keys, func(line *hubLine) { line.waiting++ })
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed, 0
}

// each changes lines; the lock is held.
func (l *hubLines) each(keys []string, change func(*hubLine)) {
	if l.lines == nil {
		l.lines = map[string]*hubLine{}
	}
	for _, key := range keys {
		if l.lines[key] == nil {
			l.lines[key] = new(hubLine)
		}
		change(l.lines[key])
	}
}

// add changes how many wait.
func (l *hubLines) add(keys []string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.each(keys, func(line *hubLine) { line.waiting += n })
}

// exit gives the places back. The hub that failed, if one did, rests: as long as it says, or twice as long each time.
func (l *hubLines) exit(keys []string, failed string, after time.Duration, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		line := l.lines[key]
		line.busy--
		switch {
		case key == failed:
			rest := min(longestRest, firstRest<<min(line.failures, 10))
			line.failures++
			line.rests = now.Add(min(max(rest, after), OutboxHorizon))
		case failed == "":
			line.failures, line.rests = 0, time.Time{}
		}
		if line.busy == 0 && line.waiting == 0 && line.failures == 0 {
			delete(l.lines, key)
		}
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// atHubs does work that calls hubs over the network, if they take calls now; else nothing is done, and the error is a RetryError. The work has its own
// time, which begins when there is a place for it.
func (c *Core) atHubs(ctx context.Context, span time.Duration, scope string, hubs []string, work func(ctx context.Context) error) error {
	keys := []string{lineOf(scope, wholeScope)}
	for _, hub := range hubs {
		keys = append(keys, lineOf(scope, hub))
	}
	if err := c.lines.enter(ctx, keys, c.now); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	err := work(ctx)
	failed, after := troubledHub(scope, err)
	c.lines.exit(keys, failed, after, c.now())
	return err
}

var errHubRests = errors.New("the hub is busy, or rests after a failure")

// troubledHub finds out of which hub an error tells that it is in trouble, and how long that wants to be left alone.
func troubledHub(scope string, err error) (line string, after time.Duration) {
	var failure *hubFailure
	var retry *RetryError
	if !errors.As(err, &failure) || errors.Is(err, ErrElsewhere) || errors.Is(err, ErrStale) || errors.Is(err, ErrNotYet) || errors.Is(err, context.Canceled) || Trouble(err) != nil {
		return "", 0
	}
	if errors.As(err, &retry) {
		after = retry.After
	}
	return lineOf(scope, failure.hub), after
}
