package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"latchkey.example/latchkey/internal/registration"
)

// ErrQueueFull refuses a transition because too many wait already. Nothing was written.
var ErrQueueFull = errors.New("the store has too many transitions waiting")

// ErrClosed refuses a call on a closed Store. Nothing was written.
var ErrClosed = errors.New("the store is closed")

// ErrUnknownOutcome says that the caller gave up while its transition was being written: it may or may not be applied.
var ErrUnknownOutcome = errors.New("gave up while the store was writing, the outcome is unknown")

// transition changes the database inside a savepoint. What it wrote is kept only if it returns Applied and nil.
type transition func(c *conn) (registration.Verdict, error)

// outcome is what a transition's caller is told.
type outcome struct {
	verdict registration.Verdict
	err     error
}

// States of a job: who claims it first, the writer or a caller that gives up, decides whether it is written.
const (
	waiting int32 = iota
	claimed
	abandoned
)

type job struct {
	run   transition
	state atomic.Int32
	done  chan outcome // holds one: the writer never waits for a caller
	out   outcome      // the writer's, until it is sent
}

// writer owns the only connection that writes.
type writer struct {
	queue   chan *job
	pace    pace
	faults  faults
	stopped chan struct{} // closed when the goroutine has ended

	transitions, commits atomic.Uint64

	mu     sync.RWMutex // held for reading while sending to queue
	closed bool

	conn       *conn // the writer goroutine's, until stopped
	checkpoint *checkpointer
	guard      *guard
	health     *health
}

func openWriter(path string, opts Options, h *health) (*writer, error) {
	sync := "synchronous = FULL"
	if opts.faults.neverSync {
		sync = "synchronous = OFF"
	}
	c, err := dialExisting(path, opts.VFS, sync, "cache_size = -8000", "journal_size_limit = 67108864")
	if err != nil {
		return nil, err
	}
	if err := checkSchema(c, path); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if err := useWAL(c); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), c.close())
	}
	if !opts.faults.neverSync {
		if err := syncLog(c); err != nil {
			return nil, errors.Join(fmt.Errorf("database %s: sync its log: %w", path, err), c.close())
		}
	}
	if err := forgetCopy(c); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), c.close())
	}
	g, err := newGuard(c, path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), c.close())
	}
	k, err := openCheckpointer(path, opts, sync, g)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), c.close())
	}
	w := &writer{
		queue:      make(chan *job, queueLimit),
		pace:       pace{linger: opts.Linger},
		faults:     opts.faults,
		stopped:    make(chan struct{}),
		conn:       c,
		checkpoint: k,
		guard:      g,
		health:     h,
	}
	c.db.WALHook(k.committed)
	go w.loop()
	return w, nil
}

// syncLog makes safe what a killed process left in the log. A commit is readable once it is written, and after a kill the machine's cache
// still holds it: without this, a device could be given a key from a row that the next power loss takes away. A checkpoint would
// not do in all cases: it syncs nothing while another process reads at an older mark.
func syncLog(c *conn) error {
	if err := openLog(c); err != nil {
		return err
	}
	log, err := c.db.FileControl("main", sqlite3.FCNTL_JOURNAL_POINTER)
	if err != nil {
		return err
	}
	file, ok := log.(vfs.File)
	if !ok {
		return errors.New("it is not open")
	}
	return file.Sync(vfs.SYNC_FULL)
}

// openLog has the connection open the log, if useWAL has just made it the mode.
func openLog(c *conn) error { return c.db.Exec("SELECT 1 FROM sqlite_schema LIMIT 1") }

// write queues a transition and waits for its outcome.
func (s *Store) write(ctx context.Context, run transition) (registration.Verdict, error) {
	return s.writer.write(ctx, run)
}

func (w *writer) write(ctx context.Context, run transition) (registration.Verdict, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	j := &job{run: run, done: make(chan outcome, 1)}
	if err := w.enqueue(j); err != nil {
		return 0, err
	}
	select {
	case out := <-j.done:
		return out.verdict, out.err
	case <-ctx.Done():
	}
	if j.state.CompareAndSwap(waiting, abandoned) {
		return 0, ctx.Err() // the writer will pass it over
	}
	return 0, errors.Join(ErrUnknownOutcome, ctx.Err())
}

func (w *writer) enqueue(j *job) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return ErrClosed
	}
	select {
	case w.queue <- j:
		return nil
	default:
		return ErrQueueFull
	}
}

// loop is the writer goroutine: it ends when the queue is closed and empty.
func (w *writer) loop() {
	defer close(w.stopped)
	for first := range w.queue {
		batch := w.gather(first)
		w.commit(batch)
		// Who waits now came while this batch's callers were still unanswered, so it is another.
		w.pace.finished(time.Now(), len(batch), len(w.queue) > 0)
		for _, j := range batch {
			w.answer(j)
		}
	}
}

// gather takes what waits already, and lingers for more if the pace says so.
func (w *writer) gather(first *job) []*job {
	batch := append(make([]*job, 0, len(w.queue)+1), first)
	for len(batch) < batchLimit && len(w.queue) > 0 {
		batch = append(batch, <-w.queue) // the only receiver: it cannot block
	}
	wait := w.pace.wait(time.Now(), len(batch))
	if wait <= 0 {
		return batch
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for len(batch) < batchLimit {
		select {
		case j, ok := <-w.queue:
			if !ok {
				return batch
			}
			batch = append(batch, j)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

// commit runs the batch in one transaction and leaves each job's outcome in it.
func (w *writer) commit(batch []*job) {
	err := w.guarded(func() error {
		return w.transact(batch)
	})
	w.commits.Add(1)
	w.transitions.Add(uint64(len(batch)))
	if err == nil {
		return
	}
	// Verdicts rest on what others of the batch had written: with the batch gone none of them stands.
	for _, j := range batch {
		j.out = outcome{err: fmt.Errorf("commit: %w", err)}
	}
}

// guarded commits between two looks at the files, and notes how it went. A commit that wrote nothing shows nothing of the disk.
func (w *writer) guarded(commit func() error) error {
	before := w.guard.commits.Load()
	err := w.ready()
	if err == nil {
		err = commit()
	}
	if err == nil && !w.faults.unguarded {
		err = w.guard.check()
	}
	if err != nil || w.guard.commits.Load() != before {
		err = w.health.noted(&w.health.writing, err)
	}
	return err
}

// ready refuses a transaction before it is begun, while its outcome is known.
func (w *writer) ready() error {
	if w.faults.unguarded {
		return nil
	}
	if err := w.guard.confirm(w.conn); err != nil {
		return err
	}
	return w.checkpoint.bound(w.conn.db)
}

// transact runs the batch in one transaction.
func (w *writer) transact(batch []*job) error {
	return w.conn.transaction(func() error {
		for _, j := range batch {
			if !j.state.CompareAndSwap(waiting, claimed) {
				continue
			}
			if err := w.runOne(j); err != nil {
				return err
			}
			if w.faults.answerBeforeWrite {
				w.answer(j)
			}
		}
		return nil
	})
}

func (w *writer) answer(j *job) {
	select {
	case j.done <- j.out:
	default: // answered already
	}
}

// runOne runs one job in its savepoint. The error it returns is the whole batch's: the database failed, not the job.
func (w *writer) runOne(j *job) error {
	c := w.conn
	if _, err := c.exec("SAVEPOINT job"); err != nil {
		return err
	}
	j.out.verdict, j.out.err = j.run(c)
	if j.out.err == nil && j.out.verdict == registration.Applied {
		_, err := c.exec("RELEASE job")
		return err
	}
	if c.db.GetAutocommit() || j.out.err != nil && !jobsOwn(j.out.err) {
		return j.out.err // SQLite has given up the transaction, or should
	}
	if _, err := c.exec("ROLLBACK TO job"); err != nil {
		return err
	}
	_, err := c.exec("RELEASE job")
	return err
}

// jobsOwn tells errors that the job's values caused from those of the database.
func jobsOwn(err error) bool {
	var e *sqlite3.Error
	if !errors.As(err, &e) {
		return true
	}
	switch e.Code() {
	case sqlite3.CONSTRAINT, sqlite3.MISMATCH, sqlite3.TOOBIG, sqlite3.RANGE:
		return true
	}
	return false
}

// stop refuses new transitions and waits for those in the queue.
func (w *writer) stop() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.stopped
}

// close stops and closes the connections; only the first call does anything.
func (w *writer) close() error {
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == nil {
		return nil
	}
	c := w.conn
	w.conn = nil
	if w.guard.check() != nil {
		// The connection that closes last copies the log and deletes it by its name. What bears the name now may be what somebody has saved.
		if _, err := c.db.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true); err != nil {
			return errors.Join(err, w.checkpoint.close())
		}
	}
	return errors.Join(w.checkpoint.close(), c.close())
}
