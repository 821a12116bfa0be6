package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/softtpm"
)

// The test binary serves as latchkey itself when it is called by that name.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=10") // under the race detector each run of the command would end a second late
	}
	testscript.Main(m, map[string]func(){"latchkey": main})
}

// TestScripts runs the command as people do. Besides testscript's own commands there are
//
//	exits CODE COMMAND...  runs a command and wants this exit code
//	operator FILE          takes idScope, connectionString and caFile from what `init --json` printed, into the environment
//	connection FILE        takes the connection string that a command printed, into the environment
//	start [hub] DIR [FLAG...]  runs `latchkey serve`, or `latchkey hub serve`, on free ports until the script's end; its log is service.log
//	hangup                 sends it SIGHUP and waits until the log says how that went
//	halt                   sends it SIGTERM and wants exit code 0 (the library's own "stop" ends a script there, as passed)
//	stranger ID            makes a first contact that is refused; its tracking id is $TRACKING
//	follow COMMAND...      starts a command that goes on; what it says is followed.out
//	sees REGEXP            waits until it has said such a line
//	interrupt              sends it SIGINT and wants exit code 0
//	feed LINES COMMAND...  starts a command and gives it numbered enrollments of $EK on its standard input, which stays open
//	finish CODE            ends that input and wants this exit code; what the command said is fed.out
//	lines LINES FILE [BYTES]  writes numbered enrollments to a file, each with an initial twin of so many bytes
//	await COMMAND...       runs a command until it succeeds
//	crash                  ends the service as if its machine did
//	certify FILE CN [CA]   makes FILE.crt and FILE.key: a CA of its own, or a certificate that CA.crt's key signs
//	verification           takes the verification code that a command printed, into $CODE
//	profile                writes profiles.yaml with what the environment says
//	scopeid FILE           takes the ID scope and connection string that a command printed, into $SCOPE and $SECOND_STRING
//	keep NAME FILE         takes the line that a command printed, into $NAME
//	damage FILE COPY       makes a copy of an export in which one device id is another
//	source [...]           starts a service of the imitated kind to move in from; see there
//	meanwhile KIND ID      changes an enrollment or a group that somebody else disables at the same time, and wants that refused
//	large FILE OUT         writes a file and after it white space, up to more than 1 MiB
//	cut FILE OUT           writes the first half of a file
//	online FILE STATUS     logs a device in with the connection string in a file; see there
//	telemetry FILE BAG BODY  logs such a device in, and sends a message with a property bag
//	register               registers the device whose EK is $EK
//
// and in the environment EK, SRK (base64) and ID of a device, and EK2, ID2 of another.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   filepath.Join("testdata", "script"),
		Setup: equip,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "operator": operator, "connection": connection, "start": start, "hangup": hangup, "halt": stop, "stranger": stranger, "register": register, "certify": certify, "cut": cut, "source": source, "verification": verification, "profile": writeProfile, "scopeid": scopeID, "keep": keep, "damage": damage,
			"feed": feed, "finish": finish, "lines": lines, "await": await, "crash": crash,
			"meanwhile": meanwhile, "large": large, "follow": follow, "sees": sees, "interrupt": interrupt, "online": online, "telemetry": sendTelemetry,
		},
	})
}

// equip gives a script its devices.
func equip(e *testscript.Env) error {
	for i, suffix := range []string{"", "2"} {
		tpm := softtpm.New(softtpm.ECC, i)
		ek := tpm.EK.Bytes()
		e.Setenv("EK"+suffix, base64.StdEncoding.EncodeToString(ek))
		e.Setenv("SRK"+suffix, base64.StdEncoding.EncodeToString(tpm.SRK.Bytes()))
		e.Setenv("ID"+suffix, attest.RegistrationID(ek))
		said, err := json.Marshal(map[string]string{"registrationId": attest.RegistrationID(ek), "endorsementKey": base64.StdEncoding.EncodeToString(ek), "algorithm": "ecc-p256"})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(e.WorkDir, "device"+suffix+".json"), said, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	have := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		have = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if have != want {
		ts.Fatalf("exit code %d, want %d", have, want)
	}
}

func operator(ts *testscript.TestScript, _ bool, args []string) {
	var said map[string]string
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &said))
	for key, variable := range map[string]string{"idScope": "SCOPE", "connectionString": "LATCHKEY_CONNECTION_STRING", "caFile": "LATCHKEY_CA_FILE"} {
		if said[key] == "" {
			ts.Fatalf("init --json printed no %s", key)
		}
		ts.Setenv(variable, said[key])
	}
	if len(said) != 3 {
		ts.Fatalf("init --json printed %d members", len(said))
	}
}

func connection(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.TrimSuffix(ts.ReadFile(args[0]), "\n")
	if _, err := dps.ParseConnectionString(text); err != nil {
		ts.Fatalf("%s is no connection string: %v", args[0], err)
	}
	ts.Setenv("LATCHKEY_CONNECTION_STRING", text)
}

// serveArguments is the command line of a service on free ports.
func serveArguments(dir string, flags []string) []string {
	return append([]string{"serve", "--data", dir, "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, flags...)
}
