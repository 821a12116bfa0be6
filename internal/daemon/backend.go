package daemon

import (
	"context"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
)

// backend is an open store of either kind, with the identities of the embedded hub.
type backend interface {
	registration.Store
	embedded.Identities
	Close() error
}

// openBackend opens the store that the configuration names.
func openBackend(ctx context.Context, cfg config.Config) (backend, error) {
	if cfg.Store != "" {
		store, err := postgres.Open(ctx, cfg.Store, postgres.Options{})
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	return openEmbedded(ctx, cfg.Database)
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
