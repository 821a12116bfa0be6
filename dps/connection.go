package dps

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// ConnectionString is how a service client finds the service and signs its SAS
// tokens: a host and an access policy's name and key. It prints and logs
// without the key; Reveal gives the whole text.
type ConnectionString struct {
	HostName            string // host or host:port
	SharedAccessKeyName string // letters, digits and _ - @ .
	SharedAccessKey     []byte // decoded, 1 to 64 bytes
}

// ParseConnectionString reads
// "HostName=…;SharedAccessKeyName=…;SharedAccessKey=…", the parts in any order,
// their names in any letter case. Each must be there once and nothing else.
// Errors name the part and never show its value.
func ParseConnectionString(s string) (ConnectionString, error) {
	var c ConnectionString
	if len(s) > maxToken {
		return c, errors.New("connection string: too long")
	}
	for part := range strings.SplitSeq(strings.TrimSpace(s), ";") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if err := c.set(name, value); err != nil {
			return ConnectionString{}, fmt.Errorf("connection string: %w", err)
		}
	}
	switch {
	case c.HostName == "":
		return ConnectionString{}, errors.New("connection string: HostName is missing")
	case c.SharedAccessKeyName == "":
		return ConnectionString{}, errors.New("connection string: SharedAccessKeyName is missing")
	case c.SharedAccessKey == nil:
		return ConnectionString{}, errors.New("connection string: SharedAccessKey is missing")
	}
	return c, nil
}

func (c *ConnectionString) set(name, value string) error {
	switch {
	case equalFold(name, "HostName"):
		if c.HostName != "" {
			return errors.New("HostName is given twice")
		}
		if !validHost(value) {
			return errors.New("HostName is not a host name")
		}
		c.HostName = value
	case equalFold(name, "SharedAccessKeyName"):
		if c.SharedAccessKeyName != "" {
			return errors.New("SharedAccessKeyName is given twice")
		}
		if !ValidPolicyName(value) {
			return errors.New("SharedAccessKeyName may hold letters, digits and _ - @ . only")
		}
		c.SharedAccessKeyName = value
	case equalFold(name, "SharedAccessKey"):
		if c.SharedAccessKey != nil {
			return errors.New("SharedAccessKey is given twice")
		}
		key, err := base64.StdEncoding.Strict().DecodeString(value)
		if err != nil || len(key) < 1 || len(key) > 64 {
			return errors.New("SharedAccessKey is not base64 of 1 to 64 bytes")
		}
		c.SharedAccessKey = key
	default:
		return errors.New("only HostName, SharedAccessKeyName and SharedAccessKey are known")
	}
	return nil
}

// ValidPolicyName reports whether s can name an access policy: 1 to 128 ASCII
// letters, digits and _ - @ .
func ValidPolicyName(s string) bool {
	if len(s) < 1 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte("_-@.", s[i]) < 0 {
			return false
		}
	}
	return true
}

// validHost admits a DNS name or address of at most 253 characters, with a port
// or without.
func validHost(s string) bool {
	if len(s) < 1 || len(s) > 259 || s[0] == ':' || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte("-._:[]", s[i]) < 0 {
			return false
		}
	}
	return true
}

// Signer is the access policy's key as a Signer.
func (c ConnectionString) Signer() KeySigner { return c.SharedAccessKey }

// Reveal is the connection string as ParseConnectionString reads it, the secret
// key included.
func (c ConnectionString) Reveal() string {
	return c.public() + base64.StdEncoding.EncodeToString(c.SharedAccessKey)
}

func (c ConnectionString) public() string {
	return "HostName=" + c.HostName + ";SharedAccessKeyName=" + c.SharedAccessKeyName + ";SharedAccessKey="
}

// String is the connection string without its key.
func (c ConnectionString) String() string { return c.public() + redacted }

// Format prints no key, whatever the verb.
func (c ConnectionString) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// LogValue logs no key.
func (c ConnectionString) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText keeps the key out of structures that are logged as JSON.
func (c ConnectionString) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
