package dps

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// Signer makes an HMAC-SHA256 over a message of at most 4 KB: a KeySigner, or a
// key inside a TPM.
type Signer interface {
	Sign(message []byte) ([]byte, error)
}

// KeySigner is an HMAC key in memory. It prints and logs as "[redacted]".
type KeySigner []byte

// Sign returns HMAC-SHA256(key, message). An empty key signs nothing.
func (k KeySigner) Sign(message []byte) ([]byte, error) {
	if len(k) == 0 {
		return nil, errors.New("sign: the key is empty")
	}
	mac := hmac.New(sha256.New, k)
	mac.Write(message)
	return mac.Sum(nil), nil
}

// Format prints no key, whatever the verb.
func (KeySigner) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue logs no key.
func (KeySigner) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON keeps the key out of structures that are logged as JSON.
func (KeySigner) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// NewToken makes the text of a SAS token, scheme included: s signs resource
// (percent-encoded here, upper-case hex) and the whole seconds of expiry. An
// empty keyName leaves skn out, as devices do at their hub. What it returns is
// a secret until expiry.
func NewToken(s Signer, resource string, expiry time.Time, keyName string) (string, error) {
	se := expiry.Unix()
	if resource == "" || !printable(resource) || !printable(keyName) || se < 0 || se > maxExpiry {
		return "", errors.New("SAS token: resource or key name is not printable ASCII, or expiry is out of range")
	}
	signed := append(appendEscaped(nil, resource), '\n')
	signed = strconv.AppendInt(signed, se, 10)
	sig, err := s.Sign(signed)
	if err != nil {
		return "", fmt.Errorf("SAS token: %w", err)
	}
	if len(sig) != sha256.Size {
		return "", fmt.Errorf("SAS token: the signature has %d bytes, not %d", len(sig), sha256.Size)
	}
	sr, digits, _ := strings.Cut(string(signed), "\n")
	text := append([]byte(sasScheme+" sr="), sr...)
	text = appendEscaped(append(text, "&sig="...), base64.StdEncoding.EncodeToString(sig))
	text = append(append(text, "&se="...), digits...)
	if keyName != "" {
		text = appendEscaped(append(text, "&skn="...), keyName)
	}
	if len(text) > maxToken {
		return "", fmt.Errorf("SAS token: longer than %d bytes", maxToken)
	}
	return string(text), nil
}

// appendEscaped percent-encodes as JavaScript's encodeURIComponent does.
func appendEscaped(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if alphanumeric(c) || strings.IndexByte("-_.!~*'()", c) >= 0 {
			b = append(b, c)
			continue
		}
		b = append(b, '%', hex[c>>4], hex[c&15])
	}
	return b
}
