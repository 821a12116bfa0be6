package main

import (
	"fmt"
	"strings"
	"testing"
)

// A file is read one entry at a time, each bounded, and what is wrong is told with its place.
func TestEntriesOfAFile(t *testing.T) {
	entry := func(id string) string {
		return `{"registrationId":"` + id + `","attestation":{"type":"tpm","tpm":{"endorsementKey":"AAAA"}}}`
	}
	long := strings.TrimSuffix(entry("long"), "}") + `,"initialTwin":{"tags":{"note":"` + strings.Repeat("x", maxFileEntry) + `"}}}`
	endless := `{"registrationId":"` + strings.Repeat("x", 16*maxFileEntry)
	many := make([]string, 5000) // of more than the allowance for one
	for i := range many {
		many[i] = entry(fmt.Sprint("e", i))
	}
	for name, c := range map[string]struct {
		text    string
		entries int
		failure string
	}{
		"lines":                       {entry("a") + "\n\n" + entry("b"), 2, ""},
		"lines after a BOM":           {"\ufeff" + entry("a") + "\r\n" + entry("b") + "\r\n", 2, ""},
		"an array":                    {"[" + entry("a") + ",\n" + entry("b") + "]", 2, ""},
		"an array after a BOM":        {"\ufeff [" + entry("a") + "," + entry("b") + "]", 2, ""},
		"many lines":                  {strings.Join(many, "\n"), len(many), ""},
		"an array of many":            {"[" + strings.Join(many, ",") + "]", len(many), ""},
		"a long line":                 {entry("a") + "\n" + long, 1, "reading the file, line 2: it is longer than 262144 bytes, which no entry is"},
		"an array with a long entry":  {"[" + entry("a") + "," + long + "]", 1, "reading the file, entry 2: it is longer than 262144 bytes, which no entry is"},
		"an array with an endless id": {"[" + entry("a") + "," + endless, 1, "reading the file, entry 2: it is longer than 262144 bytes, which no entry is"},
		"an array without an end":     {"[" + entry("a"), 1, "reading the file: its array does not end: EOF"},
		"an array of nothing":         {"[" + strings.Repeat(" ", 16*maxFileEntry), 0, "reading the file: its array does not end: it is longer than 262144 bytes, which no entry is"},
	} {
		in, entries, failure := strings.NewReader(c.text), 0, ""
		err := fileSource{in}.each(t.Context(), newMoveReport(false), func(e sourceEntry) error {
			entries++
			return e.err
		})
		if err != nil {
			failure = err.Error()
		}
		if entries != c.entries || failure != c.failure {
			t.Errorf("%s: %d entries, %q; want %d, %q", name, entries, failure, c.entries, c.failure)
		}
		if strings.Contains(name, "endless") && in.Len() < 8*maxFileEntry {
			t.Errorf("%s: it was read to the last %d bytes", name, in.Len())
		}
	}
}
