package registration

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// So many at a time at one hub; those behind wait in a bounded line, and are let through one after the other.
func TestWorkForAHubWaitsInLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines hubLines
		keys := []string{lineOf("scope", wholeScope), lineOf("scope", "hub.example")}
		release := make(chan struct{})
		var inside, most, done, turned atomic.Int64
		var all sync.WaitGroup
		for range hubPlaces + hubQueue + 10 {
			all.Go(func() {
				if err := lines.enter(t.Context(), keys, time.Now); err != nil {
					turned.Add(1)
					return
				}
				if n := inside.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-release
				inside.Add(-1)
				lines.exit(keys, "", 0, time.Now())
				done.Add(1)
			})
		}
		synctest.Wait()
		if inside.Load() != hubPlaces || turned.Load() != 10 {
			t.Errorf("%d are at the hub, %d were turned away", inside.Load(), turned.Load())
		}
		close(release)
		all.Wait()
		if most.Load() != hubPlaces || done.Load() != hubPlaces+hubQueue {
			t.Errorf("at most %d at a time, %d in all", most.Load(), done.Load())
		}
		if err := lines.enter(t.Context(), keys, time.Now); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// Who waits too long for his turn, or is not wanted any more, goes; a hub that failed is tried by one alone.
func TestWaitingForAHubEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines hubLines
		keys := []string{lineOf("scope", "hub.example")}
		for range hubPlaces {
			if err := lines.enter(t.Context(), keys, time.Now); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if err := lines.enter(t.Context(), keys, time.Now); !errors.Is(err, errHubRests) || time.Since(began) != hubPatience {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := lines.enter(ctx, keys, time.Now); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up: %v", err)
		}
		lines.exit(keys, keys[0], 0, time.Now())
		for range hubPlaces - 1 {
			lines.exit(keys, keys[0], 0, time.Now())
		}
		time.Sleep(longestRest)
		if err := lines.enter(t.Context(), keys, time.Now); err != nil {
			t.Errorf("after its rest: %v", err)
		}
		if err := lines.enter(t.Context(), keys, time.Now); !errors.Is(err, errHubRests) {
			t.Errorf("a second one beside the first after a failure: %v", err)
		}
		lines.exit(keys, "", 0, time.Now())
		for range hubPlaces {
			if err := lines.enter(t.Context(), keys, time.Now); err != nil {
				t.Errorf("well again: %v", err)
			}
		}
	})
}

// The hubs of one scope leave places to those of others.
func TestOneScopeDoesNotTakeAllPlaces(t *testing.T) {
	t.Parallel()
	var lines hubLines
	taken := 0
	for i := range 4 * scopePlaces {
		keys := []string{lineOf("scope", wholeScope), lineOf("scope", string(rune('a'+i/10)))}
		if changed, wait := lines.tryEnter(keys, time.Now()); changed == nil && wait == 0 {
			taken++
		}
	}
	if taken != scopePlaces {
		t.Errorf("%d places of one scope, want %d", taken, scopePlaces)
	}
	if changed, wait := lines.tryEnter([]string{lineOf("other", wholeScope), lineOf("other", "a")}, time.Now()); changed != nil || wait != 0 {
		t.Error("another scope has no place")
	}
}
