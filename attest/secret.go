package attest

import (
	"crypto/ecdh"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Labels under which a seed is shared (TPM 2.0 Part 1, 23 and 24; B.4). The
// terminating zero is part of what is hashed.
const (
	labelIdentity  = "IDENTITY\x00"
	labelDuplicate = "DUPLICATE\x00"
	labelStorage   = "STORAGE\x00"
	labelIntegrity = "INTEGRITY\x00"
)

// shareSeed makes a fresh seed that only the holder of key's private half can
// recover. secret is the content of the TPM2B_ENCRYPTED_SECRET that carries it.
// The seed is as long as a digest of key's name algorithm; it lies in room,
// which the caller wipes.
func shareSeed(rand io.Reader, room []byte, key *Public, label string) (secret, seed []byte, err error) {
	if key.rsaKey != nil {
		return shareRSA(rand, room, key, label)
	}
	return shareECC(rand, room, key, label)
}

// shareRSA encrypts a random seed with OAEP under key's name algorithm (TPM 2.0
// Part 1, B.4 and B.10).
func shareRSA(rand io.Reader, room []byte, key *Public, label string) (secret, seed []byte, err error) {
	seed = room[:key.NameAlg.digestSize()]
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, nil, fmt.Errorf("attest: random seed: %w", err)
	}
	secret, err = rsa.EncryptOAEP(key.NameAlg.newHash(), rand, key.rsaKey, seed, []byte(label))
	if err != nil {
		return nil, nil, fmt.Errorf("attest: OAEP: %w", err)
	}
	return secret, seed, nil
}

// shareECC agrees on a seed by one-pass ECDH with an ephemeral key, which
// travels as a TPMS_ECC_POINT (TPM 2.0 Part 1, C.6).
func shareECC(rand io.Reader, room []byte, key *Public, label string) (secret, seed []byte, err error) {
	curve := key.ECC.Curve
	eph, err := ephemeral(rand, curve)
	if err != nil {
		return nil, nil, err
	}
	z, err := eph.ECDH(key.eccKey)
	if err != nil {
		return nil, nil, fmt.Errorf("attest: ECDH: %w", err)
	}
	defer clear(z)
	size := curve.fieldSize()
	point, static := eph.PublicKey().Bytes()[1:], key.eccKey.Bytes()[1:]
	seed = kdfe(room[:0], key.NameAlg, z, label, point[:size], static[:size])
	secret = appendSized(make([]byte, 0, 2*(2+size)), point[:size])
	return appendSized(secret, point[size:]), seed, nil
}

// ephemeral draws a scalar from rand. ecdh.Curve.GenerateKey would not do: it
// ignores the reader it is given. A candidate outside the group order is drawn
// again, which for these curves happens once in 2^32 draws; a reader that only
// yields such candidates is broken, and must not hold us for ever.
func ephemeral(rand io.Reader, curve Curve) (*ecdh.PrivateKey, error) {
	var room [48]byte
	scalar := room[:curve.fieldSize()]
	defer clear(scalar)
	for range 8 {
		if _, err := io.ReadFull(rand, scalar); err != nil {
			return nil, fmt.Errorf("attest: random scalar: %w", err)
		}
		if key, err := curve.ecdh().NewPrivateKey(scalar); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("attest: the random source yields no usable scalar")
}

func appendSized(dst, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(b))), b...)
}
