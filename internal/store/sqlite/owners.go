package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// owners is registration.OwnerMemory in a file of its own that is never flushed, so that a flood of first contacts costs
// page-cache writes and no disk. Losing it costs a client without a tpm object one more challenge.
type owners struct {
	path, vfsName string

	mu     sync.Mutex
	conn   *conn // nil when closed, and while a damaged file cannot be made anew
	closed bool
	remade time.Time // when that was tried last
}

// remakeEvery is how often a damaged file is made anew.
const remakeEvery = time.Second

const ownersSchema = `CREATE TABLE owners (
	seq    INTEGER PRIMARY KEY,
	scope  TEXT    NOT NULL,
	folded TEXT    NOT NULL,
	srk    BLOB    NOT NULL,
	at     INTEGER NOT NULL
) STRICT;
CREATE INDEX owners_by_id ON owners (scope, folded, at);
CREATE INDEX owners_by_age ON owners (at);
PRAGMA user_version = 1;`

// openOwners opens the file, or makes it anew if it is missing, damaged or of another version.
func openOwners(path, vfsName string) (*owners, error) {
	c, err := makeOwners(path, vfsName)
	if err != nil {
		return nil, err
	}
	return &owners{path: path, vfsName: vfsName, conn: c}, nil
}

func makeOwners(path, vfsName string) (*conn, error) {
	if c, err := dialOwners(path, vfsName, sqlite3.OPEN_READWRITE); err == nil {
		if soundOwners(c) {
			return c, nil
		}
		if err := c.close(); err != nil {
			return nil, err
		}
	}
	if err := remove(path, vfsName); err != nil {
		return nil, err
	}
	if vfsName == "" {
		if err := makePrivateFile(path); err != nil {
			return nil, err
		}
	}
	c, err := dialOwners(path, vfsName, sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE)
	if err != nil {
		return nil, err
	}
	if err := c.transaction(func() error { return c.db.Exec(ownersSchema) }); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func dialOwners(path, vfsName string, flags sqlite3.OpenFlag) (*conn, error) {
	return dial(path, vfsName, flags, "synchronous = OFF", "journal_mode = WAL")
}

// soundOwners trusts nothing in a file that was never flushed: of a page that was torn the version may be there and the schema not.
func soundOwners(c *conn) bool {
	var version, parts int
	var verdict string
	_, err := c.one(func(r *row) { version = r.int() }, "PRAGMA user_version")
	if err != nil || version != 1 {
		return false
	}
	_, err = c.one(func(r *row) { parts = r.int() }, "SELECT count(*) FROM sqlite_schema WHERE name IN ('owners', 'owners_by_id', 'owners_by_age')")
	if err != nil || parts != 3 {
		return false
	}
	_, err = c.one(func(r *row) { verdict = r.text() }, "PRAGMA quick_check(1)")
	return err == nil && verdict == "ok"
}

// remove deletes the file and what SQLite keeps beside it.
func remove(path, vfsName string) error {
	v := vfs.Find(vfsName)
	if v == nil {
		return fmt.Errorf("no VFS named %q", vfsName)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm", path + "-journal"} {
		there, err := v.Access(name, vfs.ACCESS_EXISTS)
		if there && err == nil {
			err = v.Delete(name, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// with runs fn on the connection, one caller at a time.
func (o *owners) with(ctx context.Context, fn func(c *conn) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.conn == nil {
		if err := o.remakeLocked(); err != nil {
			return err
		}
	}
	err := fn(o.conn)
	if damaged(err) {
		return errors.Join(err, o.remakeLocked())
	}
	return err
}

// damaged tells errors that stay from those of a disk that is full or fails for a while.
func damaged(err error) bool {
	return errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB) || errors.Is(err, sqlite3.IOERR_SHORT_READ)
}

var errNotRemade = errors.New("the memory of open challenges is damaged and cannot be made anew yet")

// remakeLocked makes the file anew: what is lost with it costs some clients one more challenge.
func (o *owners) remakeLocked() error {
	if o.conn != nil {
		_ = o.conn.close() // it is thrown away
		o.conn = nil
	}
	if time.Since(o.remade) < remakeEvery {
		return errNotRemade
	}
	o.remade = time.Now()
	c, err := makeOwners(o.path, o.vfsName)
	if err == nil {
		o.conn = c
	}
	return err
}

// RememberOwner implements registration.OwnerMemory.
func (s *Store) RememberOwner(ctx context.Context, scope, id string, srk []byte, at time.Time) error {
	folded := dps.FoldID(id)
	return s.owners.with(ctx, func(c *conn) error {
		return c.transaction(func() error {
			// Anew rather than updated: seq then tells which was remembered last, whatever clocks say.
			_, err := c.exec(`DELETE FROM owners WHERE scope = ?1 AND folded = ?2 AND srk = ?3`, scope, folded, srk)
			if err != nil {
				return err
			}
			_, err = c.exec(`INSERT INTO owners (scope, folded, srk, at) VALUES (?1, ?2, ?3, ?4)`, scope, folded, srk, at)
			if err != nil {
				return err
			}
			_, err = c.exec(`DELETE FROM owners WHERE seq IN (SELECT seq FROM owners
				WHERE scope = ?1 AND folded = ?2 ORDER BY seq DESC LIMIT -1 OFFSET ?3)`,
				scope, folded, registration.MaxOwners)
			return err
		})
	})
}

// Owners implements registration.OwnerMemory.
func (s *Store) Owners(ctx context.Context, scope, id string, since time.Time) ([][]byte, error) {
	var srks [][]byte
	err := s.owners.with(ctx, func(c *conn) error {
		return c.each(func(r *row) { srks = append(srks, r.blob()) },
			`SELECT srk FROM owners WHERE scope = ?1 AND folded = ?2 AND at >= ?3 ORDER BY seq DESC`,
			scope, dps.FoldID(id), since)
	})
	if err != nil {
		return nil, err
	}
	return srks, nil
}

// prune forgets at most limit owners remembered before the given time.
func (o *owners) prune(ctx context.Context, before time.Time, limit int) (removed int, err error) {
	err = o.with(ctx, func(c *conn) error {
		removed, err = c.exec(`DELETE FROM owners WHERE seq IN
			(SELECT seq FROM owners WHERE at < ?1 ORDER BY at LIMIT ?2)`, before, limit)
		return err
	})
	return removed, err
}

// pruneScope forgets at most limit owners of a scope.
func (o *owners) pruneScope(ctx context.Context, scope string, limit int) (removed int, err error) {
	err = o.with(ctx, func(c *conn) error {
		removed, err = c.exec(`DELETE FROM owners WHERE seq IN (SELECT seq FROM owners WHERE scope = ?1 LIMIT ?2)`, scope, limit)
		return err
	})
	return removed, err
}

func (o *owners) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.conn == nil {
		return nil
	}
	c := o.conn
	o.conn = nil
	return c.close()
}
