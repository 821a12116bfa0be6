package postgres

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/test/pgserver"
)

// emptyDatabase makes a database without our schema.
func emptyDatabase(t *testing.T, how string) (name, address string) {
	t.Helper()
	name = fmt.Sprintf("test_%d", made.Add(1))
	if err := admin(t.Context(), `CREATE DATABASE `+name+` TEMPLATE template0 `+how); err != nil {
		t.Fatal(err)
	}
	return name, server.Address(name)
}

func refused(t *testing.T, address, because string) {
	t.Helper()
	s, err := Open(t.Context(), address, Options{})
	if err == nil {
		closeStore(t, s)
		t.Fatalf("opened, want %q", because)
	}
	if !strings.Contains(err.Error(), because) {
		t.Fatalf("%v, want %q", err, because)
	}
}

func TestOpenRefusesADatabaseWithoutOurSchema(t *testing.T) {
	t.Parallel()
	name, address := emptyDatabase(t, "")
	refused(t, address, "latchkey init --store")
	if err := Create(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	closeStore(t, reopen(t, address, Options{}))
	if err := Create(t.Context(), address); err == nil || !strings.Contains(err.Error(), "already") {
		t.Fatalf("created again: %v", err)
	}
	if err := server.Psql(t.Context(), name, `UPDATE latchkey_schema SET version = 99, works_from = 98`); err != nil {
		t.Fatal(err)
	}
	refused(t, address, "newer latchkey")
	if _, _, err := Migrate(t.Context(), address); err == nil || !strings.Contains(err.Error(), "newer latchkey") {
		t.Fatalf("migrated backwards: %v", err)
	}
	if err := server.Psql(t.Context(), name, `UPDATE latchkey_schema SET version = 0`); err != nil {
		t.Fatal(err)
	}
	refused(t, address, "latchkey init --store")
}

func TestOpenRefusesAServerThatDoesNotFlush(t *testing.T) {
	t.Parallel()
	name := newDatabase(t)
	if err := admin(t.Context(), `ALTER DATABASE `+name+` SET synchronous_commit = off`); err != nil {
		t.Fatal(err)
	}
	refused(t, server.Address(name), "synchronous_commit = off")
	_, address := emptyDatabase(t, `ENCODING 'LATIN1'`)
	refused(t, address, "ENCODING 'UTF8'")

	careless, err := pgserver.Start("fsync=off")
	if err != nil {
		t.Fatal(err)
	}
	defer careless.Stop()
	refused(t, careless.Address("postgres"), "fsync = on")
	if err := Create(t.Context(), careless.Address("postgres")); err == nil || !strings.Contains(err.Error(), "fsync = on") {
		t.Fatalf("created: %v", err)
	}
}

// A server that is told to stop flushing tells the sessions it has, too: a COMMIT of a connection that is open waits for its flush all the same.
func TestOpenConnectionsGoOnFlushing(t *testing.T) {
	t.Parallel()
	own, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Stop()
	if err := Create(t.Context(), own.Address("postgres")); err != nil {
		t.Fatal(err)
	}
	s := reopen(t, own.Address("postgres"), Options{Conns: 1})
	defer closeStore(t, s)
	for _, sql := range []string{`ALTER SYSTEM SET synchronous_commit = off`, `SELECT pg_reload_conf()`} {
		if err := own.Psql(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	// The session learns of it between two statements; then its own word, which is older, must still hold.
	setting, server := "", ""
	for deadline := time.Now().Add(time.Minute); server != "off"; {
		err := s.read(t.Context(), func(c *conn) error {
			_, err := c.one(func(r *row) { setting, server = r.text(), r.text() }, `SELECT setting, reset_val FROM pg_settings WHERE name = 'synchronous_commit'`)
			return err
		})
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the session has not learned of the setting: %v", err)
		}
	}
	if setting != "on" {
		t.Fatalf("an open connection has synchronous_commit = %s", setting)
	}
	s.pool.Reset()
	if err := s.AppendAudit(t.Context(), scope, testAudit("a")); err == nil || !strings.Contains(err.Error(), "synchronous_commit = off") {
		t.Fatalf("a connection opened since: %v", err)
	}
}

// Settings of a role or a database hold for new connections only: one that is opened later is looked at too.
func TestAServerThatStopsFlushingIsRefusedLater(t *testing.T) {
	t.Parallel()
	name := newDatabase(t)
	s := reopen(t, server.Address(name), Options{Conns: 4})
	defer closeStore(t, s)
	if err := admin(t.Context(), `ALTER DATABASE `+name+` SET synchronous_commit = off`); err != nil {
		t.Fatal(err)
	}
	s.pool.Reset()
	if err := s.AppendAudit(t.Context(), scope, testAudit("a")); err == nil || !strings.Contains(err.Error(), "synchronous_commit = off") {
		t.Fatalf("%v", err)
	}
}

func TestOfManyThatMigrateOneDoesTheWork(t *testing.T) {
	t.Parallel()
	_, address := emptyDatabase(t, "")
	var running sync.WaitGroup
	froms := make([]int, 6)
	for i := range froms {
		running.Go(func() {
			from, to, err := Migrate(t.Context(), address)
			if err != nil || to != latest(t) {
				t.Errorf("to %d, %v", to, err)
			}
			froms[i] = from
		})
	}
	running.Wait()
	workers := 0
	for _, from := range froms {
		if from == 0 {
			workers++
		}
	}
	if workers != 1 {
		t.Fatalf("schemas found: %v", froms)
	}
	closeStore(t, reopen(t, address, Options{}))
}

func TestNoErrorShowsThePassword(t *testing.T) {
	t.Parallel()
	secret := "canary-4711"
	for _, query := range []string{"host=/nowhere", "host=127.0.0.1&port=1", "sslmode=nonsense", "pool_max_conns=x"} {
		u := url.URL{Scheme: "postgres", User: url.UserPassword("latchkey", secret), Path: "/db", RawQuery: query}
		_, err := Open(t.Context(), u.String(), Options{})
		_, _, migrating := Migrate(t.Context(), u.String())
		for _, err := range []error{err, migrating} {
			if err == nil && query != "pool_max_conns=x" {
				t.Errorf("%s: no error", query)
			} else if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error shows the password", query)
			}
		}
	}
}

// latest is the schema that this release makes.
func latest(t *testing.T) int {
	t.Helper()
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	return len(steps)
}
