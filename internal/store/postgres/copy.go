package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// CopyTarget is a database that a copy of an installation on another store fills. Until it is complete, no Store is opened on it but to check it.
//
// Each page of rows is written in one transaction with the mark of how far the copy has come, so that a copy that ends anywhere goes on from
// there. It belongs to one goroutine.
type CopyTarget struct {
	pg    *pgx.Conn
	place string
	start CopyStart
	state CopyState
}

// CopyState is what a copy found when it began.
type CopyState int

// What a copy may find.
const (
	CopyFresh    CopyState = iota // an empty database
	CopyResumed                   // what it has copied before it was interrupted
	CopyOver                      // what an older copy of the same source had copied, which is gone now: the source may have changed since
	CopyComplete                  // itself, complete
)

// CopyStart says what a copy is of.
type CopyStart struct {
	Source string // the installation that is copied
	ID     string // this copy of it; the same after an interruption, another one once the source may have changed
	Begun  bool   // it has been in the database before: one that it is not in is refused
}

// errOtherCopy ends a copy in whose place another has begun.
var errOtherCopy = errors.New("another copy has begun to fill the database: end one of them")

// OpenCopyTarget opens the database at a postgres:// address for a copy. It makes the schema in an empty database. One that the same copy was filling
// goes on where it was; one that an older copy of the same source was filling is emptied. A database with anything else in it is refused.
func OpenCopyTarget(ctx context.Context, address string, start CopyStart) (*CopyTarget, error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("database address: %w", err)
	}
	t := &CopyTarget{place: place(config), start: start}
	if t.pg, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, of(t.place, err)
	}
	if err := t.open(ctx, address); err != nil {
		return nil, errors.Join(of(t.place, err), t.Close())
	}
	return t, nil
}

func (t *CopyTarget) open(ctx context.Context, address string) error {
	if err := checkServer(ctx, t.pg); err != nil {
		return err
	}
	if err := t.makeSchema(ctx, address); err != nil {
		return err
	}
	return t.begin(ctx)
}

// Close ends the connection.
func (t *CopyTarget) Close() error { return t.pg.Close(context.Background()) }

// Place names the database for people.
func (t *CopyTarget) Place() string { return t.place }

// State says what the copy found when it began.
func (t *CopyTarget) State() CopyState { return t.state }

// makeSchema makes the schema where there is none. That of an installation is not for a copy to change.
func (t *CopyTarget) makeSchema(ctx context.Context, address string) error {
	steps, err := migrations()
	if err != nil {
		return err
	}
	have, err := readStanding(&conn{ctx: ctx, q: t.pg})
	switch {
	case err != nil:
		return err
	case have.version == 0:
		_, _, err = Migrate(ctx, address)
		return err
	case have.version != len(steps):
		return fmt.Errorf("it has schema %d, and this latchkey copies to schema %d only: name an empty database", have.version, len(steps))
	}
	return nil
}

// begin makes the database this copy's, or refuses it.
func (t *CopyTarget) begin(ctx context.Context) error {
	return pgx.BeginFunc(ctx, t.pg, func(tx pgx.Tx) error {
		have, err := lockStanding(ctx, tx)
		if err != nil {
			return err
		}
		switch mine := have.copySource == t.start.Source; {
		case mine && have.copy == t.start.ID:
			if t.state = CopyComplete; have.filling {
				t.state = CopyResumed
			}
			return nil
		case t.start.Begun:
			return errors.New("the copy that has taken the installation's place is not in it")
		case have.filling && !mine:
			return errors.New("a copy of another installation was begun there and not finished: name an empty database")
		case !have.filling:
			if err := refuseInstallation(ctx, tx); err != nil {
				return err
			}
		}
		if have.filling {
			t.state = CopyOver
		}
		return t.clear(ctx, tx)
	})
}

func refuseInstallation(ctx context.Context, tx pgx.Tx) error {
	var there bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM scopes) OR EXISTS (SELECT FROM deleted_scopes) OR EXISTS (SELECT FROM audit)`).Scan(&there)
	if err == nil && there {
		err = errors.New("it holds an installation already: name an empty database")
	}
	return err
}

// clear empties the database and makes it this copy's. The audit keeps its rows from everybody else.
func (t *CopyTarget) clear(ctx context.Context, tx pgx.Tx) error {
	names := append([]string(nil), derived...)
	for _, table := range copyTables {
		names = append(names, table.name)
	}
	for _, sql := range []string{
		`ALTER TABLE audit DISABLE TRIGGER USER`,
		`TRUNCATE ` + strings.Join(names, ", "),
		`ALTER TABLE audit ENABLE TRIGGER USER`,
		`CREATE TABLE IF NOT EXISTS latchkey_copy (name text COLLATE "C" NOT NULL PRIMARY KEY, after bigint NOT NULL, copied bigint NOT NULL)`,
		`TRUNCATE latchkey_copy`,
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `UPDATE latchkey_schema SET copy_source = $1, copy = $2, filling = true WHERE one = 1`, t.start.Source, t.start.ID)
	return err
}

// Progress says how far a table is copied: behind which place of the source, and how many rows.
func (t *CopyTarget) Progress(ctx context.Context, table string) (after, rows int64, err error) {
	err = t.pg.QueryRow(ctx, `SELECT after, copied FROM latchkey_copy WHERE name = $1`, table).Scan(&after, &rows)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return after, rows, err
}

// Write adds rows to a table, with what follows from them, and the mark that they are there: the place of the last one. All of it or nothing is
// written.
func (t *CopyTarget) Write(ctx context.Context, table string, rows [][]any, last int64) error {
	into, err := tableOf(table)
	if err != nil {
		return err
	}
	return t.alone(ctx, func(tx pgx.Tx) error {
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{into.name}, into.columns, pgx.CopyFromRows(rows)); err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
		if err := derive(ctx, tx, into, rows); err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
		_, err := tx.Exec(ctx, `INSERT INTO latchkey_copy (name, after, copied) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET after = excluded.after, copied = latchkey_copy.copied + excluded.copied`, table, last, len(rows))
		return err
	})
}

// derive writes what follows from rows: the device ids of registrations, and for each enrollment the row that is its id's lock.
func derive(ctx context.Context, tx pgx.Tx, t copyTable, rows [][]any) error {
	switch t.name {
	case "registrations":
		columns := []string{"scope", "hub", "device_id", "folded"}
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"device_ids"}, columns, pgx.CopyFromRows(t.at(rows, columns...)))
		return err
	case "enrollments":
		var scopes, folded []any
		for _, row := range t.at(rows, "scope", "folded") {
			scopes, folded = append(scopes, row[0]), append(folded, row[1])
		}
		_, err := tx.Exec(ctx, `INSERT INTO generations (scope, folded, generation)
			SELECT scope, folded, 0 FROM unnest($1::text[], $2::text[]) AS ids (scope, folded) ON CONFLICT (scope, folded) DO NOTHING`, scopes, folded)
		return err
	}
	return nil
}

// alone runs fn while the database is this copy's.
func (t *CopyTarget) alone(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, t.pg, func(tx pgx.Tx) error {
		have, err := lockStanding(ctx, tx)
		if err != nil {
			return err
		}
		if have.copy != t.start.ID || !have.filling {
			return errOtherCopy
		}
		return fn(tx)
	})
}

// GoOn sets what is given out behind the last of each kind that the source gave out.
func (t *CopyTarget) GoOn(ctx context.Context, numbers map[string]int64) error {
	return t.alone(ctx, func(tx pgx.Tx) error {
		for sequence, last := range sequences(numbers) {
			if last < 1 {
				continue
			}
			if _, err := tx.Exec(ctx, `SELECT setval($1::regclass, $2)`, sequence, last); err != nil {
				return err
			}
		}
		return nil
	})
}

// sequences are by the source's names of what they give out.
func sequences(numbers map[string]int64) map[string]int64 {
	return map[string]int64{
		"revisions": numbers["revisions"], "policy_places": numbers["policy_places"],
		"audit_rows": numbers["audit"], "audit_places": numbers["audit"],
	}
}

// Finish makes the database one that a service is started on.
func (t *CopyTarget) Finish(ctx context.Context) error {
	return t.alone(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DROP TABLE latchkey_copy`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE latchkey_schema SET filling = false WHERE one = 1`)
		return err
	})
}
