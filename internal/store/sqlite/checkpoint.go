package sqlite

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/registration"
)

// checkpointer copies the log into the database beside the commits, on its own connection. Under steady writes it cannot finish,
// since the log grows while it copies; then the writer does the small rest.
type checkpointer struct {
	conn    *conn
	wake    chan struct{}
	ended   chan struct{}
	running sync.Mutex    // one copy at a time, of the two connections that make them
	failed  atomic.Uint64 // a failed copy loses nothing: the log keeps the pages and the next one tries again

	guard *guard
	last  atomic.Pointer[error] // why the last copy failed; nil: it did not
	tried time.Time             // when the writer tried last; the writer's

	every, force, limit int // pages; see Options
	mark                int // length of the log when last woken; the writer's
}

func openCheckpointer(path string, opts Options, sync string, g *guard) (*checkpointer, error) {
	c, err := dialExisting(path, opts.VFS, sync, "wal_autocheckpoint = 0")
	if err != nil {
		return nil, err
	}
	if err := openLog(c); err != nil {
		return nil, errors.Join(err, c.close())
	}
	k := &checkpointer{
		conn: c, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		every: opts.checkpointEvery, force: opts.checkpointForce, limit: opts.checkpointLimit, guard: g,
	}
	go k.loop()
	return k, nil
}

func (k *checkpointer) loop() {
	defer close(k.ended)
	for range k.wake {
		k.run(k.conn.db)
	}
}

// run copies, unless a copy is under way on the other connection, which does as well: SQLite would call the second one locked out, and that is no
// trouble of anybody's.
func (k *checkpointer) run(db *sqlite3.Conn) {
	if k.running.TryLock() {
		defer k.running.Unlock()
		k.copyLocked(db)
	}
}

// copyLocked copies, unless the files are not what they should be: what stands in a log that was cut would spoil the database.
func (k *checkpointer) copyLocked(db *sqlite3.Conn) {
	err := k.guard.check()
	if err == nil {
		_, _, err = db.WALCheckpoint("main", sqlite3.CHECKPOINT_PASSIVE)
	}
	if err != nil {
		k.failed.Add(1)
		k.last.Store(&err)
		return
	}
	k.last.Store(nil)
}

// bound refuses to let the log grow for ever while copies of it fail; readers that hold one up are no failure. The writer calls it.
func (k *checkpointer) bound(db *sqlite3.Conn) error {
	if k.last.Load() == nil || k.guard.frames.Load() < int64(k.limit) {
		return nil
	}
	failed := k.lastTry(db)
	if failed == nil {
		return nil
	}
	inside := trouble(k.guard.path, *failed)
	if registration.Trouble(inside) != nil {
		return inside
	}
	return &registration.StoreTrouble{Public: "The log of the database cannot be copied into it.",
		Advice: fmt.Sprintf("Look after the disk of %s; the service goes on by itself.", k.guard.path), Err: inside}
}

// lastTry waits for a copy that is under way, as it may end well, and makes one if it is time to. It returns why the last one failed; nil if it did not.
func (k *checkpointer) lastTry(db *sqlite3.Conn) *error {
	k.running.Lock()
	defer k.running.Unlock()
	if k.last.Load() != nil && k.due() {
		k.copyLocked(db)
	}
	return k.last.Load()
}

// retryEvery is how often the writer tries a copy while copies fail.
const retryEvery = time.Second

// due says whether the writer may try a copy now: while they fail it does not at each commit.
func (k *checkpointer) due() bool {
	now := time.Now()
	if k.last.Load() != nil && now.Sub(k.tried) < retryEvery {
		return false
	}
	k.tried = now
	return true
}

// committed is called after each commit with the length of the log. Its error would be taken for the commit's, which has
// succeeded, so it never returns one.
func (k *checkpointer) committed(db *sqlite3.Conn, _ string, pages int) error {
	k.guard.committed(pages)
	switch {
	case pages >= k.force:
		if k.due() {
			k.run(db)
		}
	case pages < k.mark:
		k.mark = pages // the log has started over
	case pages-k.mark >= k.every:
		k.mark = pages
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// close ends the goroutine; the writer must have stopped.
func (k *checkpointer) close() error {
	close(k.wake)
	<-k.ended
	return k.conn.close()
}
