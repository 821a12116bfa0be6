package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"time"

	"latchkey.example/latchkey/dps"
)

// A device that is not served comes again after a pause of its own, which grows to a bound. What the service advises is obeyed a hundred times
// faster, so that a run of seconds sees what takes a fleet an hour.
const (
	firstPause  = 2 * time.Millisecond
	longestWait = 200 * time.Millisecond
	scale       = 100
)

// question is one request of a device, which may be sent many times.
type question struct {
	method, path, token string
	body                []byte
	lose                bool // hang up the first time, as soon as it is sent
}

// answer is what came of it.
type answer struct {
	status int
	body   []byte
	after  time.Duration // its Retry-After, scaled
	lost   bool          // the question was sent before, and what came of that is not known
}

var errHungUp = errors.New("hung up without waiting for the answer")

// ask sends a question, each time to any door, until it has an answer that says something: not one of a service that is overloaded, ending
// or without its database.
func (w *worker) ask(ctx context.Context, q question) (answer, error) {
	pause, lost := firstPause, false
	defer w.load.waits.begin(w, q)()
	for try := 0; ; try++ {
		got, err := w.send(ctx, q, q.lose && try == 0)
		got.lost = lost
		w.load.waits.heard(w, got, err)
		if err == nil && got.status != http.StatusTooManyRequests && got.status < http.StatusInternalServerError {
			return got, nil
		}
		lost = true
		w.load.note(got, err)
		if w.wait(ctx, max(pause/2+time.Duration(w.random.Int64N(int64(pause))), got.after)) != nil {
			return answer{}, ctx.Err()
		}
		pause = min(2*pause, longestWait)
	}
}

// wait is a client's pause between two requests; no test waits for it.
func (w *worker) wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send sends a question once, and hangs up behind it if it is to be lost.
func (w *worker) send(ctx context.Context, q question, lose bool) (answer, error) {
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	if lose {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { hangUp(errHungUp) }})
	}
	door := w.load.doors[w.random.IntN(len(w.load.doors))]
	request, err := http.NewRequestWithContext(ctx, q.method, "https://"+door.Host+q.path+"?api-version=2021-06-01", bytes.NewReader(q.body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	if q.token != "" {
		request.Header.Set("Authorization", q.token)
	}
	response, err := door.client.Do(request)
	if err != nil {
		return answer{}, errors.Join(err, context.Cause(ctx))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, dps.MaxMessage))
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return answer{status: response.StatusCode, body: body, after: min(time.Duration(seconds)*time.Second/scale, longestWait)}, err
}

// note judges an answer that a device does not take for one. A service in trouble says 503 and when to come again; a certificate that is
// another's is no trouble but a fault.
func (l *Load) note(got answer, err error) {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		l.findings.add(Wrong, "certificate", "%v", err)
	case errors.Is(err, errHungUp):
		l.counts.lost.Add(1)
	case err != nil:
		l.counts.cut.Add(1)
	case got.status == http.StatusServiceUnavailable && got.after > 0, got.status == http.StatusTooManyRequests && got.after > 0:
		l.counts.unserved.Add(1)
	default:
		l.findings.add(Wrong, "answer", "status %d without a time to come again: %.300s", got.status, got.body)
	}
}
