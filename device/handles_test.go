package device_test

import (
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// abandon leaves a key, a session and a saved session in the TPM, as programs
// do that die.
func abandon(t *testing.T, tpm transport.TPM) {
	t.Helper()
	if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHNull, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tpm2.HMACSession(tpm, tpm2.TPMAlgSHA256, 16); err != nil {
		t.Fatal(err)
	}
	saved, _, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.ContextSave{SaveHandle: saved.Handle()}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
}

func TestLeftoversAreCountedAndFlushedWhenAsked(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, _ device.Algorithm) {
		before, err := device.ReadSlots(tpm)
		if err != nil {
			t.Fatal(err)
		}
		if len(before.Transient)+len(before.Sessions)+len(before.Persistent) != 0 || before.PersistentFree < 2 ||
			before.TransientFree < 2 || before.SessionsFree < 2 {
			t.Errorf("a new TPM: %+v", before)
		}
		abandon(t, tpm)
		after, err := device.ReadSlots(tpm)
		if err != nil {
			t.Fatal(err)
		}
		if len(after.Transient) != 1 || len(after.Sessions) != 2 || after.TransientFree >= before.TransientFree {
			t.Errorf("after two programs died: %+v", after)
		}
		if n, err := device.FlushLeftovers(tpm); n != 3 || err != nil {
			t.Errorf("flushed %d, %v", n, err)
		}
		mustBeEmpty(t, tpm)
	})
}
