package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/device"
)

func authFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestValuesAreSpeltAsTPM2ToolsSpellThem(t *testing.T) {
	for text, want := range map[string]string{
		"secret":                          "secret",
		"secret\n":                        "secret",
		"secret\r\n":                      "secret",
		"secret\n\n":                      "secret\n", // one newline only
		" secret ":                        " secret ",
		"str:secret":                      "secret",
		"str:hex:00":                      "hex:00",
		"hex:00ff0A":                      "\x00\xff\x0a",
		"hex:73656372657400":              "secret\x00",
		"a:b":                             "a:b",
		"pass wörd":                       "pass wörd",
		strings.Repeat("x", 64):           strings.Repeat("x", 64),
		"hex:" + strings.Repeat("61", 64): strings.Repeat("a", 64),
		"str:" + strings.Repeat("y", 64):  strings.Repeat("y", 64),
		strings.Repeat("z", 64) + "\r\n":  strings.Repeat("z", 64),
		"hex:" + strings.Repeat("FF", 64): strings.Repeat("\xff", 64),
		"hex:" + strings.Repeat("7a", 64) + "\r\n": strings.Repeat("z", 64),
	} {
		value, err := readAuthFile(authFile(t, text), "owner", 0o077)
		if err != nil || string(value) != want {
			t.Errorf("%q: got %q, %v", text, value, err)
		}
	}
}

func TestBadValuesAreRefusedAndNotRepeated(t *testing.T) {
	const canary = "c4n4ry"
	for text, want := range map[string]string{
		"":                                   "no value",
		"\n":                                 "no value",
		"str:":                               "no value",
		"hex:":                               "no value",
		"hex:0000":                           "no value",
		"hex:" + canary:                      "hexadecimal",
		"hex:abc":                            "hexadecimal",
		"hex:0x01":                           "hexadecimal",
		"file:/etc/" + canary:                "str:",
		"session:" + canary:                  "str:",
		canary + strings.Repeat("x", 59):     "more than the 64 bytes",
		"str:" + strings.Repeat(canary, 11):  "more than the 64 bytes",
		"hex:" + strings.Repeat("61", 65):    "more than the 64 bytes",
		strings.Repeat(canary, 1000):         "more than the 64 bytes",
		strings.Repeat(canary+"\n", 1000):    "more than the 64 bytes",
		"hex:" + strings.Repeat("c4", 10000): "hexadecimal", // cut at an odd digit, long before its end
	} {
		value, err := readAuthFile(authFile(t, text), "owner", 0o077)
		if err == nil || value != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%.40q: got %q, %v, want %s", text, value, err, want)
		}
	}
}

func TestFileThatOthersCanReadIsRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o601, 0o777} {
		path := authFile(t, "secret")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := readAuthFile(path, "owner", 0o077)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) || !strings.Contains(err.Error(), fmt.Sprintf("%04o", mode)) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o400} {
		path := authFile(t, "secret")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readAuthFile(path, "owner", 0o077); err != nil {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

func TestWhatIsNoFileIsNotRead(t *testing.T) {
	var usage usageError
	if _, err := readAuthFile("-", "owner", 0o077); !errors.As(err, &usage) {
		t.Errorf("standard input: %v", err)
	}
	for _, path := range []string{t.TempDir(), "/dev/zero", filepath.Join(t.TempDir(), "none")} {
		if _, err := readAuthFile(path, "owner", 0o077); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

// authOf runs only the part of a command that looks for values.
func authOf(t *testing.T, args ...string) (device.Auth, error) {
	t.Helper()
	cmd := &cobra.Command{Use: "test", SilenceErrors: true, SilenceUsage: true}
	f := addAuthFlags(cmd)
	var auth device.Auth
	cmd.RunE = func(*cobra.Command, []string) (err error) {
		auth, err = f.read()
		return err
	}
	withEnvironment(cmd).SetArgs(args)
	err := cmd.Execute()
	return auth, err
}

func TestEverySourceOfAValueInItsOrder(t *testing.T) {
	credentials := t.TempDir()
	write := func(name, value string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(credentials, name), []byte(value), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("latchkey-owner-auth", "from systemd", 0o440)
	write("latchkey-lockout-auth", "hex:6c6f636b6f7574\n", 0o400)
	expect := func(want string, args ...string) {
		t.Helper()
		auth, err := authOf(t, args...)
		if got := fmt.Sprintf("%s,%s,%s", auth.Owner, auth.Endorsement, auth.Lockout); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	expect(",,")
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	expect("from systemd,,lockout")
	t.Setenv("LATCHKEY_OWNER_AUTH", "str:from the environment")
	t.Setenv("LATCHKEY_ENDORSEMENT_AUTH", "e")
	expect("from the environment,e,lockout")
	for _, name := range hierarchies {
		if value, set := os.LookupEnv(authVariable(name)); set {
			t.Errorf("%s is still in the environment: %q", name, value)
		}
	}
	t.Setenv("LATCHKEY_OWNER_AUTH", "from the environment")
	t.Setenv("LATCHKEY_OWNER_AUTH_FILE", authFile(t, "from the file of the environment"))
	expect("from the file of the environment,,lockout")
	t.Setenv("LATCHKEY_OWNER_AUTH_FILE", authFile(t, "from the file of the environment"))
	expect("from the flag,,lockout", "--owner-auth-file", authFile(t, "from the flag"))

	write("latchkey-lockout-auth", "secret", 0o400)
	if err := os.Chmod(filepath.Join(credentials, "latchkey-lockout-auth"), 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := authOf(t); err == nil || !strings.Contains(err.Error(), "lockout") {
		t.Errorf("a credential for everybody: %v", err)
	}
}

// The environment is read once, but a daemon opens the TPM many times.
func TestValueOfTheEnvironmentServesEveryOpening(t *testing.T) {
	t.Setenv("LATCHKEY_OWNER_AUTH", "secret")
	cmd := &cobra.Command{}
	f := addAuthFlags(cmd)
	for range 2 {
		auth, err := f.read()
		if err != nil || !bytes.Equal(auth.Owner, []byte("secret")) {
			t.Errorf("got %q, %v", auth.Owner, err)
		}
		auth.Wipe()
	}
}
