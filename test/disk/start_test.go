//go:build unix

package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

// installed makes an installation that no service runs on.
func installed(t *testing.T) (programs rig.Programs, dir string) {
	t.Helper()
	programs, err := rig.Build()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "data")
	if _, err := rig.Run(t.Context(), rig.Command{Path: programs.Service, Args: []string{"init", "--data", dir, "--host", "dps.example.net"}}); err != nil {
		t.Fatal(err)
	}
	return programs, dir
}

// withoutRoom runs the service's program with a limit on the size of the files it may write.
func withoutRoom(blocks string, path string, args ...string) rig.Command {
	return rig.Command{Path: "/bin/sh", Args: append([]string{"-c", "ulimit -f " + blocks + " && exec \"$0\" \"$@\"", path}, args...)}
}

func TestStartingOnAnUnusableDiskSaysWhatToDoAndChangesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(database string) error
		room  string
		want  []string
	}{
		{"no room", func(string) error { return nil }, "0", []string{"the disk of ", " is full: make room on the file system of "}},
		{"cut in its header", func(p string) error { return os.Truncate(p, 60) }, "unlimited", []string{"is damaged or cut", "restore a backup with `latchkey restore`"}},
		{"cut", func(p string) error { return os.Truncate(p, 8192) }, "unlimited", []string{"is damaged or cut", "restore a backup with `latchkey restore`"}},
		{"empty", func(p string) error { return os.Truncate(p, 0) }, "unlimited", []string{"is not a Latchkey database"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			programs, dir := installed(t)
			database := filepath.Join(dir, "latchkey.db")
			if err := c.spoil(database); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(database)
			if err != nil {
				t.Fatal(err)
			}
			said, err := rig.Run(t.Context(), withoutRoom(c.room, programs.Service, "serve", "--data", dir, "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--metrics", ""))
			if err == nil || said.ExitCode != 1 {
				t.Errorf("exit code %d", said.ExitCode)
			}
			for _, want := range append(c.want, database) {
				if !strings.Contains(said.Stderr, want) {
					t.Errorf("it says %q, not %q", said.Stderr, want)
				}
			}
			if after, err := os.ReadFile(database); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the database was changed: %v", err)
			}
		})
	}
}

func TestABackupWithoutRoomLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	programs, dir := installed(t)
	target := filepath.Join(t.TempDir(), "backup.tar")
	said, err := rig.Run(t.Context(), withoutRoom("100", programs.Service, "backup", "--data", dir, "--output", target))
	if err == nil || said.ExitCode != 1 || !strings.Contains(said.Stderr, "there is no room beside the database for a copy of it") {
		t.Errorf("exit code %d: %s", said.ExitCode, said.Stderr)
	}
	for _, folder := range []string{dir, filepath.Dir(target)} {
		left, err := filepath.Glob(filepath.Join(folder, ".*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
	}
	if _, err := os.Stat(target); !os.IsNotExist(err) {
		t.Errorf("%s: %v", target, err)
	}
	if err := syscall.Mkfifo(target, 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := rig.Run(t.Context(), rig.Command{Path: programs.Service, Args: []string{"backup", "--data", dir, "--output", target}}); err == nil ||
		!strings.Contains(said.Stderr, target+" is not a file") {
		t.Errorf("a pipe as target: %s", said.Stderr)
	}
}
