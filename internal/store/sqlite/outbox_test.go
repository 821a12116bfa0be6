package sqlite

import (
	"sync/atomic"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// orderedAt makes a store whose outbox has a clock of its own, with one row in it.
func orderedAt(t *testing.T) (s *Store, move func(time.Duration)) {
	t.Helper()
	var ahead atomic.Int64
	epoch := time.Unix(1_800_000_000, 0)
	s = openNew(t, Options{now: func() time.Time { return epoch.Add(time.Duration(ahead.Load())) }})
	t.Cleanup(func() { s.Close() })
	e, verdict, err := s.PutEnrollment(t.Context(), testScope, registration.Enrollment{ID: "dev"}, nil, registration.Audit{}, "")
	mustApply(t, verdict, err)
	_, verdict, err = s.Redeem(t.Context(), testScope, registration.Redemption{
		ID: "dev", EnrollmentRevision: e.Revision,
		Operation:    registration.Operation{ID: "op", RegistrationID: "dev", Generation: 1, Status: registration.Assigning},
		Registration: registration.Registration{ID: "dev", OperationID: "op"},
		Outbox:       &registration.Outbox{Kind: registration.OutboxAdvance, Object: "op"},
	})
	mustApply(t, verdict, err)
	return s, func(by time.Duration) { ahead.Add(int64(by)) }
}

func claimedRows(t *testing.T, s *Store, claim string) []registration.OutboxRow {
	t.Helper()
	rows, err := s.ClaimOutbox(t.Context(), registration.OutboxClaim{ID: claim, Kind: registration.OutboxAdvance, Lease: time.Minute, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestALeaseIsOverWhenItsTimeIs(t *testing.T) {
	t.Parallel()
	s, move := orderedAt(t)
	if n := len(claimedRows(t, s, "first")); n != 1 {
		t.Fatalf("%d rows claimed", n)
	}
	move(time.Minute - time.Microsecond)
	if n := len(claimedRows(t, s, "early")); n != 0 {
		t.Error("taken over before the lease was over")
	}
	move(time.Microsecond)
	rows := claimedRows(t, s, "second")
	if len(rows) != 1 || rows[0].Attempts != 2 || rows[0].Age != time.Minute {
		t.Errorf("taken over: %+v", rows)
	}
	verdict, err := s.PostponeOutbox(t.Context(), testScope, rows[0].Outbox, "second", 24*time.Hour, "")
	mustApply(t, verdict, err)
	move(registration.OutboxHorizon)
	if n := len(claimedRows(t, s, "third")); n != 1 {
		t.Error("a postponement is longer than the longest")
	}
}

// The clock is set back by a day: what waits does not wait for a day.
func TestAClockThatIsSetBackDelaysNothingForLong(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, s *Store){
		"new":     func(*testing.T, *Store) {},
		"claimed": func(t *testing.T, s *Store) { claimedRows(t, s, "first") },
		"postponed": func(t *testing.T, s *Store) {
			work := claimedRows(t, s, "first")[0].Outbox
			verdict, err := s.PostponeOutbox(t.Context(), testScope, work, "first", 5*time.Minute, "")
			mustApply(t, verdict, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, move := orderedAt(t)
			prepare(t, s)
			move(-24 * time.Hour)
			if backlog, err := s.OutboxBacklog(t.Context()); err != nil || backlog.Waiting != 1 || backlog.Oldest != 0 {
				t.Errorf("backlog %+v, %v", backlog, err)
			}
			rows := claimedRows(t, s, "second")
			if len(rows) != 1 || rows[0].Age != 0 {
				t.Errorf("claimed %+v", rows)
			}
			if n := len(claimedRows(t, s, "third")); n != 0 {
				t.Error("and claimed again at once")
			}
			move(48 * time.Hour)
			if n := len(claimedRows(t, s, "fourth")); n != 1 {
				t.Error("a jump ahead hides it")
			}
		})
	}
}
