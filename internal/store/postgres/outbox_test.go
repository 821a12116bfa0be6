package postgres

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"latchkey.example/latchkey/internal/registration"
)

func claimedRows(t *testing.T, s *Store, claim string, limit int) []registration.OutboxRow {
	t.Helper()
	rows, err := s.ClaimOutbox(t.Context(), registration.OutboxClaim{ID: claim, Kind: registration.OutboxAdvance, Lease: time.Minute, Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// The server's clock is set back by a day, which is as if all times in the table were a day ahead: what waits does not wait for a day.
func TestAServersClockThatIsSetBackDelaysNothingForLong(t *testing.T) {
	t.Parallel()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	ordered(t, s, "dev", "op")
	claimedRows(t, s, "first", 10)
	if n := len(claimedRows(t, s, "second", 10)); n != 0 {
		t.Fatal("claimed twice")
	}
	day := (24 * time.Hour).Microseconds()
	if err := s.read(t.Context(), func(c *conn) error {
		_, err := c.exec(`UPDATE outbox SET created = created + $1, due = due + $1`, day)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if backlog, err := s.OutboxBacklog(t.Context()); err != nil || backlog.Waiting != 1 || backlog.Oldest != 0 {
		t.Errorf("backlog %+v, %v", backlog, err)
	}
	rows := claimedRows(t, s, "third", 10)
	if len(rows) != 1 || rows[0].Attempts != 2 || rows[0].Age != 0 {
		t.Errorf("claimed %+v", rows)
	}
	if n := len(claimedRows(t, s, "fourth", 10)); n != 0 {
		t.Error("and claimed again at once")
	}
}

// A claim that hangs in the middle of its transaction holds up no other: each takes what is left.
func TestAClaimThatHangsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	for _, id := range []string{"a", "b", "c"} {
		ordered(t, s, id, "op-"+id)
	}
	err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT 1 FROM outbox WHERE object = 'op-a' FOR UPDATE`); err != nil {
			return err
		}
		if rows := claimedRows(t, s, "other", 10); len(rows) != 2 {
			t.Errorf("claimed %+v", rows)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if rows := claimedRows(t, s, "third", 10); len(rows) != 1 || rows[0].Object != "op-a" {
		t.Errorf("claimed %+v", rows)
	}
}

// A commit without an answer may have claimed the rows, or removed them: the caller hears that it is unknown, and nothing is done twice because of it.
func TestAClaimWithoutAnAnswerIsAnError(t *testing.T) {
	t.Parallel()
	address := server.Address(newDatabase(t))
	plain := reopen(t, address, Options{})
	defer closeStore(t, plain)
	ordered(t, plain, "dev", "op")
	lossy := reopen(t, address, Options{hooks: hooks{commit: func(ctx context.Context, tx pgx.Tx) error { return errors.Join(tx.Commit(ctx), io.ErrUnexpectedEOF) }}})
	defer closeStore(t, lossy)
	if _, err := lossy.ClaimOutbox(t.Context(), registration.OutboxClaim{ID: "lost", Kind: registration.OutboxAdvance, Lease: time.Minute, Limit: 10}); !errors.Is(err, ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if rows := claimedRows(t, plain, "other", 10); len(rows) != 0 {
		t.Errorf("claimed %+v, which the lost claim has", rows)
	}
	verdict, err := plain.SettleOutbox(t.Context(), scope, registration.Outbox{Kind: registration.OutboxAdvance, Object: "op"}, "lost")
	applied(t, verdict, err)
}
