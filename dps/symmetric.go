package dps

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"strings"
)

// Sizes of an operator's own symmetric keys, in bytes.
const (
	MinSymmetricKey = 16
	MaxSymmetricKey = 64
)

// SymmetricKeys are the keys of an entry; nil stands for absent. Secrets.
type SymmetricKeys struct{ Primary, Secondary []byte }

// LogValue hides the keys.
func (SymmetricKeys) LogValue() slog.Value { return slog.StringValue("[symmetric keys]") }

// String hides the keys.
func (SymmetricKeys) String() string { return "[symmetric keys]" }

// GoString hides the keys.
func (SymmetricKeys) GoString() string { return "[symmetric keys]" }

// DeriveKey is the key of a device of a group with symmetric keys:
// HMAC-SHA256 under the group's key over the registration id as the device
// spells it.
func DeriveKey(groupKey []byte, registrationID string) []byte {
	mac := hmac.New(sha256.New, groupKey)
	mac.Write([]byte(registrationID))
	return mac.Sum(nil)
}

// decodeSymmetric gives nil if the object holds no key.
func decodeSymmetric(object []byte) (*SymmetricKeys, error) {
	const path = "attestation.symmetricKey"
	if object[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	var k SymmetricKeys
	err := eachMember(object, func(name, value []byte) (err error) {
		switch {
		case isNull(value):
		case string(name) == "primaryKey":
			k.Primary, err = symmetricValue(path+".primaryKey", value)
		case string(name) == "secondaryKey":
			k.Secondary, err = symmetricValue(path+".secondaryKey", value)
		default:
			err = misspelt(path+".", name, "primaryKey", "secondaryKey")
		}
		return err
	})
	if err != nil || k.Primary == nil && k.Secondary == nil {
		return nil, err
	}
	return &k, nil
}

// symmetricValue takes an empty text for an absent key.
func symmetricValue(path string, value []byte) ([]byte, error) {
	text, err := stringValue(path, value)
	if err != nil || text == "" {
		return nil, err
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(key) < MinSymmetricKey || len(key) > MaxSymmetricKey || strings.ContainsAny(text, "\r\n") {
		return nil, refuse(path, "must be base64 of %d to %d bytes; leave it out to have a key made", MinSymmetricKey, MaxSymmetricKey)
	}
	return key, nil
}

func (k *SymmetricKeys) appendTo(b []byte) []byte {
	b = append(b, '{')
	b = appendPresent(b, "primaryKey", base64.StdEncoding.EncodeToString(k.Primary))
	b = appendPresent(b, "secondaryKey", base64.StdEncoding.EncodeToString(k.Secondary))
	return append(b, '}')
}
