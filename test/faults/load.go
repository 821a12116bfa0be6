package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Load is devices that register at full rate until Stop.
type Load struct {
	scope   string
	doors   []*Door
	devices []*Device

	findings findings
	waits    waits
	counts   struct {
		assigned, lost, cut, unserved, forgotten atomic.Int64
	}

	mu      sync.Mutex
	told    int64 // proofs acknowledged
	waiters map[chan struct{}]int64

	end     chan struct{} // closed: begin nothing more
	abandon context.CancelFunc
	working sync.WaitGroup
}

// Plan says how devices register.
type Plan struct {
	Scope   string
	Doors   []*Door // each request goes to any of them
	Devices []*Device
	Workers int // devices that register at one time; at most one for each device
	Seed    uint64
}

// Start begins.
func Start(p Plan) *Load {
	ctx, abandon := context.WithCancel(context.Background())
	l := &Load{scope: p.Scope, doors: p.Doors, devices: p.Devices, waiters: map[chan struct{}]int64{}, end: make(chan struct{}), abandon: abandon}
	for n := range min(p.Workers, len(p.Devices)) {
		w := &worker{load: l, random: rand.New(rand.NewPCG(p.Seed, uint64(n)+1))}
		for i := n; i < len(p.Devices); i += p.Workers {
			w.devices = append(w.devices, p.Devices[i])
		}
		l.working.Go(func() { w.run(ctx, l.end) })
	}
	return l
}

// acknowledged counts a 202 and wakes those who wait for it.
func (l *Load) acknowledged() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told++
	for waiter, target := range l.waiters {
		if l.told >= target {
			close(waiter)
			delete(l.waiters, waiter)
		}
	}
}

// Told is how many proofs were acknowledged so far.
func (l *Load) Told() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told
}

// Await waits until so many more proofs were acknowledged. It is an error if that takes longer than the limit: then the load does not flow.
func (l *Load) Await(more int64, limit time.Duration) error {
	l.mu.Lock()
	before := l.told
	waiter := make(chan struct{})
	if more > 0 {
		l.waiters[waiter] = before + more
	} else {
		close(waiter)
	}
	l.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-waiter:
		return nil
	case <-timer.C:
		return fmt.Errorf("%d of %d registrations were acknowledged within %v", l.Told()-before, more, limit)
	}
}

// Stop lets each device end what it has begun, for which all nodes must be there, and breaks off what takes longer than the limit.
func (l *Load) Stop(limit time.Duration) {
	close(l.end)
	timer := time.AfterFunc(limit, func() {
		l.findings.add(Stalled, "end", "devices were still waiting for an answer after %v: %s", limit, l.waits.all())
		l.abandon()
	})
	l.working.Wait()
	timer.Stop()
	l.abandon()
	for _, door := range l.doors {
		door.Close()
	}
}

// Forgotten is how many proofs of terse devices were turned away because nobody remembered their owner.
func (l *Load) Forgotten() int64 { return l.counts.forgotten.Load() }

// Unserved is how many questions were answered with a time to come again.
func (l *Load) Unserved() int64 { return l.counts.unserved.Load() }

// Findings are what the devices themselves noticed.
func (l *Load) Findings() []Finding { return l.findings.all() }

func (l *Load) String() string {
	return fmt.Sprintf("%d proofs acknowledged, %d hub keys opened; asked again after %d hung up, %d cut, %d unserved; %d owners forgotten; the longest wait for an answer that counts was %v",
		l.Told(), l.counts.assigned.Load(), l.counts.lost.Load(), l.counts.cut.Load(), l.Unserved(), l.Forgotten(), l.waits.longest())
}
