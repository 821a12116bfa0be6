package upgrade

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/test/pgserver"
)

// previous is the release that databases are upgraded from.
const previous = "testdata/0.1.0"

// facts are what devices and operators of the kept installation know; make.go tells what each is.
type facts struct {
	Release  string
	Scope    string
	OwnerKey []byte
	SQLite   storeFacts
	Postgres storeFacts
}

type storeFacts struct {
	End          time.Time
	Other, Gone  string
	Token        string
	Operation    string
	Assigning    string
	StuckToken   string
	ETag         string
	DeviceChain  []byte
	DeletedIDs   []string
	AuditTracked string
}

func readFacts(t *testing.T) (f facts) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(previous, "facts.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &f))
	return f
}

// unpacked is a kept file.
func unpacked(t *testing.T, name string) []byte {
	t.Helper()
	file, err := os.Open(filepath.Join(previous, name))
	must(t, err)
	defer file.Close()
	packed, err := gzip.NewReader(file)
	must(t, err)
	data, err := io.ReadAll(packed)
	must(t, err)
	return data
}

// restored is the kept installation on the embedded store, as the earlier release left it.
func restored(t *testing.T) config.Config {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	must(t, unpackTar(dir, unpacked(t, "sqlite.tar.gz")))
	cfg, err := config.Load(dir, "", func(string) string { return "" }, nil)
	must(t, err)
	return cfg
}

var server *pgserver.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if dir := os.Getenv(copyData); dir != "" {
		return copyAsProcess(dir)
	}
	var err error
	if server, err = pgserver.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Stop()
	return m.Run()
}

var databases atomic.Int64

// emptyDatabase makes a database and returns its name.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("upgrade_%d", databases.Add(1))
	admin(t, "postgres", `CREATE DATABASE `+name+` TEMPLATE template0`)
	return name
}

// loaded is the kept installation on PostgreSQL, in a database of its own.
func loaded(t *testing.T) string {
	t.Helper()
	name := emptyDatabase(t)
	must(t, server.Load(name, bytes.NewReader(unpacked(t, "postgres.sql.gz"))))
	return name
}

func admin(t *testing.T, database, sql string) {
	t.Helper()
	pg, err := pgx.Connect(t.Context(), server.Address(database))
	must(t, err)
	defer pg.Close(t.Context())
	_, err = pg.Exec(t.Context(), sql)
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
