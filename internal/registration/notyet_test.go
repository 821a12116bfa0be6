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
		at := func(after time.Duration) func() time.Time { return func() time.Time { return now.Add(after) } }
		if err := lines.enter(t.Context(), keys, at(0)); err != nil {
			t.Fatalf("a hub that was never called: %v", err)
		}
		lines.exit(keys, failed, after, now)
		if err := lines.enter(t.Context(), keys, at(time.Millisecond)); (err != nil) != c.rests {
			t.Errorf("%s: the next call meets %v", name, err)
		}
	}
}
