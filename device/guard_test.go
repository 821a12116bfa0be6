package device

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/test/simtpm"
)

var bothTPMs = map[string]func(testing.TB) simtpm.TPM{
	"simulator": func(tb testing.TB) simtpm.TPM { return simtpm.NewSimulator(tb) },
	"swtpm":     func(tb testing.TB) simtpm.TPM { return simtpm.NewSwtpm(tb) },
}

func onBothTPMs(t *testing.T, test func(t *testing.T, g *guard)) {
	for name, open := range bothTPMs {
		if testing.Short() && name == "swtpm" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			tpm := open(t)
			g := &guard{tpm: tpm}
			test(t, g)
			if err := g.end(); err != nil {
				t.Error(err)
			}
			if open, err := simtpm.OpenHandles(tpm); err != nil || len(open) > 0 {
				t.Errorf("left %x: %v", open, err)
			}
		})
	}
}

func changeAuth(g *guard, hierarchy tpm2.TPMHandle, from, to []byte) error {
	_, err := tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: g.prove(from, secretIn, renewing(to))},
		NewAuth:    tpm2.TPM2BAuth{Buffer: to},
	}.Execute(g.tpm)
	return err
}

// The TPM authenticates its answer with the value that the command has set, and
// one session goes through many values, whatever zeros they have.
func TestASessionFollowsAValueThatChanges(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, g *guard) {
		values := [][]byte{nil, []byte("one"), {0, 1, 0, 2, 0, 0}, bytes.Repeat([]byte{7}, 32), []byte("last\x00"), nil}
		for i, value := range values[1:] {
			if err := changeAuth(g, tpm2.TPMRHOwner, values[i], value); err != nil {
				t.Fatalf("%x to %x: %v", values[i], value, err)
			}
		}
		if len(g.sessions) != 1 {
			t.Errorf("%d sessions for all", len(g.sessions))
		}
	})
}

// TPM2_Clear takes the value of the lockout hierarchy with it.
func TestASessionSurvivesTheClear(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, g *guard) {
		lockout := []byte("lock\x00out")
		if err := changeAuth(g, tpm2.TPMRHLockout, nil, lockout); err != nil {
			t.Fatal(err)
		}
		_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: g.prove(lockout, renewing(nil))}}.Execute(g.tpm)
		if err != nil {
			t.Fatal(err)
		}
		if err := changeAuth(g, tpm2.TPMRHOwner, nil, []byte("owner")); err != nil {
			t.Fatal(err)
		}
	})
}

// changing is a bus at which somebody changes one byte of a response.
type changing struct {
	transport.TPM
	command tpm2.TPMCC
	at      int
	done    bool
}

func (c *changing) Send(command []byte) ([]byte, error) {
	code := tpm2.TPMCC(uint32(command[6])<<24 | uint32(command[7])<<16 | uint32(command[8])<<8 | uint32(command[9]))
	response, err := c.TPM.Send(command)
	if err != nil || code != c.command || c.at >= len(response) {
		return response, err
	}
	response = bytes.Clone(response)
	response[c.at] ^= 0x04
	c.done = true
	return response, nil
}

// Whatever byte of a protected response is changed: no other result comes out
// of it than the TPM's.
func TestAChangedResponseIsRefused(t *testing.T) {
	const afterHeader = 10
	tpm := simtpm.NewSimulator(t)
	bus := &changing{TPM: tpm}
	id, err := OpenTransport(bus, WithAlgorithm(ECCP256))
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	blob := sealFor(t, id, []byte("secret"))
	message := bytes.Repeat([]byte{'m'}, 1500)
	for name, work := range map[string]struct {
		command tpm2.TPMCC
		run     func(*Key) (any, error)
	}{
		"TPM2_ActivateCredential": {tpm2.TPMCCActivateCredential, func(*Key) (any, error) { return id.Activate(blob) }},
		"TPM2_Import":             {tpm2.TPMCCImport, func(*Key) (any, error) { return id.Activate(blob) }},
		"TPM2_HMAC":               {tpm2.TPMCCHMAC, func(k *Key) (any, error) { return k.Sign([]byte("text")) }},
		"TPM2_SequenceComplete":   {tpm2.TPMCCSequenceComplete, func(k *Key) (any, error) { return k.Sign(message) }},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := id.Activate(blob)
			if err != nil {
				t.Fatal(err)
			}
			defer key.Close()
			refused := 0
			for at := afterHeader; ; at++ {
				bus.command, bus.at, bus.done = work.command, at, false
				got, err := work.run(key)
				bus.command = 0
				if !bus.done {
					break
				}
				if err == nil {
					t.Errorf("byte %d changed, and it gave %v", at, got)
				}
				if errors.Is(err, ErrChanged) {
					refused++
				}
			}
			if refused < 60 {
				t.Errorf("told as changed: %d bytes", refused)
			}
		})
	}
}

func sealFor(t *testing.T, id *Identity, key []byte) []byte {
	t.Helper()
	ek, err := attest.ParseEK(id.EK())
	if err != nil {
		t.Fatal(err)
	}
	srk, err := attest.ParseSRK(id.SRK())
	if err != nil {
		t.Fatal(err)
	}
	blob, err := attest.Seal(rand.Reader, ek, srk, key)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}
