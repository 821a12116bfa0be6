package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// groupBytes bounds what waits to be written, records of all callers together; who brings more waits outside.
	groupBytes = 32 << 20
	// batchBytes is where a batch is written without waiting for more.
	batchBytes = 4 << 20
	// groupLinger is how long a batch waits for company, where the one before had some.
	groupLinger = 300 * time.Microsecond
	// groupPatience bounds what a caller waits: for room, for the disk.
	groupPatience = 10 * time.Second
)

// ErrBusy says that the disk did not take the record in time. It may have been written all the same.
var ErrBusy = errors.New("the disk did not take it in time")

// Group makes what many callers write durable together: one goroutine writes, and while it waits for the disk the next batch gathers. A lone caller
// waits for nobody. All methods are safe together.
type Group struct {
	commit   func(batch [][]byte) error
	linger   time.Duration
	patience time.Duration
	budget   *semaphore.Weighted
	queue    chan request
	end      sync.Once
	ending   chan struct{}
	ended    chan struct{}
}

type request struct {
	record []byte
	done   chan error // has room for the answer, whether or not anybody waits
}

// NewGroup starts the writing goroutine, which Close ends. commit is called by it alone, and has the batch durable when it returns nil; the
// slices are its own until it returns.
func NewGroup(commit func(batch [][]byte) error) *Group {
	g := &Group{
		commit: commit, linger: groupLinger, patience: groupPatience, budget: semaphore.NewWeighted(groupBytes),
		queue: make(chan request, 256), ending: make(chan struct{}), ended: make(chan struct{}),
	}
	go g.run()
	return g
}

// Write returns when the record is durable, or with an error that says that it may not be.
func (g *Group) Write(record []byte) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), g.patience)
	defer cancel()
	if err := g.put(ctx, record); err != nil {
		return 0, err
	}
	return len(record), nil
}

// put writes one record. When ctx ends first the record's place in memory stays taken until the disk has it.
func (g *Group) put(ctx context.Context, record []byte) error {
	if len(record) > groupBytes {
		return fmt.Errorf("a record of %d bytes is too large", len(record))
	}
	if g.budget.Acquire(ctx, int64(len(record))) != nil {
		return ErrBusy
	}
	r := request{record, make(chan error, 1)}
	select {
	case g.queue <- r:
	case <-g.ended:
		g.budget.Release(int64(len(record)))
		return fs.ErrClosed
	case <-ctx.Done():
		g.budget.Release(int64(len(record)))
		return ErrBusy
	}
	select {
	case err := <-r.done:
		return err
	case <-g.ended:
	case <-ctx.Done():
		return ErrBusy
	}
	select { // it may have been in the last batch
	case err := <-r.done:
		return err
	default:
		return fs.ErrClosed
	}
}

func (g *Group) run() {
	defer close(g.ended)
	crowded := false
	for {
		select {
		case r := <-g.queue:
			crowded = g.write(r, crowded)
		case <-g.ending:
			select {
			case r := <-g.queue:
				crowded = g.write(r, false)
			default:
				return
			}
		}
	}
}

// write writes one batch and says whether it had more than one record.
func (g *Group) write(first request, linger bool) (crowded bool) {
	batch := g.gather(first, linger)
	records := make([][]byte, len(batch))
	for i, r := range batch {
		records[i] = r.record
	}
	err := g.commit(records)
	for _, r := range batch {
		r.done <- err
		g.budget.Release(int64(len(r.record)))
	}
	return len(batch) > 1
}

// gather takes what waits, and lingers for more if there is company to be expected.
func (g *Group) gather(first request, linger bool) []request {
	batch, size := []request{first}, len(first.record)
	for size < batchBytes {
		select {
		case r := <-g.queue:
			batch, size = append(batch, r), size+len(r.record)
			continue
		default:
		}
		break
	}
	if !linger || g.linger <= 0 {
		return batch
	}
	timer := time.NewTimer(g.linger)
	defer timer.Stop()
	for size < batchBytes {
		select {
		case r := <-g.queue:
			batch, size = append(batch, r), size+len(r.record)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

// Close writes what waits and ends the goroutine; writes fail from then on.
func (g *Group) Close() {
	g.end.Do(func() { close(g.ending) })
	<-g.ended
}
