package simtpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Clear takes the TPM away from its owner (TPM2_Clear, TPM 2.0 Part 3, 24.6):
// a new storage seed, empty authorisations, and no keys under owner or
// endorsement any more, persistent or not. The endorsement seed stays, so the
// same template gives the same EK again.
func Clear(tpm transport.TPM) error {
	lockout := tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}
	if _, err := (tpm2.Clear{AuthHandle: lockout}).Execute(tpm); err != nil {
		return fmt.Errorf("simtpm: TPM2_Clear: %w", err)
	}
	return nil
}

// OpenHandles lists the transient objects and the loaded and saved sessions
// that a TPM holds: what a careful program leaves behind is an empty list.
func OpenHandles(tpm transport.TPM) ([]tpm2.TPMHandle, error) {
	const (
		loadedSession = 0x02000000
		savedSession  = 0x03000000
		transient     = 0x80000000
		atMost        = 64
	)
	var open []tpm2.TPMHandle
	for _, first := range []uint32{loadedSession, savedSession, transient} {
		answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: atMost}.Execute(tpm)
		if err != nil {
			return nil, fmt.Errorf("simtpm: list handles: %w", err)
		}
		handles, err := answer.CapabilityData.Data.Handles()
		if err != nil {
			return nil, fmt.Errorf("simtpm: list handles: %w", err)
		}
		open = append(open, handles.Handle...)
	}
	return open, nil
}
