package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// Replicated are the settings of a server that can be copied and followed. Both sides of a pair need them, since each may become the other.
var Replicated = []string{"wal_level=replica", "max_wal_senders=8", "max_replication_slots=8", "hot_standby=on", "wal_keep_size=1GB", "wal_receiver_timeout=5s",
	"wal_retrieve_retry_interval=100ms"}

// Standby makes a copy of a running server that has the settings of Replicated, and starts it: it follows the server's log, under the name given,
// and answers queries that change nothing.
func (s *Server) Standby(name string) (*Server, error) {
	copied, err := claim(s.settings)
	if err != nil {
		return nil, err
	}
	if err := copied.Follow(s, name); err != nil {
		return nil, errors.Join(err, copied.Stop())
	}
	return copied, nil
}

// Follow makes a server that is stopped a standby of another: its cluster is replaced by a copy. Its address stays.
func (s *Server) Follow(primary *Server, name string) error {
	s.mu.Lock()
	running := s.process != nil
	s.mu.Unlock()
	if running {
		return errors.New("pgserver: a running server cannot follow another: stop it first")
	}
	if err := os.RemoveAll(s.data()); err != nil {
		return err
	}
	connection := fmt.Sprintf("host=%s user=latchkey application_name=%s", primary.dir, name)
	out, err := s.command("pg_basebackup", "-D", s.data(), "-d", connection, "-R", "--checkpoint=fast", "--wal-method=stream", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	return s.Run()
}

// Promote makes a standby a server of its own, and returns when it takes writes. Not by SQL: a query that waits for the end of recovery may be what
// recovery waits for, for half a minute.
func (s *Server) Promote(ctx context.Context) error {
	if out, err := s.command("pg_ctl", "promote", "-D", s.data(), "-w", "-t", "60").CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl promote: %w\n%s", err, out)
	}
	return s.await(ctx, `SELECT pg_is_in_recovery()`, "f")
}

// Unfollow has a standby hear nothing more of its primary, as if the network between them were cut, and returns when that is so.
func (s *Server) Unfollow(ctx context.Context) (err error) {
	if s.followed, err = s.Ask(ctx, "postgres", `SHOW primary_conninfo`); err != nil {
		return err
	}
	if err := s.follow(ctx, ""); err != nil {
		return err
	}
	return s.await(ctx, `SELECT count(*) FROM pg_stat_wal_receiver`, "0")
}

// Refollow ends what Unfollow began: the standby catches up.
func (s *Server) Refollow(ctx context.Context) error { return s.follow(ctx, s.followed) }

func (s *Server) follow(ctx context.Context, connection string) error {
	for _, sql := range []string{`ALTER SYSTEM SET primary_conninfo = '` + strings.ReplaceAll(connection, "'", "''") + `'`, `SELECT pg_reload_conf()`} {
		if err := s.Psql(ctx, "postgres", sql); err != nil {
			return err
		}
	}
	return nil
}

// WaitFor makes each commit of the server wait until the standby of that name has flushed it, from now on and for all connections; "" ends
// that. It returns when the standby is up with the log.
func (s *Server) WaitFor(ctx context.Context, standby string) error {
	names := ""
	if standby != "" {
		names = `"` + standby + `"`
	}
	if err := s.Psql(ctx, "postgres", `ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`); err != nil {
		return err
	}
	if err := s.Psql(ctx, "postgres", `SELECT pg_reload_conf()`); err != nil || standby == "" {
		return err
	}
	return s.await(ctx, `SELECT count(*) FROM pg_stat_replication WHERE application_name = '`+standby+`' AND sync_state = 'sync'`, "1")
}

// await asks until the answer is the wanted one.
func (s *Server) await(ctx context.Context, sql, want string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		got, err := s.Ask(ctx, "postgres", sql)
		if err != nil || got == want {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("pgserver: %s is %s, not %s: %w", sql, got, want, ctx.Err())
		}
	}
}

// Either is the address of a database for clients that go to whichever of the servers takes writes.
func Either(database string, servers ...*Server) string {
	var dirs []string
	for _, s := range servers {
		dirs = append(dirs, s.dir)
	}
	query := url.Values{"host": {strings.Join(dirs, ",")}, "target_session_attrs": {"read-write"}}
	return (&url.URL{Scheme: "postgres", User: url.User("latchkey"), Path: "/" + database, RawQuery: query.Encode()}).String()
}
