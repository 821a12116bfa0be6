package pgserver

import (
	"strings"
	"testing"
)

// A standby has what its primary acknowledged when all of the primary's processes die at once, takes writes once it is promoted, and is
// followed by the primary in its turn.
func TestAStandbyHasWhatWasAcknowledgedAndTakesOver(t *testing.T) {
	first, err := Start(Replicated...)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, first)
	second, err := first.Standby("second")
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, second)
	ctx := t.Context()
	for i, step := range []func() error{
		func() error { return first.WaitFor(ctx, "second") },
		func() error {
			return first.Psql(ctx, "postgres", `CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)`)
		},
		first.Crash,
		func() error { return second.Promote(ctx) },
		func() error { return second.WaitFor(ctx, "") },
		func() error { return second.Psql(ctx, "postgres", `INSERT INTO kept SELECT n + 1 FROM kept`) },
		func() error { return first.Follow(second, "first") },
		func() error { return second.WaitFor(ctx, "first") },
		func() error { return second.Psql(ctx, "postgres", `INSERT INTO kept VALUES (3)`) },
		second.Crash,
	} {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if got, err := first.Ask(ctx, "postgres", `SELECT string_agg(n::text, ' ' ORDER BY n) FROM kept`); err != nil || got != "1 2 3" {
		t.Errorf("the standby has %q, %v", got, err)
	}
	if err := first.Psql(ctx, "postgres", `INSERT INTO kept VALUES (4)`); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("a standby took a write: %v", err)
	}
}

// A server whose processes were all killed comes back with what it had.
func TestACrashedServerComesBack(t *testing.T) {
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	for i, step := range []func() error{
		func() error {
			return s.Psql(t.Context(), "postgres", `CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)`)
		},
		s.Crash, s.Run, s.Crash, s.Run,
		func() error { return s.Psql(t.Context(), "postgres", `INSERT INTO kept SELECT 1 / n FROM kept`) },
	} {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}
