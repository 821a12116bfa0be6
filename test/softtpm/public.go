package softtpm

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rsa"
	"io"

	"github.com/google/go-tpm/tpm2"
)

// Key is a storage key in software. Exactly one of RSA and ECC is set, by Public.Type. A test may change Public to make a key that no
// template makes.
type Key struct {
	RSA    *rsa.PrivateKey
	ECC    *ecdh.PrivateKey
	Public tpm2.TPMTPublic
}

// NewRSA is a storage key with SHA-256 name, AES-128 and the attributes of the usual templates.
func NewRSA(private *rsa.PrivateKey) *Key {
	k := &Key{RSA: private, Public: template(tpm2.TPMAlgRSA)}
	k.Public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Symmetric: aes128(), KeyBits: tpm2.TPMKeyBits(private.Size() * 8),
	})
	k.Public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: private.N.Bytes()})
	return k
}

// NewECC is the same over a P-256 or P-384 key.
func NewECC(private *ecdh.PrivateKey) *Key {
	k := &Key{ECC: private, Public: template(tpm2.TPMAlgECC)}
	curve := tpm2.TPMECCNistP256
	if private.Curve() == ecdh.P384() {
		curve = tpm2.TPMECCNistP384
	}
	k.Public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: aes128(), CurveID: curve})
	x, y := coordinates(private)
	k.Public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y},
	})
	return k
}

// Bytes is the key's TPM2B_PUBLIC, size prefix included.
func (k *Key) Bytes() []byte { return tpm2.Marshal(tpm2.New2B(k.Public)) }

func template(typ tpm2.TPMAlgID) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{Type: typ, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, Decrypt: true,
	}}
}

func aes128() tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

func coordinates(private *ecdh.PrivateKey) (x, y []byte) {
	point := private.PublicKey().Bytes()[1:]
	return point[:len(point)/2], point[len(point)/2:]
}

// Inventor makes public areas of RSA-2048 storage root keys whose private halves nobody has: a random odd number is as good a modulus
// as any to whoever only encrypts to it. It is cheap enough for a flood.
type Inventor struct{ template []byte }

// NewInventor prepares the bytes that invented keys share.
func NewInventor() Inventor { return Inventor{New(RSA, 0).SRK.Bytes()} }

const modulusSize = 256

// SRK invents one key and returns its TPM2B_PUBLIC. The modulus ends the structure.
func (i Inventor) SRK(random io.Reader) ([]byte, error) {
	tpm2b := bytes.Clone(i.template)
	modulus := tpm2b[len(tpm2b)-modulusSize:]
	if _, err := io.ReadFull(random, modulus); err != nil {
		return nil, err
	}
	modulus[0] |= 0x80
	modulus[modulusSize-1] |= 1
	return tpm2b, nil
}
