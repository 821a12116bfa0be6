package attest

import (
	"crypto/aes"
	"encoding/binary"
)

// Inputs to the keyed functions below are short (names, coordinates, a wrapped
// key), so they are gathered in one buffer and hashed in one call. scratch is
// room for the longest: a block, then a wrapped sensitive area with a name.
const scratch = 512

// appendHMAC appends HMAC (RFC 2104) under a key no longer than a block: the
// keys here are digests of the same algorithm.
func appendHMAC(dst []byte, alg Alg, key []byte, parts ...[]byte) []byte {
	var room [scratch]byte
	block := alg.blockSize()
	inner := append(room[:0], make([]byte, block)...)
	for i := range inner {
		inner[i] = 0x36
	}
	for i, k := range key {
		inner[i] ^= k
	}
	for _, p := range parts {
		inner = append(inner, p...)
	}
	var sum [64]byte
	digest := alg.appendSum(sum[:0], inner)
	outer := inner[:block]
	for i := range outer {
		outer[i] ^= 0x36 ^ 0x5c
	}
	outer = append(outer, digest...)
	dst = alg.appendSum(dst, outer)
	clear(inner)
	clear(outer)
	return dst
}

// kdfa is KDFa (TPM 2.0 Part 1, 11.4.10.2) for outputs that fit one round of
// its HMAC, which all of ours do: an AES key of at most 32 bytes or an HMAC key
// the size of the digest. label includes its terminating zero. contextV is
// always empty here. The result is appended to dst.
func kdfa(dst []byte, alg Alg, key []byte, label string, contextU []byte, bits int) []byte {
	var room [4 + 16]byte
	head := append(binary.BigEndian.AppendUint32(room[:0], 1), label...)
	var tail [4]byte
	binary.BigEndian.PutUint32(tail[:], uint32(bits))
	n := len(dst)
	dst = appendHMAC(dst, alg, key, head, contextU, tail[:])
	clear(dst[n+bits/8:])
	return dst[:n+bits/8]
}

// kdfe is KDFe (TPM 2.0 Part 1, 11.4.10.3) for one digest of output: the seed
// that ECDH agrees on. z and the two x coordinates are padded to the field
// size (Part 1, C.8). label includes its terminating zero.
func kdfe(dst []byte, alg Alg, z []byte, label string, partyU, partyV []byte) []byte {
	var room [scratch]byte
	in := binary.BigEndian.AppendUint32(room[:0], 1)
	in = append(in, z...)
	in = append(in, label...)
	in = append(in, partyU...)
	in = append(in, partyV...)
	dst = alg.appendSum(dst, in)
	clear(in)
	return dst
}

// encryptCFB encrypts in place with AES in CFB mode, full-block feedback and a
// zero IV, as TPM wrapping under fresh keys does (TPM 2.0 Part 1, 23 and 24). A
// zero IV is safe because each key is used for one message only.
func encryptCFB(key, data []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	var feedback [aes.BlockSize]byte
	for len(data) > 0 {
		block.Encrypt(feedback[:], feedback[:])
		n := min(len(data), aes.BlockSize)
		for i := range n {
			data[i] ^= feedback[i]
		}
		copy(feedback[:], data[:n])
		data = data[n:]
	}
	clear(feedback[:])
	return nil
}
