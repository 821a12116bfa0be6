// Package sqlite keeps Latchkey's state in one SQLite database (registration.Store and the identities of the embedded hub).
//
// It guarantees what registration.Store promises: a transition that returned nil is on the disk (write-ahead log,
// synchronous=FULL) and whole, with its audit row. One goroutine writes; transitions that arrive together share one
// commit and so one flush, each in its own savepoint, so that none can fail another. Reads run beside it on a
// bounded pool of connections and see one consistent snapshot each. What a killed process had written and not flushed is flushed
// by the next Open before anything is read of it, so that no answer rests on rows that a power loss could still take away.
//
// It trusts the disk to keep what it has flushed, the file system to keep its locks, and the caller to seal secrets: it
// stores sealed bytes as they are. Open never makes or changes a schema: Create and Migrate do.
//
// The memory of open challenges' owners lies in a second file, PATH.volatile, that is never flushed and is made anew when it is missing
// or damaged.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Options tune a Store. The zero value is what the service uses.
type Options struct {
	// Linger is how long a commit waits for company when other transitions are under way; zero means 2 ms,
	// negative means never. A transition that is alone does not wait.
	Linger time.Duration
	// Readers is the number of read connections; zero means one per processor, at least 2.
	Readers int
	// VFS names a registered file layer; empty means the operating system's.
	VFS string
	// Logger is told when the disk begins to fail, each minute while it does, and when it works again; nil: nobody is.
	Logger *slog.Logger

	now    func() time.Time // of the outbox; nil: time.Now
	faults faults

	// The growth of the log, in pages, after which the background copies it into the database, and its length at which the
	// writer finishes the copy itself, so that the log starts over. Zero means the defaults; tests make them small.
	checkpointEvery, checkpointForce int
	// checkpointLimit is the length of the log, in pages, at which nothing is written any more while copies fail.
	checkpointLimit int
}

// faults are the negative controls of the durability test. A Store with one of them set breaks its promises.
type faults struct {
	neverSync         bool // synchronous=OFF
	answerBeforeWrite bool // report a transition before its commit
	unguarded         bool // do not look whether the files are in their places
}

const (
	defaultLinger = 2 * time.Millisecond
	queueLimit    = 4096 // transitions waiting; more are refused
	batchLimit    = 512  // transitions in one commit

	defaultCheckpointEvery = 1000
	defaultCheckpointForce = 8000
	defaultCheckpointLimit = 65536 // 256 MB
)

// withDefaults replaces zero values.
func (o Options) withDefaults() Options {
	if o.Linger == 0 {
		o.Linger = defaultLinger
	}
	if o.Readers <= 0 {
		o.Readers = max(2, runtime.GOMAXPROCS(0))
	}
	if o.checkpointEvery == 0 {
		o.checkpointEvery, o.checkpointForce = defaultCheckpointEvery, defaultCheckpointForce
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.checkpointLimit == 0 {
		o.checkpointLimit = defaultCheckpointLimit
	}
	return o
}

// Store is an open database. Its methods are safe together.
type Store struct {
	writer  *writer
	readers *readers
	owners  *owners
	now     func() time.Time
	health  *health
}

var _ registration.Store = (*Store)(nil)

// Open opens the database at path, which Create has made. It refuses, in one sentence that says what to do, a missing
// database and one with an older or newer schema.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := open(path, opts.withDefaults())
	if err != nil {
		return nil, atStart(path, opts.VFS, err)
	}
	return s, nil
}

// open leaves nothing open if it fails.
func open(path string, opts Options) (*Store, error) {
	h := newHealth(path, opts.VFS, opts.Logger)
	w, err := openWriter(path, opts, h)
	if err != nil {
		return nil, err
	}
	r, err := openReaders(path, opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), w.close())
	}
	o, err := openOwners(path+".volatile", opts.VFS)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %s.volatile: %w", path, err), r.close(), w.close())
	}
	return &Store{writer: w, readers: r, owners: o, now: opts.now, health: h}, nil
}

// Close refuses new transitions, finishes those that wait, and closes the files. Calls after it fail.
func (s *Store) Close() error {
	// The writer comes last: the connection that closes last folds the log into the database.
	s.writer.stop()
	return errors.Join(s.owners.close(), s.readers.close(), s.writer.close())
}

// Stats are counters since Open.
type Stats struct {
	Transitions uint64 // committed, refused ones included
	Commits     uint64 // that they shared
	// FailedCheckpoints counts copies of the log into the database that failed. Nothing is lost by one, but while they
	// fail the log grows.
	FailedCheckpoints uint64
	FailedWrites      uint64 // commits that the disk failed
	FailedReads       uint64
	Failing           bool // the last write or read that shows it failed for the disk's sake
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	w := s.writer
	return Stats{
		Transitions: w.transitions.Load(), Commits: w.commits.Load(), FailedCheckpoints: w.checkpoint.failed.Load(),
		FailedWrites: s.health.writing.failures.Load(), FailedReads: s.health.reading.failures.Load(),
		Failing: s.health.writing.failing.Load() || s.health.reading.failing.Load(),
	}
}
