package web

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"
)

// Gate is the bounded admission queue: a number of requests at work, a number parked for a short while, and a refusal beyond that. It
// stands before crypto and store. Waiting here is the only waiting there is; some SDKs give up at once on a 429, so a
// short wait comes first.
type Gate struct {
	slots  chan struct{}
	parked atomic.Int64
	room   int64
	wait   time.Duration
}

// NewGate makes a gate.
func NewGate(concurrent, parked int, wait time.Duration) *Gate {
	return &Gate{slots: make(chan struct{}, concurrent), room: int64(parked), wait: wait}
}

// Enter waits for a place at most as long as the gate allows. After ok, leave must be called once.
func (g *Gate) Enter(ctx context.Context) (leave func(), ok bool) {
	leave = func() { <-g.slots }
	select {
	case g.slots <- struct{}{}:
		return leave, true
	default:
	}
	if g.parked.Add(1) > g.room {
		g.parked.Add(-1)
		return nil, false
	}
	defer g.parked.Add(-1)
	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case g.slots <- struct{}{}:
		return leave, true
	case <-timer.C:
		return nil, false
	case <-ctx.Done():
		return nil, false
	}
}

// spread is Retry-After for a refused request: spread out, so that those refused together do not return together.
func spread() time.Duration { return time.Duration(5+rand.IntN(26)) * time.Second }

// believed is the length up to which a client's announcement is believed before the bytes are there.
const believed = 4 << 10

// readAll reads a body; length is what was announced, if it was.
func readAll(r io.Reader, length int64) ([]byte, error) {
	var body bytes.Buffer
	body.Grow(int(min(max(length, 0), believed)) + bytes.MinRead)
	_, err := body.ReadFrom(r)
	return body.Bytes(), err
}

// BodyBudget bounds the memory of large bodies, whoever sends them and however slowly. Those of devices are below believed and
// never count.
const BodyBudget = 32 << 20

// weigh is what a request's body counts for: nothing up to the usual size, and all that is allowed if its length was not said.
func weigh(r *http.Request, limit int64) int64 {
	switch {
	case r.ContentLength < 0:
		return limit
	case r.ContentLength <= believed:
		return 0
	}
	return min(r.ContentLength, limit)
}
