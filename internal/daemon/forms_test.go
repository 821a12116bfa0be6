package daemon

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// forms are the ways in which a secret may be written by mistake.
func forms(secret []byte) [][]byte {
	text := hex.EncodeToString(secret)
	list := strings.Trim(fmt.Sprint(secret), "[]") // as %v prints bytes
	all := [][]byte{secret, []byte(text), []byte(strings.ToUpper(text)), []byte(list), []byte(strings.ReplaceAll(list, " ", ","))}
	// Inside a longer base64 text a secret looks one of three ways, by where it begins; its ends blend with what is around it.
	for lead := range 3 {
		padded := append(make([]byte, lead), secret...)
		from, to := (lead*8+5)/6, len(padded)*8/6
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			all = append(all, []byte(encoding.EncodeToString(padded)[from:to]))
		}
	}
	return all
}

func TestASecretIsFoundInEveryForm(t *testing.T) {
	secret := []byte("\xfb\xff\xfe0123456789abcdef")
	for lead := range 4 {
		long := append(append([]byte("abcd")[:lead:lead], secret...), "tail"...)
		for name, text := range map[string]string{
			"raw": string(long), "hex": hex.EncodeToString(long), "HEX": strings.ToUpper(hex.EncodeToString(long)), "list": fmt.Sprint(secret),
			"base64": base64.StdEncoding.EncodeToString(long), "base64 for URLs": base64.RawURLEncoding.EncodeToString(long),
		} {
			if !holds(text, secret) {
				t.Errorf("not found after %d bytes as %s: %s", lead, name, text)
			}
		}
	}
	if holds("nothing to see here, only text that is long enough", secret) {
		t.Error("found where it is not")
	}
}

func holds(text string, secret []byte) bool {
	for _, form := range forms(secret) {
		if strings.Contains(text, string(form)) {
			return true
		}
	}
	return false
}
