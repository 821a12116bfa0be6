package house

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

const module = "latchkey.example/latchkey"

// rooms says, for each folder of the module, which other folders its packages may import. A name ending in /... means
// the folder and all below it, /* means each folder right below it as a room of its own. A room may always import what lies
// below itself. The first entry that fits decides; a package that none fits is refused, so that a new room is a decision.
var rooms = []struct {
	name string
	may  []string
}{
	{"attest/...", nil},
	{"dps/...", nil},
	{"device/...", []string{"attest/...", "dps/..."}},

	{"internal/iothub/...", []string{"dps/..."}},
	{"internal/registration/...", []string{"attest/...", "dps/..."}},
	{"internal/keyring/...", nil},
	{"internal/config/...", nil},
	{"internal/telemetry/...", nil},
	{"internal/authority/...", nil},
	{"internal/proxied/...", nil},
	{"internal/spool/...", nil},
	{"internal/outflow/...", []string{"internal/spool/...", "internal/outbound/...", "internal/registration", "attest/...", "dps/..."}},
	{"internal/outbound/...", nil},
	{"internal/fsck/...", []string{"internal/registration", "attest/...", "dps/..."}},
	{"internal/store/*", []string{"internal/registration", "attest/...", "dps/..."}},
	{"internal/hub/*", []string{"internal/registration", "internal/iothub", "attest/...", "dps/..."}},
	{"internal/web/...", []string{"internal/registration", "attest/...", "dps/..."}},
	{"internal/httpapi/...", []string{"internal/web", "internal/registration", "attest/...", "dps/..."}},
	{"internal/amqpapi/...", []string{"internal/registration", "attest/...", "dps/..."}},
	{"internal/mqttapi/...", []string{"internal/registration", "attest/...", "dps/..."}},
	{"internal/adminapi/...", []string{"internal/web", "internal/registration", "attest/...", "dps/..."}},
	{"internal/brokerapi/...", []string{"internal/web", "internal/registration", "attest/...", "dps/..."}},
	{"internal/hubapi/...", []string{"internal/web", "internal/registration", "internal/iothub", "attest/...", "dps/..."}},
	{"internal/daemon/...", []string{"internal/...", "attest/...", "dps/..."}},
	{"internal/house", nil},

	{"cmd/latchkey", []string{"internal/...", "attest/...", "dps/..."}},
	{"cmd/latchkey-device", []string{"device/...", "attest/...", "dps/..."}},
	{"cmd/latchkey-demo", []string{"..."}},
	{"packaging/...", nil},
	{"scripts/...", nil},
	{"test/...", []string{"..."}},
}

// testOnly are rooms that nothing but tests, the demo and packages for tests may import.
var testOnly = []string{"test/...", "internal/store/storetest/...", "internal/house"}

// pure are the rooms that do no I/O, read no clock and hold no logger.
var pure = []string{"attest/...", "dps/...", "internal/iothub/..."}

// impure are the standard packages that would let a pure room reach outside, be it for chance: its randomness is a
// parameter. dps and iothub alone may import log/slog, to redact their secrets; what it may use of it is judged by uses.
var impure = []string{
	"os/...", "io/fs", "io/ioutil", "net", "net/http/...", "net/rpc/...", "net/smtp", "net/textproto", "log/...", "math/rand/...", "crypto/rand",
	"syscall/...", "database/...", "embed", "expvar", "plugin", "unsafe",
}

// judge refuses an import that breaks the rule. Both are import paths; from must be of this module.
func judge(from, to string) error {
	room := local(from)
	to, inside := strings.CutPrefix(to, module)
	to = strings.TrimPrefix(to, "/")
	switch {
	case inside:
		return judgeInside(room, to)
	case simulator(to) && !forTests(room):
		return fmt.Errorf("%s imports %s: software TPMs live in tests and in the demo", room, to)
	case tpmLibrary(to) && strings.HasPrefix(room, "internal/"), tpmLibrary(to) && room == "cmd/latchkey":
		return fmt.Errorf("%s imports %s: the service never talks to a TPM", room, to)
	case fitsAny(pure, room):
		return judgePure(room, to)
	}
	return nil
}

// judgeInside judges an import of one room of the module by another.
func judgeInside(from, to string) error {
	if !forTests(from) && fitsAny(testOnly, to) {
		return fmt.Errorf("%s imports %s: that is for tests only", from, to)
	}
	for _, room := range rooms {
		if !fits(room.name, from) {
			continue
		}
		if fitsAny(room.may, to) || sameRoom(room.name, from, to) {
			return nil
		}
		return fmt.Errorf("%s imports %s: it may import of this module %s", from, to, list(room.may))
	}
	return fmt.Errorf("%s is a room without a rule: give it an entry in internal/house/rule.go", from)
}

// judgePure judges what a pure room imports from outside the module: a part of the standard library and nothing else.
func judgePure(room, to string) error {
	if strings.Contains(strings.Split(to, "/")[0], ".") {
		return fmt.Errorf("%s imports %s: attest, dps and iothub use the standard library only", room, to)
	}
	if to == "log/slog" && (fits("dps/...", room) || fits("internal/iothub/...", room)) {
		return nil
	}
	if fitsAny(impure, to) {
		return fmt.Errorf("%s imports %s: attest, dps and iothub do no I/O, draw no randomness and hold no logger", room, to)
	}
	return nil
}

// known refuses a package that has no entry in the table; a package without imports inside the module shows only here.
func known(from string) error {
	for _, room := range rooms {
		if fits(room.name, local(from)) {
			return nil
		}
	}
	return fmt.Errorf("%s is a room without a rule: give it an entry in internal/house/rule.go", local(from))
}

// local is the path inside the module.
func local(pkg string) string { return strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/") }

// forTests are the rooms that may hold a software TPM and import what is for tests.
func forTests(room string) bool { return fits("test/...", room) || room == "cmd/latchkey-demo" }

func simulator(pkg string) bool {
	return strings.Contains(pkg, "simulator") || fits("github.com/google/go-tpm-tools/...", pkg)
}

func tpmLibrary(pkg string) bool { return fits("github.com/google/go-tpm/...", pkg) }

// sameRoom: both lie in the room that the pattern names.
func sameRoom(pattern, from, to string) bool {
	base := strings.TrimSuffix(pattern, "/...")
	if parent, ok := strings.CutSuffix(pattern, "/*"); ok {
		base = path.Join(parent, strings.Split(strings.TrimPrefix(from, parent+"/"), "/")[0])
	}
	return fits(base+"/...", to)
}

func fitsAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return fits(p, pkg) })
}

// fits tells whether a package path is among those that a pattern of the table names.
func fits(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	if parent, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(pkg, parent+"/")
	}
	base, below := strings.CutSuffix(pattern, "/...")
	return pkg == base || below && strings.HasPrefix(pkg, base+"/")
}

func list(rooms []string) string {
	if len(rooms) == 0 {
		return "nothing"
	}
	return strings.Join(rooms, ", ")
}
