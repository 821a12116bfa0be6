package attest

import (
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// Alg is a TPM_ALG_ID (TPM 2.0 Part 2, 6.3).
type Alg uint16

// The algorithms this package can name. Being listed here does not make an
// algorithm acceptable; judge.go decides that.
const (
	AlgRSA          Alg = 0x0001
	AlgHMAC         Alg = 0x0005
	AlgAES          Alg = 0x0006
	AlgMGF1         Alg = 0x0007
	AlgKeyedHash    Alg = 0x0008
	AlgSHA256       Alg = 0x000b
	AlgSHA384       Alg = 0x000c
	AlgSHA512       Alg = 0x000d
	AlgNull         Alg = 0x0010
	AlgRSASSA       Alg = 0x0014
	AlgRSAES        Alg = 0x0015
	AlgRSAPSS       Alg = 0x0016
	AlgOAEP         Alg = 0x0017
	AlgECDSA        Alg = 0x0018
	AlgECDH         Alg = 0x0019
	AlgECDAA        Alg = 0x001a
	AlgSM2          Alg = 0x001b
	AlgECSchnorr    Alg = 0x001c
	AlgECMQV        Alg = 0x001d
	AlgKDF1SP80056A Alg = 0x0020
	AlgKDF2         Alg = 0x0021
	AlgKDF1SP800108 Alg = 0x0022
	AlgECC          Alg = 0x0023
	AlgSymCipher    Alg = 0x0025
	AlgCFB          Alg = 0x0043
)

var algNames = map[Alg]string{
	AlgRSA: "RSA", AlgHMAC: "HMAC", AlgAES: "AES", AlgMGF1: "MGF1", AlgKeyedHash: "KEYEDHASH",
	AlgSHA256: "SHA256", AlgSHA384: "SHA384", AlgSHA512: "SHA512", AlgNull: "NULL",
	AlgRSASSA: "RSASSA", AlgRSAES: "RSAES", AlgRSAPSS: "RSAPSS", AlgOAEP: "OAEP",
	AlgECDSA: "ECDSA", AlgECDH: "ECDH", AlgECDAA: "ECDAA", AlgSM2: "SM2",
	AlgECSchnorr: "ECSCHNORR", AlgECMQV: "ECMQV", AlgKDF1SP80056A: "KDF1_SP800_56A",
	AlgKDF2: "KDF2", AlgKDF1SP800108: "KDF1_SP800_108", AlgECC: "ECC",
	AlgSymCipher: "SYMCIPHER", AlgCFB: "CFB",
}

// String gives the name used in the TPM specification, or the number.
func (a Alg) String() string {
	if name, ok := algNames[a]; ok {
		return name
	}
	return fmt.Sprintf("algorithm 0x%04x", uint16(a))
}

// digestSize is the size in bytes of a name algorithm's digest, 0 if unknown.
// It is also the size of every seed that a key with this name algorithm
// protects (TPM 2.0 Part 1, B.10 and C.6).
func (a Alg) digestSize() int {
	switch a {
	case AlgSHA256:
		return sha256.Size
	case AlgSHA384:
		return sha512.Size384
	case AlgSHA512:
		return sha512.Size
	}
	return 0
}

func (a Alg) blockSize() int {
	if a == AlgSHA256 {
		return sha256.BlockSize
	}
	return sha512.BlockSize
}

func (a Alg) newHash() hash.Hash {
	switch a {
	case AlgSHA384:
		return sha512.New384()
	case AlgSHA512:
		return sha512.New()
	}
	return sha256.New()
}

// appendSum appends the digest of data.
func (a Alg) appendSum(dst, data []byte) []byte {
	switch a {
	case AlgSHA384:
		sum := sha512.Sum384(data)
		return append(dst, sum[:]...)
	case AlgSHA512:
		sum := sha512.Sum512(data)
		return append(dst, sum[:]...)
	}
	sum := sha256.Sum256(data)
	return append(dst, sum[:]...)
}

// Curve is a TPM_ECC_CURVE (TPM 2.0 Part 2, 6.4).
type Curve uint16

// The curves a key may use.
const (
	CurveP256 Curve = 0x0003
	CurveP384 Curve = 0x0004
)

// fieldSize is the size in bytes of a coordinate and of a scalar.
func (c Curve) fieldSize() int {
	if c == CurveP384 {
		return 48
	}
	return 32
}

func (c Curve) ecdh() ecdh.Curve {
	if c == CurveP384 {
		return ecdh.P384()
	}
	return ecdh.P256()
}
