package softtpm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Blob is the six fields of an activation blob, each without its size prefix.
type Blob struct {
	IDObject, IDSecret []byte
	Duplicate, DupSeed []byte
	Public, Data       []byte
}

// Fields are the six in the order of the wire.
func (b *Blob) Fields() []*[]byte {
	return []*[]byte{&b.IDObject, &b.IDSecret, &b.Duplicate, &b.DupSeed, &b.Public, &b.Data}
}

// Split reads a blob. The fields point into it.
func Split(wire []byte) (*Blob, error) {
	b := new(Blob)
	for i, f := range b.Fields() {
		var err error
		if *f, wire, err = sized(wire); err != nil {
			return nil, fmt.Errorf("field %d: %w", i+1, err)
		}
	}
	if len(wire) != 0 {
		return nil, fmt.Errorf("%d bytes after the last field", len(wire))
	}
	return b, nil
}

func sized(b []byte) (field, rest []byte, err error) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, errors.New("field runs past the end")
	}
	n := int(binary.BigEndian.Uint16(b))
	return b[2 : 2+n], b[2+n:], nil
}

// Open does ActivateCredential, Import and Load, and returns the HMAC key.
func Open(wire []byte, ek, srk *Key) ([]byte, error) {
	b, err := Split(wire)
	if err != nil {
		return nil, err
	}
	innerKey, err := Activate(b, ek, srk)
	if err != nil {
		return nil, fmt.Errorf("activate: %w", err)
	}
	return Import(b, srk, innerKey)
}

// Activate is TPM2_ActivateCredential: it gives the inner key to the EK's holder if the credential was made for the SRK.
func Activate(b *Blob, ek, srk *Key) ([]byte, error) {
	srkName, err := tpm2.ObjectName(&srk.Public)
	if err != nil {
		return nil, err
	}
	plain, err := ek.Unwrap(b.IDObject, b.IDSecret, "IDENTITY", srkName.Buffer)
	if err != nil {
		return nil, err
	}
	credential, rest, err := sized(plain)
	if err != nil || len(rest) != 0 {
		return nil, errors.New("credential is not one sized buffer")
	}
	return credential, nil
}

// Import is TPM2_Import under the SRK with the inner key, and TPM2_Load.
func Import(b *Blob, srk *Key, innerKey []byte) ([]byte, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](b.Public)
	if err != nil {
		return nil, err
	}
	if public.ObjectAttributes.FixedTPM || public.ObjectAttributes.FixedParent {
		return nil, errors.New("import: TPM_RC_ATTRIBUTES")
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, err
	}
	outer, err := srk.Unwrap(b.Duplicate, b.DupSeed, "DUPLICATE", name.Buffer)
	if err != nil {
		return nil, fmt.Errorf("import, outer: %w", err)
	}
	sensitive, err := unwrapInner(innerKey, outer, name.Buffer)
	if err != nil {
		return nil, fmt.Errorf("import, inner: %w", err)
	}
	return load(public, sensitive)
}

// unwrapInner undoes the inner wrapper (Part 1, 23.3.2.2) and checks its integrity digest.
func unwrapInner(innerKey, wrapped, name []byte) ([]byte, error) {
	if len(innerKey) != 16 {
		return nil, errors.New("the clients in the field pass AES-128")
	}
	digest, sensitive, err := sized(decryptCFB(innerKey, wrapped))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(append(bytes.Clone(sensitive), name...)); !bytes.Equal(sum[:], digest) {
		return nil, errors.New("TPM_RC_INTEGRITY")
	}
	return sensitive, nil
}

// load checks that the sensitive area belongs to the public area.
func load(public *tpm2.TPMTPublic, sensitive []byte) ([]byte, error) {
	body, rest, err := sized(sensitive)
	if err != nil || len(rest) != 0 {
		return nil, errors.New("load: sensitive area is not one sized buffer")
	}
	s, err := tpm2.Unmarshal[tpm2.TPMTSensitive](body)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if len(s.SeedValue.Buffer) != sha256.Size || len(s.AuthValue.Buffer) != 0 {
		return nil, errors.New("load: TPM_RC_KEY_SIZE")
	}
	bits, err := s.Sensitive.Bits()
	if err != nil {
		return nil, err
	}
	unique, err := public.Unique.KeyedHash()
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(append(bytes.Clone(s.SeedValue.Buffer), bits.Buffer...)); !bytes.Equal(sum[:], unique.Buffer) {
		return nil, errors.New("load: TPM_RC_BINDING")
	}
	return bits.Buffer, nil
}

func decryptCFB(key, data []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	out := make([]byte, len(data))
	//lint:ignore SA1019 the TPM's mode
	cipher.NewCFBDecrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(out, data)
	return out
}
