package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/keyring"
)

// Whatever is missing or wrong at the start ends the service with one sentence
// that names the thing and, where there is one, the way out.
func TestStartRefusals(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, h house) (flags map[string]string)
		want  []string
	}{
		{"nothing installed", func(t *testing.T, h house) map[string]string {
			must(t, os.RemoveAll(h.dir))
			return nil
		}, []string{"there is no database at ", "latchkey.db: run `latchkey init`"}},
		{"no database", remove("latchkey.db"), []string{"there is no database at ", "latchkey.db: run `latchkey init`"}},
		{"not a database", overwrite("latchkey.db", "something else entirely, and long enough to be looked at"), []string{"latchkey.db is not a Latchkey database"}},
		{"older schema", schema(0), []string{"has the older schema 0", "run `latchkey store migrate`"}},
		{"newer schema", schema(999), []string{"was written by a newer latchkey (schema 999"}},
		{"no master key", remove("master.key"), []string{"there is no master key at ", "master.key: bring it back"}},
		{"another installation's master key", func(t *testing.T, h house) map[string]string {
			must(t, os.Remove(filepath.Join(h.dir, "master.key")))
			_, err := keyring.Create(filepath.Join(h.dir, "master.key"), time.Now())
			must(t, err)
			return nil
		}, []string{"master.key is not the one of the database ", "latchkey.db: "}},
		{"a master key ring without the key in use", func(t *testing.T, h house) map[string]string {
			dropKey(t, h, "k1")
			return nil
		}, []string{"master.key is not the one of the database ", `does not hold the key "k1"`}},
		{"master key for the group", func(t *testing.T, h house) map[string]string {
			must(t, os.Chmod(filepath.Join(h.dir, "master.key"), 0o640))
			return nil
		}, []string{"master.key is open to other users (mode 0640); run: chmod 600 "}},
		{"broken master key", overwrite("master.key", "{"), []string{"master.key: the file is cut short or is not a key ring"}},
		{"no certificate", remove("tls/server.crt"), []string{"the server's certificate: ", "server.crt", "`latchkey cert renew` makes a new one"}},
		{"no certificate key", remove("tls/server.key"), []string{"the server's certificate: ", "server.key", "`latchkey cert renew` makes a new one"}},
		{"certificate of another key", func(t *testing.T, h house) map[string]string {
			other, err := os.ReadFile(filepath.Join(h.dir, "tls", "ca.key"))
			must(t, err)
			return overwrite("tls/server.key", string(other))(t, h)
		}, []string{"the server's certificate: ", "does not match"}},
		{"unknown key", overwrite(config.FileName, "htps: x\n"), []string{config.FileName + `: line 1: there is no key "htps"`}},
		{"bad log level", overwrite(config.FileName, "logLevel: loud\n"), []string{`logLevel is "loud"`}},
		{"HTTPS port in use", inUse("https"), []string{"https: ", "address already in use"}},
		{"MQTT port in use", inUse("mqtt"), []string{"mqtt: ", "address already in use"}},
		{"metrics port in use", inUse("metrics"), []string{"metrics: ", "address already in use"}},
		{"no telemetry file", func(*testing.T, house) map[string]string { return map[string]string{"hub-telemetry": "/dev/null/x"} }, []string{"/dev/null"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := installed(t)
			flags := c.spoil(t, h)
			log := newLogbook()
			err := Run(t.Context(), Options{Load: func() (config.Config, error) { return h.load(flags) }, Log: log})
			if err == nil {
				t.Fatal("it started")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("says %q, want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("is not one sentence: %q", err)
			}
			if strings.Contains(log.String(), "listening") {
				t.Errorf("it listened before:\n%s", log)
			}
		})
	}
}

func remove(file string) func(*testing.T, house) map[string]string {
	return func(t *testing.T, h house) map[string]string {
		must(t, os.Remove(filepath.Join(h.dir, file)))
		return nil
	}
}

func overwrite(file, text string) func(*testing.T, house) map[string]string {
	return func(t *testing.T, h house) map[string]string {
		must(t, os.WriteFile(filepath.Join(h.dir, file), []byte(text), 0o600))
		return nil
	}
}

// schema makes the database another schema's.
func schema(version int) func(*testing.T, house) map[string]string {
	return func(t *testing.T, h house) map[string]string {
		db, err := sqlite3.Open(filepath.Join(h.dir, "latchkey.db"))
		must(t, err)
		must(t, db.Exec(fmt.Sprintf("PRAGMA user_version = %d; UPDATE latchkey_schema SET works_from = %d", version, version)))
		must(t, db.Close())
		return nil
	}
}

func inUse(listener string) func(*testing.T, house) map[string]string {
	return func(t *testing.T, _ house) map[string]string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		return map[string]string{listener: l.Addr().String()}
	}
}
