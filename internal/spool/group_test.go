package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestConcurrentWritersShareSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batches, records := 0, 0
		g := NewGroup(func(batch [][]byte) error {
			batches, records = batches+1, records+len(batch)
			time.Sleep(time.Millisecond)
			return nil
		})
		var writers sync.WaitGroup
		for range 100 {
			writers.Go(func() {
				for range 10 {
					if _, err := g.Write([]byte("x")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		g.Close()
		if records != 1000 || batches > 30 {
			t.Errorf("%d records in %d batches", records, batches)
		}
	})
}

func TestALoneWriterDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(func([][]byte) error { return nil })
		defer g.Close()
		start := time.Now()
		for range 100 {
			if _, err := g.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("waited %v", took)
		}
	})
}

func TestABatchThatFailsIsAcknowledgedToNobody(t *testing.T) {
	boom := errors.New("boom")
	g := NewGroup(func([][]byte) error { return boom })
	defer g.Close()
	var writers sync.WaitGroup
	for range 20 {
		writers.Go(func() {
			if _, err := g.Write([]byte("x")); !errors.Is(err, boom) {
				t.Errorf("got %v", err)
			}
		})
	}
	writers.Wait()
}

// A disk that hangs makes callers wait and then give up; what they brought is bounded, and its place is taken until the disk has it.
func TestADiskThatHangsCostsBoundedMemoryAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		g := NewGroup(func([][]byte) error { <-goOn; return nil })
		record := bytes.Repeat([]byte("x"), 1<<20)
		var writers sync.WaitGroup
		var busy atomic.Int32
		for range 100 {
			writers.Go(func() {
				if _, err := g.Write(record); errors.Is(err, ErrBusy) {
					busy.Add(1)
				}
			})
		}
		writers.Wait()
		if busy.Load() != 100 || g.budget.TryAcquire(1) {
			t.Errorf("%d gave up; the bound holds: %t", busy.Load(), !g.budget.TryAcquire(1))
		}
		close(goOn)
		g.Close()
		if !g.budget.TryAcquire(groupBytes) {
			t.Error("what was written is counted still")
		}
	})
}

func TestOrderOfOneCallerIsKept(t *testing.T) {
	var mu sync.Mutex
	got := map[byte][]string{}
	g := NewGroup(func(batch [][]byte) error {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range batch {
			got[r[0]] = append(got[r[0]], string(r[1:]))
		}
		return nil
	})
	var writers sync.WaitGroup
	for c := range byte(8) {
		writers.Go(func() {
			for n := range 200 {
				g.Write(fmt.Appendf([]byte{c}, "%04d", n))
			}
		})
	}
	writers.Wait()
	g.Close()
	for c, all := range got {
		if len(all) != 200 || !slices.IsSorted(all) {
			t.Errorf("%d: %v", c, all)
		}
	}
	if _, err := g.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
