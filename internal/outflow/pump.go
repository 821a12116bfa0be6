package outflow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/spool"
)

const (
	batchRecords = 500
	batchBytes   = 1 << 20
	saveEvery    = 250 * time.Millisecond // so much is given twice at most after a crash
	firstRest    = 500 * time.Millisecond
	longestRest  = time.Minute
)

// pump forwards from the spool to one output.
type pump struct {
	output Output
	sender sender
	aside  *aside
	cursor *spool.Cursor
	log    *slog.Logger

	passFirst bool // a fault, see Config

	limit     int           // records of the next batch: fewer while one of them is refused
	rest      time.Duration // after the next failure
	firstRest time.Duration
	longest   time.Duration
	saved     time.Time
	dirty     bool // something was passed since
	unsaved   bool // what was passed could not be saved, and that was said

	mu    sync.Mutex
	stats pumpState
}

// pumpState is what is known of an output.
type pumpState struct {
	sent, failures, refused uint64
	failing                 bool
	oldest                  time.Time // when the message was accepted that waits for the receiver; zero: none is known to
}

func newPump(c Config, o Output, s sender) *pump {
	return &pump{output: o, sender: s, aside: &aside{path: asidePath(c.Folder, o.Name)}, log: c.Logger.With("output", o.Name), passFirst: c.passFirst, limit: batchRecords,
		rest: cmp.Or(c.firstRest, firstRest), firstRest: cmp.Or(c.firstRest, firstRest), longest: cmp.Or(c.longestRest, longestRest)}
}

func (p *pump) state() pumpState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

func (p *pump) note(change func(*pumpState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
}

// run forwards until ctx ends. What fails is tried again for ever.
func (p *pump) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.stepped(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			p.failed(ctx, err)
		default:
			p.works()
		}
	}
}

// stepped is step; a panic, of a client library maybe, is a failure of this output and of nothing else.
func (p *pump) stepped(ctx context.Context) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			p.log.Error("telemetry: the output panicked", "cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	return p.step(ctx)
}

// step forwards one batch, or saves what was passed when there is nothing to forward.
func (p *pump) step(ctx context.Context) error {
	records, err := p.next(ctx)
	if err != nil || records == nil {
		return err
	}
	messages, after, err := p.choose(records)
	if err != nil {
		return err
	}
	if p.passFirst {
		p.pass(after)
		_ = p.cursor.Save()
	}
	if len(messages) > 0 {
		p.note(func(s *pumpState) { s.oldest, _ = time.Parse(time.RFC3339Nano, messages[0].Time) })
		n, err := p.sender.send(ctx, messages)
		p.note(func(s *pumpState) { s.sent += uint64(n) })
		if n < len(messages) {
			p.pass(messages[n].seq)
			return p.unsent(messages[n:], err)
		}
		p.limit = min(2*p.limit, batchRecords)
	}
	p.note(func(s *pumpState) { s.oldest = time.Time{} })
	p.pass(after)
	return nil
}

// next waits for records, but not longer than what was passed may be unsaved.
func (p *pump) next(ctx context.Context) ([]spool.Record, error) {
	wait := ctx
	if p.dirty {
		due, cancel := context.WithDeadline(ctx, p.saved.Add(saveEvery))
		defer cancel()
		wait = due
	}
	records, err := p.cursor.Next(wait, p.limit, batchBytes)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if p.dirty && time.Since(p.saved) >= saveEvery {
		p.save()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return records, err
}

// choose gives the messages of a batch that the output is for, and the number after the batch. A record that cannot be read is set aside.
func (p *pump) choose(records []spool.Record) (messages []message, after uint64, err error) {
	for _, r := range records {
		m, err := readMessage(r)
		switch {
		case err != nil:
			if err := p.setAside(message{seq: r.Seq, line: r.Content}, err); err != nil {
				return nil, 0, err
			}
		case p.output.Scope != "" && m.Scope != p.output.Scope, p.output.Hub != "" && m.Hub != p.output.Hub:
		default:
			messages = append(messages, m)
		}
		after = r.Seq + 1
	}
	return messages, after, nil
}

// unsent deals with messages that the receiver does not have. One that it refuses is looked for by halves.
func (p *pump) unsent(messages []message, err error) error {
	var no *refused
	switch {
	case !errors.As(err, &no):
		return err
	case len(messages) > 1 && !no.first:
		p.limit = max(1, len(messages)/2)
		return nil
	}
	if err := p.setAside(messages[0], no); err != nil {
		return err
	}
	p.pass(messages[0].seq + 1)
	return nil
}

func (p *pump) setAside(m message, cause error) error {
	first, err := p.aside.keep(m.line)
	if err != nil {
		return err
	}
	p.note(func(s *pumpState) { s.refused++ })
	if first {
		p.log.Error("telemetry: a record was refused and is set aside; later ones are counted only: look at the file, send again what you want of it, and remove it",
			"error", cause, "file", p.aside.path, "id", m.ID, "device", m.DeviceID)
	}
	return nil
}

func (p *pump) pass(next uint64) {
	if !p.dirty {
		p.dirty, p.saved = true, time.Now()
	}
	p.cursor.Pass(next)
}

// failed notes a failure, and rests.
func (p *pump) failed(ctx context.Context, err error) {
	rest := p.rest/2 + rand.N(p.rest/2+1)
	p.rest = min(2*p.rest, p.longest)
	if advice, ok := errors.AsType[later](err); ok {
		rest = max(rest, advice.after)
	}
	first := false
	p.note(func(s *pumpState) {
		first = !s.failing
		s.failing = true
		s.failures++
	})
	if first {
		p.log.Warn("telemetry: the output fails; it is tried again until it works, and what waits for it stays in the spool", "error", err, "next", rest.Round(time.Millisecond))
	} else {
		p.log.Debug("telemetry: the output still fails", "error", err, "next", rest.Round(time.Millisecond))
	}
	if p.dirty {
		p.save()
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// save makes durable what was passed. That it fails, on a full disk maybe, is no reason not to forward: it costs repetitions after a crash.
func (p *pump) save() {
	err := p.cursor.Save()
	if err != nil && !p.unsaved {
		p.log.Warn("telemetry: how far the output has come cannot be written: look after the disk; it is tried again, and after a crash records come again", "error", err)
	}
	p.dirty, p.saved, p.unsaved = err != nil, time.Now(), err != nil
}

func (p *pump) works() {
	p.rest = p.firstRest
	again := false
	p.note(func(s *pumpState) { again, s.failing = s.failing, false })
	if again {
		records, _ := p.cursor.Lag()
		p.log.Info("telemetry: the output works again", "waiting", records)
	}
}
