package attest

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzParsePublic holds our codec against go-tpm's: whatever we accept, go-tpm
// must decode to the same values and write back to the same bytes.
func FuzzParsePublic(f *testing.F) {
	for _, algorithm := range algorithms {
		for _, pr := range []profile{lowRange, highRange} {
			f.Add(newTestKey(f, "ek", algorithm, pr).bytes())
		}
	}
	for _, c := range formRules {
		f.Add(c.edit(newTestKey(f, "ek", c.algorithm, lowRange).bytes()))
	}
	for _, c := range roleRules {
		f.Add(c.edit(newTestKey(f, "srk", c.algorithm, lowRange).bytes()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePublic(b)
		if err != nil {
			if !errors.As(err, new(*Refusal)) {
				t.Fatalf("error is no refusal: %v", err)
			}
			return
		}
		compareWithGoTPM(t, b, p)
		again, err := ParsePublic(p.Bytes())
		if err != nil || again.KeyID() != p.KeyID() || !bytes.Equal(again.Name(), p.Name()) {
			t.Fatalf("a second reading differs: %v", err)
		}
	})
}

// FuzzSeal takes any two public areas as a stranger would send them. What is
// judged good must be sealable; nothing may panic.
func FuzzSeal(f *testing.F) {
	ek := newTestKey(f, "ek", "ecc-p256", lowRange).bytes()
	for _, algorithm := range algorithms {
		f.Add(ek, newTestKey(f, "srk", algorithm, highRange).bytes())
	}
	f.Add(ek, ek)
	f.Fuzz(func(t *testing.T, ekBytes, srkBytes []byte) {
		ek, err := ParseEK(ekBytes)
		if err != nil {
			return
		}
		srk, err := ParseSRK(srkBytes)
		if err != nil {
			return
		}
		blob, err := Seal(&stream{}, ek, srk, make([]byte, 32))
		if refused := JudgePair(ek, srk) != nil; refused != (err != nil) {
			t.Fatalf("pair refused: %v, Seal: %v", refused, err)
		}
		if err == nil && len(blob) > maxBlobSize {
			t.Fatalf("blob of %d bytes", len(blob))
		}
	})
}
