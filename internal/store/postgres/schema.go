package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Of the migrations, those in optional hold what PostgreSQL adds to the step of the same name, in the same transaction.
//
//go:embed migrations/*.sql optional/*.sql
var migrationFiles embed.FS

// migrations returns the statements that lead from schema n to n+1 at index n. File names start with the number
// of the schema they lead to; a released file is never changed.
func migrations() ([]string, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	steps := make([]string, 0, len(names))
	for i, name := range names {
		if want := fmt.Sprintf("migrations/%04d_", i+1); !strings.HasPrefix(name, want) {
			return nil, fmt.Errorf("migration %s stands where %s is expected", name, want)
		}
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		more, err := migrationFiles.ReadFile("optional" + strings.TrimPrefix(name, "migrations"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		steps = append(steps, string(text)+string(more))
	}
	return steps, nil
}

// advisoryKey is the advisory lock of those who migrate: "LKEY".
const advisoryKey = 0x4c4b4559

// errNoSchema refuses a database in which Create has not been.
var errNoSchema = errors.New("it holds no Latchkey schema: run `latchkey init --store`, or `latchkey store copy` to move an installation there")

// errFilling refuses a database that is not whole.
var errFilling = errors.New("`latchkey store copy` was filling it and has not finished: run it again, it goes on where it was")

// Create makes the current schema in an empty database. It refuses one that has a schema already.
func Create(ctx context.Context, address string) error {
	m, err := newMigrator()
	if err != nil {
		return err
	}
	return m.run(ctx, address, func(tx pgx.Tx, have standing) error {
		if have.version > 0 {
			return errors.New("it holds a Latchkey schema already")
		}
		return m.migrate(ctx, tx, 0)
	})
}

// Migrate brings the database to the current schema, all steps in one transaction, and returns the schema before (0: none) and after. A newer schema
// that this release works with stays as it is. Of several that run at once one does the work. Nodes may serve meanwhile: who waits for a lock on a
// table makes all others wait, so it gives up soon, lets them go by, and tries again.
func Migrate(ctx context.Context, address string) (from, to int, err error) {
	m, err := newMigrator()
	if err != nil {
		return 0, 0, err
	}
	return m.bring(ctx, address)
}

// migrator makes and changes schemas. Tests put other things in place of what newMigrator gives it.
type migrator struct {
	steps    []string
	advisory func(ctx context.Context, pg *pgx.Conn) error // waits for others who migrate
	pause    time.Duration                                 // how long those go first who waited behind a migration for a table
}

func newMigrator() (*migrator, error) {
	steps, err := migrations()
	return &migrator{steps: steps, advisory: advisoryLock, pause: time.Second}, err
}

func (m *migrator) bring(ctx context.Context, address string) (from, to int, err error) {
	err = m.run(ctx, address, func(tx pgx.Tx, have standing) error {
		if from, to = have.version, max(have.version, len(m.steps)); from > len(m.steps) {
			return have.checkNewer(len(m.steps))
		}
		return m.migrate(ctx, tx, from)
	})
	return from, to, err
}

// run runs fn with the schema that is there, alone: the row of latchkey_schema is the lock. The advisory lock comes first where there
// are such locks; either alone is enough.
func (m *migrator) run(ctx context.Context, address string, fn func(tx pgx.Tx, have standing) error) (err error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return fmt.Errorf("database address: %w", err)
	}
	defer func() {
		if err != nil {
			err = of(place(config), err)
		}
	}()
	pg, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(context.WithoutCancel(ctx))) }()
	if err := checkServer(ctx, pg); err != nil {
		return err
	}
	if err := m.advisory(ctx, pg); err != nil {
		return err
	}
	if err := makeStanding(ctx, pg); err != nil {
		return err
	}
	return m.patiently(ctx, func() error {
		return pgx.BeginFunc(ctx, pg, func(tx pgx.Tx) error {
			have, err := lockStanding(ctx, tx)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, lockTimeout); err != nil {
				return err
			}
			return fn(tx, have)
		})
	})
}

// advisoryLock waits for its turn, where the server has such locks.
func advisoryLock(ctx context.Context, pg *pgx.Conn) error {
	_, err := pg.Exec(ctx, `SELECT pg_advisory_lock($1)`, advisoryKey)
	if err != nil && !lacks(err) {
		return err
	}
	return nil
}

// A migration waits this long for a table, so many times. It is set once the row that is the lock is held: for that one it waits as long as
// another migration takes.
const (
	lockTimeout  = `SET LOCAL lock_timeout = '1s'`
	lockAttempts = 30
)

// patiently runs a migration again that could not get at a table. Nothing of it was written.
func (m *migrator) patiently(ctx context.Context, migrate func() error) error {
	for n := 1; ; n++ {
		err := migrate()
		if sqlState(err) != "55P03" {
			return err
		}
		if n == lockAttempts {
			return fmt.Errorf("a table is in use by a long transaction (see pg_stat_activity), so nothing was changed: end that and try again: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(m.pause):
		}
	}
}

// lacks reports whether a server has no such function.
func lacks(err error) bool { return sqlState(err) == "42883" || sqlState(err) == "0A000" }

// migrate runs the steps behind from and records the schema. A step is many statements, which only the simple protocol takes at once.
func (m *migrator) migrate(ctx context.Context, tx pgx.Tx, from int) error {
	for i, step := range m.steps[from:] {
		if _, err := tx.Exec(ctx, step, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("migration %d: %w", from+i+1, err)
		}
	}
	return writeStanding(ctx, tx, len(m.steps), worksFrom(m.steps))
}

// checkSchema refuses every schema but the current one and a newer one that this release works with, and a database that a copy has not filled.
func checkSchema(c *conn, filling bool) error {
	steps, err := migrations()
	if err != nil {
		return err
	}
	have, err := readStanding(c)
	switch {
	case err != nil:
		return err
	case have.version == 0:
		return errNoSchema
	case have.version < len(steps):
		return fmt.Errorf("it has the older schema %d, this latchkey needs %d: run `latchkey store migrate`", have.version, len(steps))
	case have.filling != filling:
		return errFilling
	case have.version > len(steps):
		return have.checkNewer(len(steps))
	}
	return nil
}
