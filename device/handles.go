package device

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Slots are what a TPM holds at the moment, and has room for.
type Slots struct {
	Persistent []uint32 // keys that survive a restart
	Transient  []uint32 // loaded keys; behind a resource manager only one's own show
	Sessions   []uint32 // sessions, loaded or saved

	PersistentFree int // keys that still fit, at least; an estimate of the TPM's
	TransientFree  int
	SessionsFree   int
}

// First handles of each kind (TPM 2.0 Part 2, 7.2).
const (
	firstLoadedSession = 0x02000000
	firstSavedSession  = 0x03000000
	firstTransient     = 0x80000000
	firstPersistent    = 0x81000000

	handleIndex = 0x00ffffff
	maxHandles  = 1024 // more are not believed
)

// ReadSlots asks a TPM what it holds. It needs no authorisation.
func ReadSlots(tpm transport.TPM) (*Slots, error) {
	var s Slots
	for _, kind := range []struct {
		first uint32
		into  *[]uint32
	}{
		{firstPersistent, &s.Persistent}, {firstTransient, &s.Transient},
		{firstLoadedSession, &s.Sessions}, {firstSavedSession, &s.Sessions},
	} {
		found, err := listHandles(tpm, kind.first)
		if err != nil {
			return nil, err
		}
		*kind.into = append(*kind.into, found...)
	}
	state, err := properties(tpm, uint32(ptPermanent), variableCount)
	if err != nil {
		return nil, err
	}
	s.PersistentFree, s.TransientFree = int(state[ptPersistentFree]), int(state[ptTransientFree])
	s.SessionsFree = int(state[ptLoadedFree])
	return &s, nil
}

// listHandles lists the handles in use from first on, of its kind.
func listHandles(tpm transport.TPM, first uint32) ([]uint32, error) {
	const atOnce = 64
	var found []uint32
	for next := first; len(found) < maxHandles; {
		answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: next, PropertyCount: atOnce}.Execute(tpm)
		if err != nil {
			return nil, tpmError("TPM2_GetCapability", err)
		}
		list, err := answer.CapabilityData.Data.Handles()
		if err != nil {
			return nil, tpmError("TPM2_GetCapability", err)
		}
		for _, handle := range list.Handle {
			// Saved sessions come under their handles when loaded: only the
			// lower three bytes count on.
			at := first&^handleIndex | uint32(handle)&handleIndex
			if at < next { // a TPM that goes back would keep us here
				return nil, fmt.Errorf("TPM2_GetCapability: handle 0x%08x follows 0x%08x", uint32(handle), next)
			}
			found = append(found, uint32(handle))
			next = at + 1
		}
		if !answer.MoreData || len(list.Handle) == 0 {
			return found, nil
		}
	}
	return found, nil
}

// FlushLeftovers removes all loaded keys and all sessions from a TPM, and tells
// how many. They are what programs that died left in a TPM without a resource
// manager, but a program that still runs loses what it uses, too: so do this
// only when asked, and only if nobody else uses the TPM.
func FlushLeftovers(tpm transport.TPM) (flushed int, err error) {
	slots, err := ReadSlots(tpm)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, handle := range slices.Concat(slots.Transient, slots.Sessions) {
		if err := flush(tpm, tpm2.TPMHandle(handle)); err != nil {
			errs = append(errs, fmt.Errorf("0x%08x: %w", handle, err))
			continue
		}
		flushed++
	}
	return flushed, errors.Join(errs...)
}
