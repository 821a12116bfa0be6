package daemon

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
)

// backend is an open store of either kind, with the identities of the embedded hub and the process that serves it.
type backend interface {
	registration.Store
	embedded.Identities
	embedded.Owners
	HubLeftovers(ctx context.Context, limit int) ([]registration.HubLeftover, error) // for fsck
	Close() error
}

// openShared opens the PostgreSQL store for a service, whose metrics tell of it.
func openShared(ctx context.Context, cfg config.Config, metrics *prometheus.Registry) (backend, error) {
	store, err := postgres.Open(ctx, cfg.Store, postgres.Options{})
	if err != nil {
		return nil, err
	}
	gauge := func(name, help string, value func(postgres.Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(store.Stats()) })
	}
	counter := func(name, help string, value func(postgres.Stats) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return value(store.Stats()) })
	}
	metrics.MustRegister(
		gauge("latchkey_store_connections_open", "Connections to PostgreSQL.", func(s postgres.Stats) float64 { return float64(s.Open) }),
		gauge("latchkey_store_connections_busy", "Connections to PostgreSQL in use.", func(s postgres.Stats) float64 { return float64(s.Busy) }),
		gauge("latchkey_store_connections_most", "Connections to PostgreSQL that may be open.", func(s postgres.Stats) float64 { return float64(s.Most) }),
		counter("latchkey_store_waits_total", "Calls that waited for a connection to PostgreSQL.", func(s postgres.Stats) float64 { return float64(s.Waits) }),
		counter("latchkey_store_retries_total", "Transactions that were run again: connection lost, or met another.", func(s postgres.Stats) float64 { return float64(s.Retries) }),
	)
	return store, nil
}

// openBackend opens the store that the configuration names.
func openBackend(ctx context.Context, cfg config.Config) (backend, error) {
	if cfg.Store != "" {
		return openDatabase(ctx, cfg.Store, postgres.Options{})
	}
	return openEmbedded(ctx, cfg.Database)
}

// openReader opens it for who writes nothing, who may read at a standby.
func openReader(ctx context.Context, cfg config.Config) (backend, error) {
	if cfg.Store != "" {
		return openDatabase(ctx, cfg.Store, postgres.Options{ReadOnly: true})
	}
	return openEmbedded(ctx, cfg.Database)
}

func openDatabase(ctx context.Context, address string, opts postgres.Options) (backend, error) {
	store, err := postgres.Open(ctx, address, opts)
	if err != nil {
		return nil, err
	}
	return store, nil
}

func openEmbedded(ctx context.Context, path string) (backend, error) {
	store, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return nil, err
	}
	return store, nil
}

// storeName names the store for people.
func storeName(cfg config.Config) string {
	if cfg.Store != "" {
		return postgres.Place(cfg.Store)
	}
	return cfg.Database
}
