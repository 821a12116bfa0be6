package main

import (
	"encoding/json"
	"testing"
	"time"
)

func TestAChangeIsToldInALine(t *testing.T) {
	for detail, want := range map[string]string{
		``:                                  "",
		`"text"`:                            "",
		`{"operation":"4.a","hub":"h"}`:     "hub=h, operation=4.a",
		`{"before":null,"after":{"a":1}}`:   "created: a=1",
		`{"before":{"a":"x"},"after":null}`: "was: a=x",
		`{"before":{"a":1,"b":true,"c":"x"},"after":{"a":1,"b":false,"d":"y"}}`: "b true → false, c x → none, d none → y",
		`{"before":{"a":1},"after":{"a":1}}`:                                    "nothing that is told here",
		`{"a":"\u001b[2J\tx\n\u009b"}`:                                          "a=\ufffd[2J\ufffdx\ufffd\ufffd",
		`{"a":"` + "0123456789012345678901234567890123456789012" + `"}`:         "a=012345678901…",
	} {
		if got := whatChanged(json.RawMessage(detail)); got != want {
			t.Errorf("%s: %q, want %q", detail, got, want)
		}
	}
}

func TestAMomentIsATimeOrHowLongAgo(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"90m": now.Add(-90 * time.Minute), "36h": now.Add(-36 * time.Hour), "7d": now.AddDate(0, 0, -7), "0s": now,
		"2026-02-01T00:00:00+01:00": time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC),
	} {
		if got, err := moment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"d", "-1d", "1.5d", "99999999d", "-1h", "1", "yesterday", "2026-02-01", "h"} {
		if at, err := moment(text, now); err == nil {
			t.Errorf("%q was taken as %s", text, at)
		}
	}
}
