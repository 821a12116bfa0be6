package daemon

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/store/sqlite"
)

// openStore opens the store for the service, which watches over the disk of the embedded one.
func (s *service) openStore(ctx context.Context) (err error) {
	if s.config.Store != "" {
		s.ready = func(ctx context.Context) error { _, err := s.store.ScopesRevision(ctx); return err } // one row, however many scopes there are
		s.store, err = openShared(ctx, s.config, s.metrics)
		return err
	}
	store, err := sqlite.Open(ctx, s.config.Database, sqlite.Options{Logger: s.log})
	if err != nil {
		return err
	}
	s.store, s.ready = store, store.Ready
	s.metrics.MustRegister(storeMetrics(store)...)
	return nil
}

// storeMetrics are what the embedded store counts.
func storeMetrics(store *sqlite.Store) []prometheus.Collector {
	counter := func(name, help string, read func(sqlite.Stats) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "latchkey", Subsystem: "store", Name: name, Help: help},
			func() float64 { return float64(read(store.Stats())) })
	}
	failing := func() float64 {
		if store.Stats().Failing {
			return 1
		}
		return 0
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "latchkey", Subsystem: "store", Name: "failing",
			Help: "1 while the disk fails the database: full, read-only, a file out of its place. The log says what to do."}, failing),
		counter("failed_writes_total", "Commits that failed for the disk's sake.", func(s sqlite.Stats) uint64 { return s.FailedWrites }),
		counter("failed_reads_total", "Reads that failed for the disk's sake.", func(s sqlite.Stats) uint64 { return s.FailedReads }),
		counter("failed_checkpoints_total", "Copies of the log into the database that failed; while they do, the log grows.",
			func(s sqlite.Stats) uint64 { return s.FailedCheckpoints }),
		counter("transitions_total", "Transitions that were asked for, refused ones included.", func(s sqlite.Stats) uint64 { return s.Transitions }),
		counter("commits_total", "Commits that they shared.", func(s sqlite.Stats) uint64 { return s.Commits }),
	}
}
