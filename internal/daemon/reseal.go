package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
)

// resealBatch is small, so that a running service's own transitions get between.
const resealBatch = 200

// CountSealed counts, for each master key id, the values it seals.
func CountSealed(ctx context.Context, cfg config.Config) (map[string]int, error) {
	counts := map[string]int{}
	err := eachSealed(ctx, cfg, func(_ backend, values []registration.SealedValue) error {
		for _, v := range values {
			id, err := keyring.KeyID(v.Sealed)
			if err != nil {
				return fmt.Errorf("a %s: %w", v.Kind, err)
			}
			counts[id]++
		}
		return nil
	})
	return counts, err
}

// Reseal seals every value under the ring's primary key that is sealed under another, and says how many those were. It may run beside
// a service on the same database: each value is replaced only if it is still the one that was read.
func Reseal(ctx context.Context, cfg config.Config, ring *keyring.Ring) (int, error) {
	total := 0
	err := eachSealed(ctx, cfg, func(store backend, values []registration.SealedValue) error {
		var changes []registration.SealedReplacement
		for _, v := range values {
			if !ring.NeedsReseal(v.Sealed) {
				continue
			}
			plain, err := ring.Open(v.Context(), v.Sealed)
			if err != nil {
				return fmt.Errorf("a %s of scope %s: %w", v.Kind, v.Scope, err)
			}
			sealed, err := ring.Seal(v.Context(), plain)
			if err != nil {
				return err
			}
			changes = append(changes, registration.SealedReplacement{SealedValue: v, New: sealed})
		}
		n, err := store.ReplaceSealed(ctx, changes)
		total += n
		return err
	})
	return total, err
}

// Migrate brings the database to the current schema. No service may run on an embedded store meanwhile; nodes of the previous release go on
// running on PostgreSQL.
func Migrate(ctx context.Context, cfg config.Config) (from, to int, err error) {
	if cfg.Store != "" {
		return postgres.Migrate(ctx, cfg.Store)
	}
	if _, err := os.Stat(cfg.Database); err != nil {
		return 0, 0, fmt.Errorf("there is no database: %w", err)
	}
	lock, err := lockInstallation(cfg.Database)
	if err != nil {
		return 0, 0, err
	}
	defer lock.Close()
	return sqlite.Migrate(ctx, cfg.Database)
}

// Fsck checks what the store holds, beside a service that may run on it, and tells each problem.
func Fsck(ctx context.Context, cfg config.Config, tell func(fsck.Problem)) (sum fsck.Summary, err error) {
	ring, err := keyring.Open(cfg.MasterKey)
	if err != nil {
		return fsck.Summary{}, fmt.Errorf("the master key: %w", err)
	}
	store, err := openReader(ctx, cfg)
	if err != nil {
		return fsck.Summary{}, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return fsck.Check(ctx, store, ring, tell)
}

func eachSealed(ctx context.Context, cfg config.Config, do func(backend, []registration.SealedValue) error) (err error) {
	store, err := openBackend(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	for cursor := ""; ; {
		values, next, err := store.SealedValues(ctx, cursor, resealBatch)
		if err != nil {
			return err
		}
		if len(values) > 0 {
			if err := do(store, values); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		cursor = next
	}
}
