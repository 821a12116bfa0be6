package device_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// An RSA secret for another key decrypts to anything at all, and swtpm answers
// some of that with TPM_RC_FAILURE, though it goes on working. Many blobs, since
// the answer differs from one to the next.
func TestEveryForeignBlobIsToldAsSuch(t *testing.T) {
	needSwtpm(t)
	victim := openIdentity(t, simtpm.NewSwtpm(t))
	defer closeAll(t, victim)
	for name, tpm := range map[string]simtpm.TPM{"swtpm": simtpm.NewSwtpm(t), "simulator": simtpm.NewSimulator(t)} {
		t.Run(name, func(t *testing.T) {
			clone := openIdentity(t, tpm, device.WithAlgorithm(device.RSA2048))
			defer closeAll(t, clone)
			for range 40 {
				key, err := clone.Activate(seal(t, victim.EK(), clone.SRK(), newKey()))
				mustNotOpen(t, "foreign EK", key, err)
			}
			mustBeEmpty(t, tpm)
		})
	}
}

// brokenChip goes into failure mode at a command: from there on it answers
// TPM_RC_FAILURE to everything.
type brokenChip struct {
	simtpm.TPM
	at     tpm2.TPMCC
	broken bool
}

func (b *brokenChip) Send(command []byte) ([]byte, error) {
	if b.broken = b.broken || tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == b.at; b.broken {
		return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x01}, nil
	}
	return b.TPM.Send(command)
}

// The same answer, TPM_RC_FAILURE, from a chip that has really failed is not
// taken for a foreign blob.
func TestFailureModeIsNotTakenForAForeignBlob(t *testing.T) {
	for name, at := range map[string]tpm2.TPMCC{
		"TPM2_ActivateCredential": tpm2.TPMCCActivateCredential,
		"TPM2_Import":             tpm2.TPMCCImport,
	} {
		t.Run(name, func(t *testing.T) {
			chip := &brokenChip{TPM: simtpm.NewSimulator(t)}
			id := openIdentity(t, chip, device.WithAlgorithm(device.ECCP256))
			blob := seal(t, id.EK(), id.SRK(), newKey())
			chip.at = at
			_, err := id.Activate(blob)
			var failure *device.TPMError
			if !errors.Is(err, device.ErrFailureMode) || errors.Is(err, device.ErrNotForThisTPM) ||
				!errors.As(err, &failure) || failure.Command != name || failure.Code != tpm2.TPMRCFailure {
				t.Errorf("got %v", err)
			}
		})
	}
}

// If the way to the TPM breaks while it is being asked, no reason is made up.
func TestUnknownReasonStaysUnknown(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	const throughActivate = 2 // TPM2_StartAuthSession and TPM2_PolicySecret; the third answer is made up
	chip := &failing{TPM: tpm, command: tpm2.TPMCCActivateCredential, code: tpm2.TPMRCFailure}
	id := openIdentity(t, chip, device.WithAlgorithm(device.ECCP256))
	blob := seal(t, id.EK(), id.SRK(), newKey())
	chip.TPM = &cut{TPM: tpm, after: throughActivate}
	_, err := id.Activate(blob)
	if !errors.Is(err, tpm2.TPMRCFailure) || errors.Is(err, device.ErrNotForThisTPM) || errors.Is(err, device.ErrFailureMode) {
		t.Errorf("got %v", err)
	}
}
