package device_test

import (
	"bytes"
	"context"
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

// keep makes a key persistent.
func keep(t *testing.T, tpm transport.TPM, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic, at tpm2.TPMHandle) []byte {
	t.Helper()
	answer, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	defer tpm2.FlushContext{FlushHandle: answer.ObjectHandle}.Execute(tpm)
	_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: answer.ObjectHandle, Name: answer.Name}, PersistentHandle: at}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(answer.OutPublic)
}

// withUnique is a template that nobody else has.
func withUnique(template tpm2.TPMTPublic, text string) tpm2.TPMTPublic {
	template.Unique = tpm2.NewTPMUPublicID(template.Type, &tpm2.TPM2BPublicKeyRSA{Buffer: append([]byte(text), make([]byte, 256-len(text))...)})
	return template
}

func TestKeysThatAreKeptAreFoundWhereverTheyAre(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		tools := keep(t, tpm, tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate, 0x81010002)
		owners := keep(t, tpm, tpm2.TPMRHOwner, emptyUnique(tpm2.RSAEKTemplate), 0x81000777)
		odd := keep(t, tpm, tpm2.TPMRHEndorsement, withUnique(tpm2.RSAEKTemplate, "mine"), 0x81010001)
		srk := keep(t, tpm, tpm2.TPMRHOwner, tpm2.RSASRKTemplate, 0x81000001)
		before := len(readEKs(t, tpm).Keys)
		keep(t, tpm, tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate, 0x81010003) // once more
		all := readEKs(t, tpm)
		if len(all.Keys) != before {
			t.Errorf("a key that is kept twice is shown twice")
		}
		mustDiffer(t, all)
		first := all.Keys[0]
		if !bytes.Equal(first.Public, odd) || !slices.Equal(first.SDKs, []string{"every SDK"}) || len(first.Templates) > 0 || !first.SurvivesClear {
			t.Errorf("what every SDK shows is not first: %+v", first)
		}
		if key := keyOf(all, tools); key == nil || !slices.Equal(key.Handles, []uint32{0x81010002, 0x81010003}) || !slices.Equal(key.Templates, []string{"L-1"}) {
			t.Errorf("an EK that a tool keeps: %+v", key)
		}
		if key := keyOf(all, owners); key == nil || !key.At(0x81000777) || key.Hierarchy != "owner" || key.SurvivesClear {
			t.Errorf("an EK in the owner hierarchy: %+v", key)
		}
		if keyOf(all, srk) != nil {
			t.Error("an SRK passes for an EK")
		}
	})
}

// Whatever sits at the standard handle, SDKs show it, so it is shown here too.
func TestAKeyThatIsNoEKAtTheStandardHandleIsShown(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		signing := tpm2.RSAEKTemplate
		signing.ObjectAttributes.Decrypt, signing.ObjectAttributes.SignEncrypt = false, true
		signing.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048,
			Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})}})
		public := keep(t, tpm, tpm2.TPMRHEndorsement, signing, device.HandleEK)
		if key := readEKs(t, tpm).Keys[0]; !bytes.Equal(key.Public, public) || key.Unfit == nil {
			t.Errorf("got %+v", key)
		}
	})
}

// After a change of hands the owner's EK is another one, and those of the
// endorsement hierarchy are the same.
func TestTheOwnersEKDoesNotSurviveAClear(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		keep(t, tpm, tpm2.TPMRHOwner, emptyUnique(tpm2.RSAEKTemplate), device.HandleEK)
		before := readEKs(t, tpm)
		if err := simtpm.Clear(tpm); err != nil {
			t.Fatal(err)
		}
		after := readEKs(t, tpm)
		for _, key := range before.Keys {
			if again := keyOf(after, key.Public); (again != nil) != key.SurvivesClear || again == nil && key.Hierarchy != "owner" {
				t.Errorf("%s of %v in %s: survives %t, is there again %t", key.RegistrationID, key.Templates, key.Hierarchy, key.SurvivesClear, again != nil)
			}
		}
		if len(before.Keys) != len(after.Keys) {
			t.Errorf("%d keys before, %d after", len(before.Keys), len(after.Keys))
		}
	})
}

// overheard keeps what crosses to a TPM.
type overheard struct {
	transport.TPM
	traffic []byte
}

func (o *overheard) Send(command []byte) ([]byte, error) {
	response, err := o.TPM.Send(command)
	o.traffic = append(append(o.traffic, command...), response...)
	return response, err
}

func TestEKsBehindPasswords(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		certificate := certificateFor(t, rsaKeyOf(t, tpm))
		writeNV(t, tpm, 0x01c00002, tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true}, certificate)
		open := readEKs(t, tpm)
		kept := keep(t, tpm, tpm2.TPMRHEndorsement, emptyUnique(tpm2.RSAEKTemplate), device.HandleEK)
		setPassword(t, tpm, tpm2.TPMRHOwner, "owner's secret")
		setPassword(t, tpm, tpm2.TPMRHEndorsement, "endorsement's secret")

		wrong := readEKs(t, tpm, device.WithEKAuth(device.Auth{Owner: []byte("a guess"), Endorsement: []byte("another")}))
		closed := readEKs(t, tpm)
		if info := mustInfo(t, tpm); len(wrong.Keys) != 1 || len(wrong.Unread) != len(closed.Unread) || info.Lockout.Failures != 0 {
			t.Errorf("with wrong passwords: %d keys, %d not read; %d failures count", len(wrong.Keys), len(wrong.Unread), info.Lockout.Failures)
		}
		if len(closed.Keys) != 1 || !bytes.Equal(closed.Keys[0].Public, kept) || len(closed.Certificates) != 0 {
			t.Errorf("without passwords: %d keys, %d certificates", len(closed.Keys), len(closed.Certificates))
		}
		for _, what := range []string{"EK of template L-1 in the endorsement hierarchy", "EK of template L-1, unique empty in the owner hierarchy",
			"EK of template H-3 in the endorsement hierarchy"} {
			var failure *device.TPMError
			if err := unreadWhy(closed, what); !errors.As(err, &failure) || failure.Command != "TPM2_CreatePrimary" || !errors.Is(err, tpm2.TPMRCBadAuth) {
				t.Errorf("%s: got %v", what, err)
			}
		}
		mustSay(t, unreadWhy(closed, "EK certificate at NV index 0x01c00002"), "certificate", "lets the owner read")

		listener := &overheard{TPM: tpm}
		all := readEKs(t, listener, device.WithEKAuth(device.Auth{Owner: []byte("owner's secret"), Endorsement: []byte("endorsement's secret")}))
		for _, key := range open.Keys {
			if keyOf(all, key.Public) == nil {
				t.Errorf("with passwords %v in %s is missing", key.Templates, key.Hierarchy)
			}
		}
		if len(all.Keys) != len(open.Keys) || !certificateAt(t, all, 0x01c00002).Matches {
			t.Errorf("with passwords: %d keys of %d, %+v", len(all.Keys), len(open.Keys), all.Unread)
		}
		if bytes.Contains(listener.traffic, []byte("secret")) {
			t.Error("a password crossed in clear")
		}
	})
}

// notDefault is a template that no default one is.
func notDefault(template tpm2.TPMTPublic) tpm2.TPMTPublic {
	template.ObjectAttributes.NoDA = true
	return template
}

// The nonce goes into the template's unique, padded with zeros.
func TestTemplatesAndNoncesInNV(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		noDA, ecc := notDefault(tpm2.RSAEKTemplate), notDefault(tpm2.ECCEKTemplate)
		nonce := []byte("nonce of the maker")
		writeNV(t, tpm, 0x01c00004, readableByAll, tpm2.Marshal(noDA))
		alone := made(t, tpm, tpm2.TPMRHEndorsement, noDA)
		if key := keyOf(readEKs(t, tpm), alone); key == nil || !slices.Equal(key.Templates, []string{"NV 0x01c00004"}) {
			t.Errorf("a template without a nonce: %+v", key)
		}
		writeNV(t, tpm, 0x01c00003, readableByAll, nonce)
		writeNV(t, tpm, 0x01c0000c, readableByAll, append(tpm2.Marshal(ecc), bytes.Repeat([]byte{0xff}, 20)...))
		writeNV(t, tpm, 0x01c0000b, readableByAll, nonce)
		writeNV(t, tpm, 0x01c00017, readableByAll, []byte("no template"))
		point := tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: append(bytes.Clone(nonce), make([]byte, 32-len(nonce))...)},
			Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)}}
		withPoint := ecc
		withPoint.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &point)
		all := readEKs(t, tpm)
		for template, public := range map[string][]byte{
			"NV 0x01c00004 with the nonce at 0x01c00003": made(t, tpm, tpm2.TPMRHEndorsement, withUnique(noDA, string(nonce))),
			"NV 0x01c0000c with the nonce at 0x01c0000b": made(t, tpm, tpm2.TPMRHEndorsement, withPoint),
		} {
			if key := keyOf(all, public); key == nil || !slices.Equal(key.Templates, []string{template}) || !key.SurvivesClear || key.Unfit != nil {
				t.Errorf("%s: got %+v", template, key)
			}
		}
		if keyOf(all, alone) != nil {
			t.Error("the template was used without its nonce, too")
		}
		mustSay(t, unreadWhy(all, "EK template at NV index 0x01c00017"), "0x01c00017", "no template")
		undefineNV(t, tpm, 0x01c00003)
		writeNV(t, tpm, 0x01c00003, readableByAll, make([]byte, 257))
		mustSay(t, unreadWhy(readEKs(t, tpm), "EK template at NV index 0x01c00004"), "0x01c00004", "nonce is longer")
		undefineNV(t, tpm, 0x01c00004)
		mustSay(t, unreadWhy(readEKs(t, tpm), "EK nonce at NV index 0x01c00003"), "0x01c00003", "no template")
	})
}

func TestReadingEKsEndsWithItsContext(t *testing.T) {
	tpm := simulator(t)
	defer mustBeEmpty(t, tpm)
	ctx, cancel := context.WithCancel(t.Context())
	creations := 0
	found, err := device.ReadEKs(ctx, tpm, device.WithEKProgress(func(device.Event) {
		if creations++; creations == 2 {
			cancel()
		}
	}))
	if err != nil || creations != 2 || len(found.Keys) != 2 {
		t.Fatalf("%d made, %v", creations, err)
	}
	if why := unreadWhy(found, "EK of template L-2 in the endorsement hierarchy"); !errors.Is(why, context.Canceled) {
		t.Errorf("got %v", why)
	}
}

// A command that fails, whichever it is, leaves nothing in the TPM, and what it
// would have told is reported or the whole reading fails.
func TestReadingEKsLeavesNothingBehind(t *testing.T) {
	tpm := simulator(t)
	setPassword(t, tpm, tpm2.TPMRHOwner, "secret")
	auth := device.WithEKAuth(device.Auth{Owner: []byte("secret")})
	whole := readEKs(t, tpm, auth)
	for _, command := range []tpm2.TPMCC{tpm2.TPMCCCreatePrimary, tpm2.TPMCCReadPublic, tpm2.TPMCCTestParms, tpm2.TPMCCStartAuthSession, tpm2.TPMCCGetCapability} {
		for _, code := range []tpm2.TPMRC{tpm2.TPMRCObjectMemory, tpm2.TPMRCCommandCode} {
			for _, pass := range []int{0, 3} {
				faulty := &failing{TPM: tpm, command: command, code: code, pass: pass}
				found, err := device.ReadEKs(t.Context(), faulty, auth)
				if err == nil && faulty.seen > 0 && len(found.Keys)+len(found.Unread) < len(whole.Keys)+len(whole.Unread) && command != tpm2.TPMCCTestParms {
					t.Errorf("%v fails with %v after %d: %d keys, %d unread", command, code, pass, len(found.Keys), len(found.Unread))
				}
				mustBeEmpty(t, tpm)
			}
		}
	}
	for after := 0; after < 60; after += 7 {
		if _, err := device.ReadEKs(t.Context(), &cut{TPM: tpm, after: after}, auth); !errors.Is(err, errCut) {
			t.Errorf("cut after %d commands: %v", after, err)
		}
		for _, handle := range openHandles(t, tpm) { // nothing of ours could remove them
			tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
		}
	}
}

func TestAHierarchyThatIsSwitchedOffIsAskedOnce(t *testing.T) {
	tpm := &failing{TPM: simulator(t), command: tpm2.TPMCCCreatePrimary, code: tpm2.TPMRCHierarchy}
	found := readEKs(t, tpm)
	if tpm.seen != 2 || len(found.Keys) != 0 || len(found.Unread) < 8 {
		t.Errorf("asked %d times: %+v", tpm.seen, found)
	}
	for _, u := range found.Unread {
		if u.Hierarchy != "" || !errors.Is(u.Err, tpm2.TPMRCHierarchy) {
			t.Errorf("got %+v", u)
		}
	}
}

// What is announced as the key that the device registers with is the one that
// an Identity shows then.
func TestTheKeyThatRegistersIsTheIdentitys(t *testing.T) {
	for name, c := range map[string]struct {
		hierarchy tpm2.TPMHandle // of a key that is kept; 0: none is
		template  tpm2.TPMTPublic
		opts      []device.Option
	}{
		"nothing kept":                 {},
		"nothing kept, ECC wanted":     {opts: []device.Option{device.WithAlgorithm(device.ECCP256)}},
		"kept":                         {hierarchy: tpm2.TPMRHEndorsement, template: tpm2.RSAEKTemplate},
		"kept by a template of nobody": {hierarchy: tpm2.TPMRHEndorsement, template: withUnique(tpm2.RSAEKTemplate, "mine")},
		"kept for the owner":           {hierarchy: tpm2.TPMRHOwner, template: tpm2.RSAEKTemplate},
		"kept, ECC":                    {hierarchy: tpm2.TPMRHEndorsement, template: tpm2.ECCEKTemplate},
		"kept and passed over":         {hierarchy: tpm2.TPMRHEndorsement, template: tpm2.RSAEKTemplate, opts: []device.Option{device.WithTransientKeys()}},
	} {
		t.Run(name, func(t *testing.T) {
			tpm := simulator(t)
			defer mustBeEmpty(t, tpm)
			if c.hierarchy != 0 {
				keep(t, tpm, c.hierarchy, c.template, device.HandleEK)
			}
			key := readEKs(t, tpm).Registering(c.opts...)
			id := openIdentity(t, tpm, c.opts...)
			defer closeAll(t, id)
			if key == nil || !bytes.Equal(key.Public, id.EK()) || key.Hierarchy != id.Hierarchy() {
				t.Errorf("announced %+v, shown %s in %s", key, id.RegistrationID(), id.Hierarchy())
			}
			if n, err := id.OtherEKs(); err != nil || n < 8 || n > 10 {
				t.Errorf("%d others, %v", n, err)
			}
		})
	}
}
