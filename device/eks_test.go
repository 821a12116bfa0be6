package device_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// onBothTPMs runs a test on each implementation, which must be as empty
// afterwards as it was before.
func onBothTPMs(t *testing.T, test func(t *testing.T, tpm simtpm.TPM)) {
	for name, open := range map[string]func(testing.TB) simtpm.TPM{"simulator": simulator, "swtpm": swtpm} {
		t.Run(name, func(t *testing.T) {
			if name == "swtpm" {
				needSwtpm(t)
			}
			tpm := open(t)
			defer mustBeEmpty(t, tpm)
			test(t, tpm)
		})
	}
}

func readEKs(t *testing.T, tpm transport.TPM, opts ...device.EKOption) *device.EKs {
	t.Helper()
	found, err := device.ReadEKs(t.Context(), tpm, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// made is the public area of a key that go-tpm makes, independently of what the
// package under test does.
func made(t *testing.T, tpm transport.TPM, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) []byte {
	t.Helper()
	answer, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	defer tpm2.FlushContext{FlushHandle: answer.ObjectHandle}.Execute(tpm)
	return tpm2.Marshal(answer.OutPublic)
}

func emptyUnique(template tpm2.TPMTPublic) tpm2.TPMTPublic {
	template.Unique = tpm2.NewTPMUPublicID(template.Type, &tpm2.TPM2BPublicKeyRSA{})
	if template.Type == tpm2.TPMAlgECC {
		template.Unique = tpm2.NewTPMUPublicID(template.Type, &tpm2.TPMSECCPoint{})
	}
	return template
}

func keyOf(found *device.EKs, public []byte) *device.EK {
	for i := range found.Keys {
		if bytes.Equal(found.Keys[i].Public, public) {
			return &found.Keys[i]
		}
	}
	return nil
}

// The best-known cause of "endorsement key is invalid": each SDK has its own.
func TestEveryEKOfAChipIsFound(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		found := readEKs(t, tpm)
		for _, c := range []struct {
			template, hierarchy, sdk string
			public                   []byte
			survives                 bool
		}{
			{"L-1, unique empty", "endorsement", "Azure SDK for C", made(t, tpm, tpm2.TPMRHEndorsement, emptyUnique(tpm2.RSAEKTemplate)), true},
			{"L-1", "endorsement", "Azure SDK for .NET", made(t, tpm, tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate), true},
			{"L-1, unique empty", "owner", "Azure SDK for Java (its class HSM)", made(t, tpm, tpm2.TPMRHOwner, emptyUnique(tpm2.RSAEKTemplate)), false},
			{"L-2, unique empty", "endorsement", "latchkey-device", made(t, tpm, tpm2.TPMRHEndorsement, emptyUnique(tpm2.ECCEKTemplate)), true},
			{"L-2", "endorsement", "tpm2-tools", made(t, tpm, tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate), true},
		} {
			key := keyOf(found, c.public)
			if key == nil {
				t.Errorf("%s in %s: not found", c.template, c.hierarchy)
				continue
			}
			if !slices.Equal(key.Templates, []string{c.template}) || key.Hierarchy != c.hierarchy || !slices.Contains(key.SDKs, c.sdk) ||
				key.SurvivesClear != c.survives || key.RegistrationID != attest.RegistrationID(c.public) || key.Unfit != nil || len(key.Handles) > 0 || key.Certificate != nil {
				t.Errorf("%s in %s: got %+v", c.template, c.hierarchy, key)
			}
		}
		for _, name := range []string{"H-1", "H-2", "H-3"} {
			if !slices.ContainsFunc(found.Keys, func(k device.EK) bool { return slices.Equal(k.Templates, []string{name}) && k.Unfit == nil }) {
				t.Errorf("%s: not found", name)
			}
		}
		mustDiffer(t, found)
		if len(found.Certificates)+len(found.Chain) > 0 {
			t.Errorf("certificates in an empty TPM: %+v", found)
		}
		for _, u := range found.Unread {
			if !errors.Is(u.Err, device.ErrSkipped) {
				t.Errorf("not read: %v", u)
			}
		}
	})
}

func mustDiffer(t *testing.T, found *device.EKs) {
	t.Helper()
	ids := make(map[string]bool)
	for _, key := range found.Keys {
		if ids[key.RegistrationID] {
			t.Errorf("%s is there twice", key.RegistrationID)
		}
		ids[key.RegistrationID] = true
	}
}
