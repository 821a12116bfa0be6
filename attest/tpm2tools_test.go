package attest

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// toolbox runs tpm2-tools against a swtpm of its own. Both are written by
// others and share no code with the reference simulator's Go binding or with
// go-tpm. Files live in dir, named relative to it.
type toolbox struct {
	t   *testing.T
	dir string
}

func newToolbox(t *testing.T) *toolbox {
	t.Helper()
	if testing.Short() {
		t.Skip("a short run does without swtpm and tpm2-tools")
	}
	for _, tool := range []string{"swtpm", "tpm2_createek", "tpm2_activatecredential", "tpm2_import"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: install the Debian packages swtpm, tpm2-tools and libtss2-tcti-swtpm0.", tool)
		}
	}
	// A unix socket's path has at most 107 bytes, which t.TempDir may exceed.
	dir, err := os.MkdirTemp("", "tpm2tools")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	b := &toolbox{t, dir}
	b.startTPM()
	return b
}

func (b *toolbox) path(name string) string { return filepath.Join(b.dir, name) }

// startTPM starts swtpm on a unix socket and waits until it answers.
func (b *toolbox) startTPM() {
	b.t.Helper()
	var log bytes.Buffer
	swtpm := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+b.dir,
		"--server", "type=unixio,path="+b.path("tpm"), "--ctrl", "type=unixio,path="+b.path("tpm.ctrl"),
		"--flags", "not-need-init,startup-clear")
	swtpm.Stdout, swtpm.Stderr = &log, &log
	must(b.t, swtpm.Start())
	ended := make(chan error, 1)
	go func() { ended <- swtpm.Wait() }()
	b.t.Cleanup(func() {
		_ = swtpm.Process.Kill() // it may have ended already
		<-ended
	})
	deadline, tick := time.After(10*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("unix", b.path("tpm")); err == nil {
			must(b.t, conn.Close())
			return
		}
		select {
		case err := <-ended:
			ended <- err
			b.t.Fatalf("swtpm ended: %v\n%s", err, log.String())
		case <-deadline:
			b.t.Fatalf("swtpm did not answer in 10 s\n%s", log.String())
		case <-tick.C:
		}
	}
}

// try runs one tool. Nothing manages the TPM's three transient slots here, so
// they are emptied first; keys are kept as saved contexts.
func (b *toolbox) try(tool string, args ...string) (string, error) {
	b.t.Helper()
	if tool != "tpm2_flushcontext" {
		b.run("tpm2_flushcontext", "-t")
	}
	cmd := exec.Command(tool, args...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+b.path("tpm"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b *toolbox) run(tool string, args ...string) {
	b.t.Helper()
	if out, err := b.try(tool, args...); err != nil {
		b.t.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
	}
}

func (b *toolbox) read(name string) []byte {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	must(b.t, err)
	return data
}

func (b *toolbox) write(name string, parts ...[]byte) {
	b.t.Helper()
	must(b.t, os.WriteFile(b.path(name), bytes.Join(parts, nil), 0o600))
}

// createKeys makes an EK and an SRK by the tools' own templates.
func (b *toolbox) createKeys(ekAlgorithm, srkAlgorithm, srkNameAlg string) (*EK, *SRK) {
	b.t.Helper()
	b.run("tpm2_createek", "-G", ekAlgorithm, "-c", "ek.ctx", "-u", "ek.pub", "-f", "tss")
	b.run("tpm2_createprimary", "-C", "o", "-G", srkAlgorithm, "-g", srkNameAlg, "-c", "srk.ctx")
	b.run("tpm2_readpublic", "-c", "srk.ctx", "-f", "tss", "-o", "srk.pub")
	ek, err := ParseEK(b.read("ek.pub"))
	must(b.t, err)
	srk, err := ParseSRK(b.read("srk.pub"))
	must(b.t, err)
	return ek, srk
}

// split writes a blob's fields as the files the tools read. A credential file
// has a header of the tools' own: magic, version 1, then the two TPM2Bs.
func (b *toolbox) split(blob []byte) {
	b.t.Helper()
	p, err := splitBlob(blob)
	must(b.t, err)
	tpm2b := func(field []byte) []byte {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(field))), field...)
	}
	b.write("credential", []byte{0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1}, tpm2b(p.IDObject), tpm2b(p.IDSecret))
	b.write("duplicate", tpm2b(p.Duplicate))
	b.write("seed", tpm2b(p.DupSeed))
	b.write("identity.pub", tpm2b(p.Public))
}

// activate uses the EK as its template wants it: low-range EKs by policy, high-
// range ones by their empty password.
func (b *toolbox) activate(ek *EK) (string, error) {
	b.t.Helper()
	args := []string{"-c", "srk.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "inner.key"}
	if ek.Attributes.Has(UserWithAuth) {
		return b.try("tpm2_activatecredential", args...)
	}
	b.run("tpm2_startauthsession", "--policy-session", "-S", "session.ctx")
	defer b.run("tpm2_flushcontext", "session.ctx")
	b.run("tpm2_policysecret", "-S", "session.ctx", "-c", "e")
	return b.try("tpm2_activatecredential", append(args, "-P", "session:session.ctx")...)
}

func (b *toolbox) importKey() (string, error) {
	b.t.Helper()
	return b.try("tpm2_import", "-C", "srk.ctx", "-k", "inner.key", "-i", "duplicate", "-s", "seed", "-u", "identity.pub", "-r", "identity.priv")
}

func TestTPM2ToolsOpenABlobOnSwtpm(t *testing.T) {
	for _, c := range []struct{ want, ek, srk, srkNameAlg string }{
		{"rsa2048 SHA256 AES-128, rsa2048 SHA256 AES-128", "rsa", "rsa2048", "sha256"},
		{"ecc-p256 SHA256 AES-128, ecc-p256 SHA256 AES-128", "ecc", "ecc256", "sha256"},
		{"rsa2048 SHA256 AES-128, ecc-p256 SHA256 AES-128", "rsa", "ecc256", "sha256"},
		{"ecc-p256 SHA256 AES-128, rsa2048 SHA256 AES-128", "ecc", "rsa2048", "sha256"},
		{"ecc-p384 SHA384 AES-256, rsa3072 SHA384 AES-256", "ecc384", "rsa3072:aes256cfb", "sha384"},
		{"rsa3072 SHA384 AES-256, ecc-p384 SHA384 AES-256", "rsa3072", "ecc384:aes256cfb", "sha384"},
	} {
		t.Run(c.want, func(t *testing.T) {
			b := newToolbox(t)
			ek, srk := b.createKeys(c.ek, c.srk, c.srkNameAlg)
			if got := profileOf(&ek.Public) + ", " + profileOf(&srk.Public); got != c.want {
				t.Fatalf("the tools made %s, want %s", got, c.want)
			}
			key, text := randomKey(32), []byte("scope/registrations/device\n1700000000")
			blob, err := Seal(rand.Reader, ek, srk, key)
			must(t, err)

			b.split(blob)
			if out, err := b.activate(ek); err != nil {
				t.Fatalf("tpm2_activatecredential: %v\n%s", err, out)
			}
			if n := len(b.read("inner.key")); n != innerKeySize {
				t.Errorf("the inner key has %d bytes", n)
			}
			if out, err := b.importKey(); err != nil {
				t.Fatalf("tpm2_import: %v\n%s", err, out)
			}
			b.run("tpm2_load", "-C", "srk.ctx", "-u", "identity.pub", "-r", "identity.priv", "-c", "identity.ctx")
			b.write("text", text)
			b.run("tpm2_hmac", "-c", "identity.ctx", "-o", "mac", "text")
			if got := b.read("mac"); !bytes.Equal(got, softHMAC(key, text)) {
				t.Errorf("tpm2_hmac gives %x, want %x", got, softHMAC(key, text))
			}
		})
	}
}

func profileOf(p *Public) string {
	return fmt.Sprintf("%s %s AES-%d", p.Algorithm(), p.NameAlg, p.Symmetric.Bits)
}

func TestTPM2ToolsCannotOpenAnAlteredBlob(t *testing.T) {
	b := newToolbox(t)
	ek, srk := b.createKeys("ecc", "ecc256", "sha256")
	blob, err := Seal(rand.Reader, ek, srk, randomKey(32))
	must(t, err)
	b.split(blob)

	good := b.read("credential")
	b.write("credential", flipLast(good[:8+54]), good[8+54:])
	out, err := b.activate(ek)
	wantToolError(t, "tpm2_activatecredential", out, err)
	b.write("credential", good)
	if out, err := b.activate(ek); err != nil {
		t.Fatalf("tpm2_activatecredential: %v\n%s", err, out)
	}
	b.write("duplicate", flipLast(b.read("duplicate")))
	out, err = b.importKey()
	wantToolError(t, "tpm2_import", out, err)
}

func flipLast(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

// wantToolError fails unless the tool ended by itself and says that the TPM
// found the integrity value wrong.
func wantToolError(t *testing.T, tool, out string, err error) {
	t.Helper()
	if !errors.As(err, new(*exec.ExitError)) || !strings.Contains(out, "integrity check failed") {
		t.Errorf("%s with altered bytes: %v\n%s", tool, err, out)
	}
}
