package device

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// maxHMACInput is what TPM2_HMAC takes at once: TPM_PT_INPUT_BUFFER, which the
// PC Client profile fixes at 1024. More goes through a sequence.
const maxHMACInput = 1024

// Key is an HMAC key inside the TPM. It is a dps.Signer: the challenge's key
// signs the proof, the hub key signs SAS tokens for the hub. The TPM has room
// for about three loaded objects, so close a Key that is no longer needed.
type Key struct {
	object
	id      *Identity
	public  tpm2.TPM2BPublic
	private tpm2.TPM2BPrivate
	closed  bool // guarded by id.mu
}

// loadLocked loads a key under the SRK and remembers it.
func (id *Identity) loadLocked(public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate) (*Key, error) {
	done := id.progress.timed(StepLoad)
	answer, err := tpm2.Load{ParentHandle: id.srk.named(), InPrivate: private, InPublic: public}.Execute(id.tpm)
	if err != nil {
		err = tpmErrorMeaning("TPM2_Load", err, ErrOtherOwner, tpm2.TPMRCIntegrity)
		done("", err)
		return nil, err
	}
	area, err := public.Contents()
	if err == nil {
		err = matches(answer.Name, area)
	}
	if err != nil {
		err = errors.Join(err, flush(id.tpm, answer.ObjectHandle))
		done("", err)
		return nil, err
	}
	done(fmt.Sprintf("key loaded as 0x%08x", uint32(answer.ObjectHandle)), nil)
	key := &Key{object: object{handle: answer.ObjectHandle, name: answer.Name}, id: id, public: public, private: private}
	id.keys[key] = struct{}{}
	return key, nil
}

// loadInRoom is loadLocked, with room made for the key.
func (id *Identity) loadInRoom(public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate) (key *Key, err error) {
	err = id.withRoom([]*object{&id.srk.object}, func() error {
		key, err = id.loadLocked(public, private)
		return err
	})
	return key, err
}

// LoadKey loads a key that Marshal saved. It fails with ErrOtherOwner if the
// TPM was cleared since, or is another one.
func (id *Identity) LoadKey(saved []byte) (*Key, error) {
	public, private, err := parseSaved(saved)
	if err != nil {
		return nil, err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.closed {
		return nil, ErrClosed
	}
	return id.loadInRoom(public, private)
}

// Marshal gives the key in the form that can be kept outside the TPM:
// TPM2B_PUBLIC ‖ TPM2B_PRIVATE. Only this TPM under its present owner can load
// it, so it is no secret in itself; but whoever can use the TPM can use it.
func (k *Key) Marshal() []byte {
	return append(tpm2.Marshal(k.public), tpm2.Marshal(k.private)...)
}

func parseSaved(saved []byte) (public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate, err error) {
	if len(saved) > maxBlob {
		return public, private, fmt.Errorf("saved key of %d bytes, more than %d", len(saved), maxBlob)
	}
	area, rest, err := cutSized(saved)
	if err != nil {
		return public, private, fmt.Errorf("saved key, public area: %w", err)
	}
	sensitive, rest, err := cutSized(rest)
	if err != nil {
		return public, private, fmt.Errorf("saved key, private area: %w", err)
	}
	if len(rest) != 0 {
		return public, private, fmt.Errorf("saved key: %d bytes too many", len(rest))
	}
	public, err = parseKeyPublic(area)
	if err != nil {
		return public, private, fmt.Errorf("saved key: %w", err)
	}
	return public, tpm2.TPM2BPrivate{Buffer: sensitive}, nil
}

// Sign has the TPM make HMAC-SHA256 over message: 32 bytes (dps.Signer).
func (k *Key) Sign(message []byte) (mac []byte, err error) {
	k.id.mu.Lock()
	defer k.id.mu.Unlock()
	if k.closed || k.id.closed {
		return nil, ErrClosed
	}
	done := k.id.progress.timed(StepSign)
	defer func() { done(fmt.Sprintf("%d bytes signed inside the TPM", len(message)), err) }()
	// A signature is the password at the hub: the session hides it and ends.
	defer func() { err = errors.Join(err, k.id.guard.end()) }()
	err = k.id.withRoom([]*object{&k.object}, func() (err error) {
		if len(message) > maxHMACInput {
			mac, err = k.signLong(message)
			return err
		}
		mac, err = k.signShort(message)
		return err
	})
	return mac, err
}

func (k *Key) signShort(message []byte) ([]byte, error) {
	answer, err := tpm2.Hmac{Handle: k.withAuth(k.id.guard.prove(nil)), Buffer: tpm2.TPM2BMaxBuffer{Buffer: message},
		HashAlg: tpm2.TPMAlgSHA256}.Execute(k.id.tpm, k.id.guard.cover(secretOut, finally)...)
	if err != nil {
		return nil, tpmError("TPM2_HMAC", err)
	}
	return answer.OutHMAC.Buffer, nil
}

// signLong feeds the message in pieces. The sequence is an object of its own
// that only its completion removes, so it is flushed if it does not get there.
func (k *Key) signLong(message []byte) ([]byte, error) {
	start, err := tpm2.HmacStart{Handle: k.withAuth(k.id.guard.prove(nil)), HashAlg: tpm2.TPMAlgSHA256}.Execute(k.id.tpm)
	if err != nil {
		return nil, tpmError("TPM2_HMAC_Start", err)
	}
	mac, err := k.feed(start.SequenceHandle, message)
	if err != nil {
		return nil, errors.Join(err, flush(k.id.tpm, start.SequenceHandle))
	}
	return mac, nil
}

func (k *Key) feed(handle tpm2.TPMHandle, message []byte) ([]byte, error) {
	sequence := tpm2.AuthHandle{Handle: handle, Auth: k.id.guard.prove(nil)}
	for len(message) > maxHMACInput {
		piece := tpm2.TPM2BMaxBuffer{Buffer: message[:maxHMACInput]}
		if _, err := (tpm2.SequenceUpdate{SequenceHandle: sequence, Buffer: piece}).Execute(k.id.tpm); err != nil {
			return nil, tpmError("TPM2_SequenceUpdate", err)
		}
		message = message[maxHMACInput:]
	}
	answer, err := tpm2.SequenceComplete{SequenceHandle: sequence, Buffer: tpm2.TPM2BMaxBuffer{Buffer: message},
		Hierarchy: tpm2.TPMRHNull}.Execute(k.id.tpm, k.id.guard.cover(secretOut, finally)...)
	if err != nil {
		return nil, tpmError("TPM2_SequenceComplete", err)
	}
	return answer.Result.Buffer, nil
}

// Close flushes the key from the TPM. A second call does nothing.
func (k *Key) Close() error {
	k.id.mu.Lock()
	defer k.id.mu.Unlock()
	if k.id.closed {
		return nil
	}
	return k.flushLocked()
}

func (k *Key) flushLocked() error {
	if k.closed {
		return nil
	}
	k.closed = true
	delete(k.id.keys, k)
	return errors.Join(k.id.guard.end(), k.remove(k.id.tpm))
}
