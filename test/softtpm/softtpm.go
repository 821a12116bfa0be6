// Package softtpm is a software model of the device's half of the attestation, for tests and benchmarks that need many devices or
// many owners and no TPM commands.
//
// It does with an activation blob what TPM2_ActivateCredential, TPM2_Import and TPM2_Load do (TPM 2.0 Part 1, 23 and 24; Part 3, 12.5,
// 13.3 and 12.2) for keys whose private halves lie in memory, and it checks all that a TPM checks. It shares no code with package
// attest: its building blocks are go-tpm's structures, names and key derivations, and the standard library.
//
// It guarantees nothing about secrecy and trusts its caller: the RSA keys are printed in this folder. It never is part of a product.
package softtpm

import (
	"crypto/ecdh"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/binary"
	"encoding/pem"
	"fmt"
)

// Algorithm is the shape of a TPM's two keys.
type Algorithm string

// The shapes of the low-range templates (TCG EK Credential Profile 2.0, L-1 and L-2), and of the usual SRK templates.
const (
	RSA Algorithm = "rsa2048"
	ECC Algorithm = "ecc-p256"
)

// Algorithms lists them.
var Algorithms = []Algorithm{RSA, ECC}

// TPM is a chip: an endorsement key for life, and a storage root key until the next Clear.
type TPM struct {
	EK, SRK *Key
	alg     Algorithm
	chip    int
	owner   int
}

// How many RSA keys there are; more would only cost time to make. ECC keys are derived and have no limit.
const (
	MaxRSAChips  = 2
	MaxRSAOwners = 3
)

// New is the chip of a number, from 0, with its first owner. The same number gives the same keys. RSA owners are shared by all chips:
// number 0 starts with the first of them, number 1 with the second.
func New(alg Algorithm, chip int) *TPM {
	t := &TPM{alg: alg, chip: chip, EK: newKey(alg, "ek", chip, 0)}
	if alg == RSA {
		t.owner = chip
	}
	t.SRK = newKey(alg, "srk", chip, t.owner)
	return t
}

// Clear gives the chip a new owner, as TPM2_Clear does: the SRK is another one, the EK stays.
func (t *TPM) Clear() {
	t.owner++
	t.SRK = newKey(t.alg, "srk", t.chip, t.owner)
}

// Open turns an activation blob into the HMAC key that it carries.
func (t *TPM) Open(blob []byte) ([]byte, error) { return Open(blob, t.EK, t.SRK) }

//go:embed keys
var keys embed.FS

// newKey reads a fixed RSA key, or derives a P-256 key from its name.
func newKey(alg Algorithm, role string, chip, owner int) *Key {
	if alg == RSA {
		number := chip
		if role == "srk" {
			number = owner
		}
		return NewRSA(readRSA(fmt.Sprintf("keys/%s-%d.pem", role, number+1)))
	}
	return NewECC(deriveECC(fmt.Sprintf("%s of chip %d, owner %d", role, chip, owner)))
}

func readRSA(name string) *rsa.PrivateKey {
	text, err := keys.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("softtpm: there are %d RSA chips and %d RSA owners: %v", MaxRSAChips, MaxRSAOwners, err))
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		panic("softtpm: " + name + ": " + err.Error())
	}
	return key.(*rsa.PrivateKey)
}

func deriveECC(name string) *ecdh.PrivateKey {
	for try := uint64(0); ; try++ {
		scalar := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(name), try))
		if key, err := ecdh.P256().NewPrivateKey(scalar[:]); err == nil {
			return key
		}
	}
}
