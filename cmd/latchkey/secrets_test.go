package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
)

// Secrets are shown by init, once, and by those commands of access-policy that
// are asked for them. Every other command is tried here, wrongly too, since it
// is in complaints that secrets slip out.
func TestNoCommandShowsASecretUnasked(t *testing.T) {
	path, err := exec.LookPath("latchkey")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	latchkey := func(connection string, args ...string) string {
		command := exec.Command(path, args...)
		command.Dir, command.Env = dir, []string{"GORACE=" + os.Getenv("GORACE"), "LATCHKEY_CONNECTION_STRING=" + connection, "LATCHKEY_CONNECT=127.0.0.1:1"}
		text, _ := command.CombinedOutput()
		return string(text)
	}
	var made struct{ ConnectionString string }
	if err := json.Unmarshal([]byte(latchkey("", "init", "--data", "data", "--host", "dps.example.net", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	connection, err := dps.ParseConnectionString(made.ConnectionString)
	if err != nil {
		t.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString(connection.SharedAccessKey)
	secrets := append(masterKeys(t, filepath.Join(dir, "data", "master.key")), key)

	var said strings.Builder
	for _, args := range [][]string{
		{"init", "--data", "data", "--host", "dps.example.net"}, {"key", "list", "--data", "data"}, {"key", "add", "--data", "data"},
		{"key", "rotate", "--data", "data"}, {"cert", "renew", "--data", "data"}, {"serve", "--data", "data", "--metrics", "0.0.0.0:1"},
		{"serve", "--data", "data", "--https", "127.0.0.1:0", "--mqtt", "256.0.0.1:1", "--metrics", "", "--log-level", "debug"},
		{"why", "x"}, {"enroll", "show", "x"}, {"registration", "show", "x"}, {"enroll", "--help"}, {"serve", "--help"},
		{"access-policy", "list"}, {"access-policy", "show", key, "--keys"}, {"access-policy", "add", key}, {"access-policy", "add", "x", "--rights", "EnrollmentRead", made.ConnectionString},
	} {
		said.WriteString(latchkey(made.ConnectionString, args...))
	}
	secrets = append(secrets, masterKeys(t, filepath.Join(dir, "data", "master.key"))...)
	for _, wrong := range []string{
		made.ConnectionString + ";", strings.Replace(made.ConnectionString, "SharedAccessKey=", "SharedAccesKey=", 1), "SharedAccessKey=" + key, key,
		strings.Replace(made.ConnectionString, "HostName=dps.example.net", "HostName=dps example", 1), made.ConnectionString + "=!",
	} {
		said.WriteString(latchkey(wrong, "why", "x"))
		said.WriteString(latchkey("", "why", "x", "--connection-string", wrong))
		said.WriteString(latchkey("", "why", "--conection-string="+wrong))
	}
	for i, secret := range secrets {
		if strings.Contains(said.String(), strings.TrimRight(secret, "=")) {
			t.Errorf("secret %d shows up in:\n%s", i, &said)
		}
	}
	if n := strings.Count(said.String(), "the connection string"); n < 6 || len(secrets) != 4 {
		t.Errorf("only %d wrong connection strings were noticed, %d secrets known", n, len(secrets))
	}
}

// masterKeys reads the keys of a ring file, in base64.
func masterKeys(t *testing.T, path string) (keys []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Keys []struct{ Key string } }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, k := range file.Keys {
		keys = append(keys, k.Key)
	}
	return keys
}
