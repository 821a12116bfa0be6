package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/simtpm"
)

// onBothTPMs runs a test on each TPM, through the --tpm spelling that reaches
// it. A short run does without swtpm, which is a package to be installed.
func onBothTPMs(t *testing.T, test func(t *testing.T, tpm simtpm.TPM, spec string)) {
	t.Run("simulator", func(t *testing.T) {
		sim := simtpm.NewSimulator(t)
		test(t, sim, simtpm.NewFront(t, sim).Spec())
	})
	if testing.Short() {
		return
	}
	t.Run("swtpm", func(t *testing.T) {
		swtpm := simtpm.NewSwtpm(t)
		test(t, swtpm, swtpm.Spec())
	})
}

// agent runs the program in this process.
func agent(t *testing.T, wantCode int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, &out, &errs); code != wantCode {
		t.Fatalf("latchkey-device %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, wantCode, &out, &errs)
	}
	return out.String(), errs.String()
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func TestEKTellsWhatAnEnrollmentNeeds(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM, spec string) {
		out, _ := agent(t, exitOK, "ek", "--tpm", spec, "--json")
		it := decode[identity](t, out)
		if _, err := attest.ParseEK(it.EndorsementKey); err != nil {
			t.Error(err)
		}
		if _, err := attest.ParseSRK(it.StorageRootKey); err != nil {
			t.Error(err)
		}
		if it.RegistrationID != attest.RegistrationID(it.EndorsementKey) || it.Algorithm != "rsa2048" ||
			it.Hierarchy != "endorsement" || it.Manufacturer == "" || it.Firmware == "" || it.EKCertificate {
			t.Errorf("got %s", out)
		}
		out, _ = agent(t, exitOK, "ek", "--tpm", spec)
		for _, want := range []string{it.RegistrationID, base64Text(it.EndorsementKey), "none in the TPM"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in\n%s", want, out)
			}
		}
	})
}

func TestTPMCanBeNamedByTheEnvironment(t *testing.T) {
	sim := simtpm.NewSimulator(t)
	t.Setenv("LATCHKEY_TPM", simtpm.NewFront(t, sim).Spec())
	out, steps := agent(t, exitOK, "ek", "--json", "--algorithm", "ecc-p256", "--transient", "--verbose")
	if it := decode[identity](t, out); it.Algorithm != "ecc-p256" || len(it.EndorsementKey) > 200 {
		t.Errorf("got %s", out)
	}
	if !strings.Contains(steps, "create EK") {
		t.Errorf("steps %s", steps)
	}
	if _, err := (tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}).Execute(sim); err == nil {
		t.Error("--transient left an EK in the TPM")
	}
}

// The life of a device: register, log in, restart, log in, change hands.
func TestDeviceRegistersLogsInAndChangesHands(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM, spec string) {
		s := newService(t)
		dir := filepath.Join(t.TempDir(), "state")
		register := []string{"register", "--tpm", spec, "--endpoint", s.URL, "--id-scope", scope, "--ca-file", s.caFile, "--state-dir", dir, "--verbose"}
		out, steps := agent(t, exitOK, append(register, "--json")...)
		got := decode[registered](t, out)
		if got.AssignedHub != "hub.example" || got.DeviceID != "device-1" || got.Status != "assigned" || got.RegistrationID != s.register.RegistrationID ||
			got.StateFile != filepath.Join(dir, stateFile) {
			t.Errorf("got %s", out)
		}
		noSecrets(t, s, out+steps)
		mode, err := os.Stat(got.StateFile)
		if err != nil || mode.Mode().Perm() != 0o600 {
			t.Errorf("state file: %v %v", mode.Mode(), err)
		}
		mustLogIn(t, s, spec, dir)
		if err := tpm.PowerCycle(); err != nil {
			t.Fatal(err)
		}
		mustLogIn(t, s, spec, dir)

		if err := simtpm.Clear(tpm); err != nil {
			t.Fatal(err)
		}
		if _, why := agent(t, exitFailure, "token", "--tpm", spec, "--state-dir", dir); !strings.Contains(why, "register again") {
			t.Errorf("after a clear: %s", why)
		}
		out, _ = agent(t, exitOK, register...)
		if !strings.Contains(out, "hub.example") {
			t.Errorf("got %s", out)
		}
		mustLogIn(t, s, spec, dir)
		if open, err := simtpm.OpenHandles(tpm); err != nil || len(open) != 0 {
			t.Errorf("left in the TPM: %x %v", open, err)
		}
	})
}

func mustLogIn(t *testing.T, s *service, spec, dir string) {
	t.Helper()
	text, _ := agent(t, exitOK, "token", "--tpm", spec, "--state-dir", dir, "--ttl", "10m")
	mustBeFor(t, s, strings.TrimSuffix(text, "\n"), 10*time.Minute)
	out, _ := agent(t, exitOK, "token", "--tpm", spec, "--state-dir", dir, "--json")
	it := decode[login](t, out)
	mustBeFor(t, s, it.SASToken, time.Hour)
	if it.Username != "hub.example/device-1/?api-version=2021-04-12" || it.DeviceID != "device-1" || it.Hub != "hub.example" {
		t.Errorf("got %s", out)
	}
}

func mustBeFor(t *testing.T, s *service, text string, ttl time.Duration) {
	t.Helper()
	token, err := dps.ParseToken(text)
	if err != nil || !token.Verify(s.hubKey) || !token.ResourceIs("hub.example/devices/device-1") {
		t.Errorf("the hub refuses %q: %v", text, err)
	}
	if left := time.Until(token.Expiry); left > ttl || left < ttl-time.Minute {
		t.Errorf("valid for %v, want %v", left, ttl)
	}
}

// noSecrets: neither keys nor proofs may show, not even with --verbose.
func noSecrets(t *testing.T, s *service, output string) {
	t.Helper()
	for _, key := range [][]byte{s.hubKey, s.challengeKey} {
		if strings.Contains(output, base64.StdEncoding.EncodeToString(key)) {
			t.Error("the output shows a key")
		}
	}
	if strings.Contains(output, "sig=") {
		t.Errorf("the output shows a SAS token:\n%s", output)
	}
}

func TestNothingIsKeptWithoutAStateDirectory(t *testing.T) {
	s := newService(t)
	spec := simtpm.NewFront(t, simtpm.NewSimulator(t)).Spec()
	out, _ := agent(t, exitOK, "register", "--tpm", spec, "--algorithm", "ecc-p256", "--registration-id", "my-device",
		"--endpoint", "example.com", "--connect", s.Listener.Addr().String(), "--id-scope", scope, "--ca-file", s.caFile)
	if !strings.Contains(out, "not kept") || !strings.Contains(out, "my-device") || s.register.RegistrationID != "my-device" {
		t.Errorf("got %s", out)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	s := newService(t)
	spec := simtpm.NewFront(t, simtpm.NewSimulator(t)).Spec()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	register := func(args ...string) []string {
		return append([]string{"register", "--tpm", spec, "--algorithm", "ecc-p256"}, args...)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown command":     {[]string{"enroll"}, exitUsage, `unexpected "enroll"`},
		"unknown flag":        {[]string{"ek", "--jason"}, exitUsage, "unknown flag"},
		"argument too many":   {[]string{"ek", "it"}, exitUsage, `unexpected "it"`},
		"unknown algorithm":   {[]string{"ek", "--tpm", spec, "--algorithm", "rsa1024"}, exitUsage, "use rsa2048"},
		"other algorithm":     {[]string{"ek", "--tpm", spec, "--algorithm", "rsa2048"}, exitFailure, "ecc-p256, not rsa2048"},
		"no endpoint":         {register("--id-scope", scope), exitUsage, "--endpoint"},
		"no scope":            {register("--endpoint", s.URL), exitUsage, "--id-scope"},
		"endpoint with path":  {register("--endpoint", s.URL+"/x", "--id-scope", scope), exitUsage, "want HOST"},
		"no TPM":              {[]string{"ek", "--tpm", dir + "/tpmrm0"}, exitFailure, "there is no TPM at"},
		"no simulator":        {[]string{"ek", "--tpm", "swtpm:127.0.0.1:1"}, exitFailure, "nobody listens"},
		"CA file missing":     {register("--endpoint", s.URL, "--id-scope", scope, "--ca-file", dir+"/none"), exitFailure, "CA file"},
		"CA file of no CA":    {register("--endpoint", s.URL, "--id-scope", scope, "--ca-file", file), exitFailure, "no certificate"},
		"unknown CA":          {register("--endpoint", s.URL, "--id-scope", scope), exitFailure, "--ca-file"},
		"other host":          {register("--endpoint", "dps.example.net", "--connect", s.Listener.Addr().String(), "--id-scope", scope, "--ca-file", s.caFile), exitFailure, "for another host"},
		"not enrolled":        {register("--endpoint", s.URL, "--id-scope", scope, "--ca-file", s.caFile, "--registration-id", "stranger"), exitFailure, "enroll what"},
		"state is a file":     {register("--endpoint", s.URL, "--id-scope", scope, "--ca-file", s.caFile, "--state-dir", file), exitFailure, "state directory"},
		"token without state": {[]string{"token"}, exitUsage, "--state-dir"},
		"token too early":     {[]string{"token", "--tpm", spec, "--state-dir", dir}, exitFailure, "not registered yet"},
		"token of no time":    {[]string{"token", "--state-dir", dir, "--ttl", "0s"}, exitUsage, "--ttl"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "other algorithm" {
				agent(t, exitOK, "ek", "--tpm", spec, "--algorithm", "ecc-p256")
			}
			out, why := agent(t, c.code, c.args...)
			if out != "" || !strings.Contains(why, c.want) || !strings.HasPrefix(why, "latchkey-device: ") {
				t.Errorf("printed %q and %q, want %q", out, why, c.want)
			}
			if sentence := strings.TrimSuffix(why, "See latchkey-device --help.\n"); strings.Count(sentence, "\n") != 1 {
				t.Errorf("not one line: %q", why)
			}
		})
	}
}

func TestOwnerPasswordIsExplained(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM, spec string) {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		if _, why := agent(t, exitFailure, "ek", "--tpm", spec); !strings.Contains(why, "owner hierarchy has a password") {
			t.Errorf("got %s", why)
		}
	})
}

// The simulator must not get into the product by a careless import, and the
// product must run where there is no libc.
func TestAgentIsStaticAndHasNoSimulator(t *testing.T) {
	goTool := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for dep := range strings.FieldsSeq(goTool("list", "-deps", ".")) {
		for _, bad := range []string{"simulator", "simtpm", "go-tpm-tools", "latchkey/internal", "latchkey/test"} {
			if strings.Contains(dep, bad) {
				t.Errorf("the agent depends on %s", dep)
			}
		}
	}
	binary := filepath.Join(t.TempDir(), "latchkey-device")
	goTool("build", "-o", binary, ".")
	spec := simtpm.NewFront(t, simtpm.NewSimulator(t)).Spec()
	out, err := exec.Command(binary, "ek", "--json", "--tpm", spec).Output()
	if err != nil {
		t.Fatal(err)
	}
	if it := decode[identity](t, string(out)); len(it.RegistrationID) != 52 {
		t.Errorf("got %s", out)
	}
}

// A failed chip and a foreign blob are the same response code on some TPMs.
func TestFailedTPMIsToldFromAForeignBlob(t *testing.T) {
	if sentence := advice(&device.TPMError{Command: "TPM2_CreatePrimary", Code: tpm2.TPMRCFailure, Err: tpm2.TPMRCFailure}); !strings.Contains(sentence, "off and on") {
		t.Errorf("failure mode: %q", sentence)
	}
	if testing.Short() {
		return // the blob for another TPM needs swtpm
	}
	s, other := newService(t), openedEK(t, simtpm.NewSimulator(t))
	s.foreignEK = other
	_, why := agent(t, exitFailure, "register", "--tpm", simtpm.NewSwtpm(t).Spec(), "--endpoint", s.URL, "--id-scope", scope, "--ca-file", s.caFile)
	if !strings.Contains(why, "for another TPM") {
		t.Errorf("foreign blob: %s", why)
	}
}

func openedEK(t *testing.T, tpm simtpm.TPM) []byte {
	t.Helper()
	id, err := device.OpenTransport(tpm)
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	return id.EK()
}
