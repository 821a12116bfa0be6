package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

func TestOpenRefusesWhatItDidNotMake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    string
	}{
		{"missing", func(*testing.T, string) {}, "run `latchkey init`"},
		{"empty file", func(t *testing.T, path string) { write(t, path, "") }, "is not a Latchkey database"},
		{"another file", func(t *testing.T, path string) { write(t, path, strings.Repeat("no database ", 100)) }, "is not a Latchkey database"},
		{"another program's database", func(t *testing.T, path string) { pragma(t, path, "application_id = 1", "user_version = 1") }, "is not a Latchkey database"},
		{"older schema", func(t *testing.T, path string) { created(t, path); pragma(t, path, "user_version = 0") }, "run `latchkey store migrate`"},
		{"newer schema", func(t *testing.T, path string) { newer(t, path, 1000) }, "was written by a newer latchkey"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "latchkey.db")
			c.prepare(t, path)
			before := contents(t, path)
			s, err := Open(t.Context(), path, Options{})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("refused with %q, want one sentence with %q", err, c.want)
			}
			if after := contents(t, path); after != before {
				t.Errorf("the refusal left %q, before it was %q", after, before)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func created(t *testing.T, path string) {
	t.Helper()
	if err := Create(t.Context(), path, Options{}); err != nil {
		t.Fatal(err)
	}
}

func pragma(t *testing.T, path string, pragmas ...string) {
	t.Helper()
	c, err := dial(path, "", sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE, pragmas...)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

// newer makes a database of a release to come, which says that releases from a schema on work with it.
func newer(t *testing.T, path string, worksFrom int) {
	t.Helper()
	created(t, path)
	pragma(t, path, "user_version = 1000")
	statement(t, path, "UPDATE latchkey_schema SET works_from = "+strconv.Itoa(worksFrom))
}

func statement(t *testing.T, path, sql string) {
	t.Helper()
	c, err := dial(path, "", sqlite3.OPEN_READWRITE)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.db.Exec(sql), c.close()); err != nil {
		t.Fatal(err)
	}
}

// contents are the files beside path and their bytes.
func contents(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(path), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(e.Name() + "\x00" + string(data) + "\x00")
	}
	return all.String()
}

func TestCreateRefusesWhatExists(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, path string){
		"a latchkey database": created,
		"another file":        func(t *testing.T, path string) { write(t, path, strings.Repeat("no database ", 100)) },
		"another program's database": func(t *testing.T, path string) {
			c, err := dial(path, "", sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			if err := c.db.Exec("CREATE TABLE notes (text)"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "latchkey.db")
			prepare(t, path)
			before := contents(t, path)
			if err := Create(t.Context(), path, Options{}); err == nil || !strings.Contains(err.Error(), "exists") {
				t.Errorf("%v, want exists", err)
			}
			if contents(t, path) != before {
				t.Error("the refused create changed something")
			}
		})
	}
}

func TestCreateMakesPrivateFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a dir ?#%&=+", "latchkey.db")
	if err := os.Mkdir(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	created(t, path)
	s := reopen(t, path, Options{})
	defer s.Close()
	verdict, err := s.Refuse(t.Context(), testScope, refused("dev"))
	mustApply(t, verdict, err)
	for _, suffix := range []string{"", "-wal", ".volatile", ".volatile-wal"} {
		if mode := fileMode(t, path+suffix); mode != 0o600 {
			t.Errorf("%q has mode %o", suffix, mode)
		}
	}
}

func TestOneOfTwoCreatesWins(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "latchkey.db")
	var wins atomic.Int32
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if Create(t.Context(), path, Options{}) == nil {
				wins.Add(1)
			}
		})
	}
	both.Wait()
	if wins.Load() != 1 {
		t.Fatalf("%d creates succeeded", wins.Load())
	}
	if err := reopen(t, path, Options{}).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMigrateBringsAnOlderSchemaForward(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "latchkey.db")
	pragma(t, path, "application_id = "+strconv.Itoa(applicationID), "user_version = 0") // before the first migration
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	for _, wantFrom := range []int{0, len(steps)} { // the second time there is nothing to do
		from, to, err := Migrate(t.Context(), path)
		if err != nil || from != wantFrom || to != len(steps) {
			t.Fatalf("from %d to %d, %v; want from %d to %d", from, to, err, wantFrom, len(steps))
		}
	}
	s := reopen(t, path, Options{})
	defer s.Close()
	verdict, err := s.Refuse(t.Context(), testScope, refused("dev"))
	mustApply(t, verdict, err)
}

func TestMigrateRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	later, foreign := filepath.Join(dir, "newer.db"), filepath.Join(dir, "foreign.db")
	newer(t, later, 999)
	pragma(t, foreign, "application_id = 1")
	for path, want := range map[string]string{
		later: "newer latchkey", foreign: "is not a Latchkey database", filepath.Join(dir, "missing.db"): "run `latchkey init`",
	} {
		if _, _, err := Migrate(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "missing.db")); !os.IsNotExist(err) {
		t.Errorf("migrate made a database: %v", err)
	}
}
