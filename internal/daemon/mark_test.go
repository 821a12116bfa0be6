package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openMark(t *testing.T, telemetry string) *hubMark {
	t.Helper()
	m, err := openHubMark(telemetry)
	must(t, err)
	return m
}

func TestTheSuccessorOfADeadProcessKnowsItsMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.ndjson")
	first := openMark(t, path)
	if first.Before() != "" {
		t.Errorf("a new mark says %q", first.Before())
	}
	must(t, first.Set("a longer id than the next"))
	must(t, first.Set("first"))
	if _, err := openHubMark(path); err == nil || !strings.Contains(err.Error(), "another latchkey serve") {
		t.Errorf("two have the mark: %v", err)
	}
	must(t, first.Close())
	second := openMark(t, path)
	if second.Before() != "first" {
		t.Errorf("the mark says %q", second.Before())
	}
	must(t, second.Set("second"))
	if second.Before() != "first" {
		t.Errorf("the mark says %q, which is this process's", second.Before())
	}
	must(t, second.Close())
}

// Whoever copies a data directory to another node copies the mark: it must not say there that the first node is dead.
func TestAMarkThatWasCopiedSaysNothing(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "hub.ndjson"), filepath.Join(dir, "copy.ndjson")
	first := openMark(t, path)
	defer first.Close()
	must(t, first.Set("first"))
	content, err := os.ReadFile(path + ".owner")
	must(t, err)
	for name, text := range map[string]string{
		"copy": string(content), "another boot": strings.Replace(string(content), " ", " 0", 1), "cut short": string(content[:len(content)-3]),
		"long": strings.Repeat("x", 1<<20) + string(content),
	} {
		must(t, os.WriteFile(copied+".owner", []byte(text), 0o600))
		m := openMark(t, copied)
		if m.Before() != "" {
			t.Errorf("%s: the mark says %q", name, m.Before())
		}
		must(t, m.Close())
	}
	must(t, os.WriteFile(path+".owner", []byte(strings.Replace(string(content), " ", " 0", 1)), 0o600)) // the same file, another boot
	must(t, first.Close())
	second := openMark(t, path)
	defer second.Close()
	if second.Before() != "" {
		t.Errorf("after another boot the mark says %q", second.Before())
	}
}
