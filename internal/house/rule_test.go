package house

import (
	"strings"
	"testing"
)

// TestTheRuleRefusesWhatItShould walks both sides of the rule on invented packages, so that a rule that lets
// everything through, or nothing, cannot pass.
func TestTheRuleRefusesWhatItShould(t *testing.T) {
	const (
		tpm       = "github.com/google/go-tpm/tpm2"
		simulated = "github.com/google/go-tpm/tpm2/transport/simulator"
		tools     = "github.com/google/go-tpm-tools/client"
	)
	tests := []struct {
		from, to string
		ok       bool
	}{
		// The one way: cmd, daemon, transports, registration, attest and dps.
		{"cmd/latchkey", "internal/daemon", true},
		{"cmd/latchkey", "internal/config", true},
		{"cmd/latchkey", "dps", true},
		{"internal/daemon", "internal/httpapi", true},
		{"internal/daemon", "internal/store/sqlite", true},
		{"internal/daemon", "internal/hub/embedded", true},
		{"internal/httpapi", "internal/registration", true},
		{"internal/adminapi", "dps", true},
		{"internal/registration", "attest", true},
		{"internal/store/sqlite", "internal/registration", true},
		{"internal/store/sqlite", "internal/store/sqlite/migrations", true},
		{"internal/store/postgres", "internal/registration", true},
		{"internal/hub/embedded", "internal/registration", true},
		{"internal/store/storetest", "internal/registration", true},
		{"device", "attest", true},
		{"device", "dps", true},
		{"cmd/latchkey-device", "device", true},
		{"cmd/latchkey-demo", "device", true},
		{"cmd/latchkey-demo", "internal/daemon", true},
		{"cmd/latchkey-demo", "test/tpms", true},
		{"test/sdk", "test/tpms", true},
		{"test/sdk", "internal/daemon", true},

		// And never back up.
		{"internal/daemon", "cmd/latchkey", false},
		{"internal/registration", "internal/httpapi", false},
		{"internal/registration", "internal/store/sqlite", false},
		{"internal/registration", "internal/daemon", false},
		{"internal/httpapi", "internal/daemon", false},
		{"attest", "internal/registration", false},
		{"dps", "internal/registration", false},
		{"device", "internal/registration", false},

		// Siblings do not know each other.
		{"attest", "dps", false},
		{"dps", "attest", false},
		{"internal/httpapi", "internal/adminapi", false},
		{"internal/mqttapi", "internal/amqpapi", false},
		{"internal/web", "internal/httpapi", false},
		{"internal/mqttapi", "internal/web", false},
		{"internal/daemon", "internal/web", true},
		{"internal/store/sqlite", "internal/store/postgres", false},
		{"internal/store/postgres", "internal/store/sqlite", false},
		{"internal/store/sqlite", "internal/hub/embedded", false},
		{"internal/hub/embedded", "internal/hub/azure", false},
		{"internal/hub/embedded", "internal/store/sqlite", false},
		{"internal/hub/embedded", "internal/keyring", false},
		{"internal/keyring", "internal/config", false},
		{"internal/telemetry", "internal/registration", false},
		{"internal/registration", "internal/keyring", false},
		{"scripts/suite", "internal/house", false},

		// What is for tests stays there.
		{"internal/store/sqlite", "internal/store/storetest", false},
		{"internal/store/postgres", "test/pgserver", false},
		{"internal/daemon", "internal/store/storetest", false},
		{"internal/daemon", "test/tpms", false},
		{"internal/daemon", "internal/house", false},
		{"cmd/latchkey", "test/tpms", false},
		{"device", "test/tpms", false},

		// The agent holds no server, the service no TPM, neither a software TPM.
		{"cmd/latchkey-device", "internal/daemon", false},
		{"cmd/latchkey-device", "internal/config", false},
		{"cmd/latchkey", "device", false},
		{"cmd/latchkey", tpm, false},
		{"internal/registration", tpm, false},
		{"device", tpm, true},
		{"cmd/latchkey-device", tpm, true},
		{"device", simulated, false},
		{"device", tools, false},
		{"cmd/latchkey-device", simulated, false},
		{"internal/daemon", simulated, false},
		{"cmd/latchkey-demo", simulated, true},
		{"test/tpms", tools, true},

		// attest and dps are pure.
		{"attest", "crypto/sha256", true},
		{"attest", "io", true},
		{"attest", tpm, false},
		{"attest", "golang.org/x/crypto/hkdf", false},
		{"attest", "os", false},
		{"attest", "os/exec", false},
		{"attest", "net", false},
		{"attest", "log", false},
		{"attest", "log/slog", false},
		{"attest", "math/rand/v2", false},
		{"attest", "crypto/rand", false},
		{"attest", "math/big", true},
		{"dps", "net/url", true},
		{"dps", "net/http", false},
		{"dps", "log/slog", true},
		{"dps", "log", false},
		{"dps", "time", true},
		{"internal/iothub", "dps", true},
		{"internal/iothub", "attest", false},
		{"internal/iothub", "internal/registration", false},
		{"internal/iothub", "net/http", false},
		{"internal/iothub", "log/slog", true},
		{"internal/hub/azure", "internal/iothub", true},
		{"internal/hub/azure", "internal/hub/embedded", false},
		{"internal/registration", "internal/iothub", false},
		{"internal/httpapi", "net/http", true},
		{"internal/daemon", "os", true},

		// A room that nobody gave a rule.
		{"internal/misc", "attest", false},
		{"pkg", "attest", false},
	}
	for _, tt := range tests {
		to := tt.to
		if !strings.Contains(to, ".") && inModule(to) {
			to = module + "/" + to
		}
		if err := judge(module+"/"+tt.from, to); (err == nil) != tt.ok {
			t.Errorf("%s imports %s: allowed is %t, want %t (%v)", tt.from, tt.to, err == nil, tt.ok, err)
		}
	}
}

// inModule tells the invented packages of the module from the standard library's.
func inModule(pkg string) bool {
	for _, top := range []string{"attest", "dps", "device", "internal", "cmd", "test", "scripts"} {
		if fits(top+"/...", pkg) {
			return true
		}
	}
	return false
}

func TestARoomWithoutARuleIsRefused(t *testing.T) {
	if known(module+"/internal/misc") == nil || known(module) == nil {
		t.Error("a package outside the table is known")
	}
	if err := known(module + "/internal/hub/broker"); err != nil {
		t.Error(err)
	}
}

func TestTheClockIsFoundInAPureRoom(t *testing.T) {
	tests := []struct {
		body string
		want int
	}{
		{`import "time"; var _ = time.Now`, 1},
		{`import "time"; func f(t time.Time) time.Duration { return time.Since(t) }`, 1},
		{`import clock "time"; var _ = clock.Now()`, 1},
		{`import . "time"; var _ = Now()`, 1},
		{`import "time"; func f(now time.Time) time.Time { return now.Add(time.Minute) }`, 0},
		{`import "time"; var _ = time.Unix(0, 0)`, 0},
		{`import "log/slog"; func f() { slog.Info("x") }`, 1},
		{`import "log/slog"; var l *slog.Logger = slog.Default()`, 2},
		{`import "log/slog"; type k []byte; func (k) LogValue() slog.Value { return slog.StringValue("redacted") }`, 0},
	}
	for _, tt := range tests {
		found, err := uses("f.go", "package f; "+tt.body)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != tt.want {
			t.Errorf("%s: found %v, want %d", tt.body, found, tt.want)
		}
	}
}
