package attest

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

var nameAlgs = map[Alg]crypto.Hash{AlgSHA256: crypto.SHA256, AlgSHA384: crypto.SHA384, AlgSHA512: crypto.SHA512}

func TestKeyDerivationAgreesWithGoTPM(t *testing.T) {
	r, seed := seeded(t)
	for alg, h := range nameAlgs {
		for range 50 {
			key, name, z := random(r, alg.digestSize()), random(r, r.IntN(67)), random(r, 48)
			u, v := random(r, 48), random(r, 48)
			for _, label := range []string{labelStorage, labelIntegrity} {
				for _, bits := range []int{128, 256, 8 * alg.digestSize()} {
					got := kdfa(nil, alg, key, label, name, bits)
					if want := tpm2.KDFa(h, key, strings.TrimSuffix(label, "\x00"), name, nil, bits); !bytes.Equal(got, want) {
						t.Fatalf("KDFa %s %q %d (seed %d): %x, go-tpm %x", alg, label, bits, seed, got, want)
					}
				}
			}
			for _, label := range []string{labelIdentity, labelDuplicate} {
				got := kdfe(nil, alg, z, label, u, v)
				if want := tpm2.KDFe(h, z, strings.TrimSuffix(label, "\x00"), u, v, 8*h.Size()); !bytes.Equal(got, want) {
					t.Fatalf("KDFe %s %q (seed %d): %x, go-tpm %x", alg, label, seed, got, want)
				}
			}
		}
	}
}

func TestHMACAgreesWithTheStandardLibrary(t *testing.T) {
	r, seed := seeded(t)
	for alg, h := range nameAlgs {
		for n := range 600 {
			key, a, b := random(r, r.IntN(alg.blockSize()+1)), random(r, n), random(r, r.IntN(80))
			m := hmac.New(h.New, key)
			m.Write(a)
			m.Write(b)
			got := appendHMAC([]byte("kept"), alg, key, a, b)
			if want := m.Sum([]byte("kept")); !bytes.Equal(got, want) {
				t.Fatalf("HMAC %s of %d bytes (seed %d): %x, want %x", alg, n, seed, got, want)
			}
		}
	}
}

func TestCFBAgreesWithTheStandardLibrary(t *testing.T) {
	r, seed := seeded(t)
	for _, size := range []int{16, 32} {
		for n := range 200 {
			key, plain := random(r, size), random(r, n)
			block, err := aes.NewCipher(key)
			must(t, err)
			want := make([]byte, n)
			//lint:ignore SA1019 the TPM's mode, and the reference to compare with
			cipher.NewCFBEncrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(want, plain)
			got := bytes.Clone(plain)
			must(t, encryptCFB(key, got))
			if !bytes.Equal(got, want) {
				t.Fatalf("CFB of %d bytes (seed %d): %x, want %x", n, seed, got, want)
			}
		}
	}
	if err := encryptCFB(make([]byte, 20), nil); err == nil {
		t.Error("a 160-bit AES key was taken")
	}
}

func seeded(t *testing.T) (*rand.Rand, uint64) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0)), seed
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
