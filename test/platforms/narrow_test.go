package platforms

import (
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

// The reference TPM is C code, for which there is most often no 32-bit compiler: the tests that say this sentence are left to 64 bits. swtpm is a
// process of its own, with which the long form goes on.
const noSimulator = "using the simulator requires building with CGO"

// narrow are the packages that the agent is made of, and the pure one of the service.
var narrow = []string{"./attest", "./dps", "./device", "./internal/iothub"}

// Sizes and times that do not fit into 32 bits do not show on the machines that this is written on, but on an ARMv7 board.
func TestPackagesOn32Bits(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Fatal("only Linux on amd64 runs programs for 386 as they are: run this test there")
	}
	arguments := []string{"test", "-json", "-count=1"}
	if os.Getenv("LATCHKEY_LONG") == "" {
		arguments = append(arguments, "-short")
	}
	result, err := rig.Run(t.Context(), rig.Command{Path: "go", Args: append(arguments, narrow...), Dir: source(t),
		Env: []string{"CGO_ENABLED=0", "GOARCH=386"}})
	passed, failed := judged(t, result.Stdout)
	for _, test := range failed {
		t.Errorf("on 32 bits: %s", test)
	}
	for _, room := range narrow {
		if name := "latchkey.example/latchkey" + strings.TrimPrefix(room, "."); passed[name] < 10 {
			t.Errorf("%d tests of %s have passed; go test said: %v", passed[name], name, err)
		}
	}
}

// event is a line of go test -json.
type event struct{ Action, Package, Test, Output string }

// judged counts what passed of each package and lists what failed for another reason than noSimulator.
func judged(t *testing.T, events string) (passed map[string]int, failed []string) {
	t.Helper()
	passed = make(map[string]int)
	said := make(map[[2]string]string) // of each test, and of its subtests
	for line := range strings.Lines(events) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("no event of a test: %v: %q", err, line)
		}
		switch {
		case e.Test == "": // of the package as a whole, which fails with its tests
		case e.Action == "output":
			for name := e.Test; name != ""; name = parent(name) {
				said[[2]string{e.Package, name}] += e.Output
			}
		case e.Action == "pass":
			passed[e.Package]++
		case e.Action == "fail":
			if output := said[[2]string{e.Package, e.Test}]; !strings.Contains(output, noSimulator) {
				failed = append(failed, e.Package+" "+e.Test+"\n"+output)
			}
		}
	}
	return passed, failed
}

// parent of a subtest; empty if it is none.
func parent(test string) string {
	return test[:max(0, strings.LastIndex(test, "/"))]
}
