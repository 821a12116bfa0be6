package attest

import (
	"crypto"

	"latchkey.example/latchkey/test/softtpm"
)

// The second software model of what a TPM does with an activation blob, which shares no code with this package: test/softtpm, with the
// keys of testdata.

type blobParts = softtpm.Blob

func splitBlob(b []byte) (*blobParts, error) { return softtpm.Split(b) }

// soft is the key as the model holds it.
func (k *testKey) soft() *softtpm.Key {
	return &softtpm.Key{RSA: k.rsa, ECC: k.ecc, Public: k.public}
}

// modelOpen does ActivateCredential, Import and Load, and returns the HMAC key.
func modelOpen(blob []byte, ek, srk *testKey) ([]byte, error) {
	return softtpm.Open(blob, ek.soft(), srk.soft())
}

func modelActivate(p *blobParts, ek, srk *testKey) ([]byte, error) {
	return softtpm.Activate(p, ek.soft(), srk.soft())
}

func modelImport(p *blobParts, srk *testKey, innerKey []byte) ([]byte, error) {
	return softtpm.Import(p, srk.soft(), innerKey)
}

// unwrap undoes an outer wrapper or a credential protected by k.
func (k *testKey) unwrap(wrapped, secret []byte, label string, name []byte) ([]byte, error) {
	return k.soft().Unwrap(wrapped, secret, label, name)
}

func (k *testKey) recoverSeed(h crypto.Hash, secret []byte, label string) ([]byte, error) {
	return k.soft().RecoverSeed(h, secret, label)
}
