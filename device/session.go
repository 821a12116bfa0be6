package device

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// nonceSize is that of our nonces, and so of the TPM's (TPM 2.0 Part 3, 11.1).
const nonceSize = 16

// session is an HMAC or policy session in the TPM: salted, not bound, with
// AES-128 in CFB mode for parameters. It serves any number of commands, each
// through a use of its own.
//
// go-tpm has sessions too. Ours exist because those fix one authorisation value
// for all commands of a session, cut a value off at any zero within it, and
// cannot follow a command that changes the value it was authorised with.
type session struct {
	kind        tpm2.TPMSE
	hash        tpm2.TPMIAlgHash
	handle      tpm2.TPMHandle // TPM_RH_NULL once it has ended
	key         []byte
	nonceCaller tpm2.TPM2BNonce
	nonceTPM    tpm2.TPM2BNonce
}

// saltKey is a loaded storage key and the public part to encrypt salts to.
type saltKey struct {
	handle tpm2.TPMHandle
	area   *tpm2.TPMTPublic
}

// startSession has the TPM make a session whose key follows from a secret that
// only salt's TPM can read (TPM 2.0 Part 1, 19.6).
func startSession(tpm transport.TPM, kind tpm2.TPMSE, hash tpm2.TPMIAlgHash, salt saltKey) (*session, error) {
	digest, err := hash.Hash()
	if err != nil {
		return nil, err
	}
	to, err := tpm2.ImportEncapsulationKey(salt.area)
	if err != nil {
		return nil, err
	}
	secret, encrypted, err := tpm2.CreateEncryptedSalt(rand.Reader, to)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	s := &session{kind: kind, hash: hash}
	s.renewNonce()
	answer, err := tpm2.StartAuthSession{
		TPMKey:        salt.handle,
		Bind:          tpm2.TPMRHNull,
		NonceCaller:   s.nonceCaller,
		EncryptedSalt: tpm2.TPM2BEncryptedSecret{Buffer: encrypted},
		SessionType:   kind,
		Symmetric:     parameterCipher(),
		AuthHash:      hash,
	}.Execute(tpm)
	if err != nil {
		return nil, tpmError("TPM2_StartAuthSession", err)
	}
	s.handle = tpm2.TPMHandle(answer.SessionHandle.HandleValue())
	s.nonceTPM = answer.NonceTPM
	s.key = tpm2.KDFa(digest, secret, "ATH", s.nonceTPM.Buffer, s.nonceCaller.Buffer, 8*digest.Size())
	return s, nil
}

func (s *session) renewNonce() {
	s.nonceCaller.Buffer = make([]byte, nonceSize)
	rand.Read(s.nonceCaller.Buffer) // never fails
}

func (s *session) ended() bool { return s.handle == tpm2.TPMRHNull }

// end flushes the session, if the TPM has not ended it.
func (s *session) end(tpm transport.TPM) error {
	clear(s.key)
	if s.ended() {
		return nil
	}
	err := flush(tpm, s.handle)
	s.handle = tpm2.TPMRHNull
	return err
}

const parameterKeyBits = 128

func parameterCipher() tpm2.TPMTSymDef {
	return tpm2.TPMTSymDef{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(parameterKeyBits)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

// keyStream is the cipher for the first parameter (TPM 2.0 Part 1, 21.3).
func (s *session) keyStream(auth []byte, newer, older tpm2.TPM2BNonce) (block cipher.Block, iv []byte, err error) {
	digest, err := s.hash.Hash()
	if err != nil {
		return nil, nil, err
	}
	const keySize = parameterKeyBits / 8
	secret := append(bytes.Clone(s.key), auth...)
	defer clear(secret)
	both := tpm2.KDFa(digest, secret, "CFB", newer.Buffer, older.Buffer, 8*(keySize+aes.BlockSize))
	block, err = aes.NewCipher(both[:keySize])
	return block, both[keySize:], err
}

// mac authenticates a command or response (TPM 2.0 Part 1, 19.6.5).
func (s *session) mac(auth, paramHash []byte, newer, older tpm2.TPM2BNonce, otherNonces []byte, attributes tpm2.TPMASession) ([]byte, error) {
	digest, err := s.hash.Hash()
	if err != nil {
		return nil, err
	}
	secret := append(bytes.Clone(s.key), auth...)
	defer clear(secret)
	mac := hmac.New(digest.New, secret)
	mac.Write(paramHash)
	mac.Write(newer.Buffer)
	mac.Write(older.Buffer)
	mac.Write(otherNonces)
	mac.Write(tpm2.Marshal(attributes))
	return mac.Sum(nil), nil
}

func (s *session) hashOf(parts ...[]byte) ([]byte, error) {
	digest, err := s.hash.Hash()
	if err != nil {
		return nil, err
	}
	h := digest.New()
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil), nil
}

// use is one command's use of a session (tpm2.Session). It begins the session
// when the command is executed.
type use struct {
	*session
	begin      func(*use) error
	auth       []byte // proved by the session; empty if it only protects
	answerAuth []byte // the value once the command is done
	in, out    bool   // the first parameter of command or response is encrypted
	last       bool   // the TPM ends the session with the command
}

// Init begins the session.
func (u *use) Init(transport.TPM) error { return u.begin(u) }

// CleanupFailure leaves the session to the guard, which ends all it has begun.
func (u *use) CleanupFailure(transport.TPM) error { return nil }

// NonceTPM is the TPM's last nonce.
func (u *use) NonceTPM() tpm2.TPM2BNonce { return u.nonceTPM }

// NewNonceCaller takes a new nonce for the next command.
func (u *use) NewNonceCaller() error {
	u.renewNonce()
	return nil
}

// IsEncryption tells whether the response is encrypted.
func (u *use) IsEncryption() bool { return u.out }

// IsDecryption tells whether the command is encrypted, for the TPM to decrypt.
func (u *use) IsDecryption() bool { return u.in }

// Handle is the session's handle.
func (u *use) Handle() tpm2.TPMHandle { return u.handle }

func (u *use) attributes() tpm2.TPMASession {
	return tpm2.TPMASession{ContinueSession: !u.last, Decrypt: u.in, Encrypt: u.out}
}

// Authorize signs the command.
func (u *use) Authorize(cc tpm2.TPMCC, parms, addNonces []byte, names []tpm2.TPM2BName, _ int) (*tpm2.TPMSAuthCommand, error) {
	parts := [][]byte{binary.BigEndian.AppendUint32(nil, uint32(cc))}
	for _, name := range names {
		parts = append(parts, name.Buffer)
	}
	cpHash, err := u.hashOf(append(parts, parms)...)
	if err != nil {
		return nil, err
	}
	mac, err := u.mac(u.auth, cpHash, u.nonceCaller, u.nonceTPM, addNonces, u.attributes())
	if err != nil {
		return nil, err
	}
	return &tpm2.TPMSAuthCommand{Handle: u.handle, Nonce: u.nonceCaller, Attributes: u.attributes(),
		Authorization: tpm2.TPM2BData{Buffer: mac}}, nil
}

// Validate checks that the response is the TPM's.
func (u *use) Validate(rc tpm2.TPMRC, cc tpm2.TPMCC, parms []byte, _ []tpm2.TPM2BName, _ int, answer *tpm2.TPMSAuthResponse) error {
	head := binary.BigEndian.AppendUint32(nil, uint32(rc))
	rpHash, err := u.hashOf(binary.BigEndian.AppendUint32(head, uint32(cc)), parms)
	if err != nil {
		return err
	}
	want, err := u.mac(u.answerAuth, rpHash, answer.Nonce, u.nonceCaller, nil, answer.Attributes)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, answer.Authorization.Buffer) {
		return ErrChanged
	}
	u.nonceTPM = answer.Nonce
	if !answer.Attributes.ContinueSession { // its key is yet needed, to decrypt
		u.handle = tpm2.TPMRHNull
	}
	return nil
}

// Encrypt encrypts the first parameter of a command.
func (u *use) Encrypt(parameter []byte) error {
	block, iv, err := u.keyStream(u.auth, u.nonceCaller, u.nonceTPM)
	if err != nil {
		return err
	}
	//lint:ignore SA1019 the TPM's mode; the command is authenticated as well
	cipher.NewCFBEncrypter(block, iv).XORKeyStream(parameter, parameter)
	return nil
}

// Decrypt decrypts the first parameter of a response.
func (u *use) Decrypt(parameter []byte) error {
	block, iv, err := u.keyStream(u.answerAuth, u.nonceTPM, u.nonceCaller)
	if err != nil {
		return err
	}
	//lint:ignore SA1019 the TPM's mode; the response is authenticated as well
	cipher.NewCFBDecrypter(block, iv).XORKeyStream(parameter, parameter)
	return nil
}
