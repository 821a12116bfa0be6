// Package dps is the wire of the device provisioning protocol: its messages,
// SAS tokens, api-versions, identifiers and error catalogue, in the form that
// the published device and service SDKs of Azure DPS speak.
//
// It is pure. It does no I/O, reads no clock and logs nothing: bytes and keys
// go in, a value or a refusal comes out. It trusts nothing that it decodes:
// every message has a size limit that is checked before anything is allocated,
// nesting is bounded, and a message that two readers could understand
// differently (a member named twice, invalid UTF-8, a known member in another
// letter case) is refused.
//
// It does not decide who may do what. A Token says what was signed and whether
// a key signed it; expiry, single use and permissions belong to the caller.
// Endorsement and storage root keys are carried as opaque bytes; package attest
// judges them.
package dps

import "fmt"

// MaxMessage is the largest message body in bytes, both of devices and of
// service clients (96 KB, as the imitated service documents).
const MaxMessage = 96 << 10

// FieldError points at the place in a message that made it unacceptable. Its
// text holds only names and sentences of this package, never bytes of the
// message, and so may be shown to the sender.
type FieldError struct {
	Member  string // path of the member, such as "tpm.endorsementKey"; empty for the whole message
	Problem string // a sentence without full stop, such as "must be a string"
}

func (e *FieldError) Error() string {
	if e.Member == "" {
		return e.Problem
	}
	return e.Member + ": " + e.Problem
}

func refuse(member, format string, args ...any) error {
	return &FieldError{Member: member, Problem: fmt.Sprintf(format, args...)}
}
