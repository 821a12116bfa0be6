// Package postgres keeps Latchkey's state in a PostgreSQL database that any number of nodes share (registration.Store and the
// identities of the embedded hub). PostgreSQL 15 is the reference.
//
// It guarantees what registration.Store promises: a transition that returned nil is committed, flushed by the server and whole,
// with its audit row. Each is one transaction at READ COMMITTED that first locks the row of what it is about: an id's row in
// generations, a scope's in group_revisions, scopes or audit_heads. What it then reads is current and stays so until its
// commit, so that every verdict is a compare-and-set; transitions of different ids wait for each other only where two want one
// device id or one certificate. A transaction that fails before its COMMIT was sent, for a reason that passes, is
// run again, a few times; a COMMIT without an answer is an error that says so, never run again.
//
// It trusts the server to keep what it has flushed (Open refuses one that is set not to flush), the operator to keep the
// connection private (sslmode in the address), and the caller to seal secrets: it stores sealed bytes as they are. Open never makes or
// changes a schema: Create and Migrate do. That a COMMIT waits for its flush is pinned for each connection when it is opened; fsync is the
// server's own, no connection can hold on to it, and a server that drops it while it runs is found out by the next connection only.
//
// The memory of open challenges' owners lies in an unlogged table, which a crash of the server empties.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"latchkey.example/latchkey/internal/registration"
)

// Options tune a Store. The zero value is what the service uses.
type Options struct {
	// Conns is the most connections that are open; zero means what the address says (pool_max_conns) or else four for each processor, at
	// least 8.
	Conns int
	// ReadOnly is for who writes nothing: a standby is good enough.
	ReadOnly bool

	// Filling opens a database that a copy fills, to check what it holds, and no other.
	Filling bool

	connectTime time.Duration   // for a connection, its settings too; zero means what the address says (connect_timeout) or 5 s
	pingTime    time.Duration   // for an answer of a connection that was idle; zero means 2 s
	pingAlways  bool            // however short it was idle; else after a second
	tracer      pgx.QueryTracer // sees every statement
	hooks       hooks
}

// hooks let tests break the connection where it matters.
type hooks struct {
	beforeCommit func(ctx context.Context, c *pgx.Conn) // before COMMIT is sent
	commit       func(ctx context.Context, tx pgx.Tx) error
}

// conns is how many connections may be open, with zero replaced.
func (o Options) conns(config *pgxpool.Config, address string) int32 {
	switch {
	case o.Conns > 0:
		return int32(o.Conns)
	case strings.Contains(address, "pool_max_conns"):
		return config.MaxConns
	}
	return int32(max(8, 4*runtime.GOMAXPROCS(0)))
}

// bound makes a connection that leads nowhere, as to a server whose host is gone, one that fails soon: it would else be waited for as long as a request
// may take, and the next request would get the next one of that kind.
func (o Options) bound(config *pgxpool.Config) {
	config.ConnConfig.ConnectTimeout = cmp.Or(o.connectTime, config.ConnConfig.ConnectTimeout, 5*time.Second)
	config.PingTimeout = cmp.Or(o.pingTime, config.PingTimeout, 2*time.Second)
	if o.pingAlways {
		config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	}
}

// Store is an open database. Its methods are safe together.
type Store struct {
	pool    *pgxpool.Pool
	hooks   hooks
	retries atomic.Uint64
}

var _ registration.Store = (*Store)(nil)

// Open opens the database at a postgres:// address, which Create has made. It refuses, in one sentence that says what to do, a
// server that is not reached or is set not to flush, and a missing, older or newer schema. What it says holds no password.
func Open(ctx context.Context, address string, opts Options) (*Store, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("database address: %w", err)
	}
	config.MaxConns = opts.conns(config, address)
	config.ConnConfig.Tracer = opts.tracer
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { leaveCommits(c); return nil }
	opts.bound(config)
	// Settings may differ by role and database and may change while we run: each connection is looked at.
	config.AfterConnect = func(ctx context.Context, pg *pgx.Conn) error {
		if err := opts.checkWrites(ctx, pg); err != nil {
			return err
		}
		return errors.Join(settle(ctx, pg), checkServer(ctx, pg))
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	s := &Store{pool: pool, hooks: opts.hooks}
	if err := s.read(ctx, func(c *conn) error { return checkSchema(c, opts.Filling) }); err != nil {
		pool.Close()
		return nil, of(place(config.ConnConfig), err)
	}
	return s, nil
}

// oldestServer is what the store is tested with.
const oldestServer = 150000

// checkServer refuses a server that would acknowledge what it can lose, or that reads our text otherwise than we wrote it.
func checkServer(ctx context.Context, pg *pgx.Conn) error {
	var version int
	var fsync, commit, encoding string
	err := pg.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('synchronous_commit'),
		current_setting('server_encoding')`).Scan(&version, &fsync, &commit, &encoding)
	switch {
	case err != nil:
		return err
	case version < oldestServer:
		return fmt.Errorf("the server is PostgreSQL %d, 15 or newer is needed", version/10000)
	case fsync == "off":
		return errors.New("the server has fsync = off and would lose what was acknowledged: set fsync = on in postgresql.conf")
	case commit == "off":
		return errors.New("the server has synchronous_commit = off and would lose what was acknowledged: " +
			"set it to on (or local, remote_write, remote_apply) for the server, this database and this role")
	case encoding != "UTF8":
		return fmt.Errorf("the database has the encoding %s, UTF8 is needed: create it with ENCODING 'UTF8'", encoding)
	}
	return nil
}

// checkWrites refuses a server that takes none, such as a standby: what is read there may be old, and what is to be written is written nowhere.
func (o Options) checkWrites(ctx context.Context, pg *pgx.Conn) error {
	var standby, readOnly bool
	err := pg.QueryRow(ctx, `SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool`).Scan(&standby, &readOnly)
	switch {
	case err != nil, o.ReadOnly:
		return err
	case standby:
		return errors.New("the server is a standby, which takes no writes: name its primary in the address, or both with target_session_attrs=read-write")
	case readOnly:
		return errors.New("the server takes no writes: set default_transaction_read_only = off for the server, this database and this role")
	}
	return nil
}

// settle sets what a connection of ours needs. How it commits stays as it is now, which checkServer looks at next: a reload of the server's
// configuration would else change it under us. Plans are made once for a statement and not for each of its calls: for a partitioned table making one
// costs more than running it. So a plan must not rest on a table having been small when it was made: all our statements have an index to go
// by, in whose order they can stop at their limit, and what would read more than that is switched off. And a node that stops in the middle
// of a transaction must not keep others waiting for its locks.
func settle(ctx context.Context, pg *pgx.Conn) error {
	_, err := pg.Exec(ctx, `SELECT set_config('synchronous_commit', current_setting('synchronous_commit'), false),
		set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
		set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false), set_config('enable_bitmapscan', 'off', false),
		set_config('enable_sort', 'off', false), set_config('idle_in_transaction_session_timeout', '30s', false)`)
	return err
}

// Close refuses new calls, waits for those under way and closes the connections. Calls after it fail.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// Stats are counters since Open, but for the numbers of connections.
type Stats struct {
	Open, Busy, Most int    // connections: now, of these in use, and at most
	Waits            uint64 // calls that found no free connection and waited for one

	Retries uint64 // transactions that were run again
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	pool := s.pool.Stat()
	return Stats{
		Open: int(pool.TotalConns()), Busy: int(pool.AcquiredConns()), Most: int(pool.MaxConns()),
		Waits: uint64(pool.EmptyAcquireCount()), Retries: s.retries.Load(),
	}
}
