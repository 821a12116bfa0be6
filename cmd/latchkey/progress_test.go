package main

import (
	"testing"
	"time"
)

func TestProgressSaysHowFastItGoesAndHowLongItTakes(t *testing.T) {
	for want, p := range map[string]struct {
		size, total int64 // as far as known
		lines, sent int64
		took        time.Duration
	}{
		"500 lines, 100 a second":                     {0, 0, 500, 9000, 5 * time.Second},
		"500 lines, 100 a second, 25%, 15s left":      {36000, 0, 500, 9000, 5 * time.Second},
		"500 lines, 100 a second, 50%, 5s left":       {0, 1000, 500, 9000, 5 * time.Second},
		"500 lines, 1 a second, 1%, 13h45m0s left":    {100_000, 0, 500, 1000, 500 * time.Second},
		"0 lines, 0 a second":                         {100, 0, 0, 0, 0},
		"1200 lines, 240 a second, 100%, 0s left":     {0, 1000, 1200, 9000, 5 * time.Second}, // more came than was counted
		"1000000 lines, 50000 a second, 99%, 0s left": {1_000_001, 0, 1_000_000, 1_000_000, 20 * time.Second},
	} {
		shown := &progress{size: p.size, total: p.total}
		if have := shown.rate(p.lines, p.sent, p.took); have != want {
			t.Errorf("%q, want %q", have, want)
		}
	}
}
