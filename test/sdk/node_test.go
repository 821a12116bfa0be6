package sdk

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// nodeLimit bounds one program: a TPM makes two RSA keys in it, and the device
// polls every two seconds.
const nodeLimit = 2 * time.Minute

// node is Microsoft's SDK as a client of one service.
type node struct {
	service *rig.Service
	command string
}

func newNode(t *testing.T, service *rig.Service) node {
	t.Helper()
	command, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("There is no node program on the PATH; `scripts/setup.sh test` installs it.")
	}
	if _, err := os.Stat(filepath.Join("node", "node_modules", "azure-iot-security-tpm", "package.json")); err != nil {
		t.Fatal("The npm packages of test/sdk/node are not installed; `scripts/setup.sh test` installs them.")
	}
	return node{service, command}
}

// run executes a program of node/ and gives what it printed on its standard
// output. Whatever goes wrong, all of its output is shown.
func (n node) run(t *testing.T, program string, arguments ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nodeLimit)
	defer cancel()
	result, err := rig.Run(ctx, rig.Command{
		Path: n.command,
		Args: append([]string{"--no-deprecation", "--require", "./redirect.js", program}, arguments...),
		Dir:  "node",
		Env: []string{
			"NODE_EXTRA_CA_CERTS=" + n.service.CAFile,
			"LATCHKEY_REDIRECT=" + n.service.Redirect(),
			"LATCHKEY_CONNECTION_STRING=" + n.service.ConnectionString,
		},
	})
	if err != nil {
		t.Fatalf("node %s: %v\nstandard output:\n%s\nstandard error:\n%s", program, err, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

func runJSON[T any](t *testing.T, n node, program string, arguments ...string) T {
	t.Helper()
	printed := n.run(t, program, arguments...)
	var value T
	if err := json.Unmarshal([]byte(printed), &value); err != nil {
		t.Fatalf("node %s printed no JSON: %v\n%s", program, err, printed)
	}
	return value
}

func TestNodeSDKRegistersAndSendsWithTheReferenceTPM(t *testing.T) {
	front := simtpm.NewFront(t, simtpm.NewSimulator(t))
	firstLight(t, "mssim:"+front.CommandAddr())
}

func TestNodeSDKRegistersAndSendsWithSwtpm(t *testing.T) {
	firstLight(t, simtpm.NewSwtpmTCP(t).Spec())
}

// firstLight is the whole life of a device, told by the vendor's SDKs alone:
// the operator enrolls it with the service SDK, it registers, connects and sends
// with the device SDK, and the operator retires it.
func firstLight(t *testing.T, tpm string) {
	service := rig.New(t, rig.Config{})
	n := newNode(t, service)

	identity := runJSON[struct{ RegistrationID, EndorsementKey string }](t, n, "identity.js", tpm)
	n.run(t, "service.js", "enroll", identity.RegistrationID, identity.EndorsementKey)

	assigned := runJSON[struct{ RegistrationID, AssignedHub, DeviceID, Status, Substatus string }](t, n,
		"register.js", tpm, service.Host, service.IDScope, `{"temperature":21.5}`)
	if assigned.RegistrationID != identity.RegistrationID || assigned.AssignedHub != service.Host ||
		assigned.DeviceID != "press-07" || assigned.Status != "assigned" || assigned.Substatus != "initialAssignment" {
		t.Errorf("assigned: %+v", assigned)
	}
	wantTelemetry(t, service, "press-07", `{"temperature":21.5}`)

	n.run(t, "service.js", "retire", identity.RegistrationID, service.Host)
}

func wantTelemetry(t *testing.T, service *rig.Service, parts ...string) {
	t.Helper()
	lines, err := service.Telemetry()
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1 {
		t.Fatalf("the hub shows %d messages, want 1: %s", len(lines), lines)
	}
	for _, part := range parts {
		if !strings.Contains(string(lines[0]), part) {
			t.Errorf("%q is not in the message: %s", part, lines[0])
		}
	}
}
