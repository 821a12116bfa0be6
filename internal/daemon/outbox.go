package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/registration"
)

const backlogEvery = 15 * time.Second

// outboxMetrics tell whether work that was acknowledged gets done. What waits is counted over all nodes, and by each of them.
type outboxMetrics struct {
	waiting, oldest   prometheus.Gauge
	delivered, failed prometheus.Counter
}

func newOutboxMetrics(r prometheus.Registerer) *outboxMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "latchkey", Subsystem: "outbox", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "latchkey", Subsystem: "outbox", Name: name, Help: help})
	}
	m := &outboxMetrics{
		waiting:   gauge("waiting", "Pieces of work that wait in the outbox of all nodes."),
		oldest:    gauge("oldest_seconds", "Age of the oldest of them."),
		delivered: counter("delivered_total", "Pieces of work that this node has done."),
		failed:    counter("failed_total", "Attempts of this node that failed; each is made again."),
	}
	r.MustRegister(m.waiting, m.oldest, m.delivered, m.failed)
	return m
}

// deliver works off the outbox, and looks now and then how much waits there.
func (s *service) deliver(ctx context.Context) {
	metrics := newOutboxMetrics(s.metrics)
	var counting sync.WaitGroup
	defer counting.Wait()
	counting.Go(func() { s.countOutbox(ctx, metrics) })
	failing := false
	s.core.Work(ctx, func(delivery registration.Delivery, err error) {
		metrics.delivered.Add(float64(delivery.Done))
		metrics.failed.Add(float64(delivery.Failed))
		if err != nil && !failing && ctx.Err() == nil { // once, not twice a second
			s.log.Warn("outbox: nothing can be claimed, tried again", "err", err)
		}
		failing = err != nil
	})
}

func (s *service) countOutbox(ctx context.Context, metrics *outboxMetrics) {
	count := time.NewTicker(backlogEvery)
	defer count.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-count.C:
		}
		call, cancel := context.WithTimeout(ctx, backlogEvery)
		backlog, err := s.store.OutboxBacklog(call)
		cancel()
		if err == nil { // else a line of the other loop says so
			metrics.waiting.Set(float64(backlog.Waiting))
			metrics.oldest.Set(backlog.Oldest.Seconds())
		}
	}
}
