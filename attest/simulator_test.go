package attest

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// These tests open blobs in the TPM reference implementation, in process. It is
// global state, so tests that use it do not run in parallel.

// device is a TPM and what a device does with it.
type device struct {
	t   *testing.T
	tpm transport.TPM
}

// newDevice starts the simulator with fixed hierarchy seeds: the same template
// gives the same key in every run.
func newDevice(t *testing.T) *device {
	t.Helper()
	sim, err := simulator.GetWithFixedSeedInsecure(2)
	must(t, err)
	t.Cleanup(func() { must(t, sim.Close()) })
	return &device{t: t, tpm: transport.FromReadWriter(sim)}
}

// loadedKey is an object in a transient slot.
type loadedKey struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public []byte // TPM2B_PUBLIC
	auth   tpm2.Session
}

func (k *loadedKey) authorised() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: k.auth}
}

func (d *device) primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) *loadedKey {
	d.t.Helper()
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(d.tpm)
	must(d.t, err)
	k := &loadedKey{rsp.ObjectHandle, rsp.Name, tpm2.Marshal(rsp.OutPublic), tpm2.PasswordAuth(nil)}
	if template.ObjectAttributes.AdminWithPolicy && !template.ObjectAttributes.UserWithAuth {
		k.auth = endorsementSession()
	}
	d.flushLater(k)
	return k
}

func (d *device) flushLater(k *loadedKey) { d.t.Cleanup(func() { d.flush(k) }) }

func (d *device) flush(k *loadedKey) {
	if k.handle != 0 {
		_, err := tpm2.FlushContext{FlushHandle: k.handle}.Execute(d.tpm)
		must(d.t, err)
		k.handle = 0
	}
}

// endorsementSession satisfies the policy of the usual EK templates.
func endorsementSession() tpm2.Session {
	return tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, h tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: h, NonceTPM: nonce}.Execute(t)
		return err
	})
}

func (d *device) activate(ek, srk *loadedKey, id, secret []byte) ([]byte, error) {
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: srk.authorised(), KeyHandle: ek.authorised(),
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: id}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: secret},
	}.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	return rsp.CertInfo.Buffer, nil
}

// importKey does TPM2_Import and TPM2_Load of a blob's identity key.
func (d *device) importKey(srk *loadedKey, innerKey []byte, p *blobParts) (*loadedKey, error) {
	public := tpm2.BytesAs2B[tpm2.TPMTPublic](p.Public)
	imported, err := tpm2.Import{
		ParentHandle: srk.authorised(), EncryptionKey: tpm2.TPM2BData{Buffer: innerKey}, ObjectPublic: public,
		Duplicate: tpm2.TPM2BPrivate{Buffer: p.Duplicate}, InSymSeed: tpm2.TPM2BEncryptedSecret{Buffer: p.DupSeed},
		Symmetric: tpm2.TPMTSymDef{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
	}.Execute(d.tpm)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	return d.load(srk, public, imported.OutPrivate)
}

func (d *device) load(parent *loadedKey, public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate) (*loadedKey, error) {
	rsp, err := tpm2.Load{ParentHandle: parent.authorised(), InPrivate: private, InPublic: public}.Execute(d.tpm)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	k := &loadedKey{rsp.ObjectHandle, rsp.Name, tpm2.Marshal(public), tpm2.PasswordAuth(nil)}
	d.flushLater(k)
	return k, nil
}

// open does all that a device does with a blob and signs text with the key.
func (d *device) open(ek, srk *loadedKey, blob, text []byte) ([]byte, error) {
	p, err := splitBlob(blob)
	if err != nil {
		return nil, err
	}
	innerKey, err := d.activate(ek, srk, p.IDObject, p.IDSecret)
	if err != nil {
		return nil, fmt.Errorf("activate: %w", err)
	}
	key, err := d.importKey(srk, innerKey, p)
	if err != nil {
		return nil, err
	}
	defer d.flush(key)
	rsp, err := tpm2.Hmac{Handle: key.authorised(), Buffer: tpm2.TPM2BMaxBuffer{Buffer: text}, HashAlg: tpm2.TPMAlgSHA256}.Execute(d.tpm)
	if err != nil {
		return nil, fmt.Errorf("hmac: %w", err)
	}
	return rsp.OutHMAC.Buffer, nil
}

func (d *device) seal(ek, srk *loadedKey, key []byte) []byte {
	d.t.Helper()
	e, err := ParseEK(ek.public)
	must(d.t, err)
	s, err := ParseSRK(srk.public)
	must(d.t, err)
	blob, err := Seal(rand.Reader, e, s, key)
	must(d.t, err)
	return blob
}

func softHMAC(key, text []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(text)
	return m.Sum(nil)
}

func randomKey(n int) []byte {
	key := make([]byte, n)
	rand.Read(key)
	return key
}

// template is a storage key template that needs no policy.
func template(typ tpm2.TPMAlgID, curve tpm2.TPMECCCurve, pr profile) tpm2.TPMTPublic {
	a := area(typ, pr)
	if typ == tpm2.TPMAlgRSA {
		a.Parameters = tpm2.NewTPMUPublicParms(typ, &tpm2.TPMSRSAParms{Symmetric: symmetric(pr), KeyBits: 2048})
		a.Unique = tpm2.NewTPMUPublicID(typ, &tpm2.TPM2BPublicKeyRSA{})
		return a
	}
	a.Parameters = tpm2.NewTPMUPublicParms(typ, &tpm2.TPMSECCParms{Symmetric: symmetric(pr), CurveID: curve})
	a.Unique = tpm2.NewTPMUPublicID(typ, &tpm2.TPMSECCPoint{})
	return a
}

var (
	rsaHigh  = template(tpm2.TPMAlgRSA, 0, highRange)
	p384High = template(tpm2.TPMAlgECC, tpm2.TPMECCNistP384, highRange)
	p256Top  = template(tpm2.TPMAlgECC, tpm2.TPMECCNistP256, topRange)
)

func TestReferenceTPMOpensBlobsForEveryMix(t *testing.T) {
	for _, c := range []struct {
		name    string
		ek, srk tpm2.TPMTPublic
		keySize int
	}{
		{"RSA EK, RSA SRK", tpm2.RSAEKTemplate, tpm2.RSASRKTemplate, 32},
		{"RSA EK, ECC SRK", tpm2.RSAEKTemplate, tpm2.ECCSRKTemplate, 32},
		{"ECC EK, RSA SRK", tpm2.ECCEKTemplate, tpm2.RSASRKTemplate, 32},
		{"ECC EK, ECC SRK", tpm2.ECCEKTemplate, tpm2.ECCSRKTemplate, 32},
		{"P-384 high range, both", p384High, p384High, 32},
		{"P-384 high range, RSA SRK", p384High, tpm2.RSASRKTemplate, 32},
		{"RSA EK, P-384 high range SRK", tpm2.RSAEKTemplate, p384High, 32},
		{"RSA by SHA-384 and AES-256", rsaHigh, rsaHigh, 32},
		{"shortest key", tpm2.ECCEKTemplate, tpm2.ECCSRKTemplate, 1},
		{"longest key", tpm2.ECCEKTemplate, tpm2.ECCSRKTemplate, MaxHMACKeySize},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(t)
			ek, srk := d.primary(tpm2.TPMRHEndorsement, c.ek), d.primary(tpm2.TPMRHOwner, c.srk)
			key, text := randomKey(c.keySize), []byte("scope/registrations/device\n1700000000")
			got, err := d.open(ek, srk, d.seal(ek, srk, key), text)
			must(t, err)
			if !bytes.Equal(got, softHMAC(key, text)) {
				t.Error("the TPM signs with another key")
			}
		})
	}
}

// Any key the reference TPM makes must be read as go-tpm reads it.
func TestKeysOfTheReferenceTPMAreAccepted(t *testing.T) {
	d := newDevice(t)
	for _, template := range []tpm2.TPMTPublic{
		tpm2.RSAEKTemplate, tpm2.RSASRKTemplate, tpm2.ECCEKTemplate, tpm2.ECCSRKTemplate, p384High, rsaHigh, p256Top,
	} {
		k := d.primary(tpm2.TPMRHOwner, template)
		p, err := ParseSRK(k.public)
		must(t, err)
		compareWithGoTPM(t, k.public, &p.Public)
		if !bytes.Equal(p.Name(), k.name.Buffer) {
			t.Errorf("%s: name %x, the TPM says %x", p.Algorithm(), p.Name(), k.name.Buffer)
		}
		d.flush(k)
	}
}

// One byte of each field altered, and the TPM must refuse; where in the field
// does not matter, so first, middle and last are tried.
func TestReferenceTPMRefusesAlteredBlobs(t *testing.T) {
	d := newDevice(t)
	ek, srk := d.primary(tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate), d.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	key, text := randomKey(32), []byte("text")
	blob := d.seal(ek, srk, key)
	whole, err := splitBlob(blob)
	must(t, err)
	for i, f := range whole.Fields()[:5] {
		for _, at := range []int{0, 1, 2, len(*f) / 2, len(*f) - 1} {
			bad, err := splitBlob(bytes.Clone(blob))
			must(t, err)
			(*bad.Fields()[i])[at] ^= 1
			_, err = d.openParts(ek, srk, bad, text)
			wantTPMError(t, fmt.Sprintf("field %d, byte %d altered", i+1, at), err, refusedBytes...)
		}
	}
	// The untouched blob opens after all of that: the refusals were about the
	// bytes, not about a TPM that had enough.
	got, err := d.open(ek, srk, blob, text)
	must(t, err)
	if !bytes.Equal(got, softHMAC(key, text)) {
		t.Error("the TPM signs with another key")
	}
}

func (d *device) openParts(ek, srk *loadedKey, p *blobParts, text []byte) ([]byte, error) {
	var blob []byte
	for _, f := range p.Fields() {
		blob = append(binary.BigEndian.AppendUint16(blob, uint16(len(*f))), *f...)
	}
	return d.open(ek, srk, blob, text)
}

func TestReferenceTPMRefusesBlobsForOtherKeys(t *testing.T) {
	d := newDevice(t)
	ek, srk := d.primary(tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate), d.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	blob := d.seal(ek, srk, randomKey(32))
	p, err := splitBlob(blob)
	must(t, err)

	otherSRK := d.primary(tpm2.TPMRHOwner, variant(tpm2.ECCSRKTemplate, 1))
	_, err = d.activate(ek, otherSRK, p.IDObject, p.IDSecret)
	wantTPMError(t, "credential with another SRK", err, tpm2.TPMRCIntegrity)
	// Even with the inner key in hand, the duplicate is the first SRK's.
	innerKey, err := d.activate(ek, srk, p.IDObject, p.IDSecret)
	must(t, err)
	d.flush(ek)
	_, err = d.importKey(otherSRK, innerKey, p)
	wantTPMError(t, "import under another SRK", err, tpm2.TPMRCIntegrity)
	wrong := bytes.Clone(innerKey)
	wrong[0] ^= 1
	_, err = d.importKey(srk, wrong, p)
	wantTPMError(t, "import with another inner key", err, refusedBytes...)
	d.flush(otherSRK)

	otherEK := d.primary(tpm2.TPMRHEndorsement, variant(tpm2.ECCEKTemplate, 1))
	_, err = d.activate(otherEK, srk, p.IDObject, p.IDSecret)
	wantTPMError(t, "credential with another EK", err, tpm2.TPMRCIntegrity)
}

// refusedBytes are the answers that say "these bytes are not what was sealed".
// Anything else, such as a lack of memory or of authorisation, would be a
// refusal for a reason the test did not mean.
var refusedBytes = []tpm2.TPMRC{
	tpm2.TPMRCIntegrity, tpm2.TPMRCSize, tpm2.TPMRCValue, tpm2.TPMRCECCPoint, tpm2.TPMRCType, tpm2.TPMRCHash,
}

func wantTPMError(t *testing.T, what string, err error, codes ...tpm2.TPMRC) {
	t.Helper()
	for _, code := range codes {
		if errors.Is(err, code) {
			return
		}
	}
	t.Errorf("%s: got %v, want one of %v", what, err, codes)
}

// variant is the same template with another unique field: another key.
func variant(template tpm2.TPMTPublic, n uint16) tpm2.TPMTPublic {
	x := make([]byte, 32)
	binary.BigEndian.PutUint16(x, n)
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
	})
	return template
}

// One ECC key in 256 has an x that begins with a zero byte. The seed is derived
// from x, so TPM and service must agree on its padding.
func TestReferenceTPMAgreesOnCoordinatesWithLeadingZeros(t *testing.T) {
	d := newDevice(t)
	ek := d.primary(tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate)
	for n := uint16(1); n < 5000; n++ {
		srk := d.primary(tpm2.TPMRHOwner, variant(tpm2.ECCSRKTemplate, n))
		p, err := ParseSRK(srk.public)
		must(t, err)
		if len(p.ECC.X) == 32 && p.ECC.X[0] != 0 {
			d.flush(srk)
			continue
		}
		key, text := randomKey(32), []byte("text")
		got, err := d.open(ek, srk, d.seal(ek, srk, key), text)
		must(t, err)
		if !bytes.Equal(got, softHMAC(key, text)) {
			t.Error("the TPM signs with another key")
		}
		t.Logf("variant %d, x of %d bytes", n, len(p.ECC.X))
		return
	}
	t.Fatal("no key with a leading zero in 5000")
}
