package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// showLimit bounds one show, which takes seconds.
const showLimit = 2 * time.Minute

// stage is where the programs that are no part of a weakness lie.
var stage string

func TestMain(m *testing.M) {
	code := 1
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(stage); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build() (err error) {
	if stage, err = os.MkdirTemp("", "latchkey-demo"); err != nil {
		return err
	}
	if err := rig.Compile(stage, rig.Compilation{Packages: []string{"./cmd/latchkey", "./cmd/latchkey-device"}}); err != nil {
		return err
	}
	return rig.Compile(stage, rig.Compilation{Packages: []string{"./cmd/latchkey-demo"}, Cgo: true})
}

// show runs the demo in a directory with its programs.
func show(t *testing.T, dir string) (rig.Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), showLimit)
	defer cancel()
	return rig.Run(ctx, rig.Command{Path: filepath.Join(dir, "latchkey-demo")})
}

func TestDemoHolds(t *testing.T) {
	result, err := show(t, stage)
	if err != nil || result.ExitCode != 0 {
		t.Fatalf("exit code %d, error %v\n%s", result.ExitCode, err, result.Stdout)
	}
	if !strings.Contains(result.Stdout, "steps held") || strings.Contains(result.Stdout, "FAILED") {
		t.Errorf("it said:\n%s", result.Stdout)
	}
	for _, act := range []string{"Act 1:", "Act 2:", "Act 3:", "Act 4:"} {
		if !strings.Contains(result.Stdout, "\n"+act) {
			t.Errorf("%s was not played", act)
		}
	}
}

func TestDemoFailsAgainstAWeakService(t *testing.T) {
	for _, c := range []struct {
		name           string
		weakness       rig.Weakness
		act, step, why string
	}{
		{"any signature is a proof", rig.Weakness{File: "internal/registration/challenge.go",
			Good: "; token.Verify(key) {",
			Bad:  "; token.Verify(key) || true {"},
			"Act 2:", "Signs with a guessed key", "it was let in"},
		{"a new owner gets the old owner's hub key", rig.Weakness{File: "internal/registration/redemption.go",
			Good: "if before.EKKeyID == enrollment.EKKeyID && bytes.Equal(before.SRK, p.srk.Bytes()) {",
			Bad:  "if bytes.Equal(nil, nil) {"},
			"Act 3:", "Recognised by its EK", "the hub key is still the old owner's"},
		{"the hub cuts no session when the key changes", rig.Weakness{File: "internal/hub/embedded/ensure.go",
			Good: "if !h.boundToOther(key, digests...) {",
			Bad:  "if true {"},
			"Act 3:", "The old session is dead", "it is still open"},
		{"the hub lets a key change and keeps the old one", rig.Weakness{File: "internal/hub/embedded/ensure.go",
			Good: "if same && before.Generation == d.Generation && !before.Disabled {",
			Bad:  "if known {"},
			"Act 3:", "The ten-year token is dead", "it was let in"},
		{"a challenge can be redeemed again", rig.Weakness{File: "internal/registration/challenge.go",
			Good: "buf = binary.BigEndian.AppendUint64(buf, s.generation)",
			Bad:  "buf = binary.BigEndian.AppendUint64(buf, 0)"},
			"Act 4:", "The token of act 1", "it was let in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, err := show(t, weakStage(t, c.weakness))
			if err == nil || result.ExitCode != 1 {
				t.Fatalf("exit code %d, error %v\n%s", result.ExitCode, err, result.Stdout)
			}
			_, act, played := strings.Cut(result.Stdout, "\n"+c.act)
			line := failedLine(act)
			if !played || strings.Contains(act, "\nAct ") || !strings.Contains(line, c.step) || !strings.Contains(line, c.why) {
				t.Errorf("want it to fail in %s at %q with %q; it said:\n%s", c.act, c.step, c.why, result.Stdout)
			}
			if strings.Contains(result.Stdout, "steps held") {
				t.Errorf("it failed and says that the steps held:\n%s", result.Stdout)
			}
		})
	}
}

func failedLine(text string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, "FAILED") {
			return line
		}
	}
	return ""
}

// weakStage is a stage with a weak service.
func weakStage(t *testing.T, w rig.Weakness) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := w.Build(dir); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"latchkey-device", "latchkey-demo"} {
		if err := os.Link(filepath.Join(stage, program), filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
