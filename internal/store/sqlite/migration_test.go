package sqlite

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/store/storetest"
)

// previousSchema is that of the last release, whose code must work with the schema that there is now.
const previousSchema = 1

// released are the migrations of releases, which nobody changes any more.
var released = map[string]string{
	"migrations/0001_base.sql": "6a2b0b9d1c5707b841e4c361167c6bbea2d3036d8a96f0b157b050a21d02f39a",
}

func TestMigrationsOfAReleaseAreNotEdited(t *testing.T) {
	t.Parallel()
	for name, want := range released {
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s was edited; databases made by a release have it as it was: write a new migration", name)
		}
	}
}

func TestMigrationsOnlyAdd(t *testing.T) {
	t.Parallel()
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	var list []storetest.Step
	for _, step := range steps {
		line, _, _ := strings.Cut(step, "\n")
		list = append(list, storetest.Step{Name: line, SQL: step})
	}
	storetest.CheckExpand(t, list, previousSchema)
	if oldest := worksFrom(steps); oldest > previousSchema {
		t.Errorf("the release before works from schema %d on, and this one asks for %d", previousSchema, oldest)
	}
}

func TestTheReleaseBeforeFindsAllThatItsStatementsName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "latchkey.db")
	created(t, path)
	c, err := dial(path, "", sqlite3.OPEN_READWRITE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	text, err := os.ReadFile("testdata/release-0.1.0.sql")
	if err != nil {
		t.Fatal(err)
	}
	// The list has the schema of the old release's memory of owners, which lies in a file of its own, and is made anew where it is missing.
	for sql := range strings.SplitSeq(strings.TrimSpace(string(text)), ";\n") {
		if strings.Contains(sql, " owners ") {
			continue
		}
		st, _, err := c.db.Prepare(sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		st.Close()
	}
}

// A step of a release to come.
const stepToCome = worksFromLine + "1\nCREATE TABLE later (a INTEGER NOT NULL) STRICT"

// What a kill leaves is what lies in the files at that moment.
func TestAMigrationThatEndsBetweenItsStepsLeavesTheOldSchema(t *testing.T) {
	t.Parallel()
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	path, left := filepath.Join(t.TempDir(), "latchkey.db"), t.TempDir()
	created(t, path)
	c, err := dial(path, "", sqlite3.OPEN_READWRITE, "cache_size = 1") // so that pages go to the log early
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("killed")
	err = c.transaction(func() error {
		if err := migrate(c, append(steps[:len(steps):len(steps)], stepToCome), len(steps)); err != nil {
			return err
		}
		return errors.Join(os.CopyFS(left, os.DirFS(filepath.Dir(path))), broken)
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	for _, found := range []string{path, filepath.Join(left, "latchkey.db")} {
		from, to, err := Migrate(t.Context(), found)
		if err != nil || from != len(steps) || to != len(steps) {
			t.Errorf("the schema was %d and is %d, %v", from, to, err)
		}
		statement(t, found, "CREATE TABLE later (b INTEGER)") // it is not there
	}
}

// A release to come says how far back its schema reaches.
func TestTheReleaseBeforeOpensWhatOnlyAdds(t *testing.T) {
	t.Parallel()
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		step string
		ok   bool
	}{
		"it adds":                {stepToCome, true},
		"it says nothing of it":  {strings.TrimPrefix(stepToCome, worksFromLine+"1\n"), false},
		"it takes away":          {worksFromLine + "1000\n", false},
		"what it says is broken": {worksFromLine + "-1\n", false},
	} {
		path := filepath.Join(t.TempDir(), "latchkey.db")
		created(t, path)
		w, err := dial(path, "", sqlite3.OPEN_READWRITE)
		if err != nil {
			t.Fatal(err)
		}
		err = w.transaction(func() error { return migrate(w, append(steps[:len(steps):len(steps)], c.step), len(steps)) })
		if err := errors.Join(err, w.close()); err != nil {
			t.Fatal(err)
		}
		from, to, migrating := Migrate(t.Context(), path)
		s, err := Open(t.Context(), path, Options{})
		if !c.ok {
			if err == nil || migrating == nil || !strings.Contains(err.Error(), "newer latchkey") {
				t.Errorf("%s: opened, %v, %v", name, err, migrating)
			}
			continue
		}
		if err != nil || migrating != nil || from != to || to != len(steps)+1 {
			t.Errorf("%s: %v; migrating from %d to %d, %v", name, err, from, to, migrating)
			continue
		}
		verdict, err := s.Refuse(t.Context(), testScope, refused("dev"))
		mustApply(t, verdict, err)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOfManyThatMigrateOneDoesTheWork(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "latchkey.db")
	pragma(t, path, "application_id = "+strconv.Itoa(applicationID), "user_version = 0")
	var running sync.WaitGroup
	var workers atomic.Int32
	for range 4 {
		running.Go(func() {
			from, to, err := Migrate(t.Context(), path)
			if err != nil || from != 0 && from != to {
				t.Errorf("from %d to %d, %v", from, to, err)
			}
			if from == 0 {
				workers.Add(1)
			}
		})
	}
	running.Wait()
	if workers.Load() != 1 {
		t.Errorf("%d did the work", workers.Load())
	}
	if err := reopen(t, path, Options{}).Close(); err != nil {
		t.Error(err)
	}
}
