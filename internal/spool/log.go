package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrFull says that a log is at its bound: some reader has not passed what is in it.
var ErrFull = errors.New("the spool is full: an output does not take what it holds")

// LogOptions are those of a Log.
type LogOptions struct {
	FS      FS       // nil: Disk
	Limit   int64    // bytes of all segments together; 0: 1 GiB
	Segment int64    // bytes after which a segment is followed by another; 0: 16 MiB
	Readers []string // names of the readers: letters, digits, - and _. What all have passed is removed
	// Patience is how long a write waits for room and for the disk; 0: 10 s.
	Patience time.Duration
	// Changed is told when the log becomes full, that is, somebody had to wait for room, and when there is room again. May be nil; must not call the log.
	Changed func(full bool)
}

// Log keeps records in the order in which they came until all its readers have passed them. Records are numbered, without gaps. All methods are safe
// together.
type Log struct {
	options LogOptions
	folder  string
	group   *Group
	active  File   // the last segment; the committing goroutine's alone
	broken  bool   // behind what is durable in it there may be something; the committing goroutine's alone
	buf     []byte // the same's

	mu       sync.Mutex
	segments []segment // oldest first, at least one
	end      uint64    // number of the next record: all before it are durable
	size     int64     // of all segments
	reserved int64     // for records that are on their way
	full     bool      // somebody had to wait for room, and there is little since
	grown    chan struct{}
	freed    chan struct{}
	cursors  map[string]*Cursor
}

// segment is one file.
type segment struct {
	first uint64 // number of its first record
	size  int64  // bytes that are durable
}

const segmentEnd = ".log"

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentEnd) }

func segmentFirst(name string) (first uint64, ok bool) {
	_, err := fmt.Sscanf(name, "%020d", &first)
	return first, err == nil && name == segmentName(first)
}

// OpenLog opens or makes the log in a folder of its own. A record that was not wholly written when the process or the machine ended was not acknowledged,
// and is cut off. Its error is a *Damaged when acknowledged ones cannot be read.
func OpenLog(folder string, options LogOptions) (*Log, error) {
	if options.FS == nil {
		options.FS = Disk{}
	}
	if options.Limit <= 0 {
		options.Limit = 1 << 30
	}
	if options.Segment <= 0 {
		options.Segment = 16 << 20
	}
	l := &Log{options: options, folder: folder, grown: make(chan struct{}), freed: make(chan struct{}), cursors: map[string]*Cursor{}}
	if err := options.FS.MakeFolder(folder); err != nil {
		return nil, err
	}
	if err := l.recover(); err != nil {
		if l.active != nil {
			l.active.Close()
		}
		return nil, err
	}
	l.group = NewGroup(l.commit)
	if options.Patience > 0 {
		l.group.patience = options.Patience
	}
	return l, nil
}

// recover reads the folder. Everything it changes is such that it may be cut off and begun anew.
func (l *Log) recover() error {
	names, err := l.options.FS.Names(l.folder)
	if err != nil {
		return err
	}
	if err := l.readCursors(names); err != nil {
		return err
	}
	for _, name := range names {
		if first, ok := segmentFirst(name); ok {
			l.segments = append(l.segments, segment{first: first})
		}
	}
	if err := l.dropPassed(); err != nil {
		return err
	}
	if err := l.openLast(); err != nil {
		return err
	}
	for i := range l.segments[:len(l.segments)-1] {
		if l.segments[i].size, err = l.sizeOf(l.segments[i].first); err != nil {
			return err
		}
	}
	for _, s := range l.segments {
		l.size += s.size
	}
	return l.settleCursors()
}

func (l *Log) path(name string) string { return filepath.Join(l.folder, name) }

func (l *Log) sizeOf(first uint64) (int64, error) {
	file, err := l.options.FS.Open(l.path(segmentName(first)), os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	size, err := file.Size()
	return size, errors.Join(err, file.Close())
}

// dropPassed removes what all readers have passed. The power's loss may bring back such a segment, and not the one after it: so it comes first.
func (l *Log) dropPassed() error {
	passed, any := l.passed(saved)
	for any && len(l.segments) > 1 && l.segments[1].first <= passed {
		if err := l.options.FS.Remove(l.path(segmentName(l.segments[0].first))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		l.segments = l.segments[1:]
	}
	return nil
}

// openLast opens the segment that is written to, or makes the first one.
func (l *Log) openLast() error {
	if len(l.segments) == 0 {
		first := uint64(1)
		for _, c := range l.cursors {
			first = max(first, c.saved)
		}
		for _, c := range l.cursors { // somebody has removed the segments: there is nothing to be passed
			c.next = first
		}
		l.end = first
		return l.beginSegment(first)
	}
	last := &l.segments[len(l.segments)-1]
	name := l.path(segmentName(last.first))
	var err error
	if l.active, err = l.options.FS.Open(name, os.O_RDWR|os.O_APPEND); err != nil {
		return err
	}
	if l.end, last.size, err = recoverSegment(l.active, name, last.first); err != nil {
		return err
	}
	for _, c := range l.cursors {
		if c.saved > l.end {
			return &Damaged{name, last.size, fmt.Errorf("it ends with record %d, and %s has passed record %d", l.end-1, c.name, c.saved-1)}
		}
	}
	l.broken = true
	return l.mend(last.size)
}

// mend cuts off what may stand behind the durable part of the active segment.
func (l *Log) mend(size int64) error {
	if !l.broken {
		return nil
	}
	if err := l.active.Truncate(size); err != nil {
		return err
	}
	if err := l.active.Sync(); err != nil {
		return err
	}
	l.broken = false
	return nil
}

// beginSegment makes the file of a new last segment, durable as such.
func (l *Log) beginSegment(first uint64) error {
	file, err := l.options.FS.Open(l.path(segmentName(first)), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), l.options.FS.SyncFolder(l.folder)); err != nil {
		file.Close()
		return err
	}
	if l.active != nil {
		l.active.Close()
	}
	l.active, l.broken = file, false
	l.segments = append(l.segments, segment{first: first})
	return nil
}

// Write returns when the record is durable. ErrFull if the readers make no room in time, ErrBusy if the disk does not take it in time; after any error the
// record may be in the log, or not.
func (l *Log) Write(record []byte) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), l.group.patience)
	defer cancel()
	need := int64(headerSize + len(record))
	if len(record) > maxRecord {
		return 0, fmt.Errorf("a record of %d bytes is too large", len(record))
	}
	if err := l.reserve(ctx, need); err != nil {
		return 0, err
	}
	err := l.group.put(ctx, record)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved -= need
	if l.full { // what is written counted twice for a moment
		l.freeLocked()
	}
	if err != nil {
		return 0, err
	}
	return len(record), nil
}

// reserve waits for room.
func (l *Log) reserve(ctx context.Context, need int64) error {
	for {
		l.mu.Lock()
		room := l.size+l.reserved+need <= l.options.Limit
		if room {
			l.reserved += need
		}
		if !room {
			l.setFullLocked(true)
		}
		freed := l.freed
		l.mu.Unlock()
		if room {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ErrFull
		}
	}
}

func (l *Log) setFullLocked(full bool) {
	if full != l.full && l.options.Changed != nil {
		l.options.Changed(full)
	}
	l.full = full
}

// commit appends a batch and syncs it. After an error what was written is cut off before the next batch: a sync that failed once may succeed the next
// time though nothing of it reached the disk.
func (l *Log) commit(batch [][]byte) error {
	l.mu.Lock()
	last := l.segments[len(l.segments)-1]
	seq := l.end
	l.mu.Unlock()
	if err := l.mend(last.size); err != nil {
		return err
	}
	if last.size >= l.options.Segment {
		l.mu.Lock()
		err := l.beginSegment(seq)
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	buf := l.buf[:0]
	for i, content := range batch {
		buf = appendRecord(buf, seq+uint64(i), seq, content)
	}
	if l.buf = buf; cap(buf) > 2*batchBytes {
		l.buf = nil
	}
	l.broken = true
	if _, err := l.active.Write(buf); err != nil {
		return err
	}
	if err := l.active.Sync(); err != nil {
		return err
	}
	l.broken = false
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[len(l.segments)-1].size += int64(len(buf))
	l.size += int64(len(buf))
	l.end = seq + uint64(len(batch))
	close(l.grown)
	l.grown = make(chan struct{})
	return nil
}

// trim removes what all readers have passed.
func (l *Log) trim(by func(*Cursor) uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	passed, any := l.passed(by)
	freed := false
	for any && len(l.segments) > 1 && l.segments[1].first <= passed {
		if err := l.options.FS.Remove(l.path(segmentName(l.segments[0].first))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		l.size -= l.segments[0].size
		l.segments = slices.Clone(l.segments[1:])
		freed = true
	}
	if freed {
		l.freeLocked()
	}
	return nil
}

// freeLocked lets those look again who wait for room. The log counts as full until there is more than a little.
func (l *Log) freeLocked() {
	close(l.freed)
	l.freed = make(chan struct{})
	if l.size+l.reserved <= l.options.Limit/10*9 {
		l.setFullLocked(false)
	}
}

// passed is the lowest number that all readers have reached.
func (l *Log) passed(by func(*Cursor) uint64) (lowest uint64, any bool) {
	for _, c := range l.cursors {
		if at := by(c); !any || at < lowest {
			lowest, any = at, true
		}
	}
	return lowest, any
}

func saved(c *Cursor) uint64 { return c.saved }

// LogState is how a log stands.
type LogState struct {
	Bytes, Limit int64
	Full         bool // somebody waits for room, or has given up waiting
}

// State says how the log stands.
func (l *Log) State() LogState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LogState{l.size, l.options.Limit, l.full}
}

// Close ends it; writes fail from then on. The readers have ended before.
func (l *Log) Close() error {
	l.group.Close()
	return l.active.Close()
}

// validName says which names readers may have: they are parts of file names.
func validName(name string) bool {
	return name != "" && len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
