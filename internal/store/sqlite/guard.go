package sqlite

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"latchkey.example/latchkey/internal/registration"
)

// guard sees to it that what is written is what the next Open will find. SQLite looks at its files' names once: with the database or its log
// deleted, moved away, replaced or cut, it goes on in the file it holds, and all that was acknowledged from then on ends with the
// process. So the writer asks before a transaction, which is then not begun, and again between its commit and its answers.
// Readers ask now and then: an answer must not rest on what the next Open would not find. Nothing is copied from the log into the database either.
//
// Files that come back to their places are good again. A file that was cut is not, whatever is put there: its pages and those that are in memory no
// longer belong together.
type guard struct {
	path string
	db   vfs.FileHasMoved
	log  vfs.FileHasMoved
	page int64 // bytes

	dbSize  atomic.Int64 // the largest seen: the database is never vacuumed in place, so that it does not shrink
	logSize atomic.Int64 // what the last commit has made of it at least
	frames  atomic.Int64 // of the log, at the last commit
	commits atomic.Uint64
	cut     atomic.Pointer[registration.StoreTrouble]
	asked   atomic.Int64 // when readers asked last, in nanoseconds of the process's clock
}

const (
	logHeader   = 32
	frameHeader = 24

	// logKept is what SQLite may cut the log down to when it starts over, in bytes.
	logKept = 64 << 20

	// readersAsk is how often readers look after the files.
	readersAsk = 100 * time.Millisecond
)

var started = time.Now()

// newGuard watches the files of the writer's connection.
func newGuard(c *conn, path string) (*guard, error) {
	g := &guard{path: path}
	if err := openLog(c); err != nil {
		return nil, err
	}
	var err error
	if g.db, err = fileOf(c, sqlite3.FCNTL_FILE_POINTER); err != nil {
		return nil, err
	}
	if g.log, err = fileOf(c, sqlite3.FCNTL_JOURNAL_POINTER); err != nil {
		return nil, err
	}
	if _, err := c.one(func(r *row) { g.page = int64(r.int()) }, "PRAGMA page_size"); err != nil {
		return nil, err
	}
	return g, g.check()
}

// fileOf finds the open file of a connection below the layers that lie upon it.
func fileOf(c *conn, op sqlite3.FcntlOpcode) (vfs.FileHasMoved, error) {
	file, err := c.db.FileControl("main", op)
	if err != nil {
		return nil, err
	}
	for {
		switch layer := file.(type) {
		case vfs.FileHasMoved:
			return layer, nil
		case vfs.FileUnwrap:
			file = layer.Unwrap()
		default:
			return nil, fmt.Errorf("nobody can tell whether a file of it (%T) is in its place", file)
		}
	}
}

// committed notes a commit that wrote, after which the log has so many frames.
func (g *guard) committed(frames int) {
	g.frames.Store(int64(frames))
	g.logSize.Store(min(logKept, logHeader+int64(frames)*(frameHeader+g.page)))
	g.commits.Add(1)
}

// check is nil, or a StoreTrouble. Any goroutine may call it.
func (g *guard) check() error {
	if cut := g.cut.Load(); cut != nil {
		return cut
	}
	if err := placed(g.db, g.path); err != nil {
		return err
	}
	if err := placed(g.log, g.path+"-wal"); err != nil {
		return err
	}
	return g.checkSizes()
}

func placed(file vfs.FileHasMoved, name string) error {
	moved, err := file.HasMoved()
	if err != nil {
		return unreachable(name, err)
	}
	if moved {
		return misplaced(name)
	}
	return nil
}

func (g *guard) checkSizes() error {
	size, err := g.db.Size()
	if err != nil {
		return unreachable(g.path, err)
	}
	if least := g.dbSize.Load(); size < least {
		return cutOff(g.path, size, least)
	} else if size > least {
		g.dbSize.CompareAndSwap(least, size)
	}
	if size, err = g.log.Size(); err != nil {
		return unreachable(g.path+"-wal", err)
	}
	if least := g.logSize.Load(); size < least {
		return cutOff(g.path+"-wal", size, least)
	}
	return nil
}

// confirm is check for the writer, which can find out whether a shorter log is one that another program has copied into the database and emptied,
// as SQLite lets it. If not, the files are never trusted again.
func (g *guard) confirm(c *conn) error {
	err := g.check()
	var cut *cutError
	if err == nil || !errors.As(err, &cut) {
		return err
	}
	if frames, _, noop := c.db.WALCheckpoint("main", sqlite3.CHECKPOINT_NOOP); cut.name != g.path && noop == nil {
		before := g.logSize.Load()
		g.logSize.Store(min(logKept, logHeader+int64(frames)*(frameHeader+g.page)))
		if frames == 0 {
			g.logSize.Store(0)
		}
		if g.check() == nil {
			return nil
		}
		g.logSize.Store(before)
	}
	g.cut.CompareAndSwap(nil, registration.Trouble(err))
	return err
}

// readable is check for readers, at most every readersAsk; between two checks nothing is known to be wrong.
func (g *guard) readable() error {
	if cut := g.cut.Load(); cut != nil {
		return cut
	}
	now, last := int64(time.Since(started)), g.asked.Load()
	if now-last < int64(readersAsk) && last != 0 {
		return nil
	}
	err := g.check()
	if err == nil { // else the next reader looks again
		g.asked.Store(now)
	}
	return err
}

// cutError is the inside of the trouble with a file that has become shorter.
type cutError struct {
	name       string
	size, want int64
}

func (e *cutError) Error() string {
	return fmt.Sprintf("%s has %d bytes where %d were written", e.name, e.size, e.want)
}

func cutOff(name string, size, want int64) error {
	return &registration.StoreTrouble{
		Public: "A file of the database was cut while the service ran.",
		Advice: fmt.Sprintf("Nothing is read or written any more, so that nothing false is said: stop the service, keep %s aside, and restore a backup.", name),
		Err:    &cutError{name, size, want},
	}
}

func misplaced(name string) error {
	return &registration.StoreTrouble{
		Public: "A file of the database is not in its place.",
		Advice: fmt.Sprintf("%s was deleted, moved or replaced while the service ran: move the file back and the service goes on by itself. "+
			"If it is deleted, do not stop the service before the file is saved: its only name left is below /proc/PID/fd. Otherwise restore a backup.", name),
	}
}

func unreachable(name string, err error) error {
	return &registration.StoreTrouble{
		Public: "A file of the database cannot be reached.",
		Advice: fmt.Sprintf("Look after %s and its file system; the service goes on by itself when the file can be reached again.", name),
		Err:    err,
	}
}
