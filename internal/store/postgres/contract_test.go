package postgres

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"latchkey.example/latchkey/internal/store/storetest"
	"latchkey.example/latchkey/test/pgserver"
)

// server is one for all tests of the package; each test has a database of its own on it.
var server *pgserver.Server

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// A database for each of the random histories takes its time: a sample of them, all hundred with LATCHKEY_LONG=1. The command line comes after.
	if os.Getenv("LATCHKEY_LONG") != "1" {
		_ = flag.Set("rapid.checks", "15")
	}
	var err error
	if server, err = pgserver.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return m.Run()
}

func TestStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return passingOn(t, newDatabase(t)) })
}

// What a service that only speaks PostgreSQL's protocol may lack is in the optional part of the schema: no promise rests on it.
func TestTheContractDoesNotRestOnTheOptionalPart(t *testing.T) {
	if err := admin(t.Context(), `CREATE DATABASE latchkey_plain`); err != nil {
		t.Fatal(err)
	}
	if err := createPlain(t.Context(), server.Address("latchkey_plain")); err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, func(t *testing.T) storetest.Store { return passingOn(t, copyOf(t, "latchkey_plain")) })
}

// createPlain makes the schema without its optional part.
func createPlain(ctx context.Context, address string) error {
	pg, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer pg.Close(ctx)
	if err := makeStanding(ctx, pg); err != nil {
		return err
	}
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := pg.Exec(ctx, string(text), pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err = pg.Exec(ctx, `UPDATE latchkey_schema SET version = $1 WHERE one = 1`, len(names))
	return err
}

func passingOn(t *testing.T, name string) storetest.Store {
	t.Helper()
	return &passing{Store: reopen(t, server.Address(name), Options{Conns: 8}), name: name}
}

// passing is a store whose database goes when it is closed: the hundred of the histories together would fill the memory.
type passing struct {
	*Store
	name string
}

func (p *passing) Close() error {
	return errors.Join(p.Store.Close(), admin(context.Background(), `DROP DATABASE IF EXISTS `+p.name))
}

// made counts databases, for their names.
var made atomic.Int64

// template makes, once, the database that all others are copies of.
var template = sync.OnceValue(func() error {
	ctx := context.Background()
	if err := admin(ctx, `CREATE DATABASE latchkey_template`); err != nil {
		return err
	}
	return Create(ctx, server.Address("latchkey_template"))
})

// admin runs statements in the server's first database.
func admin(ctx context.Context, statements ...string) error {
	pg, err := pgx.Connect(ctx, server.Address("postgres"))
	if err != nil {
		return err
	}
	defer pg.Close(ctx)
	for _, sql := range statements {
		if _, err := pg.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// newDatabase makes a database with the current schema and returns its name.
func newDatabase(t testing.TB) string {
	t.Helper()
	if err := template(); err != nil {
		t.Fatal(err)
	}
	return copyOf(t, "latchkey_template")
}

// copyOf makes a database like another one, to which nobody may be connected, and returns its name.
func copyOf(t testing.TB, original string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", made.Add(1))
	// The files are copied: they lie in memory, where that is half the work of writing the rows to the log.
	if err := admin(t.Context(), `CREATE DATABASE `+name+` TEMPLATE `+original+` STRATEGY FILE_COPY`); err != nil {
		t.Fatal(err)
	}
	return name
}

// openNew makes a database of its own and opens it; the caller closes it.
func openNew(t testing.TB, opts Options) *Store {
	t.Helper()
	return reopen(t, server.Address(newDatabase(t)), opts)
}

func reopen(t testing.TB, address string, opts Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), address, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
