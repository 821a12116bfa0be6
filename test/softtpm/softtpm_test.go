package softtpm_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/test/softtpm"
)

func seal(t *testing.T, ek, srk []byte, key []byte) []byte {
	t.Helper()
	e, err := attest.ParseEK(ek)
	if err != nil {
		t.Fatal(err)
	}
	s, err := attest.ParseSRK(srk)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := attest.Seal(rand.Reader, e, s, key)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func TestEachChipOpensWhatWasSealedForItAndItsOwner(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	for _, ek := range softtpm.Algorithms {
		for _, srk := range softtpm.Algorithms {
			chip := &softtpm.TPM{EK: softtpm.New(ek, 0).EK, SRK: softtpm.New(srk, 0).SRK}
			got, err := chip.Open(seal(t, chip.EK.Bytes(), chip.SRK.Bytes(), key))
			if err != nil || !bytes.Equal(got, key) {
				t.Errorf("EK %s, SRK %s: opened to %x, %v", ek, srk, got, err)
			}
		}
	}
}

func TestOtherChipsAndOtherOwnersOpenNothing(t *testing.T) {
	for _, alg := range softtpm.Algorithms {
		chip, other := softtpm.New(alg, 0), softtpm.New(alg, 1)
		blob := seal(t, chip.EK.Bytes(), chip.SRK.Bytes(), make([]byte, 32))
		for name, thief := range map[string]*softtpm.TPM{
			"another chip":                     other,
			"another chip with the SRK":        {EK: other.EK, SRK: chip.SRK},
			"the chip under an owner of other": {EK: chip.EK, SRK: other.SRK},
		} {
			if _, err := thief.Open(blob); err == nil {
				t.Errorf("%s: %s opened the blob", alg, name)
			}
		}
		chip.Clear()
		if _, err := chip.Open(blob); err == nil {
			t.Errorf("%s: the cleared chip opened its old owner's blob", alg)
		}
	}
}

func TestNoByteOfABlobCanBeChanged(t *testing.T) {
	chip := softtpm.New(softtpm.ECC, 0)
	key := bytes.Repeat([]byte{9}, 32)
	blob := seal(t, chip.EK.Bytes(), chip.SRK.Bytes(), key)
	for i := range blob {
		blob[i] ^= 1
		if _, err := chip.Open(blob); err == nil {
			t.Errorf("byte %d of %d was changed and the blob opened", i, len(blob))
		}
		blob[i] ^= 1
	}
}

func TestKeysAreTheSameEveryTimeAndDifferFromEachOther(t *testing.T) {
	seen := map[string]string{}
	for _, alg := range softtpm.Algorithms {
		for chip := range 2 {
			a, b := softtpm.New(alg, chip), softtpm.New(alg, chip)
			if !bytes.Equal(a.EK.Bytes(), b.EK.Bytes()) || !bytes.Equal(a.SRK.Bytes(), b.SRK.Bytes()) {
				t.Errorf("%s chip %d is another one each time", alg, chip)
			}
			for _, k := range []*softtpm.Key{a.EK, a.SRK} {
				if before, twice := seen[string(k.Bytes())]; twice {
					t.Errorf("%s chip %d has a key of %s", alg, chip, before)
				}
				seen[string(k.Bytes())] = string(alg)
			}
		}
	}
}

func TestInventedKeysAreAcceptedAsStorageRootKeys(t *testing.T) {
	inventor := softtpm.NewInventor()
	var before []byte
	for range 50 {
		tpm2b, err := inventor.SRK(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attest.ParseSRK(tpm2b); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(tpm2b, before) {
			t.Fatal("the same key twice")
		}
		before = tpm2b
	}
}
