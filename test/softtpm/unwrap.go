package softtpm

import (
	"crypto"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rsa"
	"errors"

	"github.com/google/go-tpm/tpm2"
)

// Unwrap undoes an outer wrapper ("DUPLICATE") or a credential ("IDENTITY") protected by k: it recovers the seed, checks the HMAC over
// ciphertext and name, and decrypts (Part 1, 23.3.2.3 and 24).
func (k *Key) Unwrap(wrapped, secret []byte, label string, name []byte) ([]byte, error) {
	h, err := k.Public.NameAlg.Hash()
	if err != nil {
		return nil, err
	}
	seed, err := k.RecoverSeed(h, secret, label)
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

func (k *Key) aesBits() (int, error) {
	symmetric, err := k.symmetric()
	if err != nil {
		return 0, err
	}
	bits, err := symmetric.KeyBits.AES()
	if err != nil {
		return 0, err
	}
	return int(*bits), nil
}

func (k *Key) symmetric() (tpm2.TPMTSymDefObject, error) {
	if k.RSA != nil {
		detail, err := k.Public.Parameters.RSADetail()
		if err != nil {
			return tpm2.TPMTSymDefObject{}, err
		}
		return detail.Symmetric, nil
	}
	detail, err := k.Public.Parameters.ECCDetail()
	if err != nil {
		return tpm2.TPMTSymDefObject{}, err
	}
	return detail.Symmetric, nil
}

// RecoverSeed decrypts a TPM2B_ENCRYPTED_SECRET without its size prefix (Part 1, B.10.3 and C.6.3).
func (k *Key) RecoverSeed(h crypto.Hash, secret []byte, label string) ([]byte, error) {
	if k.RSA != nil {
		return recoverRSA(k.RSA, h, secret, label)
	}
	return recoverECC(k.ECC, h, secret, label)
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
	x, _ := coordinates(key)
	if len(point.X.Buffer) != len(x) || len(point.Y.Buffer) != len(x) {
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
	return tpm2.KDFe(h, z, label, point.X.Buffer, x, h.Size()*8), nil
}
