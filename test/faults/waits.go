package faults

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// waits is what devices wait for.
type waits struct {
	mu    sync.Mutex
	under map[*worker]*waiting
	most  time.Duration // of those that are over
}

// waiting is a question that has no answer yet.
type waiting struct {
	question question
	since    time.Time
	tries    int
	heard    string // the last time
	at       time.Time
}

// begin notes a question; end is when it is answered.
func (w *waits) begin(who *worker, q question) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.under == nil {
		w.under = map[*worker]*waiting{}
	}
	now := time.Now()
	w.under[who] = &waiting{question: q, since: now, at: now}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.most = max(w.most, time.Since(w.under[who].since))
		delete(w.under, who)
	}
}

// heard notes what came of a try.
func (w *waits) heard(who *worker, got answer, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.under[who]
	p.tries++
	p.at = time.Now()
	if p.heard = fmt.Sprintf("status %d", got.status); err != nil {
		p.heard = err.Error()
	}
}

func (w *waits) longest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most.Round(time.Millisecond)
}

// all says what is waited for now.
func (w *waits) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var said []string
	for _, p := range w.under {
		said = append(said, fmt.Sprintf("%s %s for %v, %d tries, %v ago: %s", p.question.method, p.question.path,
			time.Since(p.since).Round(time.Millisecond), p.tries, time.Since(p.at).Round(time.Millisecond), p.heard))
	}
	return strings.Join(said, "; ")
}
