package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// tally is what became of something that was done again and again.
type tally struct {
	times  []time.Duration // of those that went well
	failed int
	last   error // of those that did not
	done   chan struct{}
}

// repeat does a thing every pace, or as soon as the one before is done, until ctx ends.
func repeat(ctx context.Context, pace time.Duration, do func() error) *tally {
	t := &tally{done: make(chan struct{})}
	go func() {
		defer close(t.done)
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				t.note(do)
			}
		}
	}()
	return t
}

func (t *tally) note(do func() error) {
	began := time.Now()
	if err := do(); err != nil {
		t.failed++
		t.last = err
		return
	}
	t.times = append(t.times, time.Since(began))
}

// wait is for the one under way.
func (t *tally) wait() *tally {
	<-t.done
	slices.Sort(t.times)
	return t
}

func (t *tally) good() int { return len(t.times) }

// part is the time that this share of them, in hundredths, did not exceed.
func (t *tally) part(hundredths int) time.Duration {
	if len(t.times) == 0 {
		return 0
	}
	return t.times[(len(t.times)-1)*hundredths/100].Round(100 * time.Microsecond)
}

func (t *tally) String() string {
	return fmt.Sprintf("%d answered, %d failed, p50 %v, p99 %v, longest %v", t.good(), t.failed, t.part(50), t.part(99), t.part(100))
}
