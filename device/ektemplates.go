package device

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Template is a way to make an EK that programs are known to use. The same
// template gives the same key each time, as long as the hierarchy's seed lives.
type Template struct {
	// Name is that of TCG EK Credential Profile 2.4, annex B: "L-1" and "L-2" of
	// the low range, "H-1" to "H-7" of the high range. What programs change in it
	// follows, such as "L-1, unique empty". Templates of the TPM's own are named by their
	// NV index: "NV 0x01c00004".
	Name string

	// SDKs are the programs that make their EK by it if none is kept at HandleEK.
	SDKs []string

	hierarchy tpm2.TPMHandle
	public    tpm2.TPMTPublic
	slow      bool // a chip may take minutes
}

// Programs that show EKs. What they do is from their sources of 2026.
const (
	sdkNode  = "Azure SDK for Node"
	sdkC     = "Azure SDK for C"
	sdkCS    = "Azure SDK for .NET"
	sdkJava  = "Azure SDK for Java"
	sdkRust  = "Azure IoT Edge (iot-identity-service)"
	sdkAgent = "latchkey-device"
	sdkTools = "tpm2-tools"
	sdkGo    = "go-tpm"
	everySDK = "every SDK"
)

// knownTemplates lists them, those that most devices show first.
func knownTemplates() []Template {
	low := func(name string, hierarchy tpm2.TPMHandle, public tpm2.TPMTPublic, sdks ...string) Template {
		return Template{Name: name, SDKs: sdks, hierarchy: hierarchy, public: public}
	}
	list := []Template{
		low("L-1, unique empty", tpm2.TPMRHEndorsement, ekTemplate(RSA2048), sdkNode, sdkC, sdkJava, sdkAgent),
		low("L-1", tpm2.TPMRHEndorsement, zeroFilled(ekTemplate(RSA2048)), sdkCS, sdkRust, sdkTools, sdkGo),
		low("L-1, unique empty", tpm2.TPMRHOwner, ekTemplate(RSA2048), sdkJava+" (its class HSM)"),
		low("L-2, unique empty", tpm2.TPMRHEndorsement, ekTemplate(ECCP256), sdkAgent),
		low("L-2", tpm2.TPMRHEndorsement, zeroFilled(ekTemplate(ECCP256)), sdkTools, sdkGo),
	}
	for _, h := range highRange {
		t := Template{Name: h.name, hierarchy: tpm2.TPMRHEndorsement, public: highTemplate(h)}
		t.slow = isSlow(&t.public)
		switch h.name {
		case "H-6":
			t.SDKs = []string{sdkAgent, sdkTools}
		case "H-3", "H-4", "H-7":
			t.SDKs = []string{sdkTools}
		}
		list = append(list, t)
	}
	return list
}

// high is a template of the high range. H-5, for SM2, is left out: the protocol
// has no use for it.
type high struct {
	name  string
	kind  tpm2.TPMAlgID
	bits  tpm2.TPMKeyBits // RSA
	curve tpm2.TPMECCCurve
	hash  tpm2.TPMAlgID
	aes   tpm2.TPMKeyBits
}

var highRange = []high{
	{name: "H-1", kind: tpm2.TPMAlgRSA, bits: 2048, hash: tpm2.TPMAlgSHA256, aes: 128},
	{name: "H-2", kind: tpm2.TPMAlgECC, curve: tpm2.TPMECCNistP256, hash: tpm2.TPMAlgSHA256, aes: 128},
	{name: "H-3", kind: tpm2.TPMAlgECC, curve: tpm2.TPMECCNistP384, hash: tpm2.TPMAlgSHA384, aes: 256},
	{name: "H-4", kind: tpm2.TPMAlgECC, curve: tpm2.TPMECCNistP521, hash: tpm2.TPMAlgSHA512, aes: 256},
	{name: "H-6", kind: tpm2.TPMAlgRSA, bits: 3072, hash: tpm2.TPMAlgSHA384, aes: 256},
	{name: "H-7", kind: tpm2.TPMAlgRSA, bits: 4096, hash: tpm2.TPMAlgSHA384, aes: 256},
}

// highTemplate: unlike in the low range, unique is empty there, and the EK's own
// (empty) password opens it as well as PolicyB.
func highTemplate(h high) tpm2.TPMTPublic {
	attributes := storageKeyAttributes()
	attributes.AdminWithPolicy = true
	attributes.UserWithAuth = true
	t := tpm2.TPMTPublic{Type: h.kind, NameAlg: h.hash, ObjectAttributes: attributes,
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policyB[h.hash]}}
	if h.kind == tpm2.TPMAlgRSA {
		t.Parameters = tpm2.NewTPMUPublicParms(h.kind, &tpm2.TPMSRSAParms{Symmetric: aesCFB(h.aes), KeyBits: h.bits})
		t.Unique = tpm2.NewTPMUPublicID(h.kind, &tpm2.TPM2BPublicKeyRSA{})
		return t
	}
	t.Parameters = tpm2.NewTPMUPublicParms(h.kind, &tpm2.TPMSECCParms{Symmetric: aesCFB(h.aes), CurveID: h.curve})
	t.Unique = tpm2.NewTPMUPublicID(h.kind, &tpm2.TPMSECCPoint{})
	return t
}

// policyB is TPM2_PolicyOR of TPM2_PolicySecret(TPM_RH_ENDORSEMENT) and a policy
// in NV (TCG EK Credential Profile 2.4, B.6), by hash.
var policyB = map[tpm2.TPMAlgID][]byte{
	tpm2.TPMAlgSHA256: fromHex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"),
	tpm2.TPMAlgSHA384: policyB384,
	tpm2.TPMAlgSHA512: fromHex("b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4" +
		"29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea"),
}

// zeroFilled is the template as the TCG has it in the low range, with zeros of
// the key's size in unique.
func zeroFilled(t tpm2.TPMTPublic) tpm2.TPMTPublic {
	filled, _ := withNonce(t, nil) // both kinds take an empty nonce
	return filled
}

var errNonceSize = errors.New("the EK nonce is longer than the key")

// withNonce puts the EK nonce into a template: padded with zeros to the key's
// size, into the modulus of an RSA key, or into x of an ECC key whose y is zeros
// (TCG EK Credential Profile 2.5, 2.2.1.6).
func withNonce(t tpm2.TPMTPublic, nonce []byte) (tpm2.TPMTPublic, error) {
	padded := func(size int) ([]byte, error) {
		if len(nonce) > size {
			return nil, fmt.Errorf("%w: %d bytes, not %d at most", errNonceSize, len(nonce), size)
		}
		return append(bytes.Clone(nonce), make([]byte, size-len(nonce))...), nil
	}
	if t.Type == tpm2.TPMAlgRSA {
		p, err := t.Parameters.RSADetail()
		if err != nil {
			return t, err
		}
		unique, err := padded(int(p.KeyBits) / 8)
		if err != nil {
			return t, err
		}
		t.Unique = tpm2.NewTPMUPublicID(t.Type, &tpm2.TPM2BPublicKeyRSA{Buffer: unique})
		return t, nil
	}
	p, err := t.Parameters.ECCDetail()
	if err != nil {
		return t, err
	}
	size := curveBytes(p.CurveID)
	x, err := padded(size)
	if err != nil {
		return t, err
	}
	t.Unique = tpm2.NewTPMUPublicID(t.Type, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, size)}})
	return t, nil
}

func curveBytes(curve tpm2.TPMECCCurve) int {
	switch curve {
	case tpm2.TPMECCNistP384:
		return 48
	case tpm2.TPMECCNistP521:
		return 66
	}
	return 32
}
