package simtpm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Factory is a maker of TPMs: swtpm_setup with a local CA of its own, which
// certifies the EKs of the swtpms it makes.
type Factory struct {
	dir string
}

// factoryLimit bounds the making of one TPM.
const factoryLimit = time.Minute

// NewFactory makes one whose CA lives as long as the test. The programs are of
// Debian's package swtpm-tools.
func NewFactory(tb testing.TB) *Factory {
	tb.Helper()
	for _, program := range []string{"swtpm_setup", "swtpm_localca", "certtool"} {
		if _, err := exec.LookPath(program); err != nil {
			tb.Fatalf("simtpm: %v; install it with: apt-get install swtpm-tools", err)
		}
	}
	f := &Factory{tb.TempDir()}
	localca, err := exec.LookPath("swtpm_localca")
	if err != nil {
		tb.Fatal(err)
	}
	for name, text := range map[string]string{
		"setup.conf": fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\nactive_pcr_banks = sha256\n",
			localca, f.path("localca.conf"), f.path("localca.options")),
		"localca.conf": fmt.Sprintf("statedir = %s\nsigningkey = %s\nissuercert = %s\ncertserial = %s\n",
			f.dir, f.path("signkey.pem"), f.path("issuercert.pem"), f.path("certserial")),
		"localca.options": "--platform-manufacturer Latchkey\n--platform-version 1\n--platform-model Test\n",
	} {
		if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return f
}

func (f *Factory) path(name string) string { return filepath.Join(f.dir, name) }

// CA gives the certificates of the factory's CA in PEM: the one that signs
// those of EKs, and its root.
func (f *Factory) CA(tb testing.TB) (issuer, root []byte) {
	tb.Helper()
	for name, into := range map[string]*[]byte{"issuercert.pem": &issuer, "swtpm-localca-rootca-cert.pem": &root} {
		text, err := os.ReadFile(f.path(name))
		if err != nil {
			tb.Fatal(err)
		}
		*into = text
	}
	return issuer, root
}

// Make makes a TPM 2.0 with EKs and their certificates, and starts it. More
// arguments go to swtpm_setup, such as "--ecc" or "--rsa-keysize", "3072".
func (f *Factory) Make(tb testing.TB, arguments ...string) *Swtpm {
	tb.Helper()
	state := tb.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), factoryLimit)
	defer cancel()
	setup := exec.CommandContext(ctx, "swtpm_setup", append([]string{"--tpm2", "--config", f.path("setup.conf"), "--tpmstate", state,
		"--createek", "--create-ek-cert", "--create-platform-cert", "--overwrite"}, arguments...)...)
	if output, err := setup.CombinedOutput(); err != nil {
		tb.Fatalf("simtpm: swtpm_setup: %v\n%s", err, output)
	}
	return newSwtpm(tb, SwtpmConfig{Dir: state})
}
