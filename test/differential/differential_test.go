package differential

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/internal/store/storetest"
	"latchkey.example/latchkey/test/pgserver"
)

// size is how much is played: a sample in make test, all of it with LATCHKEY_LONG=1.
func size() (calls, histories int) {
	if os.Getenv("LATCHKEY_LONG") == "1" {
		return 1_500, 20
	}
	return 300, 2
}

// seeds draws the seeds of a test, or takes one from LATCHKEY_SEED to play a failed history again.
func seeds(t *testing.T, n int) []uint64 {
	t.Helper()
	if text := os.Getenv("LATCHKEY_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = rand.Uint64()
	}
	return list
}

// The model, SQLite and PostgreSQL are called with the same random calls side by side: whatever comes back is the same.
func TestTheModelAndBothStoresAgree(t *testing.T) {
	t.Parallel()
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	calls, histories := size()
	for i, seed := range seeds(t, histories) {
		t.Run(fmt.Sprintf("LATCHKEY_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			h := storetest.NewHistory(t.Context(), storetest.Seeded(seed), storetest.NewModel(), openSQLite(t), openPostgres(t, server, i))
			if err := h.Play(calls); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d lines are equal", len(h.Lines))
		})
	}
}

func openSQLite(t *testing.T) storetest.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "latchkey.db")
	if err := sqlite.Create(t.Context(), path, sqlite.Options{}); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	return closed(t, s)
}

func openPostgres(t *testing.T, server *pgserver.Server, n int) storetest.Store {
	t.Helper()
	database := fmt.Sprintf("history_%d", n)
	if err := server.Psql(t.Context(), "postgres", "CREATE DATABASE "+database); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Create(t.Context(), server.Address(database)); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Open(t.Context(), server.Address(database), postgres.Options{Conns: 2})
	if err != nil {
		t.Fatal(err)
	}
	return closed(t, s)
}

func closed(t *testing.T, s storetest.Store) storetest.Store {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A method of the store that no history calls would be one that nothing compares.
func TestHistoriesCallEveryMethod(t *testing.T) {
	t.Parallel()
	model := storetest.NewModel()
	if err := storetest.NewHistory(t.Context(), storetest.Seeded(1), model).Play(2_000); err != nil {
		t.Fatal(err)
	}
	called := model.Calls()
	for i := range reflect.TypeFor[storetest.Store]().NumMethod() {
		if name := reflect.TypeFor[storetest.Store]().Method(i).Name; name != "Close" && called[name] < 5 {
			t.Errorf("%s is called %d times in 2,000: add it to the mix of storetest's histories", name, called[name])
		}
	}
}

// A history in which nothing is refused, or nothing applied, would compare little. A few of them meet every answer that a transition may give, twice.
func TestHistoriesMeetEveryVerdict(t *testing.T) {
	t.Parallel()
	met := map[string]int{}
	var missing []string
	for seed := range uint64(20) {
		h := storetest.NewHistory(t.Context(), storetest.Seeded(seed), storetest.NewModel())
		if err := h.Play(1_000); err != nil {
			t.Fatal(err)
		}
		for verdict, n := range h.Verdicts {
			met[verdict] += n
		}
		if missing = unmet(met); len(missing) == 0 {
			t.Logf("%d histories", seed+1)
			return
		}
	}
	t.Errorf("twenty histories do not meet, twice: %q", missing)
}

func unmet(met map[string]int) (missing []string) {
	for method, all := range verdicts {
		for _, verdict := range all {
			if met[method+" "+verdict] < 2 {
				missing = append(missing, method+" "+verdict)
			}
		}
	}
	return missing
}

// verdicts are the answers that each transition may give, as lines begin.
var verdicts = map[string][]string{
	"CreateScope": {"applied", "exists"}, "DeleteScope": {"applied", "missing", "last"}, "PutScopeCertificate": {"applied", "missing"},
	"PutPolicy": {"applied", "conflict", "exists", "missing", "last"}, "DeletePolicy": {"applied", "missing", "last"},
	"PutEnrollment": {"applied", "conflict", "exists", "missing", "taken"}, "DeleteEnrollment": {"applied", "conflict", "missing"},
	"PutGroup": {"applied", "conflict", "exists", "missing", "taken"}, "DeleteGroup": {"applied", "conflict", "missing"},
	"PutCACertificate": {"applied", "conflict", "exists", "missing"}, "DeleteCACertificate": {"applied", "conflict", "missing"},
	"DeleteRegistration": {"applied", "conflict", "missing"}, "Redeem": {"applied", "conflict", "taken", "error"}, "Refuse": {"applied", "conflict"},
	"CloseRegistration": {"applied", "conflict", "error"}, "PutOffer": {"applied", "conflict", "exists", "missing", "error"}, "DeleteOffer": {"applied", "missing"},
	"AcceptOffer": {"applied", "conflict", "exists", "missing", "error"}, "Offered": {"not"},
	"Finish": {"applied", "superseded", "missing", "conflict", "taken", "error"}, "PutIdentity": {"applied", "conflict", "superseded", "other", "error"},
	"DeleteIdentity": {"applied", "conflict", "missing", "superseded", "other", "error"}, "PutTwin": {"applied", "conflict", "missing"},
	"EnqueueMessage": {"applied", "missing", "full", "error"}, "SettleMessage": {"applied", "missing"}, "PutSession": {"applied", "missing"}, "DeliveredMessage": {"applied", "missing"},
	"MoveHub": {"applied", "conflict"}, "SettleOutbox": {"applied", "conflict", "missing"}, "PostponeOutbox": {"applied", "conflict", "missing"},
	"Operation": {"not"}, "Group": {"not"}, "Identity": {"not"}, "Twin": {"not"},
}
