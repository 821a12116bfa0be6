package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A migration that the release before it can go on with says so in its first line: the oldest schema whose code works with what it makes.
const worksFromLine = "-- works-from: "

// worksFrom is the oldest schema whose code can work with what all steps together make. A step that does not say so is for its own release
// and later ones alone.
func worksFrom(steps []string) int {
	oldest := 1
	for i, step := range steps {
		from := i + 1
		if line, _, _ := strings.Cut(step, "\n"); strings.HasPrefix(line, worksFromLine) {
			if said, err := strconv.Atoi(strings.TrimPrefix(line, worksFromLine)); err == nil && said > 0 {
				from = min(from, said)
			}
		}
		oldest = max(oldest, from)
	}
	return oldest
}

// standing is what a database says of itself. It is part of no migration, and its row is the lock of those who migrate.
type standing struct {
	version    int    // the schema; 0: none
	worksFrom  int    // the oldest schema whose code can work with it
	copySource string // which installation was copied there from another store, if any
	copy       string // by which copy
	filling    bool   // and that is not complete
}

// checkNewer refuses a newer schema unless it says that a release which knows as much as this one can work with it.
func (s standing) checkNewer(known int) error {
	if s.worksFrom <= known {
		return nil
	}
	return fmt.Errorf("it was written by a newer latchkey (schema %d, this one knows %d and cannot work with it): run that release", s.version, known)
}

const (
	standingTable = `CREATE TABLE IF NOT EXISTS latchkey_schema (one bigint NOT NULL PRIMARY KEY, version bigint NOT NULL, works_from bigint NOT NULL DEFAULT 1,
	copy_source text NOT NULL DEFAULT '', copy text NOT NULL DEFAULT '', filling boolean NOT NULL DEFAULT false)`
	standingSince010 = `ALTER TABLE latchkey_schema ADD COLUMN IF NOT EXISTS works_from bigint NOT NULL DEFAULT 1,
	ADD COLUMN IF NOT EXISTS copy_source text NOT NULL DEFAULT '', ADD COLUMN IF NOT EXISTS copy text NOT NULL DEFAULT '',
	ADD COLUMN IF NOT EXISTS filling boolean NOT NULL DEFAULT false`
	standingSQL = `SELECT version, works_from, copy_source, copy, filling FROM latchkey_schema WHERE one = 1`
)

// SQLSTATE of a table, a column that is not there, and of what two who make the same table at once may meet.
const (
	noTable, noColumn                               = "42P01", "42703"
	tableExists, relationExists, alreadyInCatalogue = "42P07", "42710", "23505"
)

func sqlState(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

// makeStanding makes the table and its row, and adds what release 0.1.0 did not have. Several may do so at once, with no lock but the table's own.
func makeStanding(ctx context.Context, pg *pgx.Conn) error {
	_, err := pg.Exec(ctx, standingTable)
	switch sqlState(err) {
	case tableExists, relationExists, alreadyInCatalogue: // another made it at the same moment
		_, err = pg.Exec(ctx, standingTable)
	}
	if err != nil {
		return err
	}
	if _, err := pg.Exec(ctx, standingSQL); sqlState(err) == noColumn {
		if _, err := pg.Exec(ctx, standingSince010); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	_, err = pg.Exec(ctx, `INSERT INTO latchkey_schema (one, version) VALUES (1, 0) ON CONFLICT (one) DO NOTHING`)
	return err
}

// lockStanding reads the row, for this transaction alone.
func lockStanding(ctx context.Context, tx pgx.Tx) (s standing, err error) {
	err = tx.QueryRow(ctx, standingSQL+` FOR UPDATE`).Scan(&s.version, &s.worksFrom, &s.copySource, &s.copy, &s.filling)
	return s, err
}

func writeStanding(ctx context.Context, tx pgx.Tx, version, worksFrom int) error {
	_, err := tx.Exec(ctx, `UPDATE latchkey_schema SET version = $1, works_from = $2 WHERE one = 1`, version, worksFrom)
	return err
}

// readStanding reads the row of a database that may be another's, or of release 0.1.0, which knew nothing but the version.
func readStanding(c *conn) (s standing, err error) {
	_, err = c.one(func(r *row) { s = standing{r.int(), r.int(), r.text(), r.text(), r.bool()} }, standingSQL)
	switch sqlState(err) {
	case noTable:
		return standing{}, nil
	case noColumn:
		_, err = c.one(func(r *row) { s = standing{version: r.int(), worksFrom: 1} }, `SELECT version FROM latchkey_schema WHERE one = 1`)
	}
	return s, err
}
