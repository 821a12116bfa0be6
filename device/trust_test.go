package device_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// interposer sits on the bus and shows an EK of its own in place of the TPM's. It
// keeps what it hears after that.
type interposer struct {
	simtpm.TPM
	shows []byte // a response to TPM2_ReadPublic
	heard []tpm2.TPMCC
}

func (l *interposer) Send(command []byte) ([]byte, error) {
	code := tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
	l.heard = append(l.heard, code)
	if code == tpm2.TPMCCReadPublic && bytes.Equal(command[10:14], []byte{0x81, 0x01, 0x00, 0x01}) {
		return bytes.Clone(l.shows), nil
	}
	return l.TPM.Send(command)
}

// Whoever can change what crosses the bus may show a key of his own for salts.
// A device that knows its EK finds out before it proves or tells anything; one
// that does not is taken in.
func TestATrustedEKKeepsAnInterposerOut(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	closeAll(t, openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256)))
	readEK := append([]byte{0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x73}, 0x81, 0x01, 0x00, 0x01)
	lie, err := tpm.Send(readEK)
	if err != nil {
		t.Fatal(err)
	}
	lie = bytes.Clone(lie)
	if err := tpm.ManufactureReset(); err != nil {
		t.Fatal(err)
	}
	honest := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
	ek := honest.EK()
	closeAll(t, honest)

	bus := &interposer{TPM: tpm, shows: lie}
	taken := openIdentity(t, bus, device.WithAuth(hostileAuth))
	if bytes.Equal(taken.EK(), ek) {
		t.Fatal("the lie did not get through: the test shows nothing")
	}
	closeAll(t, taken)

	bus.heard = nil
	_, err = device.OpenTransport(bus, device.WithTrustedEK(ek), device.WithAuth(hostileAuth))
	if !errors.Is(err, device.ErrOtherEK) {
		t.Errorf("got %v", err)
	}
	for _, code := range bus.heard {
		if code != tpm2.TPMCCReadPublic {
			t.Errorf("the interposer hears command 0x%x", uint32(code))
		}
	}
	mustBeEmpty(t, tpm)
}

// A device that knows its EK works as any, and salts to that key alone.
func TestSessionsAreSaltedToTheTrustedEKAlone(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		setAuth(t, tpm, hostileAuth)
		opts := []device.Option{device.WithAlgorithm(a), device.WithAuth(hostileAuth)}
		first := openIdentity(t, tpm, opts...)
		ek := first.EK()
		closeAll(t, first)
		bus := &listener{TPM: tpm}
		live(t, bus, append(opts, device.WithTrustedEK(ek))...)
		salted := 0
		for _, e := range bus.heard {
			if e.code != tpm2.TPMCCStartAuthSession {
				continue
			}
			if salted++; tpm2.TPMHandle(binary.BigEndian.Uint32(e.command[10:])) != device.HandleEK {
				t.Errorf("salted to 0x%x", e.command[10:14])
			}
		}
		if salted == 0 {
			t.Error("no session was begun")
		}
	})
}

// No password is proved to a key that nobody knows.
func TestATrustedEKMustBeKeptIfThereIsAPassword(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	setAuth(t, tpm, hostileAuth)
	transient := []device.Option{device.WithAlgorithm(device.ECCP256), device.WithTransientKeys(), device.WithAuth(hostileAuth)}
	id := openIdentity(t, tpm, transient...)
	ek := id.EK()
	closeAll(t, id)
	bus := &listener{TPM: tpm}
	_, err := device.OpenTransport(bus, append(transient, device.WithTrustedEK(ek))...)
	if !errors.Is(err, device.ErrNoTrustedSalt) || len(bus.heard) > 0 {
		t.Errorf("after %d commands %v", len(bus.heard), err)
	}
}

// A name that is not the public area's is no name: commands would be
// authenticated for another key.
func TestANameMustFitThePublicArea(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	closeAll(t, openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256)))
	lie, err := tpm.Send(append([]byte{0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x73}, 0x81, 0x01, 0x00, 0x01))
	if err != nil {
		t.Fatal(err)
	}
	lie = bytes.Clone(lie)
	lie[len(lie)-40] ^= 1 // in the name, before the qualified name
	if _, err := device.OpenTransport(&interposer{TPM: tpm, shows: lie}); !errors.Is(err, device.ErrChanged) {
		t.Errorf("got %v", err)
	}
}
