package httpapi_test

import "encoding/binary"

// Attributes of the usual templates (TPM 2.0 Part 2, 8.3).
const (
	ekAttributes   = 0x000300b2
	srkAttributes  = 0x00030472
	signAttributes = 0x00050072 // restricted signing key
)

// area builds a TPM2B_PUBLIC (TPM 2.0 Part 2, 12.2.5) from its parts, bad ones too.
type area struct {
	kind       uint16 // 0: that of the method
	attributes uint32
	signs      bool // no symmetric algorithm, a signing scheme
}

func (a area) head(kind uint16) []byte {
	if a.kind != 0 {
		kind = a.kind
	}
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = append(b, 0, 0x0b) // nameAlg SHA-256
	b = binary.BigEndian.AppendUint32(b, a.attributes)
	b = append(b, 0, 0) // no policy
	return b
}

func (a area) symmetricAndScheme(b []byte, scheme byte) []byte {
	if a.signs {
		return append(b, 0, 0x10, 0, scheme, 0, 0x0b)
	}
	return append(b, 0, 6, 0, 128, 0, 0x43, 0, 0x10) // AES-128-CFB, scheme NULL
}

func (a area) rsa(bits uint16, exponent uint32, modulus []byte) []byte {
	b := a.symmetricAndScheme(a.head(1), 0x14)
	b = binary.BigEndian.AppendUint16(b, bits)
	b = binary.BigEndian.AppendUint32(b, exponent)
	return prefixed(appendSized(b, modulus))
}

func (a area) ecc(curve uint16, x, y []byte) []byte {
	b := a.symmetricAndScheme(a.head(0x23), 0x18)
	b = binary.BigEndian.AppendUint16(b, curve)
	b = append(b, 0, 0x10) // KDF NULL
	return prefixed(appendSized(appendSized(b, x), y))
}

func appendSized(b, field []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}

func prefixed(b []byte) []byte { return appendSized(nil, b) }
