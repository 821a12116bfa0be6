package attest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// algorithms are the five key shapes, by the name Algorithm gives them. Under
// testdata/keys lies one fixed private key for each, in each role, made once
// because RSA 4096 takes seconds to generate.
var algorithms = []string{"rsa2048", "rsa3072", "rsa4096", "ecc-p256", "ecc-p384"}

// storageAttributes are those of the usual SRK template.
const storageAttributes = FixedTPM | FixedParent | SensitiveDataOrigin | UserWithAuth | NoDA | Restricted | Decrypt

// profile is what templates differ in besides the key.
type profile struct {
	nameAlg tpm2.TPMAlgID
	aesBits tpm2.TPMKeyBits
}

var (
	lowRange  = profile{tpm2.TPMAlgSHA256, 128}
	highRange = profile{tpm2.TPMAlgSHA384, 256}
	topRange  = profile{tpm2.TPMAlgSHA512, 256}
)

// testKey is a storage key in software, as a TPM would hold it.
type testKey struct {
	rsa    *rsa.PrivateKey
	ecc    *ecdh.PrivateKey
	public tpm2.TPMTPublic
}

func (k *testKey) bytes() []byte { return tpm2.Marshal(tpm2.New2B(k.public)) }

func (k *testKey) ek(t testing.TB) *EK {
	t.Helper()
	ek, err := ParseEK(k.bytes())
	if err != nil {
		t.Fatal(err)
	}
	return ek
}

func (k *testKey) srk(t testing.TB) *SRK {
	t.Helper()
	srk, err := ParseSRK(k.bytes())
	if err != nil {
		t.Fatal(err)
	}
	return srk
}

// newTestKey reads the fixed key for a role ("ek", "srk") and shape, and builds
// its public area with go-tpm, so that no byte of it is our own codec's.
func newTestKey(t testing.TB, role, algorithm string, pr profile) *testKey {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "keys", role+"-"+algorithm+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	k := new(testKey)
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		k.rsa = key
		k.public = rsaArea(key, pr)
	case *ecdsa.PrivateKey:
		if k.ecc, err = key.ECDH(); err != nil {
			t.Fatal(err)
		}
		k.public = eccArea(k.ecc, pr)
	}
	return k
}

func area(typ tpm2.TPMAlgID, pr profile) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    typ,
		NameAlg: pr.nameAlg,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, Restricted: true, Decrypt: true,
		},
	}
}

func symmetric(pr profile) tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, pr.aesBits),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

func rsaArea(key *rsa.PrivateKey, pr profile) tpm2.TPMTPublic {
	a := area(tpm2.TPMAlgRSA, pr)
	a.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Symmetric: symmetric(pr), KeyBits: tpm2.TPMKeyBits(key.Size() * 8),
	})
	a.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()})
	return a
}

func eccArea(key *ecdh.PrivateKey, pr profile) tpm2.TPMTPublic {
	a := area(tpm2.TPMAlgECC, pr)
	curve := tpm2.TPMECCNistP256
	if key.Curve() == ecdh.P384() {
		curve = tpm2.TPMECCNistP384
	}
	a.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: symmetric(pr), CurveID: curve,
	})
	point := key.PublicKey().Bytes()[1:]
	size := len(point) / 2
	a.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[:size]},
		Y: tpm2.TPM2BECCParameter{Buffer: point[size:]},
	})
	return a
}
