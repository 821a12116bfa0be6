package device_test

import (
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// hostileAuth has values that a careless client gets wrong: with a zero within,
// with zeros at the end, and as long as the TPM's digest.
var hostileAuth = device.Auth{
	Owner:       []byte("own\x00er password\x00\x00"),
	Endorsement: []byte("0123456789abcdef\x000123456789abcd\x01"),
	Lockout:     []byte("lockout password"),
}

// setAuth sets the values with passwords, as another program would, before
// anything is recorded.
func setAuth(t *testing.T, tpm transport.TPM, a device.Auth) {
	t.Helper()
	for hierarchy, value := range map[tpm2.TPMHandle][]byte{
		tpm2.TPMRHOwner: a.Owner, tpm2.TPMRHEndorsement: a.Endorsement, tpm2.TPMRHLockout: a.Lockout,
	} {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: hierarchy, NewAuth: tpm2.TPM2BAuth{Buffer: value}}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A device works with a TPM whose owner has set authorisation values, from
// keys that are made to signatures.
func TestDeviceWorksUnderAnOwnersAuthorisation(t *testing.T) {
	for _, transient := range []bool{false, true} {
		onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
			setAuth(t, tpm, hostileAuth)
			opts := []device.Option{device.WithAlgorithm(a), device.WithAuth(hostileAuth)}
			if transient {
				opts = append(opts, device.WithTransientKeys())
			}
			id := openIdentity(t, tpm, opts...)
			defer closeAll(t, id)
			secret := newKey()
			key, err := id.Activate(seal(t, id.EK(), id.SRK(), secret))
			if err != nil {
				t.Fatal(err)
			}
			mustSign(t, key, secret, []byte("short"))
			closeAll(t, key)
		})
	}
}

// A wrong value is told by the command that it was for, and nothing stays.
func TestWrongAuthorisationIsToldByCommandAndCode(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		setAuth(t, tpm, hostileAuth)
		for command, change := range map[string]func(*device.Auth){
			"TPM2_CreatePrimary": func(a *device.Auth) { a.Endorsement = []byte("wrong") },
			"TPM2_EvictControl":  func(a *device.Auth) { a.Owner = []byte("wrong") },
		} {
			wrong := hostileAuth
			change(&wrong)
			_, err := device.OpenTransport(tpm, device.WithAlgorithm(a), device.WithAuth(wrong))
			var failure *device.TPMError
			if !errors.As(err, &failure) || failure.Command != command || !errors.Is(err, tpm2.TPMRCBadAuth) {
				t.Errorf("%s: got %v", command, err)
			}
			mustBeEmpty(t, tpm)
		}
	})
}
