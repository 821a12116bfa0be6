package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/test/upgrade/reading"
)

// migrated is the kept installation on the embedded store with the present schema.
func migrated(t *testing.T) config.Config {
	t.Helper()
	cfg := restored(t)
	_, _, err := daemon.Migrate(t.Context(), cfg)
	must(t, err)
	return cfg
}

func ringOf(t *testing.T, cfg config.Config) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Open(cfg.MasterKey)
	must(t, err)
	return ring
}

func openPostgres(t *testing.T, address string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), address, postgres.Options{Conns: 4})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// readEmbedded reads the embedded store as long as it may be.
func readEmbedded(t *testing.T, cfg config.Config, of storeFacts) reading.Reading {
	t.Helper()
	s, err := sqlite.Open(t.Context(), cfg.Database, sqlite.Options{})
	must(t, err)
	defer s.Close()
	r, err := reading.Of(t.Context(), s, []string{of.Gone}, of.DeletedIDs)
	must(t, err)
	return r
}

// readHub is what the hub keeps of one device and of one that is gone; in the embedded store if none is given.
func readHub(t *testing.T, cfg config.Config, s store, scope string) string {
	t.Helper()
	if s == nil {
		embedded, err := sqlite.Open(t.Context(), cfg.Database, sqlite.Options{})
		must(t, err)
		defer embedded.Close()
		s = embedded
	}
	hub := readHubName(t, s, scope)
	twin, err1 := s.Twin(t.Context(), scope, hub, "Sensor-1")
	messages, err2 := s.Messages(t.Context(), scope, hub, "Sensor-1", 0, 10)
	generation, err3 := s.IdentityGeneration(t.Context(), scope, hub, "gone")
	must(t, errors.Join(err1, err2, err3))
	return fmt.Sprintf("%+v %+v %d", twin, messages, generation)
}

// readHubName is the embedded hub of a scope.
func readHubName(t *testing.T, s store, scope string) string {
	t.Helper()
	scopes, err := s.Scopes(t.Context())
	must(t, err)
	for _, each := range scopes {
		if each.ID == scope {
			return each.Hosts[0]
		}
	}
	t.Fatalf("there is no scope %s", scope)
	return ""
}

// Everything that the embedded store answers with PostgreSQL answers with, to the byte and in the same order; devices and operators go on there,
// and nobody is served from the embedded store any more.
func TestACopiedInstallationGoesOn(t *testing.T) {
	t.Parallel()
	cfg, f := migrated(t), readFacts(t)
	must(t, execEmbedded(cfg.Database, `INSERT INTO outbox (scope, kind, object, created, due, claim, attempts, failure)
			VALUES ('`+f.Scope+`', 'advance', '`+f.SQLite.Assigning+`', 1, 2, '', 3, 'no text: ' || CAST(x'ff' AS TEXT));
		UPDATE identities SET cutting = 1, version = 7, disabled = 0, status_reason = 'seen', status_updated = 5, iot_edge = 1 WHERE device_id = 'Sensor-1';
		INSERT INTO twins (scope, hub, device_id, tags, desired, reported, desired_metadata, reported_metadata, desired_version, reported_version, version, updated)
			SELECT scope, hub, device_id, x'7b7d', x'7b2261223a317d', x'7b7d', x'7b7d', x'7b7d', 4, 5, 6, 7 FROM identities WHERE device_id = 'Sensor-1';
		INSERT INTO hub_queues (scope, hub, device_id, last) SELECT scope, hub, device_id, 9 FROM identities WHERE device_id = 'Sensor-1';
		INSERT INTO hub_messages (scope, hub, device_id, n, id, correlation_id, user_id, ack, properties, enqueued, expires, deliveries, body)
			SELECT scope, hub, device_id, 8, 'mid', 'cid', 'uid', 'full', x'613d62', 1, 2, 3, x'00ff' FROM identities WHERE device_id = 'Sensor-1';
		INSERT INTO identity_generations (scope, hub, device_id, generation, version, at)
			SELECT scope, hub, 'gone', 11, 12, 13 FROM identities WHERE device_id = 'Sensor-1';
		INSERT INTO linked_hubs (scope, name, kind, weight, allocate, draining, region, settings, sealed_secret, revision, created, updated)
			SELECT scope, hub, 'embedded', 3, 1, 0, 'north', x'', x'', 1, 2, 3 FROM identities WHERE device_id = 'Sensor-1';
		INSERT INTO scope_allocations (scope, default_policy, regions, sealed_webhook_key, revision, updated) VALUES ('`+f.Scope+`', 'hashed', x'5b5d', x'', 1, 2);
		INSERT INTO closures (scope, folded, generation, token_digest, tracking_id, at) VALUES ('`+f.Scope+`', 'gone', 3, x'00ff', 'closing', 4);
		INSERT INTO awaited (scope, folded, origin, object, at) VALUES ('`+f.Scope+`', 'gone', 'another', '{"order":"remove"}', 5);
		INSERT INTO offers (scope, folded, id, target, code, ek_key_id, keys, enrolled, policy, created, expires)
			VALUES ('`+f.Scope+`', 'sold', 'Sold', 'another', x'01', x'02', x'03', 6, 'owner', 7, 8)`)) // what the earlier release did not have
	before, hubBefore := readEmbedded(t, cfg, f.SQLite), readHub(t, cfg, nil, f.Scope)
	address := server.Address(emptyDatabase(t))
	filled := map[string]bool{}
	report, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address, Progress: func(step daemon.CopyStep) error {
		if step.What == "copied" {
			filled[step.Table] = true
		}
		return nil
	}})
	must(t, err)
	for _, table := range sqlite.CopyTables() {
		if !filled[table[0]] {
			t.Errorf("the installation has nothing in %s: what is copied of it is not tested", table[0])
		}
	}
	if report.Already || report.Rows < 200 || report.Checked.Problems > 0 || report.Checked.Registrations < 9 {
		t.Errorf("%+v", report)
	}
	s := openPostgres(t, address)
	readsAs(t, s, before, f.SQLite)
	if diff := cmp.Compare(hubBefore, readHub(t, cfg, s, f.Scope)); diff != 0 || !strings.Contains(hubBefore, "mid") {
		t.Errorf("the hub's own, before:\n%s\nafter:\n%s", hubBefore, readHub(t, cfg, s, f.Scope))
	}
	seq, verdict, err := s.EnqueueMessage(t.Context(), f.Scope, registration.HubMessage{Hub: readHubName(t, s, f.Scope), DeviceID: "Sensor-1"}, 50)
	if seq != 10 || verdict != registration.Applied || err != nil {
		t.Errorf("the next message is %d, verdict %d, %v: a number that was given is given again", seq, verdict, err)
	}
	newWorld(t, s, ringOf(t, cfg), f, f.SQLite).goOn()

	if s, err := sqlite.Open(t.Context(), cfg.Database, sqlite.Options{}); err == nil || !strings.Contains(err.Error(), "was moved to") {
		t.Errorf("the source is opened: %v, %v", s, err)
	}
	again, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address})
	if err != nil || !again.Already {
		t.Errorf("copied again: %+v, %v", again, err)
	}
	if _, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: server.Address(emptyDatabase(t))}); err == nil || !strings.Contains(err.Error(), "was moved to") {
		t.Errorf("copied to a second place: %v", err)
	}
	place, err := daemon.UndoCopy(t.Context(), cfg)
	if err != nil || place != report.Place {
		t.Errorf("undone: %q, %v", place, err)
	}
	differs(t, "after the return", decoded(t, before.JSON()), decoded(t, readEmbedded(t, cfg, f.SQLite).JSON()))
	if _, err := daemon.UndoCopy(t.Context(), cfg); err == nil {
		t.Error("undone twice")
	}
	if _, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address}); err == nil || !strings.Contains(err.Error(), "an installation already") {
		t.Errorf("copied onto what was served since: %v", err)
	}
}

// bySeal puts sealed values into an order that both stores have.
func bySeal(list []registration.SealedValue) []registration.SealedValue {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b registration.SealedValue) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Key, b.Key))
	})
	return list
}

// execEmbedded changes the embedded store behind the service's back.
func execEmbedded(path, sql string) error {
	db, err := sqlite3.Open("file:" + path)
	if err != nil {
		return err
	}
	return errors.Join(db.Exec(sql), db.Close())
}

func readsAs(t *testing.T, s reading.Store, want reading.Reading, of storeFacts) {
	t.Helper()
	got, err := reading.Of(t.Context(), s, []string{of.Gone}, of.DeletedIDs)
	must(t, err)
	got.Sealed, want.Sealed = bySeal(got.Sealed), bySeal(want.Sealed)
	differs(t, "", decoded(t, want.JSON()), decoded(t, got.JSON()))
}

// A copy ends at each of its steps, one after the other, and is run again; what it did is there, it goes on where it was, and nobody is served from
// a database that is not whole, nor from both.
func TestACopyThatEndsAnywhereGoesOn(t *testing.T) {
	t.Parallel()
	cfg, f := migrated(t), readFacts(t)
	before := readEmbedded(t, cfg, f.SQLite)
	name := emptyDatabase(t)
	address := server.Address(name)
	killed := errors.New("killed")
	var rows int64
	limit, moved := 1, false // the steps that a run is let take; pages count as one, since those of the run before are not copied again
	for n := 0; ; n++ {
		seen := 0
		report, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address, Page: 40, Progress: func(step daemon.CopyStep) error {
			switch step.What {
			case "begun":
				if step.Resumed != (n > 0) || step.StartedOver {
					t.Errorf("run %d: %+v", n, step)
				}
			case "copied":
				if step.Rows <= rows {
					t.Errorf("run %d copies anew what was copied: %+v", n, step)
				}
				rows = step.Rows
			case "moved":
				moved = true
			case "finished":
				return nil
			}
			if seen++; seen < limit {
				return nil
			}
			if step.What != "copied" {
				limit++
			}
			return killed
		}})
		if err == nil {
			if report.Rows != rows {
				t.Errorf("%+v, and %d were copied", report, rows)
			}
			break
		}
		if !errors.Is(err, killed) || n > 1000 {
			t.Fatalf("run %d: %v", n, err)
		}
		servedNowhereElse(t, cfg, address, moved)
	}
	s := openPostgres(t, address)
	readsAs(t, s, before, f.SQLite)
	newWorld(t, s, ringOf(t, cfg), f, f.SQLite).goOn()
}

// servedNowhereElse looks at what may be opened between two runs. It must not open the source, which would end the copy.
func servedNowhereElse(t *testing.T, cfg config.Config, address string, moved bool) {
	t.Helper()
	refusesToServe(t, address)
	if moved {
		if s, err := sqlite.Open(t.Context(), cfg.Database, sqlite.Options{}); err == nil {
			t.Errorf("the source is opened: %v", s)
		}
	}
}

func refusesToServe(t *testing.T, address string) {
	t.Helper()
	if s, err := postgres.Open(t.Context(), address, postgres.Options{}); err == nil || !strings.Contains(err.Error(), "has not finished") {
		t.Errorf("a part of a copy is opened: %v, %v", s, err)
	}
}

// The installation was in use between two runs: what was copied may be old, so it is copied anew.
func TestACopyStartsOverIfTheInstallationWasInUse(t *testing.T) {
	t.Parallel()
	cfg, f := migrated(t), readFacts(t)
	address := server.Address(emptyDatabase(t))
	killed := errors.New("killed")
	_, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address, Progress: func(step daemon.CopyStep) error {
		if step.Table == "audit" {
			return killed
		}
		return nil
	}})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), cfg.Database, sqlite.Options{})
	must(t, err)
	w := newWorld(t, s, ringOf(t, cfg), f, f.SQLite)
	must(t, w.core.DeleteEnrollment(t.Context(), w.owner(), "valve", ""))
	must(t, s.Close())
	before := readEmbedded(t, cfg, f.SQLite)
	over := false
	_, err = daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address, Progress: func(step daemon.CopyStep) error {
		over = over || step.StartedOver
		return nil
	}})
	must(t, err)
	if !over {
		t.Error("it went on with what may be old")
	}
	readsAs(t, openPostgres(t, address), before, f.SQLite)
}

// Rows of the copy are not what they were: it is found before the copy takes over, and the next run makes it anew.
func TestACopyThatIsNotWhatIsThereIsFound(t *testing.T) {
	t.Parallel()
	cfg := migrated(t)
	name := emptyDatabase(t)
	address := server.Address(name)
	falsified := []struct{ what, sql, found string }{
		{"a key", `UPDATE enrollments SET sealed_primary = '\x00' WHERE id = 'valve'`, "enrollments (74 rows here, 74 there)"},
		{"a time", `UPDATE registrations SET updated = updated + 1 WHERE id = 'valve'`, "registrations (15 rows here, 15 there)"},
		{"a row that is gone", `DELETE FROM operations WHERE registration_id = 'stuck'`, "operations ("},
		{"a row too many", `INSERT INTO deleted_scopes (folded, scope, at, done) VALUES ('a', 'A', 0, true)`, "deleted_scopes (1 rows here, 2 there)"},
		{"a count of redemptions", `UPDATE generations SET generation = 7 WHERE folded = 'left'`, "generations ("},
		{"a device id", `UPDATE device_ids SET folded = 'other' WHERE device_id = 'valve-in-hall-B'`, "1 registrations without their device id"},
		{"a lock", `DELETE FROM generations WHERE generation = 0 AND folded = 'fleet-001'`, "1 enrollments whose ids have no lock"},
		{"a sequence", `SELECT setval('revisions', 1)`, "the sequence revisions would give out again"},
	}
	_, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address, Progress: func(step daemon.CopyStep) error {
		if step.What == "compared" && step.Table == "scopes" { // all is copied
			for _, f := range falsified {
				admin(t, name, f.sql)
			}
		}
		return nil
	}})
	for _, f := range falsified {
		if err == nil || !strings.Contains(err.Error(), f.found) {
			t.Errorf("%s: %v, want %q", f.what, err, f.found)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "audit (") || strings.Contains(err.Error(), "identities (")) {
		t.Errorf("told of what is as it was: %v", err)
	}
	refusesToServe(t, address)
	over := false
	_, err = daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address, Progress: func(step daemon.CopyStep) error {
		over = over || step.StartedOver
		return nil
	}})
	if err != nil || !over {
		t.Errorf("run again: %v, it started over: %t", err, over)
	}
}

// Somebody opens the installation after it was compared: it could be another one since.
func TestACopyDoesNotTakeOverFromWhatIsInUse(t *testing.T) {
	t.Parallel()
	cfg := migrated(t)
	address := server.Address(emptyDatabase(t))
	_, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address, Progress: func(step daemon.CopyStep) error {
		if step.What == "checked" {
			s, err := sqlite.Open(t.Context(), cfg.Database, sqlite.Options{})
			must(t, err)
			must(t, s.Close())
		}
		return nil
	}})
	if err == nil || !strings.Contains(err.Error(), "opened by another process") {
		t.Fatal(err)
	}
	refusesToServe(t, address)
}

func TestACopyIsMadeOnlyWhereThereIsNothingElse(t *testing.T) {
	t.Parallel()
	cfg := migrated(t)
	inUse := loaded(t)
	_, _, err := postgres.Migrate(t.Context(), server.Address(inUse))
	must(t, err)
	earlier := loaded(t)
	others := emptyDatabase(t)
	other := migrated(t)
	killed := errors.New("killed")
	_, err = daemon.Copy(t.Context(), withAnotherHome(t, other), daemon.CopyPlan{To: server.Address(others), Progress: func(daemon.CopyStep) error { return killed }})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ to, want string }{
		"a database in use":          {server.Address(inUse), "holds an installation already"},
		"one of an earlier release":  {server.Address(earlier), "name an empty database"},
		"one that another one fills": {server.Address(others), "a copy of another installation"},
		"no address":                 {"", "postgres://"},
		"another address":            {"https://db.example.net/", "postgres://"},
		"one with a password":        {"postgres://latchkey:canary@db.example.net/x", "holds a password"},
		"nobody there":               {"postgres://latchkey@/x?host=/nowhere", "x at /nowhere"},
	} {
		_, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: c.to})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	old := restored(t)
	if _, err := daemon.Copy(t.Context(), old, daemon.CopyPlan{To: server.Address(emptyDatabase(t))}); err == nil || !strings.Contains(err.Error(), "store migrate") {
		t.Errorf("an installation of an earlier schema: %v", err)
	}
	newWorld(t, openPostgres(t, server.Address(inUse)), ringOf(t, cfg), readFacts(t), readFacts(t).Postgres).goOn() // nothing of it was touched
}

// withAnotherHome makes another installation of it.
func withAnotherHome(t *testing.T, cfg config.Config) config.Config {
	t.Helper()
	must(t, execEmbedded(cfg.Database, fmt.Sprintf(`UPDATE scopes SET created = created + %d WHERE home = 1`, 1)))
	return cfg
}

func TestNobodyCopiesWhatIsInUse(t *testing.T) {
	t.Parallel()
	cfg := migrated(t)
	address := server.Address(emptyDatabase(t))
	var second, served error
	_, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address, Progress: func(step daemon.CopyStep) error {
		if step.What == "begun" {
			_, second = daemon.Copy(context.Background(), cfg, daemon.CopyPlan{To: address})
			served = daemon.Run(t.Context(), daemon.Options{Load: func() (config.Config, error) { return cfg, nil }, Log: io.Discard})
		}
		return nil
	}})
	must(t, err) // nothing of it has hindered the copy
	for _, refused := range []error{second, served} {
		if refused == nil || !strings.Contains(refused.Error(), "stop it first") {
			t.Errorf("%v, want it refused", refused)
		}
	}
}
