package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func writeLine(t *testing.T, f *LineFile, line string) {
	t.Helper()
	if err := f.Append([][]byte{[]byte(line + "\n")}); err != nil {
		t.Fatal(err)
	}
}

func expectFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %q (%v), want %q", filepath.Base(path), got, err, want)
	}
}

func openLineFile(t *testing.T, path string) *LineFile {
	t.Helper()
	f, err := OpenLineFile(Disk{}, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLinesAreAppendedAcrossRestartsAndRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "telemetry.ndjson")
	f := openLineFile(t, path)
	writeLine(t, f, "1")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	f.Close()
	f = openLineFile(t, path)
	writeLine(t, f, "2")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	writeLine(t, f, "3")
	if err := f.Reopen(); err != nil {
		t.Fatal(err)
	}
	writeLine(t, f, "4")
	expectFile(t, path+".1", "1\n2\n3\n")
	expectFile(t, path, "4\n")
}

func TestALineThatACrashTorePollutesNoOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "telemetry.ndjson")
	if err := os.WriteFile(path, []byte("whole\n{\"half"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := openLineFile(t, path)
	writeLine(t, f, "next")
	writeLine(t, f, "last")
	expectFile(t, path, "whole\n{\"half\nnext\nlast\n")
}

func TestAFailedWriteIsReportedAndTheNextLineStandsAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "telemetry.ndjson")
	f := openLineFile(t, path)
	writeLine(t, f, "1")
	limitFileSize(t, 5)
	if err := f.Append([][]byte{[]byte("three bytes fit\n")}); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v", err)
	}
	expectFile(t, path, "1\nthr")
	limitFileSize(t, 1<<20)
	writeLine(t, f, "2")
	expectFile(t, path, "1\nthr\n2\n")
}

func TestADeletedFileIsMadeAnewBeforeALineIsAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "telemetry")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hub.ndjson")
	f := openLineFile(t, path)
	writeLine(t, f, "1")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	writeLine(t, f, "2")
	writeLine(t, f, "3")
	expectFile(t, path, "2\n3\n")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Append([][]byte{[]byte("4\n")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("acknowledged into nothing: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeLine(t, f, "5")
	expectFile(t, path, "5\n")
}

// The kernel itself says that there is no room.
func TestALineOnAFullDeviceIsNotAcknowledged(t *testing.T) {
	f := openLineFile(t, "/dev/full")
	if err := f.Append([][]byte{[]byte("1\n")}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

func TestAFailedReopenKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "telemetry.ndjson")
	f := openLineFile(t, path)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Reopen(); err == nil {
		t.Error("reopened a directory")
	}
	writeLine(t, f, "1")
	expectFile(t, path+".1", "1\n")
	f.Close()
	if err := f.Append([][]byte{[]byte("2\n")}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("writing after Close: %v", err)
	}
	os.Remove(path)
	if err := f.Reopen(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("reopening after Close: %v", err)
	}
}

func TestLinesWrittenTogetherStayWholeThroughRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "telemetry.ndjson")
	f := openLineFile(t, path)
	var done sync.WaitGroup
	for i := range 8 {
		done.Go(func() {
			for range 100 {
				f.Append([][]byte{[]byte(strings.Repeat(string(rune('a'+i)), 500) + "\n")})
			}
		})
	}
	for i := range 5 {
		if err := os.Rename(path, path+"."+string(rune('0'+i))); err != nil {
			t.Error(err)
		}
		if err := f.Reopen(); err != nil {
			t.Error(err)
		}
	}
	done.Wait()
	paths, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, p := range paths {
		content, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			count++
			if len(line) != 501 || strings.Trim(line, line[:1]) != "\n" {
				t.Errorf("%s: %q", p, line)
			}
		}
	}
	if count != 800 {
		t.Errorf("%d lines", count)
	}
}

// limitFileSize bounds files that this process may write, for the test; the signal that comes with it is ignored by the Go
// runtime in writes of a file.
func limitFileSize(t *testing.T, size uint64) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old) })
}
