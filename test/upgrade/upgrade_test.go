package upgrade

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/test/upgrade/reading"
)

// An installation of the previous release is migrated; everything reads as that release read it, and devices and operators go on.
func TestAnInstallationOfThePreviousReleaseGoesOn(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		cfg := restored(t)
		migrateTwice(t, cfg)
		ring, err := keyring.Open(cfg.MasterKey)
		must(t, err)
		s, err := sqlite.Open(t.Context(), cfg.Database, sqlite.Options{})
		must(t, err)
		defer s.Close()
		f := readFacts(t)
		readsAsBefore(t, s, "sqlite.reading.json.gz", f.SQLite)
		newWorld(t, s, ring, f, f.SQLite).goOn()
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		cfg := restored(t) // its master key is the one of both
		cfg.Store = server.Address(loaded(t))
		migrateTwice(t, cfg)
		ring, err := keyring.Open(cfg.MasterKey)
		must(t, err)
		s, err := postgres.Open(t.Context(), cfg.Store, postgres.Options{})
		must(t, err)
		defer s.Close()
		f := readFacts(t)
		readsAsBefore(t, s, "postgres.reading.json.gz", f.Postgres)
		newWorld(t, s, ring, f, f.Postgres).goOn()
	})
}

// migrateTwice migrates; the second time there is nothing to do.
func migrateTwice(t *testing.T, cfg config.Config) {
	t.Helper()
	from, to, err := daemon.Migrate(t.Context(), cfg)
	if err != nil || from != 1 {
		t.Fatalf("from schema %d, %v; release 0.1.0 has 1", from, err)
	}
	if again, still, err := daemon.Migrate(t.Context(), cfg); err != nil || again != to || still != to {
		t.Fatalf("the second time from %d to %d, %v", again, still, err)
	}
}

// readsAsBefore reads everything and compares it with what the earlier release has read. What that release did not know may be there too.
func readsAsBefore(t *testing.T, s reading.Store, kept string, of storeFacts) {
	t.Helper()
	r, err := reading.Of(t.Context(), s, []string{of.Gone}, of.DeletedIDs)
	must(t, err)
	differs(t, "", decoded(t, unpacked(t, kept)), decoded(t, r.JSON()))
}

// differs tells where a reading is not what it was.
func differs(t *testing.T, path string, before, now any) {
	t.Helper()
	switch was := before.(type) {
	case map[string]any:
		is, _ := now.(map[string]any)
		for name, value := range was {
			differs(t, path+"."+name, value, is[name])
		}
	case []any:
		is, _ := now.([]any)
		if len(is) != len(was) {
			t.Errorf("%s: there were %d, there are %d", path, len(was), len(is))
			return
		}
		for i := range was {
			differs(t, fmt.Sprintf("%s[%d]", path, i), was[i], is[i])
		}
	default:
		if !reflect.DeepEqual(before, now) {
			t.Errorf("%s was %v, is %v", path, before, now)
		}
	}
}

func decoded(t *testing.T, text []byte) (v any) {
	t.Helper()
	must(t, json.Unmarshal(text, &v))
	return v
}
