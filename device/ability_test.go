package device_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

func TestTPMThatCanDoTheProtocolIsFoundAble(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		able, err := device.ReadAbilities(tpm)
		if err != nil || len(able.Missing) != 0 || !slices.Contains(able.Algorithms, a) {
			t.Errorf("got %+v, %v", able, err)
		}
		lockOut(t, tpm) // a trial in lockout, and with all passwords set
		setPassword(t, tpm, tpm2.TPMRHOwner, "o")
		setPassword(t, tpm, tpm2.TPMRHEndorsement, "e")
		if err := device.TryHMAC(tpm); err != nil {
			t.Error(err)
		}
	})
}

// lacking is a TPM of less: without one of the commands, and for what it lists.
type lacking struct {
	simtpm.TPM
	command tpm2.TPMCC
}

func (l *lacking) Send(command []byte) ([]byte, error) {
	if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == l.command {
		return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x43}, nil
	}
	response, err := l.TPM.Send(command)
	if err == nil && tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCGetCapability {
		const attributes = 19 // header, moreData, capability, count
		for i := attributes; i+4 <= len(response); i += 4 {
			if tpm2.TPMCC(binary.BigEndian.Uint16(response[i+2:])) == l.command && command[13] == byte(tpm2.TPMCapCommands) {
				response[i] |= 0x20 // now it is a vendor's command of that number
			}
		}
	}
	return response, err
}

func TestTPMWithoutHMACIsFoundOut(t *testing.T) {
	tpm := &lacking{simtpm.NewSimulator(t), tpm2.TPMCCHMAC}
	able, err := device.ReadAbilities(tpm)
	if err != nil || !slices.Equal(able.Missing, []string{"TPM2_HMAC"}) {
		t.Errorf("got %+v, %v", able, err)
	}
	var failure *device.TPMError
	if err := device.TryHMAC(tpm); !errors.As(err, &failure) || failure.Command != "TPM2_HMAC" || !errors.Is(err, tpm2.TPMRCCommandCode) {
		t.Errorf("got %v", err)
	}
	mustBeEmpty(t, tpm)
}

// wrongHMAC is a TPM whose HMACs are wrong in one bit.
type wrongHMAC struct{ simtpm.TPM }

func (w *wrongHMAC) Send(command []byte) ([]byte, error) {
	response, err := w.TPM.Send(command)
	if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCHMAC && len(response) > 20 {
		response[20] ^= 1
	}
	return response, err
}

func TestTPMThatReckonsWronglyIsFoundOut(t *testing.T) {
	tpm := &wrongHMAC{simtpm.NewSimulator(t)}
	if err := device.TryHMAC(tpm); err == nil {
		t.Error("a wrong HMAC passes")
	}
	mustBeEmpty(t, tpm)
}

// Each command of the trial fails in turn: nothing may stay in the TPM.
func TestTrialCleansUp(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	for _, cc := range []tpm2.TPMCC{tpm2.TPMCCCreatePrimary, tpm2.TPMCCImport, tpm2.TPMCCLoad, tpm2.TPMCCHMAC} {
		if err := device.TryHMAC(&failing{TPM: tpm, command: cc, code: tpm2.TPMRCFailure}); !errors.Is(err, tpm2.TPMRCFailure) {
			t.Errorf("%v: %v", cc, err)
		}
		mustBeEmpty(t, tpm)
	}
}
