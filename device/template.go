package device

import (
	"encoding/hex"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Algorithm is the kind of EK and SRK.
type Algorithm string

// Algorithms that keys are created with. RSA2048 is what every SDK of Azure DPS
// creates and what every TPM has.
const (
	RSA2048 Algorithm = "rsa2048"
	RSA3072 Algorithm = "rsa3072" // few TPMs have it
	ECCP256 Algorithm = "ecc-p256"
)

// Handles at which the SDKs of Azure DPS keep a device's keys.
const (
	HandleEK  tpm2.TPMHandle = 0x81010001
	HandleSRK tpm2.TPMHandle = 0x81000001
)

// authPolicy of an EK of the low range: TPM2_PolicySecret(TPM_RH_ENDORSEMENT)
// (TCG EK Credential Profile 2.4, B.3).
var policyA = fromHex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")

// authPolicy of an EK of the high range with SHA-384: PolicyB, which is
// TPM2_PolicyOR of the above and a policy in NV (same document, B.6). The
// high range also sets userWithAuth, so we need not satisfy it.
var policyB384 = fromHex("b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12")

func fromHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// ParseAlgorithm reads the name of an algorithm.
func ParseAlgorithm(name string) (Algorithm, error) {
	switch a := Algorithm(name); a {
	case RSA2048, RSA3072, ECCP256:
		return a, nil
	}
	return "", fmt.Errorf("unknown algorithm %q: use %s, %s or %s", name, RSA2048, ECCP256, RSA3072)
}

// ekTemplate leaves unique empty, as the Node, C and Java SDKs do. A template
// with zeros there (C#, Rust, go-tpm's own) gives another key from the same
// TPM, and so another registration id.
func ekTemplate(a Algorithm) tpm2.TPMTPublic {
	attributes := storageKeyAttributes()
	attributes.AdminWithPolicy = true
	if a == RSA3072 {
		attributes.UserWithAuth = true
		return withKey(a, tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA384, ObjectAttributes: attributes,
			AuthPolicy: tpm2.TPM2BDigest{Buffer: policyB384}})
	}
	return withKey(a, tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: attributes,
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policyA}})
}

func srkTemplate(a Algorithm) tpm2.TPMTPublic {
	attributes := storageKeyAttributes()
	attributes.UserWithAuth = true
	attributes.NoDA = true
	hash := tpm2.TPMAlgSHA256
	if a == RSA3072 {
		hash = tpm2.TPMAlgSHA384
	}
	return withKey(a, tpm2.TPMTPublic{NameAlg: hash, ObjectAttributes: attributes})
}

func storageKeyAttributes() tpm2.TPMAObject {
	return tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
		Restricted: true, Decrypt: true}
}

// withKey fills in the key type and the symmetric algorithm that goes with it.
func withKey(a Algorithm, t tpm2.TPMTPublic) tpm2.TPMTPublic {
	switch a {
	case ECCP256:
		t.Type = tpm2.TPMAlgECC
		t.Parameters = tpm2.NewTPMUPublicParms(t.Type,
			&tpm2.TPMSECCParms{Symmetric: aesCFB(128), CurveID: tpm2.TPMECCNistP256})
		t.Unique = tpm2.NewTPMUPublicID(t.Type, &tpm2.TPMSECCPoint{})
	case RSA3072:
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(t.Type, &tpm2.TPMSRSAParms{Symmetric: aesCFB(256), KeyBits: 3072})
		t.Unique = tpm2.NewTPMUPublicID(t.Type, &tpm2.TPM2BPublicKeyRSA{})
	default:
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(t.Type, &tpm2.TPMSRSAParms{Symmetric: aesCFB(128), KeyBits: 2048})
		t.Unique = tpm2.NewTPMUPublicID(t.Type, &tpm2.TPM2BPublicKeyRSA{})
	}
	return t
}

func aesCFB(bits tpm2.TPMKeyBits) tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

// algorithmOf names the kind of a key that was found, which need not be one
// that this package creates: "rsa4096", "ecc-p384".
func algorithmOf(t *tpm2.TPMTPublic) (Algorithm, error) {
	switch t.Type {
	case tpm2.TPMAlgRSA:
		p, err := t.Parameters.RSADetail()
		if err != nil {
			return "", err
		}
		return Algorithm(fmt.Sprintf("rsa%d", p.KeyBits)), nil
	case tpm2.TPMAlgECC:
		p, err := t.Parameters.ECCDetail()
		if err != nil {
			return "", err
		}
		return curveName(p.CurveID), nil
	}
	return "", fmt.Errorf("key of unknown type 0x%04x", uint16(t.Type))
}

func curveName(id tpm2.TPMECCCurve) Algorithm {
	switch id {
	case tpm2.TPMECCNistP256:
		return ECCP256
	case tpm2.TPMECCNistP384:
		return "ecc-p384"
	case tpm2.TPMECCNistP521:
		return "ecc-p521"
	}
	return Algorithm(fmt.Sprintf("ecc-0x%04x", uint16(id)))
}
