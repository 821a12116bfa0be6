package embedded

import (
	"context"
	"sync"
	"time"
)

// keyLocks is one mutex per key, there only while somebody holds it or waits for it.
type keyLocks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	held  chan struct{} // holds one element while locked
	users int           // guarded by keyLocks.mu
}

// lock waits for the key's lock; the error is that of ctx.
func (k *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l := k.enter(key)
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; k.leave(key, l) }, nil
	case <-ctx.Done():
		k.leave(key, l)
		return nil, ctx.Err()
	}
}

func (k *keyLocks) enter(key string) *keyLock {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.locks[key]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		if k.locks == nil {
			k.locks = map[string]*keyLock{}
		}
		k.locks[key] = l
	}
	l.users++
	return l
}

func (k *keyLocks) leave(key string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, key)
	}
}

// burst lets some log lines through per second and counts the others.
type burst struct {
	mu         sync.Mutex
	since      time.Time
	taken      int
	suppressed int
}

const burstLines = 20

// take reports whether a line may be written, and how many were not since the last one that was.
func (b *burst) take(now time.Time) (suppressed int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.since) >= time.Second {
		b.since, b.taken = now, 0
	}
	if b.taken >= burstLines {
		b.suppressed++
		return 0, false
	}
	b.taken++
	suppressed, b.suppressed = b.suppressed, 0
	return suppressed, true
}

// spaced lets a line of the log through each minute.
type spaced struct {
	mu     sync.Mutex
	last   time.Time
	missed int
}

const spacedEvery = time.Minute

// take reports whether a line may be written, and how many were not since the last one that was.
func (s *spaced) take(now time.Time) (missed int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since := now.Sub(s.last); since >= 0 && since < spacedEvery {
		s.missed++
		return 0, false
	}
	missed, s.missed, s.last = s.missed, 0, now
	return missed, true
}
