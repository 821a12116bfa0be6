package device

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

var (
	// ErrOtherKey says that a key sits at the standard handle that does not fit:
	// of another algorithm than asked for, or no storage key at all.
	ErrOtherKey = errors.New("another key is at the handle")

	// ErrOtherOwner says that a saved key does not open under the TPM's present
	// SRK: the TPM was cleared since, or it is another TPM. Register again.
	ErrOtherOwner = errors.New("the saved key does not belong to the TPM's present owner; register again")

	// ErrNotForThisTPM says that an activation blob was made for another TPM, or
	// for another owner of this one.
	ErrNotForThisTPM = errors.New("the activation blob was not made for this TPM and its present owner")

	// ErrFailureMode says that the TPM has found itself broken and takes no
	// commands (TPM 2.0 Part 1, 12.4). A power cycle makes it test itself again.
	ErrFailureMode = errors.New("the TPM is in failure mode until it loses power; switch the device off and on")

	// ErrNoRoom says that the TPM has no slot free for another key or session,
	// though all of ours that was not needed made room. Other programs hold them,
	// or died with them; behind a resource manager (/dev/tpmrm0) each has its own.
	ErrNoRoom = errors.New("the TPM has no room for another key or session")

	// ErrChanged says that a response is not the one that the TPM has sent:
	// something between this process and the TPM has changed it, or made it up.
	ErrChanged = errors.New("the TPM's response was changed on its way")

	// ErrOtherEK says that the TPM shows another EK than the trusted one: it is
	// another TPM, or something between it and this process lies.
	ErrOtherEK = errors.New("the TPM shows another endorsement key than the trusted one")

	// ErrNoTrustedSalt says that an authorisation would have to be proved before
	// the trusted EK is loaded. Keep the EK in the TPM.
	ErrNoTrustedSalt = errors.New("an authorisation is asked for before the trusted endorsement key is there to protect it; keep that key in the TPM")

	// ErrClosed says that the Key or Identity is closed.
	ErrClosed = errors.New("closed")
)

// TPMError is a TPM command that failed.
type TPMError struct {
	// Command is its name in TPM 2.0 Part 3, such as "TPM2_Load".
	Command string

	// Code is the TPM's response code, and 0 if there was no response: then Err
	// says what happened on the way to the TPM.
	Code tpm2.TPMRC

	// Reason is what the failure means here, if that is known: ErrOtherOwner,
	// ErrNotForThisTPM, ErrFailureMode or ErrNoRoom. Else nil.
	Reason error

	// Err is what the TPM or the transport said.
	Err error
}

// Error names the command, what the TPM said and the response code.
func (e *TPMError) Error() string {
	text := e.Command + ": " + e.Err.Error()
	if e.Code != 0 {
		text = fmt.Sprintf("%s (response code 0x%03x)", text, uint32(e.Code))
	}
	if e.Reason != nil {
		text = fmt.Sprintf("%v: %s", e.Reason, text)
	}
	return text
}

// Unwrap gives Reason and Err, so that errors.Is finds both ErrOtherOwner and
// codes such as tpm2.TPMRCLockout.
func (e *TPMError) Unwrap() []error {
	if e.Reason == nil {
		return []error{e.Err}
	}
	return []error{e.Reason, e.Err}
}

func tpmError(command string, err error) error {
	return tpmErrorMeaning(command, err, nil)
}

// tpmErrorMeaning is tpmError with a reason, for the given response codes.
func tpmErrorMeaning(command string, err, reason error, codes ...tpm2.TPMRC) error {
	var inner *TPMError // what had to come before the command
	switch {
	case err == nil:
		return nil
	case errors.As(err, &inner):
		return inner
	}
	failure := &TPMError{Command: command, Err: err}
	errors.As(err, &failure.Code)
	for _, code := range codes {
		if errors.Is(err, code) {
			failure.Reason = reason
		}
	}
	if failure.Reason == nil && isFull(err) {
		failure.Reason = ErrNoRoom
	}
	return failure
}
