package device

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// maxBlob bounds an activation blob. With RSA 4096 keys it has some 1300 bytes.
const maxBlob = 4096

// blob is an activation blob: six fields of 2 bytes size and content each. The
// last one, a wrapped text that no service fills, is read over.
type blob struct {
	credential       []byte // TPM2B_ID_OBJECT
	credentialSecret []byte // TPM2B_ENCRYPTED_SECRET, to the EK
	duplicate        []byte // TPM2B_PRIVATE
	duplicateSecret  []byte // TPM2B_ENCRYPTED_SECRET, to the SRK
	public           tpm2.TPM2BPublic
}

// parseBlob takes an activation blob apart. The contents are the TPM's to
// judge, but for the public area: only an HMAC key may come in this way.
func parseBlob(b []byte) (*blob, error) {
	if len(b) > maxBlob {
		return nil, fmt.Errorf("activation blob of %d bytes, more than %d", len(b), maxBlob)
	}
	var fields [6][]byte
	for i := range fields {
		field, rest, err := cutSized(b)
		if err != nil {
			return nil, fmt.Errorf("activation blob, field %d: %w", i+1, err)
		}
		fields[i], b = field, rest
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("activation blob: %d bytes too many", len(b))
	}
	public, err := parseKeyPublic(fields[4])
	if err != nil {
		return nil, fmt.Errorf("activation blob, field 5: %w", err)
	}
	return &blob{credential: fields[0], credentialSecret: fields[1],
		duplicate: fields[2], duplicateSecret: fields[3], public: public}, nil
}

// cutSized splits off a field with a 2-byte size before it.
func cutSized(b []byte) (field, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, errors.New("cut off in its size")
	}
	size := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < size {
		return nil, nil, fmt.Errorf("%d bytes announced, %d there", size, len(b))
	}
	return b[:size:size], b[size:], nil
}

// parseKeyPublic reads the TPMT_PUBLIC of an HMAC-SHA256 key. Its layout has
// one form and fixed size, so it needs no general decoder:
//
//	type KEYEDHASH, nameAlg, attributes, empty policy, HMAC with SHA-256, unique
func parseKeyPublic(b []byte) (tpm2.TPM2BPublic, error) {
	const (
		size    = 48
		sign    = 1 << 18
		decrypt = 1 << 17
	)
	refuse := func(what string) (tpm2.TPM2BPublic, error) {
		return tpm2.TPM2BPublic{}, fmt.Errorf("not the public area of an HMAC key: %s", what)
	}
	if len(b) != size {
		return refuse(fmt.Sprintf("%d bytes instead of %d", len(b), size))
	}
	word := func(at int) uint16 { return binary.BigEndian.Uint16(b[at:]) }
	attributes := binary.BigEndian.Uint32(b[4:])
	switch {
	case word(0) != uint16(tpm2.TPMAlgKeyedHash):
		return refuse("other type")
	case word(2) != uint16(tpm2.TPMAlgSHA256):
		return refuse("other name algorithm")
	case attributes&sign == 0 || attributes&decrypt != 0:
		return refuse("it is not for signing only")
	case word(8) != 0:
		return refuse("it has a policy")
	case word(10) != uint16(tpm2.TPMAlgHMAC) || word(12) != uint16(tpm2.TPMAlgSHA256):
		return refuse("other scheme")
	case word(14) != 32:
		return refuse("other size of its unique field")
	}
	return tpm2.BytesAs2B[tpm2.TPMTPublic](b), nil
}
