package pgserver

import (
	"os"
	"path/filepath"
	"testing"
)

// A server that was killed comes back with what it had, and leaves nothing when it is stopped.
func TestAServerComesBackAndGoes(t *testing.T) {
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	steps := []func() error{
		func() error {
			return s.Psql(t.Context(), "postgres", `CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)`)
		},
		s.Kill,
		s.Run,
		func() error { return s.Psql(t.Context(), "postgres", `INSERT INTO kept SELECT 1 / n FROM kept`) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if err := s.Psql(t.Context(), "postgres", `SELECT nonsense`); err == nil {
		t.Error("a failing statement is no error")
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("%s is left", s.dir)
	}
}

// What killed tests have left is removed, what others use stays.
func TestLeftDirectoriesAreSwept(t *testing.T) {
	parent := t.TempDir()
	left, lock, err := claimDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	used, held, err := claimDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	_, own, err := claimDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("%s is left", left)
	}
	if _, err := os.Stat(filepath.Join(used, lockName)); err != nil {
		t.Error(err)
	}
}
