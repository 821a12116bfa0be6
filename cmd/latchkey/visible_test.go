package main

import (
	"encoding/json"
	"testing"
)

// A terminal does what some runes say; in JSON they can stand escaped, and mean the same.
func TestNothingInPrintedJSONIsObeyedByATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"{\n  \"a\": \"ä €\"\n}": "{\n  \"a\": \"ä €\"\n}",
		"\"\u009b2J\"":           `"\u009b2J"`,
		"\"\u007f\u202e\"":       `"\u007f\u202e"`,
		"\"\U000e0001\"":         `"\udb40\udc01"`,
	} {
		got := visible(text)
		if got != want {
			t.Errorf("%q is shown as %q", text, got)
		}
		var before, after any
		if json.Unmarshal([]byte(text), &before) != nil || json.Unmarshal([]byte(got), &after) != nil {
			t.Fatalf("%q is no JSON", got)
		}
		if a, b := mustJSON(t, before), mustJSON(t, after); a != b {
			t.Errorf("%q means %s", got, b)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
