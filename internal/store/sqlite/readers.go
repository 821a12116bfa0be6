package sqlite

import (
	"context"
	"errors"
	"sync"
)

// readers is a bounded pool of connections that only read.
type readers struct {
	idle   chan *conn
	size   int
	once   sync.Once
	closed chan struct{}
}

func openReaders(path string, opts Options) (*readers, error) {
	p := &readers{idle: make(chan *conn, opts.Readers), closed: make(chan struct{}), size: opts.Readers}
	for i := range opts.Readers {
		c, err := dialExisting(path, opts.VFS, "query_only = ON")
		if err != nil {
			p.size = i
			return nil, errors.Join(err, p.close())
		}
		// Now, and not at its first read: the log of that moment might be another file.
		if err := openLog(c); err != nil {
			p.size = i
			return nil, errors.Join(err, c.close(), p.close())
		}
		p.idle <- c
	}
	return p, nil
}

// read runs fn on a read connection. A single statement sees one snapshot; fn that needs more than one for it opens a transaction.
func (s *Store) read(ctx context.Context, fn func(c *conn) error) error {
	select {
	case <-s.readers.closed:
		return ErrClosed
	default:
	}
	select {
	case c := <-s.readers.idle:
		defer func() { s.readers.idle <- c }()
		defer c.db.SetInterrupt(c.db.SetInterrupt(ctx))
		err := s.writer.guard.readable()
		if err == nil {
			err = fn(c)
		}
		if err != nil && ctx.Err() != nil {
			return ctx.Err() // rather than SQLite's word for it
		}
		return s.health.noted(&s.health.reading, err)
	case <-s.readers.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close waits for reads under way; only the first call does anything.
func (p *readers) close() error {
	var errs []error
	p.once.Do(func() {
		close(p.closed)
		for range p.size {
			errs = append(errs, (<-p.idle).close())
		}
	})
	return errors.Join(errs...)
}
