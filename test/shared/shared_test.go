package shared

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/pgserver"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

var server *pgserver.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = pgserver.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Stop()
	return rig.Main(m)
}

// database makes an empty one and gives its address.
func database(t *testing.T, name string) string {
	t.Helper()
	if err := server.Psql(t.Context(), "postgres", "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return server.Address(name)
}

// local runs a command that opens the store itself.
func local(t *testing.T, service *rig.Service, arguments ...string) (string, error) {
	t.Helper()
	programs, err := rig.Build()
	if err != nil {
		t.Fatal(err)
	}
	result, err := rig.Run(t.Context(), rig.Command{Path: programs.Service, Args: append(arguments, "--data", service.DataDir)})
	return result.Stdout + result.Stderr, err
}

// said wants a command to succeed, or to fail, with this in what it prints.
func said(t *testing.T, output string, err error, succeeds bool, want string) {
	t.Helper()
	if (err == nil) != succeeds || !strings.Contains(output, want) {
		t.Errorf("got %v and:\n%s\nwant %q", err, output, want)
	}
}

// enroll enrolls the device of a TPM.
func enroll(t *testing.T, service *rig.Service, d rig.Device) (id string) {
	t.Helper()
	result, err := service.Agent(t.Context(), d, "ek", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var said struct{ RegistrationID, EndorsementKey string }
	if err := json.Unmarshal([]byte(result.Stdout), &said); err != nil {
		t.Fatal(err)
	}
	if err := service.Enroll(t.Context(), said.RegistrationID, said.EndorsementKey); err != nil {
		t.Fatal(err)
	}
	return said.RegistrationID
}

func register(t *testing.T, service *rig.Service, d rig.Device) {
	t.Helper()
	if _, err := service.Register(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func TestADeviceRegistersAtANodeOnPostgreSQL(t *testing.T) {
	service := rig.New(t, rig.Config{Store: database(t, "whole")})
	chip := rig.Device{TPM: simtpm.NewFront(t, simtpm.NewSwtpm(t)).Spec(), StateDir: t.TempDir()}
	id := enroll(t, service, chip)
	register(t, service, chip)
	result, err := service.Latchkey(t.Context(), "registration", "show", id)
	said(t, result.Stdout, err, true, "assigned")

	metrics, err := http.Get("http://" + service.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	text, err := io.ReadAll(metrics.Body)
	said(t, string(text), err, true, "\nlatchkey_store_connections_open ")

	output, err := local(t, service, "fsck")
	said(t, output, err, true, "1 registrations")
	said(t, output, err, true, ": 0 problems")
	output, err = local(t, service, "store", "migrate")
	said(t, output, err, true, "already")
	output, err = local(t, service, "key", "list")
	said(t, output, err, true, "yes")
	output, err = local(t, service, "backup", "--output", filepath.Join(t.TempDir(), "backup.tar"))
	said(t, output, err, false, "pg_dump")
	if names, _ := filepath.Glob(filepath.Join(service.DataDir, "latchkey.db*")); len(names) > 0 {
		t.Errorf("a node on PostgreSQL left %v", names)
	}

	// Nothing of it is in the process: another one goes on.
	if err := service.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := service.Run(); err != nil {
		t.Fatal(err)
	}
	register(t, service, chip)
}

func TestASharedDatabaseTakesOneInstallation(t *testing.T) {
	address := database(t, "one")
	service := rig.New(t, rig.Config{Store: address})
	other := filepath.Join(t.TempDir(), "other")
	output, err := latchkey(t, "init", "--data", other, "--host", "other.example.net", "--store", address)
	said(t, output, err, false, "holds an installation already. A further node of it needs no init, but copies of the first one's master.key, tls and latchkey.yaml")
	if entries, _ := os.ReadDir(other); len(entries) > 0 {
		t.Errorf("the refused init left %v", entries)
	}
	if _, err := service.Latchkey(t.Context(), "scope", "list"); err != nil {
		t.Error(err)
	}
}

func TestAStoreAddressThatCannotBeUsedIsRefusedClearly(t *testing.T) {
	bad := database(t, "careless")
	if err := server.Psql(t.Context(), "postgres", "ALTER DATABASE careless SET synchronous_commit = off"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ address, want string }{
		"a password":         {"postgres://latchkey:Pa55word@127.0.0.1/x", "store holds a password"},
		"a password, quoted": {"postgres://127.0.0.1/x?password=Pa55word", "store holds a password"},
		"no address":         {"latchkey.db Pa55word", "store must be an address such as"},
		"nobody there":       {"postgres://latchkey@127.0.0.1:1/x", "x at 127.0.0.1"},
		"it does not flush":  {bad, "synchronous_commit = off and would lose what was acknowledged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			output, err := latchkey(t, "init", "--data", dir, "--host", "dps.example.net", "--store", c.address)
			said(t, output, err, false, c.want)
			if strings.Contains(output, "Pa55word") {
				t.Errorf("the password is shown: %s", output)
			}
			if entries, _ := os.ReadDir(dir); len(entries) > 0 {
				t.Errorf("it left %v", entries)
			}
		})
	}
}

func TestServeSaysWhatAnEmptyDatabaseNeeds(t *testing.T) {
	service := rig.New(t, rig.Config{Store: database(t, "one_node")})
	if err := service.Stop(); err != nil {
		t.Fatal(err)
	}
	output, err := latchkey(t, "serve", "--data", service.DataDir, "--store", database(t, "empty"))
	said(t, output, err, false, "it holds no Latchkey schema: run `latchkey init --store`")
}

func latchkey(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	programs, err := rig.Build()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result, err := rig.Run(ctx, rig.Command{Path: programs.Service, Args: arguments})
	return result.Stdout + result.Stderr, err
}
