package sdk

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
	"latchkey.example/latchkey/test/softtpm"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// nodeLimit bounds one program: a TPM makes two RSA keys in it, and the device
// polls every two seconds.
const nodeLimit = 2 * time.Minute

// node is Microsoft's SDK as a client of one service.
type node struct {
	service *rig.Service
	command string
	caFile  string
}

func newNode(t *testing.T, service *rig.Service) node {
	t.Helper()
	command, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("There is no node program on the PATH; `scripts/setup.sh test` installs it.")
	}
	for name, version := range packages(t, "node").Dependencies {
		installed := packages(t, filepath.Join("node", "node_modules", name)).Version
		if installed != version {
			t.Fatalf("The npm package %s %s is not installed (found: %q); `scripts/setup.sh test` installs it.", name, version, installed)
		}
	}
	return node{service, command, service.CAFile}
}

// manifest is what matters here of a package.json.
type manifest struct {
	Version      string
	Dependencies map[string]string
}

// packages reads dir's package.json; a missing one is empty.
func packages(t *testing.T, dir string) manifest {
	t.Helper()
	var m manifest
	content, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return m
	}
	if err == nil {
		err = json.Unmarshal(content, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run executes a program of node/ and gives what it printed on its standard
// output. Whatever goes wrong, all of its output is shown.
func (n node) run(t *testing.T, program string, arguments ...string) string {
	t.Helper()
	result, err := n.try(t, program, arguments...)
	if err != nil {
		t.Fatalf("node %s: %v\nstandard output:\n%s\nstandard error:\n%s", program, err, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

func (n node) try(t *testing.T, program string, arguments ...string) (rig.Result, error) {
	ctx, cancel := context.WithTimeout(t.Context(), nodeLimit)
	defer cancel()
	return rig.Run(ctx, rig.Command{
		Path: n.command,
		Args: append([]string{"--no-deprecation", "--require", "./redirect.js", program}, arguments...),
		Dir:  "node",
		Env: []string{
			"NODE_EXTRA_CA_CERTS=" + n.caFile,
			"LATCHKEY_REDIRECT=" + n.service.Redirect(),
			"LATCHKEY_CONNECTION_STRING=" + n.service.ConnectionString,
		},
	})
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
	wantTelemetry(t, service)

	n.run(t, "service.js", "retire", identity.RegistrationID, service.Host)
}

// wantTelemetry: the hub shows the message of register.js, its properties
// decoded.
func wantTelemetry(t *testing.T, service *rig.Service) {
	t.Helper()
	messages, err := service.Telemetry()
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) != 1 {
		t.Fatalf("the hub shows %d messages, want 1: %+v", len(messages), messages)
	}
	m := messages[0]
	if m.Scope != service.IDScope || m.Hub != service.Host || m.DeviceID != "press-07" || string(m.Body) != `{"temperature":21.5}` {
		t.Errorf("message: %+v", m)
	}
	properties := map[string]string{"made-by": "node & sdk"}
	system := map[string]string{"messageId": "first-light", "contentType": "application/json", "contentEncoding": "utf-8"}
	if !maps.Equal(m.Properties, properties) || !maps.Equal(m.SystemProperties, system) {
		t.Errorf("properties %q, system properties %q", m.Properties, m.SystemProperties)
	}
}

func TestNodeSDKListsAndChangesEnrollmentsInBulk(t *testing.T) {
	n := newNode(t, rig.New(t, rig.Config{}))
	n.run(t, "service.js", "lists", base64.StdEncoding.EncodeToString(softtpm.New(softtpm.RSA, 0).EK.Bytes()))
}

func TestNodeSDKIsRefusedWhenItsTPMIsNotEnrolled(t *testing.T) {
	service := rig.New(t, rig.Config{})
	n := newNode(t, service)
	result, err := n.try(t, "register.js", simtpm.NewSwtpmTCP(t).Spec(), service.Host, service.IDScope, "{}")
	if result.ExitCode != 1 || !strings.Contains(result.Stderr, "InvalidOperationError") { // its word for anything but a challenge
		t.Errorf("error %v, standard error:\n%s", err, result.Stderr)
	}
	if lines, err := service.Telemetry(); err != nil || len(lines) != 0 {
		t.Errorf("telemetry %s, error %v", lines, err)
	}
}

// distrust matches the names that Node has for a chain which ends at no CA it
// was given.
var distrust = regexp.MustCompile(`code: '(UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT_LOCALLY|SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|CERT_SIGNATURE_FAILURE)'`)

// The connection is led elsewhere by our preload, so this shows that the SDK
// still checks whom it talks to.
func TestNodeSDKRefusesAServiceThatItHasNoReasonToTrust(t *testing.T) {
	n := newNode(t, rig.New(t, rig.Config{}))
	n.caFile = rig.New(t, rig.Config{}).CAFile
	result, err := n.try(t, "service.js", "retire", "anything", "anywhere")
	if result.ExitCode != 1 || !distrust.MatchString(result.Stderr) {
		t.Errorf("error %v, standard error:\n%s", err, result.Stderr)
	}
}
