package cluster

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/pgserver"
	"latchkey.example/latchkey/test/rig"
)

// A node that starts while its database is away, or is only a standby, ends with a sentence that says so; the service manager starts it again. One
// that runs meanwhile goes on: it says that it is not ready, tells devices to come again, and serves when the database is back.
func TestTheDatabaseIsAwayAndComesBack(t *testing.T) {
	p := newPair(t)
	s := rig.New(t, rig.Config{Store: p.primary.Address("postgres")})
	d := newDevice(t, &s.Access, 0)
	d.register()

	output, err := try(t, s, p.standby, "serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--metrics", "")
	wantRefusal(t, output, err, "the server is a standby, which takes no writes: name its primary in the address, or both with target_session_attrs=read-write")
	output, err = try(t, s, p.standby, "fsck")
	if err != nil || !strings.Contains(output, "1 registrations") || !strings.Contains(output, ": 0 problems") {
		t.Errorf("fsck at the standby: %v: %s", err, output)
	}

	for _, outage := range []struct {
		name           string
		away, comeBack func() error
	}{
		{"the server is killed", p.primary.Crash, p.primary.Run},
		{"the server takes no writes", readOnly(t, p.primary, "on"), readOnly(t, p.primary, "off")},
	} {
		t.Run(outage.name, func(t *testing.T) {
			d.t = t
			d.contact() // so that the next request writes, and is no repetition
			must(t, outage.away())
			if outage.name == "the server is killed" {
				output, err := try(t, s, p.primary, "serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--metrics", "")
				wantRefusal(t, output, err, "connection refused")
			}
			got := d.ask(http.MethodPut, "/register", d.token, d.body(), http.StatusServiceUnavailable)
			if !comeAgain(got) {
				t.Errorf("status %d, %v: %s", got.status, got.header, got.body)
			}
			wantReady(t, s, "the store does not answer")
			must(t, outage.comeBack())
			wantReady(t, s, "ok")
			d.register()
		})
	}
}

// readOnly makes a server refuse writes, as some managed ones do when their disk is full.
func readOnly(t *testing.T, server *pgserver.Server, on string) func() error {
	return func() error {
		if err := server.Psql(t.Context(), "postgres", `ALTER SYSTEM SET default_transaction_read_only = `+on); err != nil {
			return err
		}
		return server.Psql(t.Context(), "postgres", `SELECT pg_reload_conf()`)
	}
}

// try runs a command with a node's keys, on another database.
func try(t *testing.T, s *rig.Service, on *pgserver.Server, arguments ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, err := rig.Run(ctx, rig.Command{Path: s.Programs().Service, Args: append(arguments, "--data", s.DataDir),
		Env: []string{"LATCHKEY_STORE=" + on.Address("postgres")}})
	return result.Stdout + result.Stderr, err
}

func wantRefusal(t *testing.T, output string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(output, want) {
		t.Errorf("want a refusal with %q, got %v: %s", want, err, output)
	}
}

// wantReady waits until /readyz says so.
func wantReady(t *testing.T, s *rig.Service, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := s.Client()
	defer client.CloseIdleConnections()
	var text []byte
	if _, err := rig.Poll(ctx, func() (struct{}, bool, error) {
		answer, err := client.Get(s.URL("/readyz"))
		if err != nil {
			return struct{}{}, false, err
		}
		defer answer.Body.Close()
		text, err = io.ReadAll(answer.Body)
		return struct{}{}, strings.TrimSpace(string(text)) == want, err
	}); err != nil {
		t.Errorf("readyz says %q, want %q: %v", text, want, err)
	}
}
