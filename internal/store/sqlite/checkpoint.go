package sqlite

import (
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"
)

// checkpointer copies the log into the database beside the commits, on its own connection. Under steady writes it cannot finish,
// since the log grows while it copies; then the writer does the small rest.
type checkpointer struct {
	conn   *conn
	wake   chan struct{}
	ended  chan struct{}
	failed atomic.Uint64 // a failed copy loses nothing: the log keeps the pages and the next one tries again

	every, force int // pages; see Options
	mark         int // length of the log when last woken; the writer's
}

func openCheckpointer(path string, opts Options, sync string) (*checkpointer, error) {
	c, err := dialExisting(path, opts.VFS, sync, "wal_autocheckpoint = 0")
	if err != nil {
		return nil, err
	}
	k := &checkpointer{
		conn: c, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		every: opts.checkpointEvery, force: opts.checkpointForce,
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

func (k *checkpointer) run(db *sqlite3.Conn) {
	if _, _, err := db.WALCheckpoint("main", sqlite3.CHECKPOINT_PASSIVE); err != nil {
		k.failed.Add(1)
	}
}

// committed is called after each commit with the length of the log. Its error would be taken for the commit's, which has
// succeeded, so it never returns one.
func (k *checkpointer) committed(db *sqlite3.Conn, _ string, pages int) error {
	switch {
	case pages >= k.force:
		k.run(db)
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
