package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"latchkey.example/latchkey/internal/store/storetest"
)

// previousSchema is that of the last release, whose nodes go on serving while the schema becomes the present one, and after it.
const previousSchema = 1

// released are the migrations of releases, which nobody changes any more.
var released = map[string]string{
	"migrations/0001_base.sql": "a02ef5d667c89ba20f82a741d3044ae059ad77b9f193dd4924adf2837d20ffe3",
	"optional/0001_base.sql":   "da80181e65db4f3b039b501c192050a345f37c2a9235b7d64904c647a0e0a534",
}

func TestMigrationsOfAReleaseAreNotEdited(t *testing.T) {
	t.Parallel()
	for name, want := range released {
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s was edited; databases made by a release have it as it was: write a new migration", name)
		}
	}
}

func TestMigrationsOnlyAdd(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var list []storetest.Step
	for _, name := range names {
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		optional, err := migrationFiles.ReadFile("optional" + strings.TrimPrefix(name, "migrations"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		list = append(list, storetest.Step{Name: name, SQL: string(text), Optional: string(optional)})
	}
	storetest.CheckExpand(t, list, previousSchema)
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	if oldest := worksFrom(steps); oldest > previousSchema {
		t.Errorf("the release before works from schema %d on, and this one asks for %d", previousSchema, oldest)
	}
}

// Nodes of the release before run on the schema that there is now: each of their statements is taken, with values of the types that it wants, and
// what it writes is not refused for what it does not know.
func TestTheStatementsOfTheReleaseBeforeAreTaken(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/release-0.1.0.sql")
	if err != nil {
		t.Fatal(err)
	}
	pg, err := pgx.Connect(t.Context(), server.Address(newDatabase(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(t.Context())
	for sql := range strings.SplitSeq(strings.TrimSuffix(string(text), ";\n"), ";\n") {
		if err := taken(t.Context(), pg, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, wrong := range []string{
		`INSERT INTO deleted_scopes (folded, scope, at) VALUES ($1, $2, $3)`, `SELECT later FROM scopes`, `SELECT 1 FROM later`,
	} {
		if taken(t.Context(), pg, wrong) == nil {
			t.Errorf("taken: %s", wrong)
		}
	}
}

// taken runs a statement and takes it back.
func taken(ctx context.Context, pg *pgx.Conn, sql string) error {
	tx, err := pg.Begin(ctx)
	if err != nil {
		return err
	}
	defer rollback(ctx, tx)
	statement, err := tx.Prepare(ctx, "", sql)
	if err != nil {
		return err
	}
	values := map[uint32]any{
		pgtype.BoolOID: true, pgtype.Int4OID: 1, pgtype.Int8OID: 1, pgtype.TextOID: "x", pgtype.ByteaOID: []byte("x"),
		pgtype.TextArrayOID: []string{"x"}, pgtype.ByteaArrayOID: [][]byte{[]byte("x")}, pgtype.Int8ArrayOID: []int64{1},
	}
	var args []any
	for _, oid := range statement.ParamOIDs {
		value, known := values[oid]
		if !known {
			return fmt.Errorf("it wants a value of type %d", oid)
		}
		args = append(args, value)
	}
	_, err = tx.Exec(ctx, sql, args...)
	return err
}

// extended migrates to one step more than there is.
func extended(t *testing.T, step string) *migrator {
	t.Helper()
	m, err := newMigrator()
	if err != nil {
		t.Fatal(err)
	}
	m.steps = append(m.steps, step)
	m.pause = time.Millisecond
	return m
}

// A step of a release to come.
const stepToCome = worksFromLine + "1\nCREATE TABLE later (a bigint NOT NULL);"

func TestAMigrationThatEndsBetweenItsStepsLeavesTheOldSchema(t *testing.T) {
	t.Parallel()
	name := newDatabase(t)
	for _, end := range []string{"SELECT 1/0;", "SELECT pg_terminate_backend(pg_backend_pid());"} {
		m := extended(t, stepToCome)
		m.steps = append(m.steps, end)
		if _, _, err := m.bring(t.Context(), server.Address(name)); err == nil {
			t.Fatal("migrated")
		}
		closeStore(t, reopen(t, server.Address(name), Options{}))
		if err := server.Psql(t.Context(), name, "CREATE TABLE later (b bigint); DROP TABLE later"); err != nil {
			t.Error(err) // something of the step is there
		}
	}
}

// A release to come says how far back its schema reaches: nodes of this one go on, and start again, on what only adds.
func TestTheReleaseBeforeServesWhatOnlyAdds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		step string
		ok   bool
	}{
		"it adds":               {stepToCome, true},
		"it says nothing of it": {"CREATE TABLE later (a bigint NOT NULL);", false},
		"it takes away":         {worksFromLine + "1000\nALTER TABLE owners DROP COLUMN place;", false},
	} {
		address := server.Address(newDatabase(t))
		running := reopen(t, address, Options{})
		defer closeStore(t, running)
		m := extended(t, c.step)
		if _, to, err := m.bring(t.Context(), address); err != nil || to != len(m.steps) {
			t.Fatalf("%s: migrated to %d, %v", name, to, err)
		}
		if !c.ok {
			refused(t, address, "newer latchkey")
			if _, _, err := Migrate(t.Context(), address); err == nil || !strings.Contains(err.Error(), "newer latchkey") {
				t.Errorf("%s: migrated backwards, %v", name, err)
			}
			continue
		}
		if from, to, err := Migrate(t.Context(), address); err != nil || from != to || to != len(m.steps) {
			t.Errorf("%s: from %d to %d, %v", name, from, to, err)
		}
		redeemedBy(t, running, "a")
		again := reopen(t, address, Options{})
		redeemedBy(t, again, "b")
		closeStore(t, again)
	}
}

func redeemedBy(t *testing.T, s *Store, id string) {
	t.Helper()
	enroll(t, s, id)
	redeemed(t, s, id, "operation of "+id)
}

// Where a server has no advisory locks the row alone is the lock, and what each makes before there is a row is made once.
func TestOfManyThatMigrateWithoutAdvisoryLocksOneDoesTheWork(t *testing.T) {
	t.Parallel()
	for range 2 {
		_, address := emptyDatabase(t, "")
		var running sync.WaitGroup
		froms := make([]int, 6)
		for i := range froms {
			running.Go(func() {
				m, err := newMigrator()
				if err != nil {
					t.Error(err)
					return
				}
				m.advisory = func(context.Context, *pgx.Conn) error { return nil }
				from, to, err := m.bring(t.Context(), address)
				if err != nil || to != len(m.steps) {
					t.Errorf("to %d, %v", to, err)
				}
				froms[i] = from
			})
		}
		running.Wait()
		workers := 0
		for _, from := range froms {
			if from == 0 {
				workers++
			}
		}
		if workers != 1 {
			t.Fatalf("schemas found: %v", froms)
		}
		closeStore(t, reopen(t, address, Options{}))
	}
}

// A migration that cannot get at a table lets those go by that wait behind it, and is done when the table is free.
func TestAMigrationMakesNobodyWaitLong(t *testing.T) {
	t.Parallel()
	address := server.Address(newDatabase(t))
	s := reopen(t, address, Options{})
	defer closeStore(t, s)
	holder, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(t.Context())
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM scopes`); err != nil { // it keeps a lock on the table until it ends
		t.Fatal(err)
	}
	m := extended(t, worksFromLine+"1\nALTER TABLE scopes ADD COLUMN later bigint;")
	done := make(chan error, 1)
	go func() {
		_, _, err := m.bring(t.Context(), address)
		done <- err
	}()
	waitForMigration(t, address)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.Scopes(ctx); err != nil {
		t.Errorf("a node that waits behind a migration: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("the migration ended though the table is in use: %v", err)
	default:
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// waitForMigration waits until a migration wants a table that it does not get.
func waitForMigration(t *testing.T, address string) {
	t.Helper()
	pg, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(t.Context())
	for deadline := time.Now().Add(time.Minute); ; {
		var waits bool
		err := pg.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'scopes'::regclass)`).Scan(&waits)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("no migration waits: %v", err)
		}
		if waits {
			return
		}
	}
}
