package keyring_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"os"
	"testing"

	"latchkey.example/latchkey/internal/keyring"
)

// fileKeys are the keys in a ring file, in its order.
func fileKeys(t *testing.T, path string) (keys [][]byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Keys []struct{ Key []byte } }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, k := range file.Keys {
		keys = append(keys, k.Key)
	}
	return keys
}

// hkdfOf is HKDF of one block, by hand (RFC 5869, 2).
func hkdfOf(key []byte, salt, info string) []byte {
	sum := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	return sum(sum([]byte(salt), string(key)), info+"\x01")
}

// The primary key's comes first, whichever it is, then newest to oldest; each is HKDF of the key in the file.
func TestDerivedKeysComeInTheOrderOfTheirUse(t *testing.T) {
	r, path := newRing(t)
	for range 2 {
		if _, err := r.Add(now); err != nil {
			t.Fatal(err)
		}
	}
	want := func(order ...int) {
		t.Helper()
		derived, keys := r.Derive("tickets"), fileKeys(t, path)
		if len(derived) != len(order) {
			t.Fatalf("%d keys", len(derived))
		}
		for i, place := range order {
			if !bytes.Equal(derived[i][:], hkdfOf(keys[place], "latchkey key ring, derived keys", "tickets")) {
				t.Errorf("the one in place %d is not of key %d", i+1, place+1)
			}
		}
	}
	want(0, 2, 1)
	if _, err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	want(2, 1, 0)
	again, err := keyring.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range again.Derive("tickets") {
		if key != r.Derive("tickets")[i] {
			t.Error("another reading of the same ring derives other keys")
		}
	}
}

// No two are alike: not for two purposes, not of two keys, not of two rings; and none is a key that seals.
func TestDerivedKeysAreApartFromEachOtherAndFromTheRings(t *testing.T) {
	seen := map[string]string{}
	note := func(key []byte, what string) {
		t.Helper()
		if before, ok := seen[string(key)]; ok {
			t.Errorf("%s is %s", what, before)
		}
		seen[string(key)] = what
	}
	for _, name := range []string{"one ring", "another"} {
		r, path := newRing(t)
		if _, err := r.Add(now); err != nil {
			t.Fatal(err)
		}
		for _, key := range fileKeys(t, path) {
			note(key, "a key of "+name)
		}
		for _, purpose := range []string{"", "a", "b", "a, slot 1", "a, slot 11"} {
			for _, key := range r.Derive(purpose) {
				note(key[:], name+" for "+purpose)
			}
		}
	}
	if len(seen) != 2*(2+5*2) {
		t.Errorf("%d keys", len(seen))
	}
}
