package device_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

func TestActivatedKeySignsMessagesOfAnyLength(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		id := openIdentity(t, tpm, device.WithAlgorithm(a))
		defer closeAll(t, id)
		secret := newKey()
		key, err := id.Activate(seal(t, id.EK(), id.SRK(), secret))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 190, 1023, 1024, 1025, 2048, 2049, 4096} {
			mustSign(t, key, secret, bytes.Repeat([]byte{'m'}, size))
		}
		if open := openHandles(t, tpm); len(open) != 1 {
			t.Errorf("open handles %x, want the key alone", open)
		}
		closeAll(t, key, key)
		if _, err := key.Sign([]byte("m")); !errors.Is(err, device.ErrClosed) {
			t.Errorf("closed key signs: %v", err)
		}
	})
}

// A program that takes challenge after challenge must not fill the TPM.
func TestManyActivationsLeaveNothing(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		id := openIdentity(t, tpm, device.WithAlgorithm(a))
		defer closeAll(t, id)
		for range 6 {
			key, err := id.Activate(seal(t, id.EK(), id.SRK(), newKey()))
			if err != nil {
				t.Fatal(err)
			}
			closeAll(t, key)
			mustBeEmpty(t, tpm)
		}
	})
}

// What a clone gets: it knows all that is public of its victim and has another
// TPM.
func TestBlobForAnotherTPMDoesNotOpen(t *testing.T) {
	needSwtpm(t)
	for _, a := range []device.Algorithm{device.RSA2048, device.ECCP256} {
		t.Run(string(a), func(t *testing.T) {
			victimTPM, cloneTPM := simtpm.NewSwtpm(t), simtpm.NewSimulator(t)
			victim := openIdentity(t, victimTPM, device.WithAlgorithm(a))
			clone := openIdentity(t, cloneTPM, device.WithAlgorithm(a))
			defer closeAll(t, victim, clone)
			for name, srk := range map[string][]byte{"the victim's SRK": victim.SRK(), "its own SRK": clone.SRK()} {
				key, err := clone.Activate(seal(t, victim.EK(), srk, newKey()))
				mustNotOpen(t, name, key, err)
			}
			key, err := victim.Activate(seal(t, victim.EK(), clone.SRK(), newKey()))
			mustNotOpen(t, "the real EK with the clone's SRK", key, err)
			mustBeEmpty(t, victimTPM)
			mustBeEmpty(t, cloneTPM)
		})
	}
}

func mustNotOpen(t *testing.T, name string, key *device.Key, err error) {
	t.Helper()
	var failure *device.TPMError
	if key != nil || !errors.Is(err, device.ErrNotForThisTPM) || !errors.As(err, &failure) ||
		failure.Command != "TPM2_ActivateCredential" || failure.Code == 0 {
		t.Errorf("%s: got %v", name, err)
	}
}

// From a good blob, flip one bit in every field: the TPM refuses, or if the
// change does no harm the key is the right one. Nothing stays behind.
func TestTamperedBlobDoesNotOpen(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	id := openIdentity(t, tpm)
	defer closeAll(t, id)
	good := seal(t, id.EK(), id.SRK(), newKey())
	for field, offset := range map[string]int{
		"credential": 40, "credential secret": 200, "duplicate": 400, "duplicate secret": 600,
		"attributes": 716 + 7, "unique": 750,
	} {
		bad := bytes.Clone(good)
		bad[offset] ^= 1
		if key, err := id.Activate(bad); err == nil {
			t.Errorf("%s changed: it opened", field)
			closeAll(t, key)
		}
		mustBeEmpty(t, tpm)
	}
}

func TestSavedKeyOutlivesThePowerButNotTheOwner(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		id := openIdentity(t, tpm, device.WithAlgorithm(a))
		secret := newKey()
		key, err := id.Activate(seal(t, id.EK(), id.SRK(), secret))
		if err != nil {
			t.Fatal(err)
		}
		saved := key.Marshal()
		if bytes.Contains(saved, secret) {
			t.Error("the saved key is in the clear")
		}
		closeAll(t, key, id)
		if err := tpm.PowerCycle(); err != nil {
			t.Fatal(err)
		}
		id = openIdentity(t, tpm)
		ek := id.EK()
		if key, err = id.LoadKey(saved); err != nil {
			t.Fatal(err)
		}
		mustSign(t, key, secret, []byte("after a restart"))
		closeAll(t, key, id)

		if err := simtpm.Clear(tpm); err != nil {
			t.Fatal(err)
		}
		id = openIdentity(t, tpm, device.WithAlgorithm(a))
		defer closeAll(t, id)
		if !bytes.Equal(id.EK(), ek) {
			t.Error("the TPM lost its EK with its owner")
		}
		_, err = id.LoadKey(saved)
		var failure *device.TPMError
		if !errors.Is(err, device.ErrOtherOwner) || !errors.As(err, &failure) || failure.Command != "TPM2_Load" || failure.Code == 0 {
			t.Errorf("got %v", err)
		}
	})
}

func TestSavedKeyIsReadStrictly(t *testing.T) {
	id := openIdentity(t, simtpm.NewSimulator(t), device.WithAlgorithm(device.ECCP256))
	defer closeAll(t, id)
	key, err := id.Activate(seal(t, id.EK(), id.SRK(), newKey()))
	if err != nil {
		t.Fatal(err)
	}
	saved := key.Marshal()
	closeAll(t, key)
	for name, bad := range map[string][]byte{
		"empty":             nil,
		"cut in the public": saved[:20],
		"cut at the end":    saved[:len(saved)-1],
		"too long":          append(bytes.Clone(saved), 0),
		"huge":              make([]byte, 5000),
		"another type":      append([]byte{saved[0], saved[1], 0, 1}, saved[4:]...),
	} {
		if _, err := id.LoadKey(bad); err == nil || !strings.HasPrefix(err.Error(), "saved key") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Each command that activates or signs fails once. The error names the command,
// and session, key and sequence are gone.
func TestFailureOfAnyCommandLeavesNothing(t *testing.T) {
	commands := map[string]tpm2.TPMCC{
		"TPM2_StartAuthSession":   tpm2.TPMCCStartAuthSession,
		"TPM2_PolicySecret":       tpm2.TPMCCPolicySecret,
		"TPM2_ActivateCredential": tpm2.TPMCCActivateCredential,
		"TPM2_Import":             tpm2.TPMCCImport,
		"TPM2_Load":               tpm2.TPMCCLoad,
		"TPM2_HMAC":               tpm2.TPMCCHMAC,
		"TPM2_HMAC_Start":         tpm2.TPMCCHMACStart,
		"TPM2_SequenceUpdate":     tpm2.TPMCCSequenceUpdate,
		"TPM2_SequenceComplete":   tpm2.TPMCCSequenceComplete,
	}
	for command, cc := range commands {
		t.Run(command, func(t *testing.T) {
			tpm := simtpm.NewSimulator(t)
			broken := &failing{TPM: tpm, code: tpm2.TPMRCObjectMemory}
			id := openIdentity(t, broken, device.WithAlgorithm(device.ECCP256))
			defer closeAll(t, id)
			blob := seal(t, id.EK(), id.SRK(), newKey())
			broken.command = cc
			err := activateAndSign(id, blob)
			var failure *device.TPMError
			if !errors.As(err, &failure) || failure.Command != command || failure.Code != tpm2.TPMRCObjectMemory {
				t.Errorf("got %v", err)
			}
			mustBeEmpty(t, tpm)
		})
	}
}

func activateAndSign(id *device.Identity, blob []byte) error {
	key, err := id.Activate(blob)
	if err != nil {
		return err
	}
	_, short := key.Sign([]byte("short"))
	_, long := key.Sign(make([]byte, 3000))
	return errors.Join(short, long, key.Close())
}

// A transport that breaks in the middle makes errors, not hangs or panics, at
// whatever command it breaks.
func TestBrokenTransportIsToldAtEveryCommand(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	id := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
	blob := seal(t, id.EK(), id.SRK(), newKey())
	closeAll(t, id)
	for passing := 0; ; passing++ {
		broken := &cut{TPM: tpm, after: passing}
		id, err := device.OpenTransport(broken)
		if err == nil {
			err = errors.Join(activateAndSign(id, blob), id.Close())
		}
		if err == nil {
			break // it needed no more commands
		}
		var failure *device.TPMError
		if !errors.Is(err, errCut) || !errors.As(err, &failure) || failure.Code != 0 {
			t.Errorf("cut after %d commands: %v", passing, err)
		}
		if err := tpm.ManufactureReset(); err != nil { // what the cut left
			t.Fatal(err)
		}
		fresh := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
		blob = seal(t, fresh.EK(), fresh.SRK(), newKey())
		closeAll(t, fresh)
	}
}

// busy answers TPM_RC_RETRY and TPM_RC_TESTING to each command first.
type busy struct {
	simtpm.TPM
	mu    sync.Mutex
	count int
}

func (b *busy) Send(command []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	switch b.count % 3 {
	case 1:
		return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x22}, nil
	case 2:
		return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x0a}, nil
	}
	return b.TPM.Send(command)
}

func TestBusyTPMIsAskedAgain(t *testing.T) {
	tpm := &busy{TPM: simtpm.NewSimulator(t)}
	id := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
	defer closeAll(t, id)
	if err := activateAndSign(id, seal(t, id.EK(), id.SRK(), newKey())); err != nil {
		t.Fatal(err)
	}
}

func TestKeySignsForManyGoroutines(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	id := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
	secret := newKey()
	key, err := id.Activate(seal(t, id.EK(), id.SRK(), secret))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			message := bytes.Repeat([]byte{byte(i)}, 200*i)
			got, err := key.Sign(message)
			if err != nil || !bytes.Equal(got, hmacOf(secret, message)) {
				t.Errorf("signer %d: %x %v", i, got, err)
			}
		})
	}
	all.Wait()
	closeAll(t, id)
	mustBeEmpty(t, tpm)
	if _, err := id.Activate(nil); err == nil {
		t.Error("a closed Identity activates")
	}
}
