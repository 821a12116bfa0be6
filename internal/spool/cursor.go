package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Cursor is how far one reader has come, durably. Its methods are for one goroutine, but for Lag.
type Cursor struct {
	log  *Log
	name string

	// Guarded by the log's lock.
	next  uint64 // number of the record that is to be passed next
	saved uint64 // what of that is durable

	file   File // of the segment that is being read
	first  uint64
	offset int64
	at     uint64 // number of the record at offset
}

// Record is one of a log.
type Record struct {
	Seq     uint64
	Content []byte
}

const cursorStart = "cursor."

// readCursors reads what the folder holds of them, also those of readers that are no more: where they stand, new ones begin.
func (l *Log) readCursors(names []string) error {
	for _, name := range names {
		reader, ok := strings.CutPrefix(name, cursorStart)
		if !ok || !validName(reader) {
			continue
		}
		file, err := l.options.FS.Open(l.path(name), os.O_RDONLY)
		if err != nil {
			return err
		}
		raw := make([]byte, 64)
		n, _ := file.ReadAt(raw, 0) // shorter than that, so always with an error
		file.Close()
		c := &Cursor{log: l, name: reader}
		if _, err := fmt.Sscanf(string(raw[:n]), "%d\n", &c.saved); err != nil || string(raw[:n]) != cursorText(c.saved) {
			c.saved = 0 // damaged: everything that is there is given again
		}
		c.next = c.saved
		l.cursors[reader] = c
	}
	return nil
}

// settleCursors gives each reader its cursor, and removes those of readers that are no more. A new reader begins with the oldest record that another one
// had not passed, or with the next that comes: so one that was renamed misses nothing.
func (l *Log) settleCursors() error {
	start := l.end
	if passed, any := l.passed(saved); any {
		start = max(passed, l.segments[0].first)
	} else if len(l.segments) > 1 || l.segments[0].size > 0 {
		start = l.segments[0].first
	}
	for _, name := range l.options.Readers {
		if !validName(name) {
			return fmt.Errorf("%q cannot be the name of a reader", name)
		}
		c := l.cursors[name]
		if c == nil {
			c = &Cursor{log: l, name: name, next: start}
			l.cursors[name] = c
		}
		c.next = max(c.next, l.segments[0].first)
		if err := c.save(); err != nil {
			return err
		}
	}
	for name := range l.cursors {
		if slices.Contains(l.options.Readers, name) {
			continue
		}
		if err := l.options.FS.Remove(l.path(cursorStart + name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(l.cursors, name)
	}
	return nil
}

func cursorText(next uint64) string { return fmt.Sprintf("%d\n", next) }

// Cursor is that of a reader of LogOptions.Readers.
func (l *Log) Cursor(name string) *Cursor { return l.cursors[name] }

// Next waits for records and gives the next that are there, at most so many records and, but for the first, bytes. They stay the next ones until Pass.
func (c *Cursor) Next(ctx context.Context, records, bytes int) ([]Record, error) {
	for {
		c.log.mu.Lock()
		next, end, grown := c.next, c.log.end, c.log.grown
		c.log.mu.Unlock()
		if next < end {
			return c.read(next, end, records, bytes)
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *Cursor) read(next, end uint64, records, bytes int) (all []Record, err error) {
	if err := c.seek(next); err != nil {
		return nil, err
	}
	for size := 0; next < end && len(all) < records; next++ {
		r, err := c.one()
		if err != nil {
			return nil, err
		}
		if size += len(r.Content); len(all) > 0 && size > bytes {
			break
		}
		all = append(all, r)
	}
	return all, nil
}

// seek goes to a record: on from where it stands, or from the beginning of its segment.
func (c *Cursor) seek(next uint64) error {
	if c.file == nil || c.at > next {
		c.close()
		if err := c.openSegment(next); err != nil {
			return err
		}
		if c.first > next {
			return &Damaged{c.log.path(segmentName(c.first)), 0, fmt.Errorf("record %d should be before it", next)}
		}
	}
	for c.at < next {
		if _, err := c.one(); err != nil {
			return err
		}
	}
	return nil
}

// one reads the record that the cursor stands at, and goes to the one after it.
func (c *Cursor) one() (Record, error) {
	s, last := c.segment()
	if c.offset == s.size && !last {
		seq := c.at
		c.close()
		if err := c.openSegment(seq); err != nil {
			return Record{}, err
		}
		if c.first != seq {
			c.close()
			return Record{}, &Damaged{c.log.path(segmentName(s.first)), s.size, fmt.Errorf("record %d should follow", seq)}
		}
		s, _ = c.segment()
	}
	h, content, err := readRecord(c.file, c.offset, s.size)
	if errors.Is(err, errNoRecord) || err == nil && h.seq != c.at {
		return Record{}, &Damaged{c.log.path(segmentName(s.first)), c.offset, errNoRecord}
	} else if err != nil {
		return Record{}, err
	}
	c.offset += headerSize + int64(h.length)
	c.at++
	return Record{h.seq, content}, nil
}

// segment is the one that is being read as it is now; last if no other follows it.
func (c *Cursor) segment() (s segment, last bool) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	for i, s := range c.log.segments {
		if s.first == c.first {
			return s, i == len(c.log.segments)-1
		}
	}
	return segment{first: c.first, size: c.offset}, false // passed by all, this reader too
}

// openSegment opens the segment that holds a record.
func (c *Cursor) openSegment(seq uint64) (err error) {
	c.log.mu.Lock()
	first := c.log.segments[0].first
	for _, s := range c.log.segments {
		if s.first <= seq {
			first = s.first
		}
	}
	c.log.mu.Unlock()
	c.file, err = c.log.options.FS.Open(c.log.path(segmentName(first)), os.O_RDONLY)
	c.first, c.offset, c.at = first, 0, first
	return err
}

func (c *Cursor) close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// Pass says that all records before this number are where they belong.
func (c *Cursor) Pass(next uint64) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.next = max(c.next, next)
}

// Save makes durable what was passed, and lets the log remove what no reader needs. If it cannot be written, as on a full disk, what all readers have
// passed is removed all the same, which makes room for it: their receivers have it.
func (c *Cursor) Save() error {
	err := c.save()
	if err == nil {
		return c.log.trim(saved)
	}
	if c.log.trim(func(c *Cursor) uint64 { return c.next }) == nil {
		err = c.save()
	}
	return err
}

func (c *Cursor) save() error {
	c.log.mu.Lock()
	next, saved := c.next, c.saved
	c.log.mu.Unlock()
	if next == saved {
		return nil
	}
	name := c.log.path(cursorStart + c.name)
	file, err := c.log.options.FS.Open(name+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = file.Write([]byte(cursorText(next)))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err = c.log.options.FS.Rename(name+".new", name); err != nil {
		return err
	}
	if err = c.log.options.FS.SyncFolder(c.log.folder); err != nil {
		return err
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.saved = next
	return nil
}

// Lag is how many records are to be passed, and about how many bytes they have.
func (c *Cursor) Lag() (records uint64, bytes int64) {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.segments {
		after := l.end
		if i+1 < len(l.segments) {
			after = l.segments[i+1].first
		}
		if after > c.next && after > s.first {
			bytes += int64(float64(s.size) * float64(after-max(c.next, s.first)) / float64(after-s.first))
		}
	}
	return l.end - c.next, bytes
}

// Close ends the reading; what was passed is saved.
func (c *Cursor) Close() error {
	c.close()
	return c.Save()
}
