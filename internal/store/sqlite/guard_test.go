package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/registration"
)

// filed makes and opens a database on the real file system, with some acknowledged rows in both its files.
func filed(t *testing.T, opts Options) (s *Store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "latchkey.db")
	opts.Readers, opts.Linger = 1, -1
	if err := Create(t.Context(), path, opts); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, path, opts)
	t.Cleanup(func() { s.Close() })
	for i := range 20 {
		verdict, err := s.Refuse(t.Context(), testScope, refused(fmt.Sprint("before", i)))
		mustApply(t, verdict, err)
	}
	return s, path
}

// kept fails the test unless the acknowledged row is there.
func kept(t *testing.T, s *Store, names ...string) {
	t.Helper()
	for _, name := range names {
		if n := auditRows(t, s, name); n != 1 {
			t.Errorf("%s was acknowledged and has %d rows", name, n)
		}
	}
}

// misplacements take a file of the database from its place, each in its way; the function returned puts it back.
var misplacements = map[string]func(t *testing.T, file string) (back func()){
	"moved": func(t *testing.T, file string) func() {
		rename(t, file, file+".away")
		return func() { rename(t, file+".away", file) }
	},
	"replaced by another file": func(t *testing.T, file string) func() {
		rename(t, file, file+".away")
		content, err := os.ReadFile(file + ".away")
		if err == nil {
			err = os.WriteFile(file, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() { rename(t, file+".away", file) }
	},
	"its folder moved": func(t *testing.T, file string) func() {
		dir := filepath.Dir(file)
		rename(t, dir, dir+".away")
		return func() { rename(t, dir+".away", dir) }
	},
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsAcknowledgedIntoAFileThatIsNotInItsPlace(t *testing.T) {
	t.Parallel()
	for name, misplace := range misplacements {
		for _, suffix := range []string{"", "-wal"} {
			t.Run(name+" "+suffix, func(t *testing.T) {
				t.Parallel()
				s, path := filed(t, Options{})
				back := misplace(t, path+suffix)
				refusedFor(t, s, "not in its place", path)
				if err := s.Ready(t.Context()); registration.Trouble(err) == nil {
					t.Errorf("ready: %v", err)
				}
				back()
				if err := s.Ready(t.Context()); err != nil {
					t.Fatalf("with the file back: %v", err)
				}
				verdict, err := s.Refuse(t.Context(), testScope, refused("after"))
				mustApply(t, verdict, err)
				if s.Stats().Failing {
					t.Error("it counts as failing still")
				}
				sound(t, s, path)
			})
		}
	}
}

// refusedFor wants writes and, soon, reads refused with a sentence about the file.
func refusedFor(t *testing.T, s *Store, public, file string) {
	t.Helper()
	_, err := s.Refuse(t.Context(), testScope, refused("meanwhile"))
	told(t, err, public, file)
	err = nil
	for limit := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(limit); { // readers look every 100 ms
		_, err = s.AuditByTrackingID(t.Context(), testScope, "before0")
	}
	told(t, err, public, file)
	if !s.Stats().Failing {
		t.Error("it does not count as failing")
	}
}

func told(t *testing.T, err error, public, advice string) {
	t.Helper()
	trouble := registration.Trouble(err)
	if trouble == nil || !strings.Contains(trouble.Public, public) || !strings.Contains(trouble.Advice, advice) {
		t.Errorf("%v, want it to say %q and speak of %s", err, public, advice)
	}
	if trouble != nil && strings.Contains(trouble.Public, "/") {
		t.Errorf("%q tells strangers of a path", trouble.Public)
	}
}

// sound closes the store and opens it anew: everything acknowledged is there, and SQLite finds the file whole.
func sound(t *testing.T, s *Store, path string) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, path, Options{})
	defer s.Close()
	kept(t, s, "before0", "before19", "after")
	var verdict string
	err := s.read(t.Context(), func(c *conn) error {
		_, err := c.one(func(row *row) { verdict = row.text() }, "PRAGMA integrity_check(1)")
		return err
	})
	if err != nil || verdict != "ok" {
		t.Errorf("integrity: %q, %v", verdict, err)
	}
}

// The control: without the looks at the files a deleted database is written on, and what was acknowledged then is gone.
func TestADeletedLogLosesWhatIsAcknowledgedWithoutTheGuard(t *testing.T) {
	t.Parallel()
	s, path := filed(t, Options{faults: faults{unguarded: true}})
	if err := os.Remove(path + "-wal"); err != nil {
		t.Fatal(err)
	}
	verdict, err := s.Refuse(t.Context(), testScope, refused("lost"))
	mustApply(t, verdict, err)
	killed := t.TempDir() // what a kill would leave
	if err := os.CopyFS(killed, os.DirFS(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	after := reopen(t, filepath.Join(killed, filepath.Base(path)), Options{})
	if n := auditRows(t, after, "lost"); n != 0 {
		t.Errorf("%d rows: the test shows nothing", n)
	}
	if err := after.Close(); err != nil {
		t.Error(err)
	}
}

func TestADeletedFileIsNeverAcknowledgedInto(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", "-wal"} {
		s, path := filed(t, Options{})
		if err := os.Remove(path + suffix); err != nil {
			t.Fatal(err)
		}
		refusedFor(t, s, "not in its place", path+suffix)
	}
}

// Between the look before a transaction and the one after its commit a file can go too: what was written is not acknowledged then.
func TestAFileThatGoesDuringATransactionIsNoticedBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	s, path := filed(t, Options{})
	_, err := s.write(t.Context(), func(c *conn) (registration.Verdict, error) {
		rename(t, path, path+".away")
		return writing("during", registration.Applied, nil)(c)
	})
	told(t, err, "not in its place", path)
	rename(t, path+".away", path)
	verdict, err := s.Refuse(t.Context(), testScope, refused("after"))
	mustApply(t, verdict, err)
	sound(t, s, path)
}

func TestACutFileIsNeverTrustedAgain(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", "-wal"} {
		for _, size := range []int64{0, 100, 8192} {
			s, path := filed(t, Options{})
			whole, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if suffix == "" {
				size = min(size, int64(len(whole)-1))
			}
			if err := os.Truncate(path+suffix, size); err != nil {
				t.Fatal(err)
			}
			refusedFor(t, s, "was cut", path+suffix)
			if err := os.WriteFile(path+suffix, whole, 0o600); err != nil { // into the same file
				t.Fatal(err)
			}
			_, err = s.Refuse(t.Context(), testScope, refused("after"))
			told(t, err, "was cut", path+suffix)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if now, err := os.ReadFile(path + suffix); err != nil || len(now) != len(whole) {
				t.Errorf("%s of %d bytes was changed at the end: %d, %v", path+suffix, len(whole), len(now), err)
			}
		}
	}
}

// SQLite lets any program empty the log once it is copied into the database.
func TestALogThatAnotherProgramHasEmptiedIsNotTakenForCut(t *testing.T) {
	t.Parallel()
	s, path := filed(t, Options{})
	other, err := dialExisting(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if err := openLog(other); err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.db.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() != 0 {
		t.Fatalf("the log was not emptied: %v", err)
	}
	verdict, err := s.Refuse(t.Context(), testScope, refused("after"))
	mustApply(t, verdict, err)
	kept(t, s, "before0", "after")
}

// What is saved under the name of a log that was deleted must outlive the end of the service.
func TestTheEndLeavesAloneWhatBearsTheNameOfItsFiles(t *testing.T) {
	t.Parallel()
	s, path := filed(t, Options{})
	content := map[string][]byte{}
	for _, suffix := range []string{"", "-wal"} {
		content[suffix], _ = os.ReadFile(path + suffix)
		if err := errors.Join(os.Remove(path+suffix), os.WriteFile(path+suffix, content[suffix], 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	refusedFor(t, s, "not in its place", path)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s = reopen(t, path, Options{})
	kept(t, s, "before0", "before19")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkGuard(b *testing.B) {
	path := filepath.Join(b.TempDir(), "latchkey.db")
	if err := Create(b.Context(), path, Options{}); err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), path, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if err := s.writer.guard.check(); err != nil {
			b.Fatal(err)
		}
	}
}
