package attest

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// This file is a second software model: what a TPM does with an activation
// blob, written from Part 1, 23 and 24 and Part 3, 12.5 and 13.3, for keys whose
// private halves the test holds. It shares no code with the package. Building
// blocks are go-tpm's (structures, names, KDFa, KDFe) and the standard
// library's.

// blobParts are the six fields of a blob, each without its size prefix.
type blobParts struct {
	idObject, idSecret []byte
	duplicate, dupSeed []byte
	public, uri        []byte
}

func (p *blobParts) fields() []*[]byte {
	return []*[]byte{&p.idObject, &p.idSecret, &p.duplicate, &p.dupSeed, &p.public, &p.uri}
}

func splitBlob(b []byte) (*blobParts, error) {
	p := new(blobParts)
	for i, f := range p.fields() {
		var err error
		if *f, b, err = sized(b); err != nil {
			return nil, fmt.Errorf("field %d: %w", i+1, err)
		}
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%d bytes after the last field", len(b))
	}
	return p, nil
}

func sized(b []byte) (field, rest []byte, err error) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, errors.New("field runs past the end")
	}
	n := int(binary.BigEndian.Uint16(b))
	return b[2 : 2+n], b[2+n:], nil
}

// modelOpen does ActivateCredential, Import and Load, and returns the HMAC key.
func modelOpen(blob []byte, ek, srk *testKey) ([]byte, error) {
	p, err := splitBlob(blob)
	if err != nil {
		return nil, err
	}
	innerKey, err := modelActivate(p, ek, srk)
	if err != nil {
		return nil, fmt.Errorf("activate: %w", err)
	}
	return modelImport(p, srk, innerKey)
}

func modelActivate(p *blobParts, ek, srk *testKey) ([]byte, error) {
	srkName, err := tpm2.ObjectName(&srk.public)
	if err != nil {
		return nil, err
	}
	plain, err := ek.unwrap(p.idObject, p.idSecret, "IDENTITY", srkName.Buffer)
	if err != nil {
		return nil, err
	}
	credential, rest, err := sized(plain)
	if err != nil || len(rest) != 0 {
		return nil, errors.New("credential is not one sized buffer")
	}
	return credential, nil
}

func modelImport(p *blobParts, srk *testKey, innerKey []byte) ([]byte, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](p.public)
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
	outer, err := srk.unwrap(p.duplicate, p.dupSeed, "DUPLICATE", name.Buffer)
	if err != nil {
		return nil, fmt.Errorf("import, outer: %w", err)
	}
	if len(innerKey) != 16 {
		return nil, errors.New("import: the clients in the field pass AES-128")
	}
	digest, sensitive, err := sized(decryptCFB(innerKey, outer))
	if err != nil {
		return nil, fmt.Errorf("import, inner: %w", err)
	}
	if sum := sha256.Sum256(append(bytes.Clone(sensitive), name.Buffer...)); !bytes.Equal(sum[:], digest) {
		return nil, errors.New("import, inner: TPM_RC_INTEGRITY")
	}
	return modelLoad(public, sensitive)
}

// modelLoad checks that the sensitive area belongs to the public area.
func modelLoad(public *tpm2.TPMTPublic, sensitive []byte) ([]byte, error) {
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

// unwrap undoes an outer wrapper or a credential protected by k.
func (k *testKey) unwrap(wrapped, secret []byte, label string, name []byte) ([]byte, error) {
	h, err := k.public.NameAlg.Hash()
	if err != nil {
		return nil, err
	}
	seed, err := k.recoverSeed(h, secret, label)
	if err != nil {
		return nil, err
	}
	mac, encrypted, err := sized(wrapped)
	if err != nil {
		return nil, err
	}
	m := hmac.New(h.New, tpm2.KDFa(h, seed, "INTEGRITY", nil, nil, h.Size()*8))
	m.Write(encrypted)
	m.Write(name)
	if !hmac.Equal(m.Sum(nil), mac) {
		return nil, errors.New("TPM_RC_INTEGRITY")
	}
	bits, err := k.aesBits()
	if err != nil {
		return nil, err
	}
	return decryptCFB(tpm2.KDFa(h, seed, "STORAGE", name, nil, bits), encrypted), nil
}

func (k *testKey) aesBits() (int, error) {
	var sym tpm2.TPMTSymDefObject
	if k.rsa != nil {
		d, err := k.public.Parameters.RSADetail()
		if err != nil {
			return 0, err
		}
		sym = d.Symmetric
	} else {
		d, err := k.public.Parameters.ECCDetail()
		if err != nil {
			return 0, err
		}
		sym = d.Symmetric
	}
	bits, err := sym.KeyBits.AES()
	if err != nil {
		return 0, err
	}
	return int(*bits), nil
}

func (k *testKey) recoverSeed(h crypto.Hash, secret []byte, label string) ([]byte, error) {
	if k.rsa != nil {
		return recoverRSA(k.rsa, h, secret, label)
	}
	return recoverECC(k.ecc, h, secret, label)
}

func recoverRSA(key *rsa.PrivateKey, h crypto.Hash, secret []byte, label string) ([]byte, error) {
	seed, err := rsa.DecryptOAEP(h.New(), nil, key, secret, append([]byte(label), 0))
	if err != nil {
		return nil, err
	}
	if len(seed) != h.Size() {
		return nil, errors.New("seed of the wrong size")
	}
	return seed, nil
}

func recoverECC(key *ecdh.PrivateKey, h crypto.Hash, secret []byte, label string) ([]byte, error) {
	point, err := tpm2.Unmarshal[tpm2.TPMSECCPoint](secret)
	if err != nil {
		return nil, err
	}
	own := key.PublicKey().Bytes()[1:]
	size := len(own) / 2
	if len(point.X.Buffer) != size || len(point.Y.Buffer) != size {
		return nil, errors.New("coordinate not padded to the field")
	}
	peer, err := key.Curve().NewPublicKey(append(append([]byte{4}, point.X.Buffer...), point.Y.Buffer...))
	if err != nil {
		return nil, err
	}
	z, err := key.ECDH(peer)
	if err != nil {
		return nil, err
	}
	return tpm2.KDFe(h, z, label, point.X.Buffer, own[:size], h.Size()*8), nil
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
