// Package attest holds the TPM arithmetic of Latchkey: it reads the public
// areas that a device presents, judges whether they may serve as endorsement
// key and storage root key, and seals an HMAC key into an activation blob that
// only the TPM holding both keys can open.
//
// What it guarantees. A *Public is a well-formed key of a known shape. An *EK
// or *SRK has passed every rule of judge.go, each of which refuses under its
// own name. A blob made by Seal can be turned into a usable HMAC key only
// inside a TPM that holds the EK, and only under the SRK it was made for.
//
// What it trusts. That the EK is the public half of a key in a genuine TPM:
// nothing in a public area can show that, the operator's enrollment says it.
// Everything about the SRK follows from the EK, as judge.go explains.
//
// The package is pure: bytes and keys in, value or refusal out. It does no I/O,
// reads no clock, keeps no state, and takes its randomness from the caller.
// Values are safe for concurrent use as long as nobody writes to their fields.
//
// Structures and algorithms are those of the TPM 2.0 Library specification,
// revision 1.59: Part 1 (architecture, annexes B and C) and Part 2 (structures).
package attest
