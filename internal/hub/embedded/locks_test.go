package embedded

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestAKeyIsHeldByOneAtATimeAndForgottenAfterwards(t *testing.T) {
	var locks keyLocks
	var done sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)}
	for key, n := range counts {
		for range 50 {
			done.Go(func() {
				unlock, err := locks.lock(context.Background(), key)
				if err != nil {
					t.Error(err)
					return
				}
				defer unlock()
				*n++ // the race detector watches
			})
		}
	}
	done.Wait()
	if *counts["a"] != 50 || *counts["b"] != 50 || len(locks.locks) != 0 {
		t.Errorf("counted %d and %d, %d locks left", *counts["a"], *counts["b"], len(locks.locks))
	}
}

func TestWaitingForAKeyEndsWithTheContext(t *testing.T) {
	var locks keyLocks
	unlock, err := locks.lock(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := locks.lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	unlock()
	if len(locks.locks) != 0 {
		t.Error("a lock was left")
	}
}
