package attest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"math/big"
	"strconv"
	"strings"
)

// MaxPublicSize is the size in bytes of the largest TPM2B_PUBLIC that can be
// accepted, size prefix included: RSA 4096 with a SHA-512 policy, AES and no
// scheme. Callers may refuse longer input before they even decode its base64.
const MaxPublicSize = 2 + // size prefix
	2 + 2 + 4 + // type, nameAlg, objectAttributes
	2 + 64 + // authPolicy
	6 + 2 + 2 + 4 + // symmetric, scheme, keyBits, exponent
	2 + 512 // modulus

// Symmetric is a TPMT_SYM_DEF_OBJECT (TPM 2.0 Part 2, 11.1.7). With Alg NULL
// the other fields are zero and were not in the encoding.
type Symmetric struct {
	Alg  Alg
	Bits uint16
	Mode Alg
}

// Scheme is a TPMT_RSA_SCHEME, TPMT_ECC_SCHEME or TPMT_KDF_SCHEME (TPM 2.0
// Part 2, 11.2). Hash is zero where the scheme has none; Count is ECDAA's.
type Scheme struct {
	Alg   Alg
	Hash  Alg
	Count uint16
}

// RSA is the part of a public area that only RSA keys have. Exponent is as
// encoded, where 0 means 65537. Modulus is big-endian, exactly Bits/8 bytes.
type RSA struct {
	Bits     uint16
	Exponent uint32
	Modulus  []byte
}

// ECC is the part of a public area that only ECC keys have. X and Y are
// big-endian and as encoded: a TPM may have dropped leading zero bytes.
type ECC struct {
	Curve Curve
	KDF   Scheme
	X, Y  []byte
}

// Public is a decoded public area whose key is well formed: one of the five
// shapes that Algorithm lists, with a modulus or point that may be used. It
// says nothing yet about the key's role; see ParseEK and ParseSRK.
//
// Exactly one of RSA and ECC is set, by Type. The fields are for reading: name
// and key were computed when the bytes were parsed and do not follow changes.
type Public struct {
	Type       Alg
	NameAlg    Alg
	Attributes Attributes
	AuthPolicy []byte
	Symmetric  Symmetric
	Scheme     Scheme
	RSA        *RSA
	ECC        *ECC

	raw    []byte // the TPM2B_PUBLIC; slices above point into it
	name   []byte
	rsaKey *rsa.PublicKey
	eccKey *ecdh.PublicKey
}

// Name is the object's name, nameAlg || H(TPMT_PUBLIC): 34, 50 or 66 bytes
// (TPM 2.0 Part 1, 16). It covers the bytes as received, as the TPM's own does.
func (p *Public) Name() []byte { return bytes.Clone(p.name) }

// Bytes is the TPM2B_PUBLIC the value was parsed from, in memory of the
// caller's own.
func (p *Public) Bytes() []byte { return bytes.Clone(p.raw) }

// KeyID is SHA-256 over the DER SubjectPublicKeyInfo of the key. It is what
// keys are compared by: the public area around a key holds bits that a device
// can vary (an exponent of 0 or 65537, a short coordinate, noDA) while the key
// stays the same.
func (p *Public) KeyID() [32]byte {
	var key any = p.rsaKey
	if p.eccKey != nil {
		key = p.eccKey
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		// Every key that ParsePublic admits can be marshalled. Should that ever
		// change, two different keys must not share an identity.
		panic("attest: public key cannot be marshalled: " + err.Error())
	}
	return sha256.Sum256(der)
}

// Algorithm names the shape of the key: rsa2048, rsa3072, rsa4096, ecc-p256 or
// ecc-p384.
func (p *Public) Algorithm() string {
	switch {
	case p.RSA != nil:
		return "rsa" + strconv.Itoa(int(p.RSA.Bits))
	case p.ECC.Curve == CurveP384:
		return "ecc-p384"
	}
	return "ecc-p256"
}

// sameKey tells whether two public areas hold the same key.
func (p *Public) sameKey(q *Public) bool {
	if p.rsaKey != nil {
		return q.rsaKey != nil && p.rsaKey.Equal(q.rsaKey)
	}
	return q.eccKey != nil && p.eccKey.Equal(q.eccKey)
}

// RegistrationID is the registration id of a device that was given none:
// base32 (RFC 4648, lower case, unpadded) of SHA-256 over the TPM2B_PUBLIC of
// its EK, size prefix included. 52 characters of [a-z2-7]. It does not look
// into the bytes.
func RegistrationID(ekTPM2B []byte) string {
	sum := sha256.Sum256(ekTPM2B)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}

// rsaPublic checks the numbers of an RSA key. What a public key can show is
// shown here; a modulus that is a product of many primes cannot be told from a
// good one without factoring it.
func rsaPublic(o Object, r *RSA) (*rsa.PublicKey, error) {
	switch {
	case r.Exponent != 0 && r.Exponent != 65537:
		// Small exponents open the door to broadcast and padding attacks, and
		// exponent 1 is no encryption at all: the seed would travel in clear.
		return nil, refuse(o, RuleExponent, "exponent is %d, want 0 or 65537", r.Exponent)
	case len(r.Modulus) != int(r.Bits)/8:
		return nil, refuse(o, RuleModulusLength, "modulus of %d bytes in a %d-bit key", len(r.Modulus), r.Bits)
	case r.Modulus[0]&0x80 == 0:
		return nil, refuse(o, RuleModulusShort, "top bit of the modulus is clear in a %d-bit key", r.Bits)
	case r.Modulus[len(r.Modulus)-1]&1 == 0:
		return nil, refuse(o, RuleModulusEven, "modulus is even")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(r.Modulus), E: 65537}, nil
}

// eccPublic checks that the point is on the curve and not at infinity. A point
// off the curve would leak our ephemeral scalar piece by piece.
func eccPublic(o Object, e *ECC) (*ecdh.PublicKey, error) {
	size := e.Curve.fieldSize()
	if len(e.X) > size || len(e.Y) > size {
		return nil, refuse(o, RuleCoordinateSize, "coordinates of %d and %d bytes, field of %d", len(e.X), len(e.Y), size)
	}
	var buf [1 + 2*48]byte
	point := buf[:1+2*size]
	point[0] = 4 // uncompressed (SEC 1, 2.3.4)
	copy(point[1+size-len(e.X):], e.X)
	copy(point[1+2*size-len(e.Y):], e.Y)
	key, err := e.Curve.ecdh().NewPublicKey(point)
	if err != nil {
		return nil, refuse(o, RulePoint, "point is not on the curve")
	}
	return key, nil
}
