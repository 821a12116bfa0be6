package registration_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/registration"
)

func TestACredentialIsReadBackAsItWasWritten(t *testing.T) {
	key := func(n int) []byte { return bytes.Repeat([]byte{7}, n) }
	for name, c := range map[string]registration.Credential{
		"one key":     {Primary: key(32)},
		"two keys":    {Primary: key(16), Secondary: key(64)},
		"certificate": {Certificate: key(32)},
	} {
		got, err := registration.DecodeCredential(c.Encode())
		if err != nil || !got.Equal(c) || !got.Valid() || (got.Secondary == nil) != (c.Secondary == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if text := fmt.Sprintf("%v %+v %#v %s", c, c, c, c.LogValue()); strings.Contains(text, "7") {
			t.Errorf("%s is shown: %s", name, text)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": {}, "no kind": {9, 1, 2}, "short key": append([]byte{1, 15}, key(15)...), "long key": append([]byte{1, 65}, key(65)...),
		"cut": {1, 32, 1}, "short secondary": append([]byte{1, 32}, key(47)...), "certificate of 31 bytes": append([]byte{2}, key(31)...), "certificate of 33 bytes": append([]byte{2}, key(33)...),
	} {
		if _, err := registration.DecodeCredential(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if (registration.Credential{Primary: key(32)}).Equal(registration.Credential{Primary: key(16), Secondary: key(16)}) {
		t.Error("two keys are one")
	}
}

func FuzzDecodeCredential(f *testing.F) {
	f.Add(registration.Credential{Primary: make([]byte, 32), Secondary: make([]byte, 32)}.Encode())
	f.Add(registration.Credential{Certificate: make([]byte, 32)}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := registration.DecodeCredential(b)
		if err == nil && !bytes.Equal(c.Encode(), b) {
			t.Fatalf("%x is read as %x", b, c.Encode())
		}
	})
}
