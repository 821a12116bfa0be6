package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// verification is the script command of that name.
func verification(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(ts.Exec("latchkey", "ca", "list", "--json"))
	found := regexp.MustCompile(`"verificationCode": "([0-9a-f]+)"`).FindStringSubmatch(ts.ReadFile("stdout"))
	if found == nil {
		ts.Fatalf("no verification code")
	}
	ts.Setenv("CODE", found[1])
}

// scopeID is the script command scopeid.
func scopeID(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(`(?s)ID scope +(\S+).*Connection string +(\S+)`).FindStringSubmatch(ts.ReadFile(args[0]))
	if found == nil {
		ts.Fatalf("no ID scope")
	}
	ts.Setenv("SCOPE", found[1])
	ts.Setenv("SECOND_STRING", found[2])
}

// writeProfile is the script command profile.
func writeProfile(ts *testscript.TestScript, _ bool, _ []string) {
	one := fmt.Sprintf("  connectionString: %q\n  connect: %q\n  caFile: %q\n",
		ts.Getenv("LATCHKEY_CONNECTION_STRING"), ts.Getenv("LATCHKEY_CONNECT"), ts.Getenv("LATCHKEY_CA_FILE"))
	ts.Check(os.WriteFile(ts.MkAbs("profiles.yaml"), []byte("default:\n"+one+"plant:\n"+one), 0o600))
}

// cut is the script command of that name.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	whole, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), whole[:len(whole)/2], 0o600))
}

// large is the script command of that name.
func large(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text+strings.Repeat("\n", maxCertificateFile)), 0o600))
}
