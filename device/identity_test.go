package device_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

func TestKeysAreCreatedOnceAndFoundAgain(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		var steps []string
		note := device.WithProgress(func(e device.Event) { steps = append(steps, e.Step+" ") })
		first := openIdentity(t, tpm, device.WithAlgorithm(a), note)
		closeAll(t, first)
		mustBeEmpty(t, tpm)
		if got, want := strings.Join(steps, ""), "read EK create EK read SRK create SRK "; got != want {
			t.Errorf("steps of the first time: %s", got)
		}
		if err := tpm.PowerCycle(); err != nil {
			t.Fatal(err)
		}
		steps = nil
		second := openIdentity(t, tpm, note) // whatever is there
		defer closeAll(t, second)
		if got, want := strings.Join(steps, ""), "read EK read SRK "; got != want {
			t.Errorf("steps of the second time: %s", got)
		}
		if !bytes.Equal(first.EK(), second.EK()) || !bytes.Equal(first.SRK(), second.SRK()) {
			t.Error("other keys than the first time")
		}
		if second.Algorithm() != a || second.Hierarchy() != "endorsement" {
			t.Errorf("EK is %s of hierarchy %s", second.Algorithm(), second.Hierarchy())
		}
		if _, err := attest.ParseEK(second.EK()); err != nil {
			t.Errorf("the service would refuse the EK: %v", err)
		}
		if _, err := attest.ParseSRK(second.SRK()); err != nil {
			t.Errorf("the service would refuse the SRK: %v", err)
		}
	})
}

// The bytes that the SDKs of Azure DPS send start like this, and the
// registration id is what they derive.
func TestEKAndRegistrationIDHaveTheForm(t *testing.T) {
	id := openIdentity(t, simtpm.NewSimulator(t))
	defer closeAll(t, id)
	if ek := id.EK(); len(ek) != 316 || hex.EncodeToString(ek[:12]) != "013a0001000b000300b20020" {
		t.Errorf("EK of %d bytes: %x…", len(ek), ek[:12])
	}
	if srk := id.SRK(); len(srk) != 284 || hex.EncodeToString(srk[:10]) != "011a0001000b00030472" {
		t.Errorf("SRK of %d bytes: %x…", len(srk), srk[:10])
	}
	digest := sha256.Sum256(id.EK())
	want := strings.ToLower(strings.TrimRight(base32.StdEncoding.EncodeToString(digest[:]), "="))
	if id.RegistrationID() != want || len(want) != 52 {
		t.Errorf("registration id %q, want %q", id.RegistrationID(), want)
	}
}

// An empty unique field and one full of zeros give different keys from the same
// seed, so it matters that ours is empty like that of most SDKs.
func TestTemplateHasEmptyUnique(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	id := openIdentity(t, tpm)
	defer closeAll(t, id)
	empty := tpm2.RSAEKTemplate
	empty.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	for name, c := range map[string]struct {
		template tpm2.TPMTPublic
		same     bool
	}{
		"empty": {empty, true},
		"zeros": {tpm2.RSAEKTemplate, false},
	} {
		answer, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(c.template)}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (tpm2.FlushContext{FlushHandle: answer.ObjectHandle}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
		if got := bytes.Equal(tpm2.Marshal(answer.OutPublic), id.EK()); got != c.same {
			t.Errorf("template with unique %s gives our EK: %v", name, got)
		}
	}
}

func TestTransientKeysAreThePersistentOnesAndLeaveNothing(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		transient := openIdentity(t, tpm, device.WithTransientKeys(), device.WithAlgorithm(a))
		key := newKey()
		opened, err := transient.Activate(seal(t, transient.EK(), transient.SRK(), key))
		if err != nil {
			t.Fatal(err)
		}
		mustSign(t, opened, key, []byte("message"))
		if open := openHandles(t, tpm); len(open) != 3 {
			t.Errorf("open handles %x, want EK, SRK and key", open)
		}
		closeAll(t, transient) // the key as well
		mustBeEmpty(t, tpm)
		if _, err := (tpm2.ReadPublic{ObjectHandle: device.HandleEK}).Execute(tpm); !errors.Is(err, tpm2.TPMRCHandle) {
			t.Errorf("an EK was made persistent: %v", err)
		}
		persistent := openIdentity(t, tpm, device.WithAlgorithm(a))
		defer closeAll(t, persistent)
		if !bytes.Equal(transient.EK(), persistent.EK()) || !bytes.Equal(transient.SRK(), persistent.SRK()) {
			t.Error("the same template gave other keys")
		}
	})
}

func TestOtherAlgorithmThanAskedForIsRefused(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	closeAll(t, openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256)))
	_, err := device.OpenTransport(tpm, device.WithAlgorithm(device.RSA2048))
	if !errors.Is(err, device.ErrOtherKey) || !strings.Contains(err.Error(), "ecc-p256, not rsa2048") {
		t.Errorf("got %v", err)
	}
	mustBeEmpty(t, tpm)
}

func TestKeyAtTheHandleThatIsNoStorageKeyIsRefused(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	template := tpm2.ECCSRKTemplate
	template.ObjectAttributes.Restricted = false
	template.ObjectAttributes.Decrypt = false
	template.ObjectAttributes.SignEncrypt = true
	template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256})
	persistPrimary(t, tpm, tpm2.TPMRHOwner, template, device.HandleSRK)
	_, err := device.OpenTransport(tpm, device.WithAlgorithm(device.ECCP256))
	if !errors.Is(err, device.ErrOtherKey) || !strings.Contains(err.Error(), "no storage key") {
		t.Errorf("got %v", err)
	}
	mustBeEmpty(t, tpm)
}

// Java's HSM class makes the EK in the owner hierarchy: it works, but the
// operator should see it.
func TestHierarchyOfTheEKIsDetected(t *testing.T) {
	for want, hierarchy := range map[string]tpm2.TPMHandle{
		"owner": tpm2.TPMRHOwner, "endorsement": tpm2.TPMRHEndorsement,
	} {
		t.Run(want, func(t *testing.T) {
			tpm := simtpm.NewSimulator(t)
			persistPrimary(t, tpm, hierarchy, tpm2.ECCEKTemplate, device.HandleEK)
			id := openIdentity(t, tpm)
			defer closeAll(t, id)
			if id.Hierarchy() != want {
				t.Errorf("hierarchy %q, want %q", id.Hierarchy(), want)
			}
		})
	}
}

func TestOwnerPasswordIsToldByCommandAndCode(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner,
			NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		_, err = device.OpenTransport(tpm, device.WithAlgorithm(a))
		var failure *device.TPMError
		if !errors.As(err, &failure) || failure.Command != "TPM2_EvictControl" || !errors.Is(err, tpm2.TPMRCBadAuth) || failure.Code == 0 {
			t.Errorf("got %v", err)
		}
		info, err := device.ReadInfo(tpm)
		if err != nil {
			t.Fatal(err)
		}
		if !info.OwnerAuthSet {
			t.Error("Info does not tell that the owner has a password")
		}
	})
}

// Each TPM command of opening fails, for the EK or for the SRK. Nothing may be
// left behind that could be removed.
func TestFailureOfAnyCommandOfOpeningLeavesNothing(t *testing.T) {
	for _, cc := range []tpm2.TPMCC{tpm2.TPMCCReadPublic, tpm2.TPMCCCreatePrimary, tpm2.TPMCCEvictControl} {
		for _, opts := range [][]device.Option{nil, {device.WithTransientKeys()}} {
			for pass := range 4 {
				failToOpen(t, cc, pass, append(opts, device.WithAlgorithm(device.ECCP256)))
			}
		}
	}
}

// rivalled is a TPM in which another program makes a key persistent just before
// ours does.
type rivalled struct {
	simtpm.TPM
	rival func()
}

func (r *rivalled) Send(command []byte) ([]byte, error) {
	if rival := r.rival; rival != nil && tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCEvictControl {
		r.rival = nil
		rival()
	}
	return r.TPM.Send(command)
}

func TestRivalThatMakesTheKeysFirstIsFollowed(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		var first *device.Identity
		second := openIdentity(t, &rivalled{tpm, func() { first = openIdentity(t, tpm, device.WithAlgorithm(a)) }}, device.WithAlgorithm(a))
		defer closeAll(t, first, second)
		if !bytes.Equal(first.EK(), second.EK()) || !bytes.Equal(first.SRK(), second.SRK()) {
			t.Error("the two see different keys")
		}
		if open := openHandles(t, tpm); len(open) != 0 {
			t.Errorf("left in the TPM: %x", open)
		}
	})
}

// The rival's key is looked at like any that was found.
func TestRivalWithAnotherAlgorithmIsNotFollowed(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	_, err := device.OpenTransport(&rivalled{tpm, func() { closeAll(t, openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))) }}, device.WithAlgorithm(device.RSA2048))
	if !errors.Is(err, device.ErrOtherKey) {
		t.Errorf("got %v", err)
	}
	mustBeEmpty(t, tpm)
}

func failToOpen(t *testing.T, cc tpm2.TPMCC, pass int, opts []device.Option) {
	t.Helper()
	tpm := simtpm.NewSimulator(t)
	defer tpm.Close()
	broken := &failing{TPM: tpm, command: cc, code: tpm2.TPMRCFailure, pass: pass}
	id, err := device.OpenTransport(broken, opts...)
	if (broken.seen > 0) != errors.Is(err, tpm2.TPMRCFailure) {
		t.Errorf("%v failed %d times after %d: got %v", cc, broken.seen, pass, err)
	}
	if err == nil {
		closeAll(t, id)
	}
	mustBeEmpty(t, tpm)
}

func TestInfoNamesMakerAndFirmware(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		info, err := device.ReadInfo(tpm)
		if err != nil {
			t.Fatal(err)
		}
		if info.Manufacturer == "" || strings.Count(info.Firmware, ".") != 3 {
			t.Errorf("got %+v", info)
		}
		if info.InLockout || info.OwnerAuthSet || len(info.EKCertificates) != 0 {
			t.Errorf("a new TPM: %+v", info)
		}
	})
}

func TestInfoFindsEKCertificates(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	for _, index := range []tpm2.TPMHandle{0x01c00001, 0x01c00002, 0x01c0000a, 0x01c0000b, 0x01c0001c} {
		_, err := tpm2.NVDefineSpace{
			AuthHandle: tpm2.TPMRHOwner,
			PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256,
				Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true}, DataSize: 8}),
		}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
	}
	info, err := device.ReadInfo(tpm)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.EKCertificates; len(got) != 3 || got[0] != 0x01c00002 || got[1] != 0x01c0000a || got[2] != 0x01c0001c {
		t.Errorf("got %x", got)
	}
	if !info.HasEKCertificate(device.RSA2048) || !info.HasEKCertificate(device.ECCP256) || info.HasEKCertificate("rsa4096") {
		t.Error("certificates are counted for the wrong algorithms")
	}
}

func persistPrimary(t *testing.T, tpm transport.TPM, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic, at tpm2.TPMHandle) {
	t.Helper()
	key, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, PersistentHandle: at,
		ObjectHandle: &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
}
