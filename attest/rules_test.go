package attest

import (
	"crypto/elliptic"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// Offsets into a TPM2B_PUBLIC with an empty policy and a NULL scheme.
const (
	atType       = 2
	atNameAlg    = 4
	atAttributes = 6
	atPolicy     = 10
	atSymmetric  = 12
	atSymBits    = 14
	atSymMode    = 16
	atScheme     = 18
	atRSABits    = 20
	atExponent   = 22
	atModulus    = 26 // its size; the bytes follow at 28
	atCurve      = 20
	atKDF        = 22
	atX          = 24 // its size; the bytes follow at 26
)

func put16(at int, v uint16) func([]byte) []byte {
	return func(b []byte) []byte { binary.BigEndian.PutUint16(b[at:], v); return b }
}

func put32(at int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return b }
}

func attributes(a Attributes) func([]byte) []byte { return put32(atAttributes, uint32(a)) }

// resize keeps the outer size prefix true after an edit.
func resize(b []byte) []byte {
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

func insert(at int, add ...byte) func([]byte) []byte {
	return func(b []byte) []byte { return resize(slices.Insert(b, at, add...)) }
}

func cut(at, n int) func([]byte) []byte {
	return func(b []byte) []byte { return resize(slices.Delete(b, at, at+n)) }
}

// steps applies several edits in order.
func steps(edits ...func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, edit := range edits {
			b = edit(b)
		}
		return b
	}
}

func only(keep int) func([]byte) []byte { return func(b []byte) []byte { return b[:keep] } }

// formRules are refusals of ParsePublic: one edit to a good key each.
var formRules = []struct {
	name      string
	algorithm string
	rule      Rule
	edit      func([]byte) []byte
}{
	{"nothing at all", "rsa2048", RuleTruncated, only(0)},
	{"half a size prefix", "rsa2048", RuleTruncated, only(1)},
	{"a prefix and nothing else", "rsa2048", RuleTruncated, steps(only(2), resize)},
	{"ends inside the attributes", "rsa2048", RuleTruncated, steps(only(8), resize)},
	{"ends inside the modulus", "rsa2048", RuleTruncated, steps(only(283), resize)},
	{"ends inside y", "ecc-p256", RuleTruncated, steps(only(91), resize)},
	{"policy longer than all the rest", "rsa2048", RuleTruncated, put16(atPolicy, 0xffff)},
	{"prefix one too large", "rsa2048", RuleSizePrefix, put16(0, 283)},
	{"prefix one too small", "rsa2048", RuleSizePrefix, put16(0, 281)},
	{"last byte lost on the way", "rsa2048", RuleSizePrefix, only(283)},
	{"one byte too many, counted", "rsa2048", RuleTrailing, insert(284, 0)},
	{"one byte too many, counted (ECC)", "ecc-p384", RuleTrailing, insert(124, 0)},
	{"one byte over the limit", "rsa4096", RuleOversized, func(b []byte) []byte { return make([]byte, MaxPublicSize+1) }},
	{"a megabyte", "rsa4096", RuleOversized, func(b []byte) []byte { return make([]byte, 1<<20) }},
	{"a keyed hash", "rsa2048", RuleType, put16(atType, uint16(AlgKeyedHash))},
	{"a symmetric cipher", "rsa2048", RuleType, put16(atType, uint16(AlgSymCipher))},
	{"no type at all", "rsa2048", RuleType, put16(atType, uint16(AlgNull))},
	{"name by SHA-1", "rsa2048", RuleNameAlg, put16(atNameAlg, 0x0004)},
	{"name by SHA3-256", "ecc-p256", RuleNameAlg, put16(atNameAlg, 0x0027)},
	{"no name", "rsa2048", RuleNameAlg, put16(atNameAlg, uint16(AlgNull))},
	{"reserved attribute 0", "rsa2048", RuleReserved, attributes(storageAttributes | 1<<0)},
	{"reserved attribute 3", "rsa2048", RuleReserved, attributes(storageAttributes | 1<<3)},
	{"reserved attribute 9", "rsa2048", RuleReserved, attributes(storageAttributes | 1<<9)},
	{"reserved attribute 12", "ecc-p256", RuleReserved, attributes(storageAttributes | 1<<12)},
	{"reserved attribute 31", "rsa2048", RuleReserved, attributes(storageAttributes | 1<<31)},
	{"policy of another digest's size", "rsa2048", RulePolicySize, steps(put16(atPolicy, 20), insert(atPolicy+2, make([]byte, 20)...))},
	{"SM4", "rsa2048", RuleSymmetricAlg, put16(atSymmetric, 0x0013)},
	{"XOR", "ecc-p256", RuleSymmetricAlg, put16(atSymmetric, 0x000a)},
	{"an ECC scheme on an RSA key", "rsa2048", RuleSchemeAlg, put16(atScheme, uint16(AlgECDSA))},
	{"an RSA scheme on an ECC key", "ecc-p256", RuleSchemeAlg, put16(atScheme, uint16(AlgRSASSA))},
	{"a hash as KDF", "ecc-p256", RuleKDFAlg, put16(atKDF, uint16(AlgSHA256))},
	{"RSA 1024", "rsa2048", RuleRSASize, steps(put16(atRSABits, 1024), put16(atModulus, 128), cut(28, 128))},
	{"RSA 2056", "rsa2048", RuleRSASize, steps(put16(atRSABits, 2056), put16(atModulus, 257), insert(28, 0x80))},
	{"RSA 0", "rsa2048", RuleRSASize, put16(atRSABits, 0)},
	{"a 2048-bit modulus in a 3072-bit key", "rsa2048", RuleModulusLength, put16(atRSABits, 3072)},
	{"no modulus", "rsa2048", RuleModulusLength, steps(put16(atModulus, 0), cut(28, 256))},
	{"a modulus one byte short", "rsa2048", RuleModulusLength, steps(put16(atModulus, 255), cut(28, 1))},
	{"a modulus with a zero in front", "rsa2048", RuleModulusLength, steps(put16(atModulus, 257), insert(28, 0))},
	{"a modulus of 2047 bits", "rsa2048", RuleModulusShort, func(b []byte) []byte { b[28] &= 0x7f; return b }},
	{"a modulus of all zeros", "rsa2048", RuleModulusShort, func(b []byte) []byte { clear(b[28:]); return b }},
	{"an even modulus", "rsa2048", RuleModulusEven, func(b []byte) []byte { b[283] &^= 1; return b }},
	{"exponent 1", "rsa2048", RuleExponent, put32(atExponent, 1)},
	{"exponent 3", "rsa2048", RuleExponent, put32(atExponent, 3)},
	{"exponent 65536", "rsa3072", RuleExponent, put32(atExponent, 65536)},
	{"exponent 2^32-1", "rsa4096", RuleExponent, put32(atExponent, 1<<32-1)},
	{"P-224", "ecc-p256", RuleCurve, put16(atCurve, 2)},
	{"P-521", "ecc-p256", RuleCurve, put16(atCurve, 5)},
	{"no curve", "ecc-p256", RuleCurve, put16(atCurve, 0)},
	{"x longer than the field", "ecc-p256", RuleCoordinateSize, steps(put16(atX, 33), insert(26, 0))},
	{"y longer than the field", "ecc-p256", RuleCoordinateSize, steps(put16(atX+34, 33), insert(26+34, 0))},
	{"P-384 coordinates on P-256", "ecc-p384", RuleCoordinateSize, put16(atCurve, uint16(CurveP256))},
	{"P-256 coordinates on P-384", "ecc-p256", RulePoint, put16(atCurve, uint16(CurveP384))},
	{"a point off the curve", "ecc-p256", RulePoint, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
	{"a point off the curve (P-384)", "ecc-p384", RulePoint, func(b []byte) []byte { b[26] ^= 1; return b }},
	{"the point (0, 0)", "ecc-p256", RulePoint, func(b []byte) []byte { clear(b[26:58]); clear(b[60:92]); return b }},
	{"no coordinates", "ecc-p256", RulePoint, steps(put16(60-2, 0), cut(60, 32), put16(atX, 0), cut(26, 32))},
	{"x not reduced", "ecc-p256", RulePoint, unreducedX},
}

// unreducedX gives a key whose x is a small valid coordinate plus the field
// prime: the same point to careless arithmetic, another name to the TPM.
func unreducedX(b []byte) []byte {
	p := elliptic.P256().Params()
	for x := big.NewInt(1); ; x.Add(x, big.NewInt(1)) {
		y2 := new(big.Int).Exp(x, big.NewInt(3), nil)
		y2.Sub(y2, new(big.Int).Mul(x, big.NewInt(3))).Add(y2, p.B).Mod(y2, p.P)
		y := new(big.Int).ModSqrt(y2, p.P)
		if y == nil {
			continue
		}
		new(big.Int).Add(x, p.P).FillBytes(b[26:58])
		y.FillBytes(b[60:92])
		return b
	}
}

func TestPublicAreaRefusesBadForm(t *testing.T) {
	seen := map[Rule]bool{}
	for _, c := range formRules {
		t.Run(c.name, func(t *testing.T) {
			bad := c.edit(newTestKey(t, "ek", c.algorithm, lowRange).bytes())
			_, err := ParsePublic(slices.Clone(bad))
			wantRefusal(t, err, ObjectPublic, c.rule)
			_, err = ParseEK(slices.Clone(bad))
			wantRefusal(t, err, ObjectEK, c.rule)
			_, err = ParseSRK(slices.Clone(bad))
			wantRefusal(t, err, ObjectSRK, c.rule)
		})
		seen[c.rule] = true
	}
	for _, rule := range []Rule{
		RuleOversized, RuleTruncated, RuleSizePrefix, RuleTrailing, RuleType, RuleNameAlg, RuleReserved,
		RulePolicySize, RuleSymmetricAlg, RuleSchemeAlg, RuleKDFAlg, RuleRSASize, RuleModulusLength,
		RuleModulusShort, RuleModulusEven, RuleExponent, RuleCurve, RuleCoordinateSize, RulePoint,
	} {
		if !seen[rule] {
			t.Errorf("no case for rule %q", rule)
		}
	}
}

// roleRules are keys of good form that must not serve as EK or SRK. Every edit
// breaks one rule and leaves the others kept.
var roleRules = []struct {
	name      string
	algorithm string
	rule      Rule
	edit      func([]byte) []byte
}{
	{"may live in another TPM", "rsa2048", RuleFixedTPM, attributes(storageAttributes &^ FixedTPM)},
	{"may get another parent", "rsa2048", RuleFixedParent, attributes(storageAttributes &^ FixedParent)},
	{"made from outside data", "rsa2048", RuleSensitiveDataOrigin, attributes(storageAttributes &^ SensitiveDataOrigin)},
	{"decrypts for anybody", "rsa2048", RuleRestricted, attributes(storageAttributes &^ Restricted)},
	{"does not decrypt", "rsa2048", RuleDecrypt, attributes(storageAttributes &^ Decrypt)},
	{"signs as well", "rsa2048", RuleSign, attributes(storageAttributes | SignEncrypt)},
	{"signs instead", "ecc-p256", RuleSign, attributes(storageAttributes&^Decrypt | SignEncrypt)},
	{"no symmetric algorithm", "rsa2048", RuleSymmetric, steps(put16(atSymmetric, uint16(AlgNull)), cut(atSymBits, 4))},
	{"AES-192", "rsa2048", RuleSymmetric, put16(atSymBits, 192)},
	{"AES-0", "ecc-p384", RuleSymmetric, put16(atSymBits, 0)},
	{"AES in CTR mode", "ecc-p256", RuleSymmetric, put16(atSymMode, 0x0040)},
	{"AES in no mode", "rsa2048", RuleSymmetric, put16(atSymMode, uint16(AlgNull))},
	{"OAEP fixed in the key", "rsa2048", RuleScheme, steps(put16(atScheme, uint16(AlgOAEP)), insert(atScheme+2, 0, 0x0b))},
	{"RSAES fixed in the key", "rsa2048", RuleScheme, put16(atScheme, uint16(AlgRSAES))},
	{"ECDH fixed in the key", "ecc-p256", RuleScheme, steps(put16(atScheme, uint16(AlgECDH)), insert(atScheme+2, 0, 0x0b))},
	{"ECDAA with its count", "ecc-p256", RuleScheme, steps(put16(atScheme, uint16(AlgECDAA)), insert(atScheme+2, 0, 0x0b, 0, 1))},
	{"a KDF fixed in the key", "ecc-p384", RuleKDF, steps(put16(atKDF, uint16(AlgKDF1SP800108)), insert(atKDF+2, 0, 0x0b))},
}

func TestRolesRefuseWhatIsNoResidentStorageKey(t *testing.T) {
	seen := map[Rule]bool{}
	for _, c := range roleRules {
		t.Run(c.name, func(t *testing.T) {
			bad := c.edit(newTestKey(t, "srk", c.algorithm, lowRange).bytes())
			if _, err := ParsePublic(bad); err != nil {
				t.Fatalf("the form should be good: %v", err)
			}
			_, err := ParseEK(bad)
			wantRefusal(t, err, ObjectEK, c.rule)
			_, err = ParseSRK(bad)
			wantRefusal(t, err, ObjectSRK, c.rule)
		})
		seen[c.rule] = true
	}
	for _, rule := range []Rule{
		RuleFixedTPM, RuleFixedParent, RuleSensitiveDataOrigin, RuleRestricted, RuleDecrypt, RuleSign,
		RuleSymmetric, RuleScheme, RuleKDF,
	} {
		if !seen[rule] {
			t.Errorf("no case for rule %q", rule)
		}
	}
}

func TestRolesLeaveTheOwnersChoicesAlone(t *testing.T) {
	const needed = FixedTPM | FixedParent | SensitiveDataOrigin | Restricted | Decrypt
	for _, free := range []Attributes{0, UserWithAuth, AdminWithPolicy, NoDA, STClear, FirmwareLimited, UserWithAuth | NoDA} {
		b := attributes(needed | free)(newTestKey(t, "srk", "rsa2048", lowRange).bytes())
		if _, err := ParseSRK(b); err != nil {
			t.Errorf("SRK with 0x%08x: %v", uint32(needed|free), err)
		}
		if _, err := ParseEK(b); err != nil {
			t.Errorf("EK with 0x%08x: %v", uint32(needed|free), err)
		}
	}
}

func TestPairRefusesOneKeyInBothRolesHoweverDressed(t *testing.T) {
	for _, algorithm := range []string{"rsa2048", "ecc-p256"} {
		k := newTestKey(t, "ek", algorithm, lowRange)
		disguises := map[string]func([]byte) []byte{
			"as it is":         func(b []byte) []byte { return b },
			"other attributes": attributes(storageAttributes &^ NoDA),
			"other symmetric":  put16(atSymBits, 256),
		}
		if algorithm == "rsa2048" {
			disguises["exponent spelled out"] = put32(atExponent, 65537)
		}
		for name, edit := range disguises {
			srk, err := ParseSRK(edit(k.bytes()))
			if err != nil {
				t.Fatalf("%s, %s: %v", algorithm, name, err)
			}
			wantRefusal(t, JudgePair(k.ek(t), srk), ObjectSRK, RuleSameKey)
			if _, err := Seal(&stream{}, k.ek(t), srk, make([]byte, 32)); !errors.As(err, new(*Refusal)) {
				t.Errorf("%s, %s: Seal gave %v", algorithm, name, err)
			}
		}
		for _, other := range algorithms {
			if err := JudgePair(k.ek(t), newTestKey(t, "srk", other, lowRange).srk(t)); err != nil {
				t.Errorf("%s with %s: %v", algorithm, other, err)
			}
		}
	}
}

func TestSigningKeysOfGoTPMAreRefusedAsStorageKeys(t *testing.T) {
	a := newTestKey(t, "srk", "rsa2048", lowRange).public
	a.ObjectAttributes.Decrypt, a.ObjectAttributes.SignEncrypt = false, true
	a.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Scheme: tpm2.TPMTRSAScheme{
			Scheme:  tpm2.TPMAlgRSASSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		KeyBits: 2048,
	})
	_, err := ParseSRK(tpm2.Marshal(tpm2.New2B(a)))
	wantRefusal(t, err, ObjectSRK, RuleSign)
}

func wantRefusal(t *testing.T, err error, o Object, rule Rule) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a refusal by rule %q", err, rule)
	}
	if r.Object != o || r.Rule != rule || r.Detail == "" {
		t.Fatalf("got %v, want %s refused by rule %q", err, o, rule)
	}
}
