//go:build unix

package daemon

import (
	"fmt"
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
	wantDead(t, first, false, "", "first")
	must(t, first.Set("first"))
	wantDead(t, first, false, "first") // this process's
	if _, err := openHubMark(path); err == nil || !strings.Contains(err.Error(), "another latchkey serve") {
		t.Errorf("two have the mark: %v", err)
	}
	must(t, first.Close())
	second := openMark(t, path)
	wantDead(t, second, true, "first")
	must(t, second.Set("second"))
	wantDead(t, second, false, "second")
	must(t, second.Close())
}

// The second process is killed between its mark and its taking the hub, which the first one's id still has then. The third knows that
// both are dead, and waits for neither.
func TestWhoIsKilledRightBeforeItTakesTheHubLeavesTheMarkBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.ndjson")
	for _, id := range []string{"first", "second"} {
		m := openMark(t, path)
		must(t, m.Set(id))
		must(t, m.Close())
	}
	third := openMark(t, path)
	wantDead(t, third, true, "first", "second")
	must(t, third.Close())
	// A line that was cut short takes no other with it, and the file does not grow without end.
	torn, err := os.OpenFile(path+".owner", os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = torn.WriteString("torn")
	must(t, err)
	must(t, torn.Close())
	for i := range 300 {
		m := openMark(t, path)
		must(t, m.Set(fmt.Sprint("id ", i)))
		must(t, m.Close())
		for range 2 { // the first of them is killed before it notes anything
			m = openMark(t, path)
			wantDead(t, m, true, fmt.Sprint("id ", i))
			must(t, m.Close())
		}
	}
	info, err := os.Stat(path + ".owner")
	must(t, err)
	if info.Size() > 2*markSize {
		t.Errorf("it has %d bytes", info.Size())
	}
}

func wantDead(t *testing.T, m *hubMark, dead bool, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if m.Dead(id) != dead {
			t.Errorf("%q is dead: %v", id, !dead)
		}
	}
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
		if len(m.dead) > 0 {
			t.Errorf("%s: the mark says %q", name, m.dead)
		}
		must(t, m.Close())
	}
	must(t, os.WriteFile(path+".owner", []byte(strings.Replace(string(content), " ", " 0", 1)), 0o600)) // the same file, another boot
	must(t, first.Close())
	second := openMark(t, path)
	defer second.Close()
	if len(second.dead) > 0 {
		t.Errorf("after another boot the mark says %q", second.dead)
	}
}
