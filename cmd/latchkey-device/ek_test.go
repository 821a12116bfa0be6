package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/simtpm"
)

// One line says that there are others; --all shows them; --eks is what the
// operator gets.
func TestEveryEKIsShownAndWritten(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM, spec string) {
		own := decode[identity](t, first(agent(t, exitOK, "ek", "--tpm", spec, "--json", "--transient")))
		all := decode[ekSet](t, first(agent(t, exitOK, "ek", "--tpm", spec, "--json", "--transient", "--all")))
		if len(all.EndorsementKeys) < 8 || all.EndorsementKeys[0].RegistrationID != own.RegistrationID || !all.EndorsementKeys[0].Registers ||
			all.RegistrationID != own.RegistrationID || !bytes.Equal(all.EndorsementKeys[0].EndorsementKey, own.EndorsementKey) {
			t.Errorf("the key that the device registers with is not the first: %+v", all)
		}
		if others := len(all.EndorsementKeys) + len(all.OtherKeys) + len(all.Unread) - 1; own.OtherEKs != others {
			t.Errorf("%d others are announced, %d there", own.OtherEKs, others)
		}
		for _, e := range all.EndorsementKeys {
			if _, err := attest.ParseEK(e.EndorsementKey); err != nil || e.RegistrationID != attest.RegistrationID(e.EndorsementKey) || e.Unfit != "" {
				t.Errorf("%+v: %v", e, err)
			}
			if e.SurvivesClear != (e.Hierarchy == "endorsement") || e.Registers != (e.RegistrationID == own.RegistrationID) {
				t.Errorf("got %+v", e)
			}
		}
		table, _ := agent(t, exitOK, "ek", "--tpm", spec, "--all", "--transient")
		for _, want := range []string{own.RegistrationID + " *", "owner        gone", "Azure SDK for Java (its class HSM)", "add --deep", "ek --eks FILE"} {
			if !strings.Contains(table, want) && !(want == "add --deep" && len(all.Unread) == 0) {
				t.Errorf("%q is missing in\n%s", want, table)
			}
		}
		text, _ := agent(t, exitOK, "ek", "--tpm", spec, "--transient")
		if !strings.Contains(text, "ek --all") || strings.Count(text, "\n") != 9 {
			t.Errorf("not short:\n%s", text)
		}

		file := filepath.Join(t.TempDir(), "eks.json")
		agent(t, exitOK, "ek", "--tpm", spec, "--transient", "--eks", file)
		written, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode[ekSet](t, string(written)); len(got.EndorsementKeys) != len(all.EndorsementKeys) {
			t.Errorf("written: %s", written)
		}
		mustBeEnrollable(t, all)
		if out, _ := agent(t, exitOK, "ek", "--tpm", spec, "--transient", "--eks", "-"); out != string(written) {
			t.Errorf("standard output has something else: %s", out)
		}
		if _, err := (tpm2.ReadPublic{ObjectHandle: device.HandleEK}).Execute(tpm); err == nil {
			t.Error("--all left an EK in the TPM")
		}
		if open, err := simtpm.OpenHandles(tpm); err != nil || len(open) != 0 {
			t.Errorf("left in the TPM: %x %v", open, err)
		}
	})
}

// mustBeEnrollable puts the set into an enrollment: the first key is its EK, the
// others are the chip's further ones.
func mustBeEnrollable(t *testing.T, set ekSet) {
	t.Helper()
	type chipKey struct {
		EndorsementKey []byte `json:"endorsementKey"`
		Hierarchy      string `json:"hierarchy"`
	}
	var others []chipKey
	for _, e := range set.EndorsementKeys[1:] {
		others = append(others, chipKey{e.EndorsementKey, e.Hierarchy})
	}
	body, err := json.Marshal(map[string]any{
		"attestation": map[string]any{"type": "tpm", "tpm": map[string]any{"endorsementKey": set.EndorsementKeys[0].EndorsementKey}},
		"latchkey":    map[string]any{"endorsementKeys": others},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dps.DecodeEnrollment(set.RegistrationID, body); err != nil {
		t.Errorf("a service refuses the set: %v", err)
	}
}

func first(out, _ string) string { return out }

func TestTheMakersCertificateIsShownAndWritten(t *testing.T) {
	if testing.Short() {
		return // the factory is a package to be installed
	}
	tpm := simtpm.NewFactory(t).Make(t)
	own := decode[identity](t, first(agent(t, exitOK, "ek", "--tpm", tpm.Spec(), "--json")))
	if !own.EKCertificate || own.Certificate == nil || own.Certificate.Index != "0x01c00002" || own.Certificate.Issuer != "CN=swtpm-localca" ||
		own.Certificate.Model != "swtpm" || !own.Certificate.Matches {
		t.Errorf("got %+v", own)
	}
	text, _ := agent(t, exitOK, "ek", "--tpm", tpm.Spec())
	if !strings.Contains(text, "0x01c00002, of CN=swtpm-localca (shown, not verified)") {
		t.Errorf("got %s", text)
	}
	file := filepath.Join(t.TempDir(), "ek.pem")
	agent(t, exitOK, "ek", "--tpm", tpm.Spec(), "--certificate", file)
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(written)
	if block == nil || len(rest) > 0 || !bytes.Equal(block.Bytes, own.Certificate.DER) {
		t.Fatalf("got %s", written)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		t.Error(err)
	}
	table, _ := agent(t, exitOK, "ek", "--tpm", tpm.Spec(), "--all")
	for _, want := range []string{"0x01c00002  for " + own.RegistrationID, "0x01c00016  for ", "not verified", "id:00001014 swtpm", "no issuer in the TPM", "SDKs show what is kept"} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is missing in\n%s", want, table)
		}
	}
	// The P-384 EK has a certificate; the P-256 EK that this agent would make has none.
	_, why := agent(t, exitFailure, "ek", "--tpm", tpm.Spec(), "--certificate", file, "--algorithm", "ecc-p256", "--transient")
	if !strings.Contains(why, "no certificate for this EK") {
		t.Errorf("got %s", why)
	}
}

// keepAt makes an EK persistent, as a careless tool does.
func keepAt(t *testing.T, tpm transport.TPM, hierarchy, at tpm2.TPMHandle, template tpm2.TPMTPublic) {
	t.Helper()
	made, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	defer tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(tpm)
	_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: at}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnEKInTheOwnerHierarchyIsWarnedOf(t *testing.T) {
	sim := simtpm.NewSimulator(t)
	spec := simtpm.NewFront(t, sim).Spec()
	keepAt(t, sim, tpm2.TPMRHOwner, device.HandleEK, tpm2.RSAEKTemplate)
	for _, args := range [][]string{{}, {"--all"}} {
		if text, _ := agent(t, exitOK, append([]string{"ek", "--tpm", spec}, args...)...); !strings.Contains(text, "warning: ") || !strings.Contains(text, "gone for good") {
			t.Errorf("%v: got %s", args, text)
		}
	}
	if it := decode[identity](t, first(agent(t, exitOK, "ek", "--tpm", spec, "--json"))); it.Warning == "" || it.Hierarchy != "owner" {
		t.Errorf("got %+v", it)
	}
	file := filepath.Join(t.TempDir(), "eks.json")
	if _, stderr := agent(t, exitOK, "ek", "--tpm", spec, "--eks", file); !strings.Contains(stderr, "gone for good") {
		t.Errorf("got %s", stderr)
	}
}

// What a password keeps from being read is named, with what to do, and the rest is read.
func TestEKsBehindAPasswordAreNamed(t *testing.T) {
	sim := simtpm.NewSimulator(t)
	spec := simtpm.NewFront(t, sim).Spec()
	keepAt(t, sim, tpm2.TPMRHEndorsement, device.HandleEK, tpm2.RSAEKTemplate)
	for _, hierarchy := range []tpm2.TPMHandle{tpm2.TPMRHEndorsement, tpm2.TPMRHOwner} {
		if _, err := (tpm2.HierarchyChangeAuth{AuthHandle: hierarchy, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("swordfish")}}).Execute(sim); err != nil {
			t.Fatal(err)
		}
	}
	all := decode[ekSet](t, first(agent(t, exitOK, "ek", "--tpm", spec, "--all", "--json")))
	if len(all.EndorsementKeys) != 1 || all.RegistrationID != all.EndorsementKeys[0].RegistrationID {
		t.Errorf("got %+v", all.EndorsementKeys)
	}
	for _, u := range all.Unread {
		if !strings.Contains(u.Advice, "--endorsement-auth-file") && !strings.Contains(u.Advice, "--owner-auth-file") {
			t.Errorf("got %v", u)
		}
	}
	if !slices.ContainsFunc(all.Unread, func(u unread) bool { return u.What == "EK of template L-1, unique empty in the owner hierarchy" }) {
		t.Errorf("the owner's EK is left out: %v", all.Unread)
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("swordfish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all = decode[ekSet](t, first(agent(t, exitOK, "ek", "--tpm", spec, "--all", "--json", "--endorsement-auth-file", file, "--owner-auth-file", file)))
	if len(all.EndorsementKeys) < 8 {
		t.Errorf("with the passwords: %+v", all)
	}
}

func TestEKFlagsThatDoNotGoTogether(t *testing.T) {
	for _, args := range [][]string{{"--deep"}, {"--eks", "-", "--json"}, {"--certificate", "-", "--json"}, {"--eks", "a", "--certificate", "b"}, {"--all", "--algorithm", "rsa1024"}} {
		if out, why := agent(t, exitUsage, append([]string{"ek"}, args...)...); out != "" || !strings.Contains(why, "See latchkey-device --help") {
			t.Errorf("%v: %s", args, why)
		}
	}
}

func TestWhatWasNotReadComesWithWhatToDo(t *testing.T) {
	tpmError := func(code tpm2.TPMRC) error {
		return &device.TPMError{Command: "TPM2_CreatePrimary", Code: code, Err: code}
	}
	for want, u := range map[string]device.Unread{
		"--deep":                     {Err: device.ErrSkipped},
		"was stopped":                {Err: context.DeadlineExceeded},
		"switched its hierarchy off": {Err: tpmError(tpm2.TPMRCHierarchy)},
		"--endorsement-auth-file":    {Err: tpmError(tpm2.TPMRCBadAuth), Hierarchy: "endorsement"},
		"--owner-auth-file":          {Err: errors.New("lets the owner read"), Hierarchy: "owner"},
		"slots":                      {Err: tpmError(tpm2.TPMRCObjectMemory)},
		"":                           {Err: errors.New("it begins with 0x00")},
	} {
		if got := unreadAdvice(u); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%v: got %q, want %q", u, got, want)
		}
	}
}
