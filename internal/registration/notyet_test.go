package registration

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A hub that waits for one device is not in trouble: calls for its other devices go on.
func TestAHubThatIsNotDoneYetDoesNotRest(t *testing.T) {
	trouble, notYet := errors.New("no answer"), fmt.Errorf("a connection may be left: %w", ErrNotYet)
	for name, c := range map[string]struct {
		err   error
		rests bool
	}{"trouble": {trouble, true}, "not yet": {notYet, false}, "done": {nil, false}} {
		var err error
		if c.err != nil {
			err = &hubFailure{"broker.example", c.err}
		}
		failed, after := troubledHub("0ne", err)
		var lines hubLines
		now := time.Unix(1_772_366_400, 0)
		keys := []string{lineOf("0ne", "broker.example")}
		if _, ok := lines.enter(keys, now); !ok {
			t.Fatal("a hub that was never called rests")
		}
		lines.exit(keys, failed, after, now)
		if _, ok := lines.enter(keys, now.Add(time.Millisecond)); ok == c.rests {
			t.Errorf("%s: the next call is let through: %v", name, ok)
		}
	}
}
