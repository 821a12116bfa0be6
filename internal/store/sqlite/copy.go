package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
)

// CopySource is a database that is copied to another store. Nothing else may have it open meanwhile.
//
// The database remembers which copy of it is under way and forgets it when a Store is opened on it: then what was copied may be old. A database
// whose copy has taken its place remembers where that is, and no Store is opened on it any more, so that no two services give out what is
// one device's. It belongs to one goroutine.
type CopySource struct {
	c    *conn
	path string
}

// OpenCopySource opens a database of the current schema.
func OpenCopySource(ctx context.Context, path string) (s *CopySource, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	c, err := dialExisting(path, "", "synchronous = FULL")
	if err != nil {
		return nil, err
	}
	c.db.SetInterrupt(ctx)
	if err := checkCopied(c, path); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return &CopySource{c: c, path: path}, nil
}

// checkCopied refuses every schema but the current one: what a newer one has besides would be left behind.
func checkCopied(c *conn, path string) error {
	steps, err := migrations()
	if err != nil {
		return err
	}
	have, err := schemaVersion(c, path)
	switch {
	case err != nil:
		return err
	case have < len(steps):
		return fmt.Errorf("database %s has the older schema %d: run `latchkey store migrate` first", path, have)
	case have > len(steps):
		return fmt.Errorf("database %s has the newer schema %d, and this latchkey does not know all that is in it: copy it with the newer release", path, have)
	}
	return syncLog(c)
}

// Close closes the database.
func (s *CopySource) Close() error { return s.c.close() }

// Identity tells one installation from another: its home scope and when that was made.
func (s *CopySource) Identity() (identity string, err error) {
	found, err := s.c.one(func(r *row) { identity = fmt.Sprintf("%s of %d", r.text(), r.int()) }, `SELECT id, created FROM scopes WHERE home`)
	if err == nil && !found {
		err = fmt.Errorf("database %s has no home scope: it holds no installation", s.path)
	}
	return identity, err
}

// Copy is which copy of the database is under way or complete, and where that is if it has taken the database's place; both may be empty.
func (s *CopySource) Copy() (id, moved string, err error) {
	standing, err := readStanding(s.c)
	return standing.copy, standing.moved, err
}

// Begin notes which copy is under way; none if the id is empty.
func (s *CopySource) Begin(id string) error {
	return s.note(`UPDATE latchkey_schema SET copy = ?1 WHERE moved = ''`, id)
}

// Moved notes that a copy has taken the database's place.
func (s *CopySource) Moved(id, place string) error {
	return s.note(`UPDATE latchkey_schema SET moved = ?2 WHERE copy = ?1`, id, place)
}

// Return takes the database back into use.
func (s *CopySource) Return() error {
	return s.note(`UPDATE latchkey_schema SET copy = '', moved = '' WHERE one = 1`)
}

func (s *CopySource) note(sql string, args ...any) error {
	n, err := s.c.exec(sql, args...)
	if err == nil && n != 1 {
		err = fmt.Errorf("database %s was opened by another process meanwhile: nothing was lost, run the copy again", s.path)
	}
	return err
}

// forgetCopy notes that a Store was opened, which may change what a copy that was interrupted has copied.
func forgetCopy(c *conn) error {
	s, err := readStanding(c)
	if err != nil || s.copy == "" {
		return err
	}
	_, err = c.exec(`UPDATE latchkey_schema SET copy = '' WHERE moved = ''`)
	return err
}

// Count returns how many rows a table has.
func (s *CopySource) Count(table string) (n int64, err error) {
	t, err := tableOf(table)
	if err != nil {
		return 0, err
	}
	_, err = s.c.one(func(r *row) { n = int64(r.int()) }, `SELECT count(*) FROM `+t.name)
	return n, err
}

// Page reads rows of a table behind a place (0: from the first) until there are so many or they have so many bytes, and returns the place of the
// last. No rows means that there are no more. A row holds int64, bool, string, []byte and nil, in the order of the table's columns.
func (s *CopySource) Page(table string, after int64, rows, bytes int) (page [][]any, last int64, err error) {
	t, err := tableOf(table)
	if err != nil {
		return nil, 0, err
	}
	st, err := s.c.stmt(t.sql(), []any{after, rows})
	if err != nil {
		return nil, 0, err
	}
	defer st.ClearBindings()
	for last = after; bytes > 0 && st.Step(); {
		row, size, err := t.read(st)
		if err != nil {
			return nil, 0, errors.Join(err, st.Reset())
		}
		page, last, bytes = append(page, row), st.ColumnInt64(0), bytes-size
	}
	if err := st.Err(); err != nil {
		st.Reset()
		return nil, 0, err
	}
	return page, last, st.Reset()
}

// Numbers are the last of each kind that was given out: whoever gives out more begins behind them.
func (s *CopySource) Numbers() (map[string]int64, error) {
	numbers := map[string]int64{}
	for name, sql := range map[string]string{
		"revisions":     `SELECT coalesce(max(last), 0) FROM revisions`,
		"policy_places": `SELECT coalesce(max(seq), 0) FROM access_policies`,
		"audit":         `SELECT coalesce(max(seq), 0) FROM audit`,
	} {
		if _, err := s.c.one(func(r *row) { numbers[name] = int64(r.int()) }, sql); err != nil {
			return nil, err
		}
	}
	return numbers, nil
}

// read makes neutral values of a row whose first column is its place.
func (t copyTable) read(st *sqlite3.Stmt) (row []any, size int, err error) {
	row = make([]any, len(t.columns))
	for i, column := range t.columns {
		switch kind := st.ColumnType(i + 1); {
		case kind == sqlite3.NULL:
		case kind == sqlite3.INTEGER && column.boolean:
			row[i] = st.ColumnInt64(i+1) != 0
		case kind == sqlite3.INTEGER:
			row[i] = st.ColumnInt64(i + 1)
		case kind == sqlite3.TEXT && column.free:
			row[i] = clean(st.ColumnText(i + 1))
		case kind == sqlite3.TEXT:
			row[i] = st.ColumnText(i + 1)
		case kind == sqlite3.BLOB:
			row[i] = st.ColumnBlob(i+1, []byte{})
		default:
			return nil, 0, fmt.Errorf("%s.%s holds what belongs to no column", t.name, column.name)
		}
		size += len(st.ColumnRawBlob(i+1)) + 16
	}
	return row, size, nil
}
