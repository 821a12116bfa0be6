package device

import (
	"bytes"
	"fmt"
	"log/slog"
)

// MaxAuth is the longest authorisation value that a TPM can take, the size of
// the largest digest. Most take less: that of the hash that protects their
// contexts, which is 32 or 48 bytes.
const MaxAuth = 64

// Auth holds the authorisation values, or passwords, of a TPM's hierarchies.
// An empty one means that the hierarchy has none. They cross to the TPM only
// inside HMAC sessions, never in clear, and print as nothing but their presence.
type Auth struct {
	Owner       []byte // TPM_RH_OWNER: making keys under it, making keys persistent
	Endorsement []byte // TPM_RH_ENDORSEMENT: making an EK, using it
	Lockout     []byte // TPM_RH_LOCKOUT: clearing the TPM, ending a lockout
}

// WithAuth gives the authorisation values that the TPM's owner has set. The
// Identity keeps a copy until it is closed.
func WithAuth(a Auth) Option { return func(o *options) { o.auth = a } }

// Wipe overwrites the values.
func (a *Auth) Wipe() {
	for _, value := range [][]byte{a.Owner, a.Endorsement, a.Lockout} {
		clear(value[:cap(value)])
	}
	*a = Auth{}
}

// String tells which values are there and shows none.
func (a Auth) String() string {
	return fmt.Sprintf("owner %s, endorsement %s, lockout %s", presence(a.Owner), presence(a.Endorsement), presence(a.Lockout))
}

// GoString is String.
func (a Auth) GoString() string { return a.String() }

// Format keeps every verb from showing a value.
func (a Auth) Format(f fmt.State, _ rune) { f.Write([]byte(a.String())) }

// LogValue keeps the values out of logs.
func (a Auth) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalJSON keeps the values out of everything that is encoded as JSON.
func (a Auth) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", a.String()), nil }

func presence(value []byte) string {
	if len(value) == 0 {
		return "empty"
	}
	return "given"
}

// clone copies the values, without the zeros at their end: a TPM drops those
// before it reckons with a value (TPM 2.0 Part 1, 19.6.4.3), and so must we.
func (a Auth) clone() Auth {
	return Auth{Owner: authValue(a.Owner), Endorsement: authValue(a.Endorsement), Lockout: authValue(a.Lockout)}
}

func authValue(b []byte) []byte { return bytes.Clone(bytes.TrimRight(b, "\x00")) }

// valid refuses what no TPM takes.
func (a Auth) valid() error {
	for name, value := range map[string][]byte{"owner": a.Owner, "endorsement": a.Endorsement, "lockout": a.Lockout} {
		if len(value) > MaxAuth {
			return fmt.Errorf("the %s authorisation value has %d bytes, more than the %d that a TPM takes", name, len(value), MaxAuth)
		}
	}
	return nil
}
