package attest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

func TestGoodKeysOfEveryShapeDecodeAsGoTPMDecodesThem(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, pr := range []profile{lowRange, highRange, topRange} {
			t.Run(fmt.Sprintf("%s/%v", algorithm, pr), func(t *testing.T) {
				k := newTestKey(t, "ek", algorithm, pr)
				h, err := pr.nameAlg.Hash()
				if err != nil {
					t.Fatal(err)
				}
				k.public.AuthPolicy.Buffer = bytes.Repeat([]byte{0xa5}, h.Size())
				b := k.bytes()
				ek, err := ParseEK(b)
				if err != nil {
					t.Fatal(err)
				}
				compareWithGoTPM(t, b, &ek.Public)
				if ek.Algorithm() != algorithm {
					t.Errorf("Algorithm is %q, want %q", ek.Algorithm(), algorithm)
				}
				wantKeyID(t, k, &ek.Public)
			})
		}
	}
}

// compareWithGoTPM fails unless go-tpm accepts b, writes it back unchanged and
// sees in it what p says.
func compareWithGoTPM(t *testing.T, b []byte, p *Public) {
	t.Helper()
	outer, err := tpm2.Unmarshal[tpm2.TPM2BPublic](b)
	if err != nil {
		t.Fatalf("go-tpm refuses %x: %v", b, err)
	}
	want, err := outer.Contents()
	if err != nil {
		t.Fatalf("go-tpm refuses the contents of %x: %v", b, err)
	}
	if again := tpm2.Marshal(tpm2.New2B(*want)); !bytes.Equal(again, b) {
		t.Fatalf("go-tpm writes back\n%x, was\n%x", again, b)
	}
	name, err := tpm2.ObjectName(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(name.Buffer, p.Name()) {
		t.Errorf("name is %x, go-tpm says %x", p.Name(), name.Buffer)
	}
	if !bytes.Equal(p.Bytes(), b) {
		t.Errorf("Bytes gives %x, was %x", p.Bytes(), b)
	}
	if got, exp := describe(p), describeGoTPM(t, want); got != exp {
		t.Errorf("decoded\n%s, go-tpm decodes\n%s", got, exp)
	}
}

func describe(p *Public) string {
	head := fmt.Sprintf("%04x %04x %08x policy=%x sym=%04x/%d/%04x scheme=%04x ", uint16(p.Type), uint16(p.NameAlg),
		uint32(p.Attributes), p.AuthPolicy, uint16(p.Symmetric.Alg), p.Symmetric.Bits, uint16(p.Symmetric.Mode), uint16(p.Scheme.Alg))
	if p.RSA != nil {
		return head + fmt.Sprintf("rsa=%d/%d/%x", p.RSA.Bits, p.RSA.Exponent, p.RSA.Modulus)
	}
	return head + fmt.Sprintf("ecc=%04x/%04x/%x/%x", uint16(p.ECC.Curve), uint16(p.ECC.KDF.Alg), p.ECC.X, p.ECC.Y)
}

func describeGoTPM(t *testing.T, p *tpm2.TPMTPublic) string {
	t.Helper()
	a := tpm2.Marshal(p.ObjectAttributes)
	head := func(sym tpm2.TPMTSymDefObject, scheme tpm2.TPMAlgID) string {
		var bits tpm2.TPMKeyBits
		var mode tpm2.TPMAlgID
		if sym.Algorithm == tpm2.TPMAlgAES {
			b, err := sym.KeyBits.AES()
			must(t, err)
			m, err := sym.Mode.AES()
			must(t, err)
			bits, mode = *b, *m
		}
		return fmt.Sprintf("%04x %04x %x policy=%x sym=%04x/%d/%04x scheme=%04x ", uint16(p.Type), uint16(p.NameAlg),
			a, p.AuthPolicy.Buffer, uint16(sym.Algorithm), bits, uint16(mode), uint16(scheme))
	}
	if p.Type == tpm2.TPMAlgRSA {
		d, err := p.Parameters.RSADetail()
		must(t, err)
		n, err := p.Unique.RSA()
		must(t, err)
		return head(d.Symmetric, d.Scheme.Scheme) + fmt.Sprintf("rsa=%d/%d/%x", d.KeyBits, d.Exponent, n.Buffer)
	}
	d, err := p.Parameters.ECCDetail()
	must(t, err)
	pt, err := p.Unique.ECC()
	must(t, err)
	return head(d.Symmetric, d.Scheme.Scheme) + fmt.Sprintf("ecc=%04x/%04x/%x/%x", uint16(d.CurveID), uint16(d.KDF.Scheme), pt.X.Buffer, pt.Y.Buffer)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKeyID(t *testing.T, k *testKey, p *Public) {
	t.Helper()
	var key any
	if k.rsa != nil {
		key = &k.rsa.PublicKey
	} else {
		key = k.ecc.PublicKey()
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	must(t, err)
	if p.KeyID() != sha256.Sum256(der) {
		t.Error("KeyID is not SHA-256 of the SubjectPublicKeyInfo")
	}
}

func TestKeyIDIgnoresWhatIsNotTheKey(t *testing.T) {
	k := newTestKey(t, "ek", "rsa2048", lowRange)
	plain := k.ek(t)
	dressed, err := ParseEK(steps(put32(atExponent, 65537), attributes(storageAttributes&^NoDA))(k.bytes()))
	must(t, err)
	if plain.KeyID() != dressed.KeyID() {
		t.Error("one key, two key ids")
	}
	if bytes.Equal(plain.Name(), dressed.Name()) {
		t.Error("two public areas, one name")
	}
	if plain.KeyID() == newTestKey(t, "srk", "rsa2048", lowRange).srk(t).KeyID() {
		t.Error("two keys, one key id")
	}
}

// Older TPMs drop leading zero bytes of coordinates. The name covers what was
// sent, the key is what was meant.
func TestShortCoordinatesAreTheSameKeyUnderAnotherName(t *testing.T) {
	for _, algorithm := range []string{"ecc-p256", "ecc-p384"} {
		size := map[string]int{"ecc-p256": 32, "ecc-p384": 48}[algorithm]
		full := steps(pointWithShortX(t, algorithm))(newTestKey(t, "srk", algorithm, lowRange).bytes())
		short := steps(put16(atX, uint16(size-1)), cut(26, 1))(slices.Clone(full))
		a, err := ParseSRK(full)
		must(t, err)
		b, err := ParseSRK(short)
		must(t, err)
		compareWithGoTPM(t, short, &b.Public)
		if a.KeyID() != b.KeyID() || !a.sameKey(&b.Public) {
			t.Errorf("%s: the short form is another key", algorithm)
		}
		if bytes.Equal(a.Name(), b.Name()) {
			t.Errorf("%s: the short form has the same name", algorithm)
		}
	}
}

// pointWithShortX replaces the point by one whose x begins with a zero byte,
// found by counting private scalars up.
func pointWithShortX(t *testing.T, algorithm string) func([]byte) []byte {
	t.Helper()
	curve := CurveP256
	if algorithm == "ecc-p384" {
		curve = CurveP384
	}
	size := curve.fieldSize()
	for i := 1; i < 1<<16; i++ {
		scalar := make([]byte, size)
		scalar[size-1], scalar[size-2] = byte(i), byte(i>>8)
		key, err := curve.ecdh().NewPrivateKey(scalar)
		must(t, err)
		point := key.PublicKey().Bytes()[1:]
		if point[0] == 0 {
			return func(b []byte) []byte {
				copy(b[26:], point[:size])
				copy(b[26+size+2:], point[size:])
				return b
			}
		}
	}
	t.Fatal("no point with a short x")
	return nil
}

func TestRegistrationIDIsBase32OfTheHash(t *testing.T) {
	// printf abc | openssl dgst -sha256 -binary | base32, lower case, unpadded.
	const want = "xj4bnp4pahh6uqkbidpf3lrceoyagyndsylxvhfucd7wd4qacwwq"
	if got := RegistrationID([]byte("abc")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b := newTestKey(t, "ek", "rsa2048", lowRange).bytes()
	sum := sha256.Sum256(b)
	id := RegistrationID(b)
	back, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(id))
	must(t, err)
	if len(id) != 52 || !bytes.Equal(back, sum[:]) {
		t.Errorf("registration id %q is not the hash", id)
	}
}

func TestParsedKeysOwnTheirBytes(t *testing.T) {
	b := newTestKey(t, "ek", "rsa2048", lowRange).bytes()
	want := slices.Clone(b)
	ek, err := ParseEK(b)
	must(t, err)
	clear(b)
	clear(ek.Bytes())
	clear(ek.Name())
	if !bytes.Equal(ek.Bytes(), want) || !bytes.Equal(ek.RSA.Modulus, want[28:]) {
		t.Error("the key changed with the caller's memory")
	}
}

func TestTheLargestKeyIsExactlyMaxPublicSize(t *testing.T) {
	k := newTestKey(t, "ek", "rsa4096", topRange)
	k.public.AuthPolicy.Buffer = make([]byte, 64)
	if n := len(k.bytes()); n != MaxPublicSize {
		t.Fatalf("RSA 4096 with a SHA-512 policy has %d bytes, MaxPublicSize is %d", n, MaxPublicSize)
	}
	k.ek(t)
}

func TestRefusalsReadAsSentences(t *testing.T) {
	_, err := ParseEK(attributes(storageAttributes | SignEncrypt)(newTestKey(t, "ek", "rsa2048", lowRange).bytes()))
	if want := "attest: EK refused: sign-set: sign is set: this is not a storage key"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if AlgSHA384.String() != "SHA384" || Alg(0x0027).String() != "algorithm 0x0027" {
		t.Errorf("algorithm names: %s, %s", AlgSHA384, Alg(0x0027))
	}
}
