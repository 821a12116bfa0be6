package faults

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// seed is drawn, or the one of SEED to see a run's faults again, and printed.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if given := os.Getenv("SEED"); given != "" {
		var err error
		if n, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("SEED: %v", err)
		}
	}
	t.Logf("SEED=%d", n)
	return n
}

// kills is a number for the short form; the long form has KILLS (1000) or a share of it.
func kills(t *testing.T, short, share int) int {
	t.Helper()
	if os.Getenv("LATCHKEY_LONG") != "1" {
		return short
	}
	all := 1000
	if given := os.Getenv("KILLS"); given != "" {
		var err error
		if all, err = strconv.Atoi(given); err != nil || all < share {
			t.Fatalf("KILLS must be a number of kills, at least %d, not %q", share, given)
		}
	}
	return all / share
}

const (
	workers  = 24
	endLimit = 60 * time.Second // for what devices have begun
)

// mustRemember bounds how many terse devices had to begin anew.
func mustRemember(t *testing.T, load *Load, most int) {
	t.Helper()
	if n := load.Forgotten(); n > int64(most) {
		t.Errorf("%d proofs of terse devices were turned away, more than %d", n, most)
	}
}

// openFile opens the embedded store of a service that does not run, with its keys.
func openFile(t *testing.T, s *rig.Service) (fsck.Store, registration.Sealer) {
	t.Helper()
	ring, err := keyring.Open(filepath.Join(s.DataDir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), filepath.Join(s.DataDir, "latchkey.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store, ring
}

// checkFile compares the devices' memory with the embedded store of a service that does not run.
func checkFile(t *testing.T, s *rig.Service, devices []*Device) []Finding {
	t.Helper()
	store, ring := openFile(t, s)
	found, err := Check(t.Context(), store, ring, s.IDScope, devices)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// looking says how far a loop is, and checks the store that devices register at.
func looking(t *testing.T, dataDir string) func(Report) {
	return func(r Report) {
		t.Log(r)
		mustBeSound(t, dataDir)
	}
}

// mustBeSound has latchkey fsck check the store of a data directory, beside whatever runs on it.
func mustBeSound(t *testing.T, dataDir string) {
	t.Helper()
	programs, err := rig.Build()
	if err != nil {
		t.Fatal(err)
	}
	if said, err := rig.Run(t.Context(), rig.Command{Path: programs.Service, Args: []string{"fsck", "--data", dataDir}}); err != nil {
		t.Errorf("%v\n%s", err, said.Stdout)
	}
}
