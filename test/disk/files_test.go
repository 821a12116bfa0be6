//go:build unix

package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestWithADatabaseMovedAwayEverybodyIsRefusedUntilItIsBack(t *testing.T) {
	t.Parallel()
	h := busy(t)
	for _, name := range []string{"latchkey.db", "latchkey.db-wal"} {
		rename(t, h.path(name), h.path("aside"))
		h.unserved()
		h.troubled("A file of the database is not in its place.", h.path(name)+" was deleted, moved or replaced")
		rename(t, h.path("aside"), h.path(name))
		h.healed()
		if _, err := h.Latchkey(t.Context(), "enroll", "remove", "afterwards", "--yes"); err != nil {
			t.Error(err)
		}
	}
	h.quiet()
	h.holds()
}

// A deleted database is all there as long as the service runs. Saved as the log says, it serves again after a restart, with all that was acknowledged.
func TestADeletedDatabaseIsSavedFromTheRunningService(t *testing.T) {
	t.Parallel()
	h := busy(t)
	for _, name := range []string{"latchkey.db", "latchkey.db-wal"} {
		if err := os.Remove(h.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	h.unserved()
	h.troubled("A file of the database is not in its place.", "/proc/PID/fd")
	for _, name := range []string{"latchkey.db", "latchkey.db-wal"} {
		if err := h.save(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	if err := h.Run(); err != nil {
		t.Fatal(err)
	}
	h.door.Move(h.HTTPS)
	h.healed()
	h.holds()
}

// save copies a deleted file of the service's back to its name.
func (h *house) save(name string) error {
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", h.PID()))
	if err != nil {
		return err
	}
	for _, fd := range open {
		if target, err := os.Readlink(fd); err != nil || target != h.path(name)+" (deleted)" {
			continue
		}
		content, err := os.ReadFile(fd)
		return errors.Join(err, os.WriteFile(h.path(name), content, 0o600))
	}
	return fmt.Errorf("no open file %s", name)
}

// A log that was cut has lost what was acknowledged. That cannot be mended, only noticed: nothing false is said, and nothing is made worse.
func TestACutLogStopsAllAnswersThatNeedTheDatabase(t *testing.T) {
	t.Parallel()
	h := busy(t)
	before, err := os.ReadFile(h.path("latchkey.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(h.path("latchkey.db-wal"), 0); err != nil {
		t.Fatal(err)
	}
	h.unserved()
	h.troubled("A file of the database was cut while the service ran.", "stop the service, keep "+h.path("latchkey.db-wal")+" aside, and restore a backup")
	if result, err := h.Latchkey(t.Context(), "enroll", "list"); err == nil || !strings.Contains(result.Stderr, "was cut") {
		t.Errorf("a list from a torn database: %s%s", result.Stdout, result.Stderr)
	}
	told := h.load.Told()
	h.unserved()
	if now := h.load.Told(); now != told {
		t.Errorf("%d more registrations were acknowledged", now-told)
	}
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(h.path("latchkey.db")); err != nil || len(after) < len(before) {
		t.Errorf("the database was changed at the end: %d bytes, %v", len(after), err)
	}
}
