package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheFormatIsAsAskedAndTheLevelCanBeChanged(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		level, log := NewLogger(&out, format)
		log.Debug("quiet")
		level.Set(slog.LevelDebug)
		log.Debug("loud", "n", 1)
		level.Set(slog.LevelError)
		log.Warn("quiet again")
		if lines := strings.Count(out.String(), "\n"); lines != 1 {
			t.Errorf("%s: %d lines: %s", format, lines, &out)
		}
		var fields map[string]any
		if isJSON := json.Unmarshal(out.Bytes(), &fields) == nil; isJSON != (format == "json") {
			t.Errorf("%s: %s", format, &out)
		}
		if !strings.Contains(out.String(), "loud") || !strings.Contains(out.String(), "level") {
			t.Errorf("%s: %s", format, &out)
		}
	}
}

// Strangers can make net/http complain as often as they like: one line a second
// is written, and says how many were not.
func TestComplaintsThatStrangersCauseAreRationed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		level, log := NewLogger(&out, "json")
		level.Set(slog.LevelDebug)
		quiet := Quiet(log)
		for range 1000 {
			quiet.Print("http: TLS handshake error from 192.0.2.1:5: EOF")
		}
		time.Sleep(quietEvery) // of the bubble's clock
		quiet.Print("http: the next one")
		var lines []map[string]any
		for line := range bytes.Lines(out.Bytes()) {
			var fields map[string]any
			if err := json.Unmarshal(line, &fields); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fields)
		}
		if len(lines) != 2 {
			t.Fatalf("%d lines", len(lines))
		}
		if lines[0]["line"] != "http: TLS handshake error from 192.0.2.1:5: EOF" || lines[0]["level"] != "DEBUG" || lines[0]["missed"] != 0. {
			t.Errorf("the first line is %v", lines[0])
		}
		if lines[1]["line"] != "http: the next one" || lines[1]["missed"] != 999. {
			t.Errorf("the second line is %v", lines[1])
		}
	})
}

func TestAboveDebugComplaintsAreNotWritten(t *testing.T) {
	var out bytes.Buffer
	_, log := NewLogger(&out, "text")
	Quiet(log).Print("http: whatever")
	if out.Len() > 0 {
		t.Errorf("wrote %s", &out)
	}
}
