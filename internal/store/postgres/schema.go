package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// Create makes the current schema in an empty database. It refuses one that has a schema already.
func Create(ctx context.Context, address string) error {
	return migrating(ctx, address, func(tx pgx.Tx, steps []string, from int) error {
		if from > 0 {
			return errors.New("it holds a Latchkey schema already")
		}
		return migrate(ctx, tx, steps, 0)
	})
}

// Migrate brings the database to the current schema, all steps in one transaction, and returns the schema before (0: none) and after. Of several that
// run at once one does the work.
func Migrate(ctx context.Context, address string) (from, to int, err error) {
	err = migrating(ctx, address, func(tx pgx.Tx, steps []string, have int) error {
		from, to = have, len(steps)
		if have > to {
			return newerSchema(have, to)
		}
		return migrate(ctx, tx, steps, have)
	})
	return from, to, err
}

// migrating runs fn with the schema that is there, alone: the row of latchkey_schema is the lock. The advisory lock comes first where there
// are such locks, since tables that do not exist have no rows.
func migrating(ctx context.Context, address string, fn func(tx pgx.Tx, steps []string, from int) error) (err error) {
	steps, err := migrations()
	if err != nil {
		return err
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return fmt.Errorf("database address: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("database %s: %w", place(config), err)
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
	if _, err := pg.Exec(ctx, `SELECT pg_advisory_lock($1)`, advisoryKey); err != nil && !lacks(err) {
		return err
	}
	if err := makeLock(ctx, pg); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pg, func(tx pgx.Tx) error {
		var from int
		if err := tx.QueryRow(ctx, `SELECT version FROM latchkey_schema WHERE one = 1 FOR UPDATE`).Scan(&from); err != nil {
			return err
		}
		return fn(tx, steps, from)
	})
}

// makeLock makes the table of one row that names the schema; it is part of no migration.
func makeLock(ctx context.Context, pg *pgx.Conn) error {
	_, err := pg.Exec(ctx, `CREATE TABLE IF NOT EXISTS latchkey_schema (one bigint NOT NULL PRIMARY KEY, version bigint NOT NULL)`)
	if err != nil {
		return err
	}
	_, err = pg.Exec(ctx, `INSERT INTO latchkey_schema (one, version) VALUES (1, 0) ON CONFLICT (one) DO NOTHING`)
	return err
}

// lacks reports whether a server has no such function.
func lacks(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "42883" || refused.Code == "0A000")
}

// migrate runs steps[from:] and records the schema. A step is many statements, which only the simple protocol takes at once.
func migrate(ctx context.Context, tx pgx.Tx, steps []string, from int) error {
	for i, step := range steps[from:] {
		if _, err := tx.Exec(ctx, step, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("migration %d: %w", from+i+1, err)
		}
	}
	_, err := tx.Exec(ctx, `UPDATE latchkey_schema SET version = $1 WHERE one = 1`, len(steps))
	return err
}

// checkSchema refuses every schema but the current one.
func checkSchema(c *conn) error {
	steps, err := migrations()
	if err != nil {
		return err
	}
	var have int
	_, err = c.one(func(r *row) { have = r.int() }, `SELECT version FROM latchkey_schema WHERE one = 1`)
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Code == "42P01", err == nil && have == 0:
		return errNoSchema
	case err != nil:
		return err
	case have < len(steps):
		return fmt.Errorf("it has the older schema %d, this latchkey needs %d: run `latchkey store migrate`", have, len(steps))
	case have > len(steps):
		return newerSchema(have, len(steps))
	}
	return nil
}

func newerSchema(have, want int) error {
	return fmt.Errorf("it was written by a newer latchkey (schema %d, this one knows %d)", have, want)
}
