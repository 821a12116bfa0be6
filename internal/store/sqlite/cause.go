package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// cause finds out why a write failed. SQLite says "disk I/O error", and the system's word for it is gone by then: what SQLite does to undo the
// transaction overwrites it. So the same is tried with a file beside the database, and what the system says to that is taken for the cause.
type cause struct {
	dir string // empty: the files are no files of the system's

	mu   sync.Mutex
	at   time.Time
	last error
}

const (
	causeEvery = time.Second
	causeSize  = 1 << 20 // a transaction of the usual size would find no room either
)

// of adds to an error of a write what the system says.
func (c *cause) of(err error) error {
	if c.dir == "" || !errors.Is(err, sqlite3.IOERR) && !errors.Is(err, sqlite3.CANTOPEN) && !errors.Is(err, sqlite3.READONLY) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.at) > causeEvery {
		c.last, c.at = tryWriting(c.dir), now
	}
	if c.last == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, c.last)
}

// tryWriting writes a file into a folder and removes it.
func tryWriting(dir string) error {
	file, err := os.CreateTemp(dir, ".room-*")
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, causeSize))
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close(), os.Remove(file.Name()))
}

// newCause is for the database at path.
func newCause(path, vfsName string) cause {
	if vfsName != "" {
		return cause{}
	}
	return cause{dir: filepath.Dir(path)}
}
