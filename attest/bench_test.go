package attest

import (
	"crypto/rand"
	"testing"
)

func BenchmarkSeal(b *testing.B) {
	for _, c := range []struct{ name, ek, srk string }{
		{"rsa", "rsa2048", "rsa2048"},
		{"ecc", "ecc-p256", "ecc-p256"},
		{"mixed", "rsa2048", "ecc-p256"},
		{"p384", "ecc-p384", "ecc-p384"},
	} {
		b.Run(c.name, func(b *testing.B) {
			ek, srk := newTestKey(b, "ek", c.ek, lowRange).ek(b), newTestKey(b, "srk", c.srk, lowRange).srk(b)
			key := make([]byte, 32)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Seal(rand.Reader, ek, srk, key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseEK(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			tpm2b := newTestKey(b, "ek", algorithm, lowRange).bytes()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseEK(tpm2b); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkKeyID(b *testing.B) {
	ek := newTestKey(b, "ek", "rsa2048", lowRange).ek(b)
	b.ReportAllocs()
	for b.Loop() {
		ek.KeyID()
	}
}
