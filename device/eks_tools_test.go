package device_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// tools are tpm2-tools at a TPM; their files lie in dir.
type tools struct {
	dir, tcti string
}

func newTools(t *testing.T, tpm simtpm.TPM) *tools {
	t.Helper()
	if _, err := exec.LookPath("tpm2_createek"); err != nil {
		t.Fatalf("%v; install it with: apt-get install tpm2-tools", err)
	}
	address := strings.TrimPrefix(simtpm.NewFront(t, tpm).Spec(), "tcp:")
	host, port, _ := strings.Cut(address, ":")
	return &tools{t.TempDir(), "mssim:host=" + host + ",port=" + port}
}

// run runs one tool and gives what is in a file then.
func (k *tools) run(t *testing.T, file, tool string, arguments ...string) []byte {
	t.Helper()
	cmd := exec.Command(tool, arguments...)
	cmd.Dir, cmd.Env = k.dir, append(os.Environ(), "TPM2TOOLS_TCTI="+k.tcti)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", tool, strings.Join(arguments, " "), err, output)
	}
	content, err := os.ReadFile(filepath.Join(k.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// toolsMustAgree: what tpm2-tools show, which share no code with us, is among
// what we show. Their createek --template is left out: before 5.6 it fails
// without a nonce, and with one makes another key each time (tpm2-tools 3278 and 3280).
func toolsMustAgree(t *testing.T, tpm simtpm.TPM, found *device.EKs) {
	t.Helper()
	tool := newTools(t, tpm)
	for algorithm, template := range map[string]string{"rsa": "L-1", "ecc": "L-2", "ecc384": "H-3"} {
		public := tool.run(t, "ek.pub", "tpm2_createek", "-G", algorithm, "-c", "ek.ctx", "-u", "ek.pub", "-f", "tss")
		tool.run(t, "ek.pub", "tpm2_flushcontext", "-t") // nothing manages the TPM's slots here
		if key := keyOf(found, public); key == nil || !slices.Equal(key.Templates, []string{template}) {
			t.Errorf("%s: tpm2_createek has another key: %+v", template, key)
		}
	}
	kept := tool.run(t, "kept.pub", "tpm2_readpublic", "-c", "0x81010016", "-f", "tss", "-o", "kept.pub")
	if key := keyOf(found, kept); key == nil || !key.At(0x81010016) {
		t.Errorf("tpm2_readpublic has another key: %+v", key)
	}
	certificate := tool.run(t, "ek.crt", "tpm2_getekcertificate", "-o", "ek.crt")
	if block, _ := pem.Decode(certificate); block != nil {
		certificate = block.Bytes
	}
	if c := certificateAt(t, found, 0x01c00002); !bytes.Equal(c.Raw, certificate) {
		t.Error("tpm2_getekcertificate has another certificate")
	}
}
