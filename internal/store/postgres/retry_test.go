package postgres

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"latchkey.example/latchkey/internal/registration"
)

// terminate ends the server's side of a connection, as an administrator or a failover does.
func terminate(t *testing.T, address string, pg *pgx.Conn) {
	t.Helper()
	other, err := pgx.Connect(context.Background(), address)
	if err != nil {
		t.Error(err)
		return
	}
	defer other.Close(context.Background())
	if _, err := other.Exec(context.Background(), `SELECT pg_terminate_backend($1, 5000)`, int(pg.PgConn().PID())); err != nil {
		t.Error(err)
	}
}

// The connection goes after the transition has written and before COMMIT: nothing can have been kept, so the store tries again by itself.
func TestAConnectionLostBeforeTheCommitIsNotSeen(t *testing.T) {
	t.Parallel()
	address := server.Address(newDatabase(t))
	s := reopen(t, address, Options{})
	defer closeStore(t, s)
	losses := 2
	verdict, err := s.write(t.Context(), func(c *conn) (registration.Verdict, error) {
		if err := appendAudit(c, scope, testAudit("lost")); err != nil {
			return 0, err
		}
		if losses--; losses >= 0 {
			terminate(t, address, c.q.(pgx.Tx).Conn())
		}
		return registration.Applied, appendAudit(c, scope, testAudit("lost, second row"))
	})
	applied(t, verdict, err)
	audited(t, s, "lost", 1)
	audited(t, s, "lost, second row", 1)
	if n := s.Stats().Retries; n != 2 {
		t.Fatalf("%d retries, want 2", n)
	}
}

func TestRetriesEnd(t *testing.T) {
	t.Parallel()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	tries := 0
	_, err := s.write(t.Context(), func(c *conn) (registration.Verdict, error) {
		tries++
		if err := appendAudit(c, scope, testAudit("never")); err != nil {
			return 0, err
		}
		return 0, errAgain
	})
	if !errors.Is(err, errAgain) || errors.Is(err, ErrUnknownOutcome) || tries != attempts {
		t.Fatalf("%d tries, %v", tries, err)
	}
	audited(t, s, "never", 0)
}

// COMMIT without an answer is never sent twice: whether it took effect or not, the caller is told that nobody knows.
func TestACommitWithoutAnAnswerIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		effect bool
		commit func(ctx context.Context, tx pgx.Tx) error
	}{
		"it took effect": {true, func(ctx context.Context, tx pgx.Tx) error {
			return errors.Join(tx.Commit(ctx), tx.Conn().Close(ctx), errors.New("connection reset"))
		}},
		"it took none": {false, func(ctx context.Context, tx pgx.Tx) error {
			return errors.Join(tx.Conn().Close(ctx), tx.Commit(ctx))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := server.Address(newDatabase(t))
			whole := reopen(t, address, Options{})
			defer closeStore(t, whole)
			enroll(t, whole, "dev")
			r := redemption(t, whole, "dev", "op")
			commits := 0
			s := reopen(t, address, Options{hooks: hooks{commit: func(ctx context.Context, tx pgx.Tx) error {
				commits++
				return test.commit(ctx, tx)
			}}})
			defer closeStore(t, s)
			if _, _, err := s.Redeem(t.Context(), scope, r); !errors.Is(err, ErrUnknownOutcome) || commits != 1 {
				t.Fatalf("%d commits, %v", commits, err)
			}
			d, err := whole.Device(t.Context(), scope, "dev")
			if err != nil || (d.Registration != nil) != test.effect {
				t.Fatalf("%+v, %v", d, err)
			}
			// The device's retry finds out, and is not doubled.
			_, verdict, err := whole.Redeem(t.Context(), scope, r)
			if want := map[bool]registration.Verdict{true: registration.Conflict, false: registration.Applied}[test.effect]; verdict != want || err != nil {
				t.Fatalf("retry: verdict %d, %v", verdict, err)
			}
			audited(t, whole, "redeem op", 1)
		})
	}
}

// Only answers that certainly mean a rollback may lead to another try.
func TestACommitThatTheServerRefusesIsARollback(t *testing.T) {
	for code, known := range map[string]bool{"40001": true, "40P01": true, "23505": true, "40003": false, "57P01": false, "08006": false, "53100": false, "XX000": false} {
		if refusedCommit(&pgconn.PgError{Code: code}) != known {
			t.Errorf("code %s: known outcome %v", code, !known)
		}
	}
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, errors.New("anything")} {
		if refusedCommit(err) || passes(err) {
			t.Errorf("%v passes for a refusal or for something that passes", err)
		}
	}
}

// Two transactions each hold what the other wants. The server ends one of them, the store runs it again, and no caller sees an error.
func TestADeadlockIsNotSeen(t *testing.T) {
	t.Parallel()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	var both, first sync.WaitGroup
	first.Add(2)
	for _, order := range [][2]string{{"x", "y"}, {"y", "x"}} {
		both.Go(func() {
			holds := sync.OnceFunc(func() { first.Done(); first.Wait() }) // once: the one that is run again meets nobody
			verdict, err := s.write(t.Context(), func(c *conn) (registration.Verdict, error) {
				if _, err := lockID(c, scope, order[0]); err != nil {
					return 0, err
				}
				holds()
				_, err := lockID(c, scope, order[1])
				return registration.Applied, err
			})
			if verdict != registration.Applied || err != nil {
				t.Errorf("verdict %d, %v", verdict, err)
			}
		})
	}
	both.Wait()
	if s.Stats().Retries == 0 {
		t.Error("there was no deadlock")
	}
}

// Two devices exchange their device ids at the hub at the same moment: whatever the outcome, it is a verdict.
func TestDevicesThatExchangeTheirNamesGetVerdicts(t *testing.T) {
	t.Parallel()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	for _, id := range []string{"a", "b"} {
		enroll(t, s, id)
		redeemed(t, s, id, "op "+id)
	}
	var both sync.WaitGroup
	for id, wants := range map[string]string{"a": "b", "b": "a"} {
		both.Go(func() {
			for range 10 {
				verdict, err := s.Finish(t.Context(), scope, finishOf(id, "op "+id, wants))
				if err != nil || verdict != registration.Taken {
					t.Errorf("%s: verdict %d, %v", id, verdict, err)
				}
			}
		})
	}
	both.Wait()
}
