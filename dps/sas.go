package dps

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

const (
	sasScheme  = "SharedAccessSignature"
	maxToken   = 4 << 10
	maxExpiry  = 253402300799 // the last second of the year 9999
	redacted   = "[redacted]"
	digestName = "latchkey SAS token 1\x00"
)

// ErrToken is the one error of ParseToken. It does not say what is wrong: the
// answer to a bad SAS token is the same for all causes.
var ErrToken = errors.New("not a SAS token")

// Token is a SAS token that was read but not yet verified: nothing in it can be
// trusted before Verify has said yes, and KeyName not even then, as it is not
// signed.
type Token struct {
	Resource string    // sr, percent-decoded; printable ASCII
	Expiry   time.Time // se, UTC, whole seconds
	KeyName  string    // skn, percent-decoded; empty if absent or empty

	rawResource, rawExpiry string
	signature              [sha256.Size]byte
}

// ParseToken reads the value of an Authorization header, an AMQP response or an
// MQTT password: "SharedAccessSignature sr=…&sig=…&se=…&skn=…". Clients differ in
// the order of the fields and in the spelling of sr, so fields are found by name
// and sr is kept as it stands. A field given twice, a signature that is not 32
// bytes and anything but printable ASCII are refused; unknown fields are
// ignored. A plus sign is a plus sign, not a space.
func ParseToken(authorization string) (Token, error) {
	fields, ok := tokenFields(authorization)
	if !ok {
		return Token{}, ErrToken
	}
	var t Token
	var seen fieldSet
	for field := range strings.SplitSeq(fields, "&") {
		name, value, found := strings.Cut(field, "=")
		if !found || !seen.add(name) || !t.set(name, value) {
			return Token{}, ErrToken
		}
	}
	if !seen.complete() {
		return Token{}, ErrToken
	}
	return t, nil
}

// fieldSet remembers which fields of a SAS token were there.
type fieldSet struct{ sr, sig, se, skn bool }

// add reports false for a field that was there before.
func (s *fieldSet) add(name string) bool {
	var seen *bool
	switch name {
	case "sr":
		seen = &s.sr
	case "sig":
		seen = &s.sig
	case "se":
		seen = &s.se
	case "skn":
		seen = &s.skn
	default:
		return true
	}
	first := !*seen
	*seen = true
	return first
}

func (s *fieldSet) complete() bool { return s.sr && s.sig && s.se }

// tokenFields drops the scheme and checks size and alphabet.
func tokenFields(authorization string) (string, bool) {
	if len(authorization) > maxToken {
		return "", false
	}
	s := strings.Trim(authorization, " ")
	scheme, fields, found := strings.Cut(s, " ")
	fields = strings.TrimLeft(fields, " ")
	return fields, found && equalFold(scheme, sasScheme) && printable(fields)
}

func (t *Token) set(name, value string) (ok bool) {
	switch name {
	case "sr":
		t.rawResource = value
		t.Resource, ok = unescape(value)
		return ok && value != ""
	case "se":
		t.rawExpiry = value
		t.Expiry, ok = parseExpiry(value)
		return ok
	case "sig":
		return t.setSignature(value)
	case "skn":
		t.KeyName, ok = unescape(value)
		return ok
	}
	return true // of a later version of the protocol, or a client's own
}

// setSignature takes exactly one spelling of base64 for a signature, once the
// percent escapes are gone.
func (t *Token) setSignature(value string) bool {
	text, ok := unescape(value)
	if !ok || len(text) != base64.StdEncoding.EncodedLen(sha256.Size) {
		return false
	}
	var buf [sha256.Size + 1]byte // the decoder wants room for whole quanta
	n, err := base64.StdEncoding.Strict().Decode(buf[:], []byte(text))
	copy(t.signature[:], buf[:])
	return err == nil && n == sha256.Size
}

func parseExpiry(digits string) (time.Time, bool) {
	if len(digits) < 1 || len(digits) > 12 {
		return time.Time{}, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return time.Time{}, false
		}
	}
	seconds, err := strconv.ParseInt(digits, 10, 64)
	return time.Unix(seconds, 0).UTC(), err == nil && seconds <= maxExpiry
}

// unescape resolves percent escapes, once. It refuses what is not printable
// ASCII afterwards, so that nothing hides in a resource or a name.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, printable(s)
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				return "", false
			}
			c = byte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
		}
		b = append(b, c)
	}
	u := string(b)
	return u, printable(u)
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Verify reports whether key signed the SAS token: HMAC-SHA256 over sr and se
// exactly as they stand in it, with a line feed between. Nothing is decoded and
// encoded again, because clients spell sr in four ways. It takes the same time
// for every signature; an empty key verifies nothing.
func (t Token) Verify(key []byte) bool {
	if len(key) == 0 || t.rawResource == "" {
		return false
	}
	mac := hmac.New(sha256.New, key)
	io.WriteString(mac, t.rawResource)
	io.WriteString(mac, "\n")
	io.WriteString(mac, t.rawExpiry)
	var sum [sha256.Size]byte
	return hmac.Equal(mac.Sum(sum[:0]), t.signature[:])
}

// Digest names this exact SAS token: SHA-256 over what is signed and the
// signature. Letter case of the scheme, order of fields, escapes of the
// signature and the unsigned skn do not change it.
func (t Token) Digest() [32]byte {
	b := make([]byte, 0, len(digestName)+8+len(t.rawResource)+len(t.rawExpiry)+len(t.signature))
	b = append(b, digestName...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(t.rawResource)))
	b = append(b, t.rawResource...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(t.rawExpiry)))
	b = append(b, t.rawExpiry...)
	b = append(b, t.signature[:]...)
	return sha256.Sum256(b)
}

// ResourceIs reports whether the SAS token is for path, such as
// "{idScope}/registrations/{registrationId}" without a leading slash: no client
// signs one. Letter case does not count, since one client lower-cases all of it.
func (t Token) ResourceIs(path string) bool { return equalFold(t.Resource, path) }

// ResourceCovers reports whether the SAS token of a service client reaches path
// at host: its resource is the host name alone or with a path prefix, compared
// by whole segments and without regard to case. The path is decoded and starts
// with a slash.
func (t Token) ResourceCovers(host, path string) bool {
	name, prefix, _ := strings.Cut(strings.TrimSuffix(t.Resource, "/"), "/")
	if host == "" || !equalFold(name, host) {
		return false
	}
	if prefix == "" {
		return t.Resource == name || t.Resource == name+"/"
	}
	path = strings.TrimPrefix(path, "/")
	if len(path) < len(prefix) || !equalFold(path[:len(prefix)], prefix) {
		return false
	}
	return len(path) == len(prefix) || path[len(prefix)] == '/'
}

// Format prints the SAS token without its signature, whatever the verb.
func (t Token) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s sr=%s&se=%s&skn=%q&sig=%s", sasScheme, t.rawResource, t.rawExpiry, t.KeyName, redacted)
}

// LogValue logs the SAS token without its signature.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("resource", t.Resource),
		slog.Time("expiry", t.Expiry),
		slog.String("keyName", t.KeyName),
		slog.String("signature", redacted),
	)
}
