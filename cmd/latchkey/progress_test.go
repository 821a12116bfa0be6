package main

import (
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/daemon"
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

func TestACopySaysHowItGoes(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	w := copyWatch{out: &out, visible: true}
	now := time.Now()
	for _, step := range []daemon.CopyStep{{What: "begun", Resumed: true}, {What: "copied", Table: "enrollments", Rows: 5000, Total: 20000}} {
		if err := w.step(step); err != nil {
			t.Fatal(err)
		}
	}
	if want := "goes on.\n\r\x1b[Kcopied enrollments: 5000 rows, 25%"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("said %q, want %q at the end", out.String(), want)
	}
	w.began, w.first = now.Add(-2*time.Second), 1000
	if got := w.rate(daemon.CopyStep{Rows: 9000, Total: 10000}, now); got != "9000 rows, 4000 a second, 90%" {
		t.Error(got)
	}
	var quiet strings.Builder
	w = copyWatch{out: &quiet}
	if err := w.step(daemon.CopyStep{What: "begun", StartedOver: true}); err != nil {
		t.Fatal(err)
	}
	_ = w.step(daemon.CopyStep{What: "copied", Table: "enrollments", Rows: 1})
	if got := quiet.String(); got != "The installation was in use since the copy was interrupted: it starts over.\n" {
		t.Error(got)
	}
}
