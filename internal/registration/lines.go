package registration

import (
	"context"
	"errors"
	"sync"
	"time"
)

// How hubs over the network are treated.
const (
	hubPlaces   = 4 // calls for one hub at a time
	firstRest   = time.Second
	longestRest = time.Minute
)

// hubLines keeps hubs from holding each other up: so many pieces of work at a time for each, one alone after a failure, and none for a while after
// that. The time is this process's own.
type hubLines struct {
	mu    sync.Mutex
	lines map[string]*hubLine // by scope and hub
}

type hubLine struct {
	busy     int
	failures int       // in a row
	rests    time.Time // until then nobody calls it
}

func lineOf(scope, hub string) string { return scope + "\x00" + hub }

// enter takes a place at each of some hubs, or none: then it says how long to wait before it is worth while to ask again.
func (l *hubLines) enter(keys []string, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		line := l.lines[key]
		switch {
		case line == nil:
		case now.Before(line.rests):
			wait = max(wait, line.rests.Sub(now))
		case line.busy >= hubPlaces, line.failures > 0 && line.busy > 0:
			wait = max(wait, firstRest)
		}
	}
	if wait > 0 {
		return wait, false
	}
	for _, key := range keys {
		if l.lines == nil {
			l.lines = map[string]*hubLine{}
		}
		if l.lines[key] == nil {
			l.lines[key] = new(hubLine)
		}
		l.lines[key].busy++
	}
	return 0, true
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
		if line.busy == 0 && line.failures == 0 {
			delete(l.lines, key)
		}
	}
}

// atHubs does work that calls hubs over the network, if they take calls now; else nothing is done, and the error is a RetryError.
func (c *Core) atHubs(ctx context.Context, scope string, hubs []string, work func(ctx context.Context) error) error {
	keys := make([]string, len(hubs))
	for i, hub := range hubs {
		keys[i] = lineOf(scope, hub)
	}
	wait, ok := c.lines.enter(keys, c.now())
	if !ok {
		return &RetryError{After: wait, Err: errHubRests}
	}
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
