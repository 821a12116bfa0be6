package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// module writes a throwaway module of one package and makes it the current directory.
func module(t *testing.T, test string) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.test/m\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "m.go"), "package m\n")
	write(t, filepath.Join(dir, "m_test.go"), "package m\n\n"+test)
	t.Chdir(dir)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const imports = "import (\"os\"; \"testing\")\nvar _ = os.Exit\nvar _ testing.TB\n"

func TestWhatTheRunSays(t *testing.T) {
	tests := []struct {
		name, source string
		noskip, show bool
		fuzz         time.Duration
		code         int
		last         string   // the closing line
		shown        []string // must be in the output
		hidden       []string // must not be
	}{
		{
			name:   "passing tests are counted and silent",
			source: imports + `func TestA(t *testing.T) { t.Log("quiet"); t.Run("b", func(t *testing.T) {}) }`,
			last:   "latchkey: 2 passed, 0 failed",
			shown:  []string{"ok  \texample.test/m"},
			hidden: []string{"quiet", "=== RUN", `"Action"`},
		},
		{
			name:   "what passing tests say is shown to whoever asks, but not what subtests say",
			source: imports + `func TestA(t *testing.T) { t.Log("SEED=1"); t.Run("b", func(t *testing.T) { t.Log("quiet") }) }`,
			show:   true,
			last:   "latchkey: 2 passed, 0 failed",
			shown:  []string{"SEED=1", "--- PASS: TestA", "all of it took"},
			hidden: []string{"quiet", "=== RUN"},
		},
		{
			name:   "what a failing test says is shown once to whoever asks",
			source: imports + `func TestA(t *testing.T) { t.Run("b", func(t *testing.T) { t.Error("the reason") }) }`,
			show:   true,
			code:   1,
			last:   "latchkey: 0 passed, 2 failed",
			shown:  []string{"the reason", "--- FAIL: TestA", "all of it took"},
		},
		{
			name: "a failure is shown and a passing neighbour is not",
			source: imports + `func TestA(t *testing.T) { t.Log("quiet") }
func TestB(t *testing.T) { t.Error("the reason") }`,
			code:   1,
			last:   "latchkey: 1 passed, 1 failed",
			shown:  []string{"the reason", "--- FAIL: TestB", "FAIL\texample.test/m"},
			hidden: []string{"quiet"},
		},
		{
			name:   "a panic is shown",
			source: imports + `func TestA(t *testing.T) { panic("the reason") }`,
			code:   1,
			last:   "latchkey: 0 passed, 1 failed",
			shown:  []string{"the reason", "m_test.go:6"},
		},
		{
			name:   "a test that exits is shown and fails",
			source: imports + `func TestA(t *testing.T) { println("the reason"); os.Exit(3) }`,
			code:   1,
			last:   "latchkey: 0 passed, 1 failed",
			shown:  []string{"FAIL\texample.test/m"},
		},
		{
			name:   "a test file that does not compile is shown and fails",
			source: imports + `func TestA(t *testing.T) { undefined() }`,
			code:   1,
			last:   "latchkey: 0 passed, 1 failed",
			shown:  []string{"undefined: undefined"},
		},
		{
			name:   "a skip is counted",
			source: imports + `func TestA(t *testing.T) { t.Skip("no TPM") }; func TestB(t *testing.T) {}`,
			last:   "latchkey: 1 passed, 0 failed, 1 skipped",
		},
		{
			name:   "a skip fails a run that allows none",
			source: imports + `func TestA(t *testing.T) { t.Skip("no TPM") }; func TestB(t *testing.T) {}`,
			noskip: true,
			code:   1,
			last:   "latchkey: 1 passed, 1 failed",
			shown:  []string{"example.test/m TestA"},
		},
		{
			name:   "no test is no success",
			source: imports,
			code:   1,
			last:   "latchkey: 0 passed, 0 failed",
			shown:  []string{"no test was run"},
		},
		{
			name:   "a fuzz target that holds is run and counted",
			source: imports + `func FuzzA(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }`,
			fuzz:   100 * time.Millisecond,
			last:   "latchkey: 2 passed, 0 failed", // once as a test over its seeds, once as fuzzing
			shown:  []string{"fuzz . FuzzA"},
		},
		{
			name: "a fuzz target that breaks only under fuzzing fails",
			source: imports + `func FuzzA(f *testing.F) { f.Add([]byte("a"))
f.Fuzz(func(t *testing.T, b []byte) { if string(b) != "a" { t.Fatal("the reason") } }) }`,
			fuzz:  10 * time.Second,
			code:  1,
			last:  "latchkey: 2 passed, 1 failed",
			shown: []string{"the reason", "Failing input written to testdata"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			module(t, tt.source)
			var out bytes.Buffer
			code := run(&out, [][]string{{"./..."}}, options{tt.noskip, tt.show, tt.fuzz})
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; code != tt.code || last != tt.last {
				t.Errorf("exit %d, closing line %q; want %d, %q\n%s", code, last, tt.code, tt.last, &out)
			}
			for _, text := range tt.shown {
				if !strings.Contains(out.String(), text) {
					t.Errorf("%q is not shown:\n%s", text, &out)
				}
			}
			for _, text := range tt.hidden {
				if strings.Contains(out.String(), text) {
					t.Errorf("%q is shown:\n%s", text, &out)
				}
			}
		})
	}
}

func TestABadPatternFails(t *testing.T) {
	module(t, imports)
	var out bytes.Buffer
	if code := run(&out, [][]string{{"./nowhere"}}, options{}); code == 0 || !strings.Contains(out.String(), "1 failed") {
		t.Errorf("exit %d:\n%s", code, &out)
	}
}

func TestGroupsAreSplitAtTheDashes(t *testing.T) {
	got := groups([]string{"-race", "./a", "--", "./b", "--"})
	if len(got) != 2 || strings.Join(got[0], " ") != "-race ./a" || strings.Join(got[1], " ") != "./b" {
		t.Errorf("%q", got)
	}
}

func TestOnlyADeadlineWithoutAFindingIsForgiven(t *testing.T) {
	late := []byte("--- FAIL: FuzzA (4.01s)\n    context deadline exceeded\nFAIL\n")
	if !onlyRanOut(late) {
		t.Error("the engine's own deadline counts as a finding")
	}
	if onlyRanOut(append(late, "    Failing input written to testdata/fuzz/FuzzA/1\n"...)) {
		t.Error("a finding was forgiven")
	}
	if onlyRanOut([]byte("--- FAIL: FuzzA\n    m_test.go:1: wrong\n")) {
		t.Error("a failure was forgiven")
	}
}
