package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Weakness is one deliberate mistake in the service, for tests of tests: what is
// never caught shows nothing. The weak service is built from the same sources
// with a line or two replaced; nothing of that is in the tree.
type Weakness struct {
	File      string // of this module, with slashes
	Good, Bad string // Good stands in the file exactly once
}

// Build builds the service with the mistake into a directory. A weakness that no
// longer fits the sources is an error, so that it never passes for one that was
// caught.
func (w Weakness) Build(dir string) (service string, err error) {
	overlay, err := w.overlay(dir)
	if err != nil {
		return "", fmt.Errorf("rig: %w", err)
	}
	err = Compile(dir, Compilation{Packages: []string{"./cmd/latchkey"}, Overlay: overlay})
	return filepath.Join(dir, "latchkey"), err
}

// overlay writes into dir what makes go build put the mistake in, and gives the
// name of the file for its -overlay flag.
func (w Weakness) overlay(dir string) (string, error) {
	source, err := Source()
	if err != nil {
		return "", err
	}
	original := filepath.Join(source, filepath.FromSlash(w.File))
	content, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(content), w.Good); n != 1 {
		return "", fmt.Errorf("%s has %d places to weaken, want 1; if the code has changed, change the test with it. Looked for:\n%s", w.File, n, w.Good)
	}
	weak := filepath.Join(dir, "weak.go")
	if err := os.WriteFile(weak, []byte(strings.Replace(string(content), w.Good, w.Bad, 1)), 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: weak}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, list, 0o600)
}
