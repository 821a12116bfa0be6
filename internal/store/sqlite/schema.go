package sqlite

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// applicationID marks the file as ours (PRAGMA application_id): "LKEY".
const applicationID = 0x4c4b4559

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
		steps = append(steps, string(text))
	}
	return steps, nil
}

// Create makes the database at path with the current schema. It refuses to touch an existing one; what an
// interrupted Create left behind (a file without tables) does not count as one.
func Create(ctx context.Context, path string, opts Options) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	steps, err := migrations()
	if err != nil {
		return err
	}
	if opts.VFS == "" {
		if err := makePrivateFile(path); err != nil {
			return fmt.Errorf("create database: %w", err)
		}
	}
	c, err := dial(path, opts.VFS, sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE, "synchronous = FULL")
	if errors.Is(err, sqlite3.NOTADB) {
		return fmt.Errorf("%s exists and is not a Latchkey database", path)
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", path, err)
	}
	c.db.SetInterrupt(ctx)
	return errors.Join(create(c, path, steps), c.close())
}

// makePrivateFile makes the file before SQLite does, readable by its owner only.
func makePrivateFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func create(c *conn, path string, steps []string) error {
	// The check comes before anything is written: the file may be another program's.
	if err := refuseTables(c, path); err != nil {
		return err
	}
	if err := useWAL(c); err != nil {
		return err
	}
	return c.transaction(func() error {
		if err := refuseTables(c, path); err != nil {
			return err // another Create won
		}
		if err := c.db.Exec("PRAGMA application_id = " + strconv.Itoa(applicationID)); err != nil {
			return err
		}
		return migrate(c, steps, 0)
	})
}

func refuseTables(c *conn, path string) error {
	var tables int
	_, err := c.one(func(r *row) { tables = r.int() }, "SELECT count(*) FROM sqlite_schema")
	if errors.Is(err, sqlite3.NOTADB) {
		return fmt.Errorf("%s exists and is not a Latchkey database", path)
	}
	if err != nil {
		return err
	}
	if tables > 0 {
		return fmt.Errorf("%s exists already", path)
	}
	return nil
}

func useWAL(c *conn) error {
	var mode string
	if _, err := c.one(func(r *row) { mode = r.text() }, "PRAGMA journal_mode = WAL"); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system of the database cannot keep a write-ahead log (journal mode is %q)", mode)
	}
	return nil
}

// migrate runs steps[from:] and records the schema, inside the caller's transaction.
func migrate(c *conn, steps []string, from int) error {
	for i, step := range steps[from:] {
		if err := c.db.Exec(step); err != nil {
			return fmt.Errorf("migration %d: %w", from+i+1, err)
		}
	}
	if err := c.setVersion(len(steps)); err != nil {
		return err
	}
	return writeStanding(c, worksFrom(steps))
}

func (c *conn) setVersion(version int) error {
	return c.db.Exec("PRAGMA user_version = " + strconv.Itoa(version))
}

// Migrate brings the database at path to the current schema, all steps in one transaction, and returns the schema before and
// after. A newer schema that this release works with stays as it is. It refuses what Open refuses, an older schema excepted. Nothing else may
// have the database open.
func Migrate(ctx context.Context, path string) (from, to int, err error) {
	return migrateVFS(ctx, path, "")
}

func migrateVFS(ctx context.Context, path, vfsName string) (from, to int, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return 0, 0, err
	}
	steps, err := migrations()
	if err != nil {
		return 0, 0, err
	}
	c, err := dialExisting(path, vfsName, "synchronous = FULL")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	c.db.SetInterrupt(ctx)
	err = c.transaction(func() error {
		if from, err = schemaVersion(c, path); err != nil {
			return err
		}
		if to = max(from, len(steps)); from > len(steps) {
			return checkNewer(c, path, from, len(steps))
		}
		return migrate(c, steps, from)
	})
	return from, to, err
}

// checkSchema refuses every schema but the current one, and a newer one that this release works with; and a database that was moved away.
func checkSchema(c *conn, path string) error {
	steps, err := migrations()
	if err != nil {
		return err
	}
	have, err := schemaVersion(c, path)
	switch {
	case err != nil:
		return err
	case have < len(steps):
		return fmt.Errorf("database %s has the older schema %d, this latchkey needs %d: stop the service and run `latchkey store migrate`",
			path, have, len(steps))
	case have > len(steps):
		if err := checkNewer(c, path, have, len(steps)); err != nil {
			return err
		}
	}
	return checkInPlace(c, path)
}

// checkNewer refuses a newer schema unless it says that a release which knows as much as this one can work with it.
func checkNewer(c *conn, path string, have, known int) error {
	s, err := readStanding(c)
	if err == nil && (s.worksFrom == 0 || s.worksFrom > known) {
		err = fmt.Errorf("database %s was written by a newer latchkey (schema %d, this one knows %d and cannot work with it): install that release again, or restore a backup from before the upgrade",
			path, have, known)
	}
	return err
}

func schemaVersion(c *conn, path string) (int, error) {
	var app, version int
	_, err := c.one(func(r *row) { app = r.int() }, "PRAGMA application_id")
	if errors.Is(err, sqlite3.NOTADB) || err == nil && app != applicationID {
		return 0, fmt.Errorf("%s is not a Latchkey database", path)
	}
	if err != nil {
		return 0, fmt.Errorf("database %s: %w", path, err)
	}
	_, err = c.one(func(r *row) { version = r.int() }, "PRAGMA user_version")
	return version, err
}

// dialExisting opens a database that must be there.
func dialExisting(path, vfsName string, pragmas ...string) (*conn, error) {
	there, err := exists(path, vfsName)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	if !there {
		return nil, fmt.Errorf("there is no database at %s: run `latchkey init`", path)
	}
	c, err := dial(path, vfsName, sqlite3.OPEN_READWRITE, pragmas...)
	if errors.Is(err, sqlite3.NOTADB) {
		return nil, fmt.Errorf("%s is not a Latchkey database", path)
	}
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	return c, nil
}

func exists(path, vfsName string) (bool, error) {
	v := vfs.Find(vfsName)
	if v == nil {
		return false, fmt.Errorf("no VFS named %q", vfsName)
	}
	return v.Access(path, vfs.ACCESS_EXISTS)
}

// transaction runs fn between BEGIN IMMEDIATE and COMMIT, and rolls back if either fails.
func (c *conn) transaction(fn func() error) error {
	if err := c.db.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		err = c.db.Exec("COMMIT")
	}
	if err != nil {
		return errors.Join(err, c.rollback())
	}
	return nil
}

// rollback ends the transaction if SQLite has not already ended it, interrupted or not.
func (c *conn) rollback() error {
	if c.db.GetAutocommit() {
		return nil
	}
	defer c.db.SetInterrupt(c.db.SetInterrupt(context.Background()))
	return c.db.Exec("ROLLBACK")
}
