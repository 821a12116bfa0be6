// Package outflow forwards telemetry that the hub has accepted: to files, webhooks, MQTT brokers and NATS JetStream.
//
// It guarantees: Write returns when a record is durable in the spool; each output gets every record that it is for at least once, those of one device
// in the order in which they were accepted; an output passes a record when its receiver has it, and not before; memory is bounded, and so is the
// disk: where an output does not take what the spool holds, Write waits and then refuses. A record that a receiver refuses for what it
// holds, and would refuse for ever, is set aside in a file, so that one device cannot stop the others.
//
// It trusts the spool's disk to keep what it synced, and receivers to have what they say they have.
package outflow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/outbound"
	"latchkey.example/latchkey/internal/spool"
)

// Config of a Flow.
type Config struct {
	Folder   string // of the spool, made if it is not there
	Limit    int64  // bytes that the spool may have
	Outputs  []Output
	Webhooks *outbound.Client // calls the webhooks
	Logger   *slog.Logger     // nil: nothing is logged
	Metrics  prometheus.Registerer

	// For tests; zero means the usual ones.
	firstRest, longestRest, patience time.Duration

	passFirst bool // the fault of a test's control: records are passed before the receiver has them
}

// Output is one place that telemetry goes to.
type Output struct {
	Name  string // of letters, digits, - and _; its place in the spool hangs on it
	Scope string // only records of this scope; empty: of all
	Hub   string // only records of this hub; empty: of all
	To    To
}

// To says where an output leads: ToFile, ToWebhook, ToMQTT or ToNATS.
type To interface {
	// open reads secrets and judges what can be judged without the receiver.
	open(c Config) (sender, error)
}

// sender brings messages to a receiver. send and close are called by one goroutine, reload by another.
type sender interface {
	// send gives messages in order and says how many of them, from the first on, the receiver has; all of them if err is nil. A *refused says that the
	// receiver does not want the next ones for what they hold.
	send(ctx context.Context, messages []message) (accepted int, err error)
	// reload takes secrets and files anew.
	reload() error
	close() error
}

// refused is the error of a receiver that does not want a message for what it holds; the same would be refused again. It may be any of those that it was
// given, unless it is known to be the first that it does not have.
type refused struct {
	error
	first bool
}

// later is an error with the receiver's advice when to come again.
type later struct {
	error
	after time.Duration
}

// Flow is a spool and what forwards from it.
type Flow struct {
	log   *spool.Log
	pumps []*pump
	stop  context.CancelFunc
	work  sync.WaitGroup
}

// Open opens the spool and begins to forward.
func Open(c Config) (*Flow, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Flow{}
	options := spool.LogOptions{Limit: c.Limit, Patience: c.patience, Segment: min(16<<20, max(c.Limit/16, 1<<20)), Changed: func(full bool) { tellFull(c.Logger, full) }}
	for _, o := range c.Outputs {
		s, err := o.To.open(c)
		if err != nil {
			f.closeSenders()
			return nil, fmt.Errorf("telemetry output %s: %w", o.Name, err)
		}
		options.Readers = append(options.Readers, o.Name)
		f.pumps = append(f.pumps, newPump(c, o, s))
	}
	var err error
	if f.log, err = spool.OpenLog(c.Folder, options); err != nil {
		f.closeSenders()
		return nil, fmt.Errorf("the telemetry spool: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	for _, p := range f.pumps {
		p.cursor = f.log.Cursor(p.output.Name)
		f.work.Go(func() { p.run(ctx) })
	}
	if c.Metrics != nil {
		c.Metrics.MustRegister(&collector{f})
	}
	return f, nil
}

func tellFull(log *slog.Logger, full bool) {
	if full {
		log.Error("telemetry: the spool is full, so nothing more is acknowledged and devices send it again: an output does not take what is in it, see the lines about outputs")
		return
	}
	log.Info("telemetry: the spool has room again")
}

// Write returns when the record is durable, or with an error that says why it may not be. The record is one JSON line.
func (f *Flow) Write(line []byte) (int, error) { return f.log.Write(line) }

// Reload takes secrets and files of the outputs anew.
func (f *Flow) Reload() error {
	var errs []error
	for _, p := range f.pumps {
		if err := p.sender.reload(); err != nil {
			errs = append(errs, fmt.Errorf("telemetry output %s: %w", p.output.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Trouble is a sentence for each thing that keeps telemetry from being acknowledged or forwarded now.
func (f *Flow) Trouble() (sentences []string) {
	if f.log.State().Full {
		sentences = append(sentences, "telemetry is not acknowledged: the spool is full")
	}
	for _, p := range f.pumps {
		if s := p.state(); s.failing {
			sentences = append(sentences, fmt.Sprintf("telemetry output %s is failing", p.output.Name))
		}
	}
	return sentences
}

// Drained waits until every output has all that the spool holds.
func (f *Flow) Drained(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, p := range f.pumps {
		for {
			if records, _ := p.cursor.Lag(); records == 0 {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// Close ends the forwarding, after Write was called for the last time. What outputs do not have they get after the next start.
func (f *Flow) Close() error {
	f.stop()
	f.work.Wait()
	var errs []error
	for _, p := range f.pumps {
		errs = append(errs, p.cursor.Close())
	}
	return errors.Join(append(errs, f.closeSenders(), f.log.Close())...)
}

func (f *Flow) closeSenders() error {
	var errs []error
	for _, p := range f.pumps {
		errs = append(errs, p.sender.close(), p.aside.close())
	}
	return errors.Join(errs...)
}

// asidePath is the file for what an output's receiver refuses.
func asidePath(folder, output string) string {
	return filepath.Join(folder, "refused."+output+".ndjson")
}
