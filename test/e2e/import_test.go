package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/softtpm"
)

// A service that is told to stop does not wait for the end of an import. What came whole is written, the operator's command says how to go on, and
// going on that way doubles nothing.
func TestAnImportEndsWithTheServiceAndIsCompletedAfterIt(t *testing.T) {
	service := rig.New(t, rig.Config{})
	chip := softtpm.New(softtpm.ECC, 0)
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{"registrationId":"dev-%05d","endorsementKey":"%s"}`+"\n", i, base64.StdEncoding.EncodeToString(chip.EK.Bytes()))
		}
		return b.String()
	}
	read, write := io.Pipe()
	ended := make(chan rig.Result, 1)
	go func() {
		result, _ := service.LatchkeyReading(t.Context(), read, "enroll", "import", "-") // its exit code is looked at
		ended <- result
	}()
	if _, err := io.WriteString(write, lines(3000)); err != nil { // and then nothing more, with the input open
		t.Fatal(err)
	}
	count := func() int {
		result, err := service.Latchkey(t.Context(), "enroll", "export")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(result.Stdout, "dev-")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := rig.Poll(ctx, func() (int, bool, error) { n := count(); return n, n >= 500, nil }); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := service.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the import held the service's end for %v", took)
	}
	write.Close()
	result := <-ended
	if result.ExitCode != 3 || !strings.Contains(result.Stderr, "--if-exists skip") {
		t.Errorf("exit code %d, it said %q %q", result.ExitCode, result.Stdout, result.Stderr)
	}
	if err := service.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := service.LatchkeyReading(t.Context(), bytes.NewBufferString(lines(3500)), "enroll", "import", "-", "--if-exists", "skip"); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 3500 {
		t.Errorf("%d are there, not 3500", n)
	}
}
