package demo

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// weakness is one mistake in the service.
type weakness struct {
	file, good, bad string // good stands in the file exactly once
}

// overlay writes into dir what makes go build put the mistake in, and gives the
// name of the file for its -overlay flag.
func (w weakness) overlay(source, dir string) (string, error) {
	original := filepath.Join(source, filepath.FromSlash(w.file))
	content, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(content), w.good); n != 1 {
		return "", fmt.Errorf("%s has %d places to weaken, want 1; if the code has changed, change this test with it. Looked for:\n%s", w.file, n, w.good)
	}
	weak := filepath.Join(dir, "weak.go")
	if err := os.WriteFile(weak, []byte(strings.Replace(string(content), w.good, w.bad, 1)), 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: weak}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, list, 0o600)
}
