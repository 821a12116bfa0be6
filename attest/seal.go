package attest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// MaxHMACKeySize is the longest key a blob can carry, in bytes: the block of
	// SHA-256. A TPM would replace a longer one by its digest.
	MaxHMACKeySize = sha256.BlockSize

	// innerKeySize is fixed by the clients in the field: several pass AES-128
	// to TPM2_Import whatever the length of the key they were given.
	innerKeySize = 16

	// seedValueSize must be the digest size of the identity key's name
	// algorithm, or TPM2_Import answers TPM_RC_KEY_SIZE.
	seedValueSize = sha256.Size

	maxBlobSize = 2 + 2 + 64 + 2 + innerKeySize + // credential
		2 + 512 + // its seed
		2 + 2 + 64 + maxInnerSize + // duplicate
		2 + 512 + // its seed
		2 + identitySize + 2
	maxInnerSize = 2 + sha256.Size + 2 + maxSensitiveSize
	identitySize = 48

	maxSensitiveSize = 2 + 2 + 2 + seedValueSize + 2 + MaxHMACKeySize
)

var errKeySize = fmt.Errorf("attest: an HMAC key has 1 to %d bytes", MaxHMACKeySize)

// Seal makes an activation blob: six sized fields, one after the other, that
// carry hmacKey (1 to MaxHMACKeySize bytes) to the TPM that holds ek, for use
// under srk.
//
//	TPM2B_ID_OBJECT         the inner key, for TPM2_ActivateCredential(srk, ek)
//	TPM2B_ENCRYPTED_SECRET  its seed, to ek
//	TPM2B_PRIVATE           the HMAC key wrapped under the inner key, and that
//	                        under srk, for TPM2_Import(srk)
//	TPM2B_ENCRYPTED_SECRET  its seed, to srk
//	TPM2B_PUBLIC            the imported key's public area
//	TPM2B_DATA              empty
//
// 766 bytes for two RSA-2048 keys and a 32-byte HMAC key, 390 for two P-256
// keys. The credential opens only where ek's private half is and an object with
// srk's name is loaded; the duplicate opens only with the key inside the
// credential and only under srk. Whoever has one of the two has nothing.
//
// Inner key, seeds, seedValue and ephemeral keys are drawn from rand for each
// call, which must be a secure source; the blob is a function of the arguments
// and what rand yields. A pair that JudgePair refuses is refused here as well.
func Seal(rand io.Reader, ek *EK, srk *SRK, hmacKey []byte) ([]byte, error) {
	if len(hmacKey) < 1 || len(hmacKey) > MaxHMACKeySize {
		return nil, errKeySize
	}
	if !ek.judged || !srk.judged {
		return nil, errors.New("attest: Seal takes keys from ParseEK and ParseSRK only")
	}
	if err := JudgePair(ek, srk); err != nil {
		return nil, err
	}
	var fresh [innerKeySize + seedValueSize]byte
	defer clear(fresh[:])
	if _, err := io.ReadFull(rand, fresh[:]); err != nil {
		return nil, fmt.Errorf("attest: random inner key: %w", err)
	}
	innerKey, seedValue := fresh[:innerKeySize], fresh[innerKeySize:]

	blob, err := appendCredential(rand, make([]byte, 0, maxBlobSize), ek, srk, innerKey)
	if err != nil {
		return nil, err
	}
	identity := appendIdentity(nil, seedValue, hmacKey)
	blob, err = appendDuplicate(rand, blob, srk, identity, innerKey, seedValue, hmacKey)
	if err != nil {
		return nil, err
	}
	blob = appendSized(blob, identity)
	// The last field once held a URI under the inner key. The inner wrapper
	// already uses that key stream from its first byte, so nothing else may.
	return appendSized(blob, nil), nil
}

// appendCredential appends the two fields of TPM2_MakeCredential (TPM 2.0 Part
// 1, 24): innerKey for the holder of ek, bound to the name of srk.
func appendCredential(rand io.Reader, dst []byte, ek *EK, srk *SRK, innerKey []byte) ([]byte, error) {
	var plain [2 + innerKeySize]byte
	return appendProtected(rand, dst, &ek.Public, labelIdentity, srk.name, appendSized(plain[:0], innerKey))
}

// appendDuplicate appends the two fields that TPM2_Import takes (TPM 2.0 Part
// 1, 23.3): the sensitive area in an inner wrapper under innerKey, and that in
// an outer wrapper to srk. Both are bound to the name of the identity key.
func appendDuplicate(rand io.Reader, dst []byte, srk *SRK, identity, innerKey, seedValue, hmacKey []byte) ([]byte, error) {
	var nameRoom [2 + sha256.Size]byte
	name := AlgSHA256.appendSum(binary.BigEndian.AppendUint16(nameRoom[:0], uint16(AlgSHA256)), identity)
	var room [maxInnerSize]byte
	inner, err := innerWrap(room[:0], name, innerKey, seedValue, hmacKey)
	if err != nil {
		return nil, err
	}
	return appendProtected(rand, dst, &srk.Public, labelDuplicate, name, inner)
}

// innerWrap is the inner duplication wrapper (TPM 2.0 Part 1, 23.3): a digest
// over sensitive area and name, then both encrypted. The digest is by the
// identity key's name algorithm, SHA-256.
//
// The sensitive area (Part 2, 12.3.2.4): type, empty authValue, seedValue, key.
func innerWrap(dst, name, innerKey, seedValue, hmacKey []byte) ([]byte, error) {
	var room [2 + maxSensitiveSize + 2 + sha256.Size]byte
	defer clear(room[:])
	size := 2 + 2 + 2 + len(seedValue) + 2 + len(hmacKey)
	sensitive := binary.BigEndian.AppendUint16(room[:0], uint16(size))
	sensitive = binary.BigEndian.AppendUint16(sensitive, uint16(AlgKeyedHash))
	sensitive = appendSized(sensitive, nil)
	sensitive = appendSized(sensitive, seedValue)
	sensitive = appendSized(sensitive, hmacKey)

	dst = binary.BigEndian.AppendUint16(dst, sha256.Size)
	dst = AlgSHA256.appendSum(dst, append(sensitive, name...))
	dst = append(dst, sensitive...)
	return dst, encryptCFB(innerKey, dst)
}

// appendProtected appends a wrapped structure and the seed that protects it,
// each with its size. Credentials and outer duplication wrappers are built
// alike (TPM 2.0 Part 1, 23.3 and 24): from the seed a cipher key bound to the
// name, and an HMAC key that covers ciphertext and name. Sizes follow the
// protecting key: its name algorithm and its symmetric key. plain is encrypted
// in place.
func appendProtected(rand io.Reader, dst []byte, key *Public, label string, name, plain []byte) ([]byte, error) {
	var seedRoom, keyRoom [64]byte
	defer clear(seedRoom[:])
	defer clear(keyRoom[:])

	secret, seed, err := shareSeed(rand, seedRoom[:0], key, label)
	if err != nil {
		return nil, err
	}
	alg, digest := key.NameAlg, key.NameAlg.digestSize()
	if err := encryptCFB(kdfa(keyRoom[:0], alg, seed, labelStorage, name, int(key.Symmetric.Bits)), plain); err != nil {
		return nil, err
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(2+digest+len(plain)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(digest))
	dst = appendHMAC(dst, alg, kdfa(keyRoom[:0], alg, seed, labelIntegrity, nil, 8*digest), plain, name)
	dst = append(dst, plain...)
	return appendSized(dst, secret), nil
}

// appendIdentity appends the TPMT_PUBLIC of the key to be imported: an HMAC
// key, SHA-256 throughout, userWithAuth, noDA and sign set. noDA matters: a
// TPM that has just started answers TPM_RC_RETRY to the first use of a key
// that counts authorisation failures. fixedTPM and fixedParent must be clear
// for TPM2_Import; that lets nobody move the key on, since duplication needs a
// policy and the key's is empty.
//
// unique is SHA-256 over seedValue and key (TPM 2.0 Part 1, 27): it binds
// the public area to the secret without giving away anything about it.
func appendIdentity(dst, seedValue, hmacKey []byte) []byte {
	var room [seedValueSize + MaxHMACKeySize]byte
	defer clear(room[:])
	secret := append(append(room[:0], seedValue...), hmacKey...)

	be := binary.BigEndian
	dst = be.AppendUint16(dst, uint16(AlgKeyedHash))
	dst = be.AppendUint16(dst, uint16(AlgSHA256))
	dst = be.AppendUint32(dst, uint32(UserWithAuth|NoDA|SignEncrypt))
	dst = appendSized(dst, nil) // authPolicy
	dst = be.AppendUint16(dst, uint16(AlgHMAC))
	dst = be.AppendUint16(dst, uint16(AlgSHA256))
	dst = be.AppendUint16(dst, sha256.Size)
	return AlgSHA256.appendSum(dst, secret)
}
