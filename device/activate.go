package device

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Activate opens an activation blob and leaves the HMAC key that it carries
// loaded in the TPM: the challenge of a service, or the hub key. The TPM does
// so only if the blob was made for its EK and SRK; else the error is
// ErrNotForThisTPM, with the *TPMError behind it.
//
// The caller closes the Key.
func (id *Identity) Activate(activationBlob []byte) (*Key, error) {
	return id.activate(activationBlob, false)
}

// activateToSign is Activate for a key that signs in a moment, as the key of a
// challenge does: the session of the activation stays for that, and ends with
// the signature or the key.
func (id *Identity) activateToSign(challenge []byte) (*Key, error) {
	return id.activate(challenge, true)
}

func (id *Identity) activate(activationBlob []byte, toSign bool) (key *Key, err error) {
	b, err := parseBlob(activationBlob)
	if err != nil {
		return nil, err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.closed {
		return nil, ErrClosed
	}
	var private tpm2.TPM2BPrivate
	err = id.withRoom([]*object{&id.ek.object, &id.srk.object}, func() error {
		private, err = id.open(b, toSign)
		return err
	})
	if err == nil {
		key, err = id.loadInRoom(b.public, private)
	}
	if err != nil {
		return nil, errors.Join(err, id.guard.end())
	}
	return key, nil
}

// open turns a blob into a private area that the SRK can load.
func (id *Identity) open(b *blob, toSign bool) (private tpm2.TPM2BPrivate, err error) {
	inner, err := id.activateCredential(b)
	if err != nil {
		return private, err
	}
	defer clear(inner)
	how := []how{secretIn}
	if !toSign {
		how = append(how, finally)
	}
	return id.importKey(b, inner, how)
}

// activateCredential gives the key of the inner wrapper, which is bound to the
// SRK's name.
func (id *Identity) activateCredential(b *blob) (inner []byte, err error) {
	done := id.progress.timed(StepActivateCredential)
	defer func() { done(fmt.Sprintf("inner key of %d bits", 8*len(inner)), err) }()
	auth, cover, err := id.ekAuth()
	if err != nil {
		return nil, err
	}
	answer, err := tpm2.ActivateCredential{
		ActivateHandle: id.srk.withAuth(id.guard.prove(nil)),
		KeyHandle:      id.ek.withAuth(auth),
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: b.credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: b.credentialSecret},
	}.Execute(id.tpm, cover...)
	if err != nil {
		return nil, id.unopened("TPM2_ActivateCredential", err)
	}
	return answer.CertInfo.Buffer, nil
}

// notOurs are the answers to something that was encrypted to another key or is
// bound to another name: an RSA secret for another key fails as TPM_RC_VALUE,
// or _SIZE if that key has another size; all else fails its integrity check.
var notOurs = []tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCValue, tpm2.TPMRCSize}

// unopened says why the TPM did not open a part of a blob. A libtpms that does
// its RSA with OpenSSL (swtpm) answers TPM_RC_FAILURE to a secret for another
// key and goes on working. TPM_RC_FAILURE is also all that a TPM in failure mode
// answers, so only another command can tell the two apart.
func (id *Identity) unopened(command string, err error) error {
	reason, codes := ErrNotForThisTPM, notOurs
	if errors.Is(err, tpm2.TPMRCFailure) {
		codes = []tpm2.TPMRC{tpm2.TPMRCFailure}
		switch _, probe := (tpm2.GetRandom{BytesRequested: 1}).Execute(id.tpm); {
		case errors.Is(probe, tpm2.TPMRCFailure):
			reason = ErrFailureMode
		case probe != nil:
			codes = nil // not to be found out
		}
	}
	return tpmErrorMeaning(command, err, reason, codes...)
}

// ekAuth satisfies the EK's role USER: with the empty password if it allows
// that (high range templates), else with PolicySecret of the endorsement
// hierarchy. What the EK decrypts leaves the TPM encrypted by the policy
// session, or by the session that covers the command beside the password.
func (id *Identity) ekAuth() (auth tpm2.Session, cover []tpm2.Session, err error) {
	if id.ek.area.ObjectAttributes.UserWithAuth {
		return id.guard.prove(nil), id.guard.cover(secretOut), nil
	}
	policy, err := id.guard.policy(id.ek.area.NameAlg)
	if err != nil {
		return nil, nil, err
	}
	_, err = tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: id.guard.prove(id.auth.Endorsement, finally)},
		PolicySession: policy.handle,
		NonceTPM:      policy.nonceTPM,
	}.Execute(id.tpm)
	if err != nil {
		return nil, nil, tpmError("TPM2_PolicySecret", err)
	}
	return id.guard.satisfy(policy, secretOut), nil, nil
}

// importKey turns the duplicate into a private area under the SRK.
func (id *Identity) importKey(b *blob, inner []byte, protection []how) (private tpm2.TPM2BPrivate, err error) {
	done := id.progress.timed(StepImport)
	defer func() { done("key wrapped under the SRK", err) }()
	symmetric, err := innerWrapper(inner)
	if err != nil {
		return private, err
	}
	answer, err := tpm2.Import{
		ParentHandle:  id.srk.withAuth(id.guard.prove(nil)),
		EncryptionKey: tpm2.TPM2BData{Buffer: inner},
		ObjectPublic:  b.public,
		Duplicate:     tpm2.TPM2BPrivate{Buffer: b.duplicate},
		InSymSeed:     tpm2.TPM2BEncryptedSecret{Buffer: b.duplicateSecret},
		Symmetric:     symmetric,
	}.Execute(id.tpm, id.guard.cover(protection...)...)
	if err != nil {
		return private, id.unopened("TPM2_Import", err)
	}
	return answer.OutPrivate, nil
}

// innerWrapper is AES in CFB mode with a key of the size that came.
func innerWrapper(key []byte) (tpm2.TPMTSymDef, error) {
	switch len(key) {
	case 16, 24, 32:
	default:
		return tpm2.TPMTSymDef{}, fmt.Errorf("activation blob: inner key of %d bytes, which is no AES key", len(key))
	}
	return tpm2.TPMTSymDef{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(8*len(key))),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}, nil
}
