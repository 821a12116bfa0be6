package device_test

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// tpms are the two implementations of TPM 2.0 with the keys that each holds.
var tpms = []struct {
	name      string
	open      func(testing.TB) simtpm.TPM
	algorithm device.Algorithm
}{
	{"simulator/rsa2048", simulator, device.RSA2048},
	{"simulator/ecc-p256", simulator, device.ECCP256},
	{"swtpm/rsa2048", swtpm, device.RSA2048},
	{"swtpm/ecc-p256", swtpm, device.ECCP256},
	{"swtpm/rsa3072", swtpm, device.RSA3072},
}

func simulator(tb testing.TB) simtpm.TPM { return simtpm.NewSimulator(tb) }
func swtpm(tb testing.TB) simtpm.TPM     { return simtpm.NewSwtpm(tb) }

// onEachTPM runs a test on every TPM and kind of key. Whatever the test does,
// the TPM must be as empty afterwards as it was before. A short run does without
// swtpm, which is a package to be installed.
func onEachTPM(t *testing.T, test func(t *testing.T, tpm simtpm.TPM, a device.Algorithm)) {
	for _, c := range tpms {
		if testing.Short() && strings.HasPrefix(c.name, "swtpm") {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			tpm := c.open(t)
			defer mustBeEmpty(t, tpm)
			test(t, tpm, c.algorithm)
		})
	}
}

func needSwtpm(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a short run does without swtpm")
	}
}

func mustBeEmpty(t *testing.T, tpm transport.TPM) {
	t.Helper()
	if open := openHandles(t, tpm); len(open) != 0 {
		t.Errorf("left in the TPM: %x", open)
	}
}

func openHandles(t *testing.T, tpm transport.TPM) []tpm2.TPMHandle {
	t.Helper()
	open, err := simtpm.OpenHandles(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return open
}

func openIdentity(t *testing.T, tpm transport.TPM, opts ...device.Option) *device.Identity {
	t.Helper()
	id, err := device.OpenTransport(tpm, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func closeAll(t *testing.T, closers ...interface{ Close() error }) {
	t.Helper()
	for _, c := range closers {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// seal makes an activation blob as the service does.
func seal(t *testing.T, ekPublic, srkPublic, key []byte) []byte {
	t.Helper()
	ek, err := attest.ParseEK(ekPublic)
	if err != nil {
		t.Fatal(err)
	}
	srk, err := attest.ParseSRK(srkPublic)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := attest.Seal(rand.Reader, ek, srk, key)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func newKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

func hmacOf(key, message []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(message)
	return mac.Sum(nil)
}

func mustSign(t *testing.T, key *device.Key, secret, message []byte) {
	t.Helper()
	got, err := key.Sign(message)
	if err != nil {
		t.Fatalf("sign %d bytes: %v", len(message), err)
	}
	if !hmac.Equal(got, hmacOf(secret, message)) {
		t.Errorf("wrong HMAC over %d bytes", len(message))
	}
}

// failing is a TPM that answers one of the commands with a response code, but
// lets it pass some times first.
type failing struct {
	transport.TPM
	command tpm2.TPMCC
	code    tpm2.TPMRC
	pass    int
	seen    int
}

func (f *failing) Send(command []byte) ([]byte, error) {
	if len(command) < 10 || tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) != f.command {
		return f.TPM.Send(command)
	}
	if f.pass > 0 {
		f.pass--
		return f.TPM.Send(command)
	}
	f.seen++
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(f.code)), nil
}

// cut is a TPM whose transport breaks at one of the commands.
type cut struct {
	transport.TPM
	after int // commands that still pass
}

var errCut = errors.New("cable pulled")

func (c *cut) Send(command []byte) ([]byte, error) {
	if c.after == 0 {
		return nil, errCut
	}
	c.after--
	return c.TPM.Send(command)
}
