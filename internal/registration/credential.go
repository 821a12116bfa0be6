package registration

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
)

// Credential is what a device shows its hub: HMAC keys, or a client certificate. Keys are secrets.
type Credential struct {
	Primary, Secondary []byte // 16 to 64 bytes each; Secondary nil if there is only one
	Certificate        []byte // SHA-256 of the DER of the client certificate; then there are no keys
}

// Kinds of encoded credentials: their first byte.
const (
	credentialKeys        = 1
	credentialCertificate = 2
)

// Encode is the one form in which a credential is sealed: its kind, then the certificate's SHA-256, or the length of the primary key in one byte
// and both keys.
func (c Credential) Encode() []byte {
	if c.Certificate != nil {
		return append([]byte{credentialCertificate}, c.Certificate...)
	}
	b := append([]byte{credentialKeys, byte(len(c.Primary))}, c.Primary...)
	return append(b, c.Secondary...)
}

var errCredential = errors.New("not a credential of a device")

// DecodeCredential reads what Encode wrote, and nothing else.
func DecodeCredential(b []byte) (Credential, error) {
	switch {
	case len(b) == 1+sha256.Size && b[0] == credentialCertificate:
		return Credential{Certificate: b[1:]}, nil
	case len(b) < 2 || b[0] != credentialKeys || len(b) < 2+int(b[1]):
		return Credential{}, errCredential
	}
	c := Credential{Primary: b[2 : 2+int(b[1])], Secondary: b[2+int(b[1]):]}
	if len(c.Secondary) == 0 {
		c.Secondary = nil
	}
	if !c.Valid() {
		return Credential{}, errCredential
	}
	return c, nil
}

// Valid says whether it is something a hub can hold.
func (c Credential) Valid() bool {
	if c.Certificate != nil {
		return len(c.Certificate) == sha256.Size && c.Primary == nil && c.Secondary == nil
	}
	good := func(key []byte) bool { return len(key) >= 16 && len(key) <= 64 }
	return good(c.Primary) && (c.Secondary == nil || good(c.Secondary))
}

// Equal compares in constant time.
func (c Credential) Equal(o Credential) bool {
	return subtle.ConstantTimeCompare(c.Encode(), o.Encode()) == 1
}

// LogValue hides the keys.
func (Credential) LogValue() slog.Value { return slog.StringValue("[credential]") }

// String hides the keys.
func (Credential) String() string { return "[credential]" }

// GoString hides the keys.
func (Credential) GoString() string { return "[credential]" }
