package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"latchkey.example/latchkey/internal/registration"
)

// ErrUnknownOutcome says that COMMIT was sent and not answered: the transition may or may not be applied.
var ErrUnknownOutcome = errors.New("the database did not answer a commit, the outcome is unknown")

// errAgain says that a transition met rows that moved while it looked at them; running it again judges them anew.
var errAgain = errors.New("rows moved while they were judged")

// Attempts at one transaction, and the pause after the first that failed; it doubles.
const (
	attempts   = 6
	firstPause = 5 * time.Millisecond
)

// transition changes the database inside a transaction. What it wrote is kept only if it returns Applied and nil. It may be run more
// than once, each time on a clean slate.
type transition func(c *conn) (registration.Verdict, error)

// write runs a transition. An error that wraps ErrUnknownOutcome is the only one after which something may have been written.
func (s *Store) write(ctx context.Context, run transition) (verdict registration.Verdict, err error) {
	err = s.repeat(ctx, func() error {
		verdict, err = s.attempt(ctx, run)
		return err
	})
	if err != nil {
		return 0, err
	}
	return verdict, nil
}

// repeat runs an attempt again while it fails for a reason that passes and certainly changed nothing.
func (s *Store) repeat(ctx context.Context, attempt func() error) error {
	pause := firstPause
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := attempt()
		if err == nil || n == attempts || errors.Is(err, ErrUnknownOutcome) || !passes(err) {
			return err
		}
		s.retries.Add(1)
		if lost(err) {
			s.pool.Reset() // what is left in the pool was lost with it
		}
		// Half of the pause is drawn, so that two that have met do not meet again.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause *= 2
	}
}

func (s *Store) attempt(ctx context.Context, run transition) (registration.Verdict, error) {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return 0, err
	}
	verdict, err := run(&conn{ctx: ctx, q: tx})
	if err != nil || verdict != registration.Applied {
		rollback(ctx, tx)
		return verdict, err
	}
	if s.hooks.beforeCommit != nil {
		s.hooks.beforeCommit(ctx, tx.Conn())
	}
	return registration.Applied, s.commit(ctx, tx)
}

// rollback ends a transaction that must leave nothing, even when its caller has given up. If it fails the connection is closed, which has the
// same effect.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = tx.Rollback(ctx)
}

// commit sends COMMIT. Only an answer of the server that says so means that nothing was written.
func (s *Store) commit(ctx context.Context, tx pgx.Tx) error {
	send := func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) }
	if s.hooks.commit != nil {
		send = s.hooks.commit
	}
	if err := ctx.Err(); err != nil {
		rollback(ctx, tx)
		return err
	}
	answered := sending(tx.Conn())
	err := send(ctx, tx)
	if err == nil || refusedCommit(err) {
		answered()
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// refusedCommit reports whether the server has answered a COMMIT with a rollback: serialization failure or deadlock, a constraint, or
// a transaction that had failed before.
func refusedCommit(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		class := refused.Code[:min(2, len(refused.Code))]
		return class == "40" && refused.Code != "40003" || class == "23" || class == "25"
	}
	return errors.Is(err, pgx.ErrTxCommitRollback)
}

// passes reports whether an attempt that wrote nothing may succeed when it is made again: it met another transaction, or its connection was
// lost.
func passes(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && strings.HasPrefix(refused.Code, "40") {
		return true
	}
	return errors.Is(err, errAgain) || lost(err)
}

// lost reports whether a connection has ended, was refused, or leads to a server that does not write any more, as in a restart or a failover.
func lost(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch refused.Code {
		case "57P01", "57P02", "57P03", // an administrator or a crash ends connections, the server is starting
			"53300", // too many connections
			"25006": // the server has become a standby
			return true
		}
		return strings.HasPrefix(refused.Code, "08")
	}
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &network) || errors.As(err, &connect) || pgconn.SafeToRetry(err)
}

// read runs fn on a connection. A single statement sees one snapshot. It changes nothing, so that it may always be repeated.
func (s *Store) read(ctx context.Context, fn func(c *conn) error) error {
	err := s.repeat(ctx, func() error {
		pg, err := s.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer pg.Release()
		return fn(&conn{ctx: ctx, q: pg.Conn()})
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // rather than the driver's word for it
	}
	return err
}

// snapshot is read for several statements that must see the same state.
func (s *Store) snapshot(ctx context.Context, fn func(c *conn) error) error {
	err := s.repeat(ctx, func() error {
		tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
		if err != nil {
			return err
		}
		defer rollback(ctx, tx)
		return fn(&conn{ctx: ctx, q: tx})
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
