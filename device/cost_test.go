package device_test

import (
	"crypto/rand"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// counted is a TPM that counts its commands.
type counted struct {
	transport.TPM
	commands int
}

func (c *counted) Send(command []byte) ([]byte, error) {
	c.commands++
	return c.TPM.Send(command)
}

// BenchmarkRegistration measures what a registration asks of the TPM once EK
// and SRK are open: the challenge opened and signed, the hub key opened, and a
// SAS token for the hub.
func BenchmarkRegistration(b *testing.B) {
	for _, c := range tpms {
		b.Run(c.name, func(b *testing.B) {
			tpm := &counted{TPM: c.open(b)}
			id, err := device.OpenTransport(tpm, device.WithAlgorithm(c.algorithm), device.WithTransientKeys())
			if err != nil {
				b.Fatal(err)
			}
			defer id.Close()
			blob := sealAny(b, id)
			tpm.commands = 0
			for b.Loop() {
				registerOnce(b, id, blob)
			}
			b.ReportMetric(float64(tpm.commands)/float64(b.N), "commands/op")
		})
	}
}

func registerOnce(tb testing.TB, id *device.Identity, blob []byte) {
	challenge, err := id.ActivateToSign(blob)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := challenge.Sign([]byte("scope/registrations/id\n1795550000")); err != nil {
		tb.Fatal(err)
	}
	if err := challenge.Close(); err != nil {
		tb.Fatal(err)
	}
	key, err := id.Activate(blob)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := key.Sign([]byte("hub/devices/id\n1795550000")); err != nil {
		tb.Fatal(err)
	}
	if err := key.Close(); err != nil {
		tb.Fatal(err)
	}
}

func sealAny(tb testing.TB, id *device.Identity) []byte {
	tb.Helper()
	ek, err := attest.ParseEK(id.EK())
	if err != nil {
		tb.Fatal(err)
	}
	srk, err := attest.ParseSRK(id.SRK())
	if err != nil {
		tb.Fatal(err)
	}
	blob, err := attest.Seal(rand.Reader, ek, srk, newKey())
	if err != nil {
		tb.Fatal(err)
	}
	return blob
}

// What protection may cost: the salts are what takes a chip long.
func TestARegistrationCostsFewCommands(t *testing.T) {
	for name, c := range map[string]struct {
		auth            device.Auth
		commands, salts int
	}{
		"no passwords": {device.Auth{}, 15, 3},
		"passwords":    {hostileAuth, 17, 5},
	} {
		t.Run(name, func(t *testing.T) {
			tpm := simtpm.NewSimulator(t)
			setAuth(t, tpm, c.auth)
			bus := &listener{TPM: tpm}
			id := openIdentity(t, bus, device.WithAlgorithm(device.ECCP256), device.WithTransientKeys(), device.WithAuth(c.auth))
			defer closeAll(t, id)
			blob := sealAny(t, id)
			bus.heard = nil
			registerOnce(t, id, blob)
			salts := 0
			for _, e := range bus.heard {
				if e.code == tpm2.TPMCCStartAuthSession {
					salts++
				}
			}
			if len(bus.heard) != c.commands || salts != c.salts {
				t.Errorf("%d commands and %d salts, want %d and %d", len(bus.heard), salts, c.commands, c.salts)
			}
		})
	}
}
