package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of `go test -json` (go doc test2json); the build fields are those of go help buildjson.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	ImportPath  string
	FailedBuild string
}

// tally counts tests, subtests and fuzz runs; a package that fails without a failed test of its own counts once.
type tally struct {
	passed, failed int
	skips          []string // package and test
}

// String is the closing line that CI reads.
func (t tally) String() string {
	line := fmt.Sprintf("latchkey: %d passed, %d failed", t.passed, t.failed)
	if len(t.skips) > 0 {
		line += fmt.Sprintf(", %d skipped", len(t.skips))
	}
	return line
}

// reporter holds what tests print until it is known whether they failed.
type reporter struct {
	out    io.Writer
	total  *tally
	show   bool                // what tests print is printed at once
	held   map[string][]string // by package and test: the output so far
	broken map[string]bool     // packages with a failed test
}

// report turns go test's events into what a person reads, and counts. Lines that are no event are passed through.
func report(out io.Writer, total *tally, show bool, events io.Reader) {
	r := reporter{out: out, total: total, show: show, held: map[string][]string{}, broken: map[string]bool{}}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadString('\n')
		var e event
		if json.Unmarshal([]byte(line), &e) == nil {
			r.take(e)
		} else if line != "" {
			fmt.Fprint(out, line)
		}
		if err != nil {
			return
		}
	}
}

func (r *reporter) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if r.show && e.Test != "" && !strings.Contains(e.Test, "/") {
			if !noise(e.Output) {
				fmt.Fprint(r.out, e.Output)
			}
			return
		}
		r.held[key] = append(r.held[key], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.closePackage(e, r.held[key])
		} else {
			r.closeTest(e, key)
		}
		delete(r.held, key)
	}
}

func (r *reporter) closeTest(e event, key string) {
	switch e.Action {
	case "pass":
		r.total.passed++
	case "skip":
		r.total.skips = append(r.total.skips, key)
	case "fail":
		r.total.failed++
		r.broken[e.Package] = true
		for _, line := range r.held[key] {
			if !noise(line) {
				fmt.Fprint(r.out, line)
			}
		}
	}
}

// closePackage prints the package's summary line. A package that failed with no failed test (it did not build, it
// panicked, it ran out of time) shows all that it and its unfinished tests printed.
func (r *reporter) closePackage(e event, output []string) {
	if e.Action == "fail" && !r.broken[e.Package] {
		r.total.failed++
		for key, lines := range r.held {
			if strings.HasPrefix(key, e.Package+" ") && key != e.Package+" " {
				fmt.Fprint(r.out, strings.Join(lines, ""))
			}
		}
	}
	for _, line := range output {
		if e.Action == "fail" && !noise(line) || summary(line) {
			fmt.Fprint(r.out, line)
		}
	}
}

// summary tells go test's closing line of a package from what its tests print.
func summary(line string) bool {
	return strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "FAIL\t")
}

// noise is what -json makes go test say about tests that are merely running.
func noise(line string) bool {
	for _, prefix := range []string{"=== RUN", "=== PAUSE", "=== CONT", "=== NAME"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}
