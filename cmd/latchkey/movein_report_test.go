package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Entries go to the target many at a time, and what is told of them has one order all the same.
func TestReportHasOneOrder(t *testing.T) {
	report := newMoveReport(false)
	for i := 39; i >= 0; i-- {
		id := fmt.Sprintf("e-%02d", i)
		report.trouble(&report.Different, sourceEntry{id: id}, "different")
		report.trouble(&report.CannotMove, sourceEntry{id: id, group: i%2 == 0}, "cannot")
		report.note("note " + id)
		report.Groups[id] = i
	}
	var text, want bytes.Buffer
	if err := report.print(&text, false); err != nil {
		t.Fatal(err)
	}
	want.WriteString("Moved          0\nAlready there  0\nReplaced       0\nDifferent      40\nCannot move    40\n")
	for i := 1; i < 40; i += 2 {
		fmt.Fprintf(&want, "enrollment e-%02d: cannot\n", i)
	}
	for i := 0; i < 40; i += 2 {
		fmt.Fprintf(&want, "group e-%02d: cannot\n", i)
	}
	for i := range 40 {
		fmt.Fprintf(&want, "enrollment e-%02d: different\n", i)
	}
	for i := range 40 {
		fmt.Fprintf(&want, "group e-%02d: %d registrations of its devices are made anew when the devices register\n", i, i)
	}
	for i := range 40 {
		fmt.Fprintf(&want, "note: note e-%02d\n", i)
	}
	if text.String() != want.String() {
		t.Errorf("have\n%s\nwant\n%s", &text, &want)
	}
}

// A list of the report ends somewhere, and then the report says how much is missing.
func TestReportCountsWhatItDoesNotName(t *testing.T) {
	report := newMoveReport(false)
	for i := range maxTroubles + 3 {
		report.trouble(&report.CannotMove, sourceEntry{id: fmt.Sprint(i)}, "cannot")
	}
	report.trouble(&report.Different, sourceEntry{id: "a"}, "different")
	if n := report.left(); n != maxTroubles+4 {
		t.Errorf("%d entries did not move", n)
	}
	var text bytes.Buffer
	if err := report.print(&text, true); err != nil {
		t.Fatal(err)
	}
	var said moveReport
	if err := json.Unmarshal(text.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	const note = "3 entries more cannot move than the 100000 that are named here"
	if len(said.CannotMove) != maxTroubles || strings.Join(said.Notes, "\n") != note {
		t.Errorf("%d named, notes %q", len(said.CannotMove), said.Notes)
	}
}
