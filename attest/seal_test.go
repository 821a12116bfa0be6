package attest

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

var update = flag.Bool("update", false, "write the golden blobs anew")

func TestBlobOpensInTheModelForEveryMixOfKeys(t *testing.T) {
	profiles := []profile{lowRange, highRange, topRange}
	for i, ekAlgorithm := range algorithms {
		for j, srkAlgorithm := range algorithms {
			// Each mix runs with the usual profile on both sides and with two
			// different ones, so that no size is taken from the wrong key.
			for n, pr := range [][2]profile{{lowRange, lowRange}, {profiles[(i+j)%3], profiles[(i+j+1)%3]}} {
				t.Run(fmt.Sprintf("%s with %s/%d", ekAlgorithm, srkAlgorithm, n), func(t *testing.T) {
					ek := newTestKey(t, "ek", ekAlgorithm, pr[0])
					srk := newTestKey(t, "srk", srkAlgorithm, pr[1])
					key := make([]byte, 32)
					rand.Read(key)
					blob, err := Seal(rand.Reader, ek.ek(t), srk.srk(t), key)
					must(t, err)
					got, err := modelOpen(blob, ek, srk)
					must(t, err)
					if !bytes.Equal(got, key) {
						t.Error("another key came out")
					}
				})
			}
		}
	}
}

func TestBlobLayout(t *testing.T) {
	sizes := []struct {
		ek, srk string
		fields  [6]int
		total   int
	}{
		{"rsa2048", "rsa2048", [6]int{52, 256, 142, 256, 48, 0}, 766},
		{"ecc-p256", "ecc-p256", [6]int{52, 68, 142, 68, 48, 0}, 390},
		{"rsa2048", "ecc-p256", [6]int{52, 256, 142, 68, 48, 0}, 578},
		{"rsa4096", "ecc-p384", [6]int{52, 512, 142, 100, 48, 0}, 866},
	}
	for _, c := range sizes {
		ek, srk := newTestKey(t, "ek", c.ek, lowRange), newTestKey(t, "srk", c.srk, lowRange)
		blob, err := Seal(rand.Reader, ek.ek(t), srk.srk(t), make([]byte, 32))
		must(t, err)
		p, err := splitBlob(blob)
		must(t, err)
		var got [6]int
		for i, f := range p.Fields() {
			got[i] = len(*f)
		}
		if got != c.fields || len(blob) != c.total {
			t.Errorf("%s with %s: fields %v in %d bytes, want %v in %d", c.ek, c.srk, got, len(blob), c.fields, c.total)
		}
		if head := hex.EncodeToString(p.Public[:16]); head != "0008000b0004044000000005000b0020" {
			t.Errorf("identity key begins %s", head)
		}
		if !bytes.HasPrefix(p.IDObject, []byte{0, 32}) || !bytes.HasPrefix(p.Duplicate, []byte{0, 32}) {
			t.Error("integrity values are not 32 bytes")
		}
	}
}

func TestIdentityKeyIsWhatImportWants(t *testing.T) {
	ek, srk := newTestKey(t, "ek", "ecc-p256", lowRange), newTestKey(t, "srk", "ecc-p256", lowRange)
	blob, err := Seal(rand.Reader, ek.ek(t), srk.srk(t), make([]byte, 32))
	must(t, err)
	p, err := splitBlob(blob)
	must(t, err)
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](p.Public)
	must(t, err)
	want := tpm2.TPMAObject{UserWithAuth: true, NoDA: true, SignEncrypt: true}
	if public.Type != tpm2.TPMAlgKeyedHash || public.ObjectAttributes != want || len(public.AuthPolicy.Buffer) != 0 {
		t.Errorf("identity key is %+v", public)
	}
}

// TestGoldenBlobs pins every byte: fixed keys, fixed randomness, fixed blob. The
// files were accepted by the model when they were written, and are opened again
// here, so a golden file cannot hold a blob that does not work.
func TestGoldenBlobs(t *testing.T) {
	for _, c := range []struct {
		ek, srk string
		pr      [2]profile
	}{
		{"rsa2048", "rsa2048", [2]profile{lowRange, lowRange}},
		{"ecc-p256", "ecc-p256", [2]profile{lowRange, lowRange}},
		{"rsa2048", "ecc-p256", [2]profile{lowRange, lowRange}},
		{"ecc-p384", "rsa3072", [2]profile{highRange, highRange}},
		{"rsa4096", "ecc-p384", [2]profile{topRange, highRange}},
	} {
		name := c.ek + "-" + c.srk
		t.Run(name, func(t *testing.T) {
			ek, srk := newTestKey(t, "ek", c.ek, c.pr[0]), newTestKey(t, "srk", c.srk, c.pr[1])
			key := []byte("an HMAC key of thirty-two bytes.")
			blob, err := Seal(&stream{}, ek.ek(t), srk.srk(t), key)
			must(t, err)
			path := filepath.Join("testdata", "blobs", name+".hex")
			if *update {
				must(t, os.WriteFile(path, []byte(hex.EncodeToString(blob)+"\n"), 0o644))
			}
			text, err := os.ReadFile(path)
			must(t, err)
			want, err := hex.DecodeString(strings.TrimSpace(string(text)))
			must(t, err)
			if !bytes.Equal(blob, want) {
				t.Errorf("blob is\n%x, golden\n%x", blob, want)
			}
			got, err := modelOpen(want, ek, srk)
			must(t, err)
			if !bytes.Equal(got, key) {
				t.Error("the golden blob holds another key")
			}
		})
	}
}

func TestNothingInABlobRepeats(t *testing.T) {
	for _, algorithm := range []string{"rsa2048", "ecc-p256"} {
		ek, srk := newTestKey(t, "ek", algorithm, lowRange).ek(t), newTestKey(t, "srk", algorithm, lowRange).srk(t)
		var parts [2]*blobParts
		for i := range parts {
			blob, err := Seal(rand.Reader, ek, srk, make([]byte, 32))
			must(t, err)
			parts[i], err = splitBlob(blob)
			must(t, err)
		}
		for i, f := range parts[0].Fields()[:5] {
			if bytes.Equal(*f, *parts[1].Fields()[i]) {
				t.Errorf("%s: field %d is the same in two blobs", algorithm, i+1)
			}
		}
	}
}

// Two blobs from one random stream must not share a secret: each draw is used
// once. The model recovers the secrets of one blob; all must differ.
func TestSecretsWithinABlobAreIndependent(t *testing.T) {
	ek, srk := newTestKey(t, "ek", "rsa2048", lowRange), newTestKey(t, "srk", "rsa2048", lowRange)
	blob, err := Seal(rand.Reader, ek.ek(t), srk.srk(t), make([]byte, 32))
	must(t, err)
	p, err := splitBlob(blob)
	must(t, err)
	h, err := tpm2.TPMAlgSHA256.Hash()
	must(t, err)
	s1, err := ek.recoverSeed(h, p.IDSecret, "IDENTITY")
	must(t, err)
	s2, err := srk.recoverSeed(h, p.DupSeed, "DUPLICATE")
	must(t, err)
	inner, err := modelActivate(p, ek, srk)
	must(t, err)
	if bytes.Equal(s1, s2) || bytes.Contains(s1, inner) || bytes.Contains(s2, inner) {
		t.Error("secrets repeat within one blob")
	}
}

func TestSealTakesKeysOfOneToSixtyFourBytes(t *testing.T) {
	ek, srk := newTestKey(t, "ek", "ecc-p256", topRange), newTestKey(t, "srk", "rsa4096", topRange)
	for n := 1; n <= MaxHMACKeySize; n++ {
		key := bytes.Repeat([]byte{byte(n)}, n)
		blob, err := Seal(rand.Reader, ek.ek(t), srk.srk(t), key)
		must(t, err)
		if n%21 == 1 { // RSA 4096 is slow to open: 1, 22, 43, 64
			got, err := modelOpen(blob, ek, srk)
			must(t, err)
			if !bytes.Equal(got, key) {
				t.Errorf("key of %d bytes came out as %x", n, got)
			}
		}
	}
	for _, n := range []int{0, 65, 1 << 16} {
		if _, err := Seal(rand.Reader, ek.ek(t), srk.srk(t), make([]byte, n)); !errors.Is(err, errKeySize) {
			t.Errorf("key of %d bytes: %v", n, err)
		}
	}
}

func TestTheLargestBlobFitsItsRoom(t *testing.T) {
	ek, srk := newTestKey(t, "ek", "rsa4096", topRange), newTestKey(t, "srk", "rsa4096", topRange)
	blob, err := Seal(rand.Reader, ek.ek(t), srk.srk(t), make([]byte, MaxHMACKeySize))
	must(t, err)
	if len(blob) != maxBlobSize {
		t.Errorf("largest blob has %d bytes, room is %d", len(blob), maxBlobSize)
	}
}

func TestSealTakesOnlyJudgedKeys(t *testing.T) {
	ek, srk := newTestKey(t, "ek", "rsa2048", lowRange).ek(t), newTestKey(t, "srk", "rsa2048", lowRange).srk(t)
	for name, seal := range map[string]func() ([]byte, error){
		"an EK by hand":  func() ([]byte, error) { return Seal(rand.Reader, &EK{Public: ek.Public}, srk, make([]byte, 32)) },
		"an SRK by hand": func() ([]byte, error) { return Seal(rand.Reader, ek, &SRK{Public: srk.Public}, make([]byte, 32)) },
		"zero values":    func() ([]byte, error) { return Seal(rand.Reader, new(EK), new(SRK), make([]byte, 32)) },
	} {
		if blob, err := seal(); err == nil || blob != nil {
			t.Errorf("%s: sealed", name)
		}
	}
}

// A random source that fails at any point must fail the blob: never a blob with
// a guessable part.
func TestSealFailsWhereverRandomnessFails(t *testing.T) {
	for _, algorithm := range []string{"rsa2048", "ecc-p256"} {
		ek, srk := newTestKey(t, "ek", algorithm, lowRange).ek(t), newTestKey(t, "srk", algorithm, lowRange).srk(t)
		full := &stream{}
		_, err := Seal(full, ek, srk, make([]byte, 32))
		must(t, err)
		if full.given < 16+32+32+32 {
			t.Fatalf("%s: only %d random bytes drawn", algorithm, full.given)
		}
		for limit := 1; limit < full.given; limit++ {
			if blob, err := Seal(&stream{limit: limit}, ek, srk, make([]byte, 32)); blob != nil || !errors.Is(err, errDry) {
				t.Fatalf("%s: dry after %d of %d bytes: blob %t, error %v", algorithm, limit, full.given, blob != nil, err)
			}
		}
	}
}

// A source stuck at one value cannot make a scalar; it must not hang either.
func TestSealGivesUpOnAStuckRandomSource(t *testing.T) {
	ek, srk := newTestKey(t, "ek", "ecc-p256", lowRange).ek(t), newTestKey(t, "srk", "ecc-p256", lowRange).srk(t)
	for _, stuck := range []byte{0x00, 0xff} {
		if _, err := Seal(stuckReader(stuck), ek, srk, make([]byte, 32)); err == nil {
			t.Errorf("sealed with a source stuck at 0x%02x", stuck)
		}
	}
}

type stuckReader byte

func (r stuckReader) Read(p []byte) (int, error) {
	copy(p, bytes.Repeat([]byte{byte(r)}, len(p)))
	return len(p), nil
}

// The model must be able to say no: each field altered, another EK, another SRK.
func TestModelRefusesAlteredBlobs(t *testing.T) {
	ek, srk := newTestKey(t, "ek", "rsa2048", lowRange), newTestKey(t, "srk", "ecc-p256", lowRange)
	blob, err := Seal(rand.Reader, ek.ek(t), srk.srk(t), make([]byte, 32))
	must(t, err)
	for at := range blob {
		bad := slices.Clone(blob)
		bad[at] ^= 1
		if _, err := modelOpen(bad, ek, srk); err == nil {
			t.Errorf("opens with byte %d altered", at)
		}
	}
	if _, err := modelOpen(blob, newTestKey(t, "srk", "rsa2048", lowRange), srk); err == nil {
		t.Error("opens for another EK")
	}
	if _, err := modelOpen(blob, ek, newTestKey(t, "ek", "ecc-p256", lowRange)); err == nil {
		t.Error("opens for another SRK")
	}
}

// go-tpm makes credentials of its own; the model must open those too, or it
// agrees with nobody but us. And go-tpm's wrap of a bare sensitive area checks
// the outer half.
func TestModelOpensWhatGoTPMWraps(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, pr := range []profile{lowRange, highRange} {
			k := newTestKey(t, "ek", algorithm, pr)
			wrapping, err := tpm2.ImportEncapsulationKey(&k.public)
			must(t, err)
			name := bytes.Repeat([]byte{7}, 34)
			id, secret, err := tpm2.CreateCredential(rand.Reader, wrapping, name, []byte("sixteen byte key"))
			must(t, err)
			plain, err := k.unwrap(id, secret, "IDENTITY", name)
			if err != nil || !bytes.Equal(plain, append([]byte{0, 16}, "sixteen byte key"...)) {
				t.Errorf("%s: go-tpm's credential gives %x, %v", algorithm, plain, err)
			}
			dup, secret, err := tpm2.CreateDuplicate(rand.Reader, wrapping, name, []byte("sensitive"))
			must(t, err)
			plain, err = k.unwrap(dup, secret, "DUPLICATE", name)
			if err != nil || !bytes.Equal(plain, append([]byte{0, 9}, "sensitive"...)) {
				t.Errorf("%s: go-tpm's duplicate gives %x, %v", algorithm, plain, err)
			}
		}
	}
}
