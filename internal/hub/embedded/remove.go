package embedded

import (
	"context"
	"errors"
	"fmt"

	"latchkey.example/latchkey/internal/registration"
)

var _ registration.Mover = (*Hub)(nil)

// DisableDevice implements registration.Mover. A device that is not there leaves the generation behind, so that a call that comes late does not bring
// one that can log in.
func (h *Hub) DisableDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	hub = hostOf(hub)
	unlock, err := h.lockNamed(ctx, scope, hub, deviceID)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = repeated(func() (registration.Identity, error) {
		stored, err := h.shut(ctx, scope, hub, deviceID, generation, causeDisabled)
		if errors.Is(err, registration.ErrNotFound) {
			return stored, h.remove(ctx, scope, registration.Identity{Hub: hub, DeviceID: deviceID}, generation)
		}
		return stored, err
	})
	return err
}

// RemoveDevice implements registration.Mover. The device is shut out before its identity goes: who finds no identity, in whichever process, knows that
// no session is left.
func (h *Hub) RemoveDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	hub = hostOf(hub)
	unlock, err := h.lockNamed(ctx, scope, hub, deviceID)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = repeated(func() (registration.Identity, error) {
		stored, err := h.shut(ctx, scope, hub, deviceID, generation, causeRemoved)
		if err == nil {
			stored, err = h.config.Identities.Identity(ctx, scope, hub, deviceID) // of which version it is
		}
		switch {
		case errors.Is(err, registration.ErrNotFound):
			stored = registration.Identity{Hub: hub, DeviceID: deviceID}
		case err != nil:
			return stored, err
		case !stored.Disabled || stored.Cutting || stored.Generation != generation:
			return stored, errMoved
		}
		return stored, h.remove(ctx, scope, stored, generation)
	})
	return err
}

// Forget removes the identity of a device at a hub that the scope has linked no more, of whatever kind it was, with its twin and its messages; nil if there is
// none, ErrStale as RemoveDevice. Its sessions ended with the hub (Drop).
func (h *Hub) Forget(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	hub = hostOf(hub)
	if owner, ok := h.config.Names(hub); ok && owner == scope {
		return fmt.Errorf("hub: %q is linked again", clip(hub))
	}
	unlock, err := h.logins.lock(ctx, deviceKey(hub, deviceID))
	if err != nil {
		return err
	}
	defer unlock()
	_, err = repeated(func() (registration.Identity, error) {
		stored, err := h.config.Identities.Identity(ctx, scope, hub, deviceID)
		switch {
		case errors.Is(err, registration.ErrNotFound):
			return stored, nil
		case err != nil:
			return stored, fmt.Errorf("hub: reading the identity: %w", err)
		case stored.Generation > generation:
			return stored, registration.ErrStale
		}
		return stored, h.remove(ctx, scope, stored, generation)
	})
	return err
}

// shut makes sure that nobody can log in as the device by an older proof than the given one, and that nobody is: durably first, then the sessions
// are cut, also those of a call before this one that was half done. It returns the identity as it is then; ErrNotFound if there is none. The caller
// has locked the device.
func (h *Hub) shut(ctx context.Context, scope, hub, deviceID string, generation uint64, why cause) (registration.Identity, error) {
	stored, err := h.config.Identities.Identity(ctx, scope, hub, deviceID)
	known := err == nil
	switch {
	case !known && !errors.Is(err, registration.ErrNotFound):
		return stored, fmt.Errorf("hub: reading the identity: %w", err)
	case stored.Generation > generation:
		return stored, registration.ErrStale
	}
	var credential registration.Credential
	if known && (!stored.Disabled || stored.Cutting || stored.Generation < generation) {
		if credential, err = h.credentialOf(scope, stored); err != nil {
			return stored, err
		}
		if stored, err = h.putShut(ctx, scope, stored, credential, generation); err != nil {
			return stored, err
		}
	}
	key := deviceKey(hub, deviceID)
	if err := h.evict(ctx, key, why); err != nil {
		return stored, fmt.Errorf("hub: ending the session of a device that is shut out: %w", err)
	}
	h.forgetOthers(key) // whatever it was made with
	if !known {
		return stored, registration.ErrNotFound
	}
	err = h.noteCut(ctx, scope, stored, credential)
	stored.Cutting = false
	return stored, err
}

// putShut writes that nobody is to log in. As long as sessions may be up, only the process that has them, or any while none has, may write it:
// ErrElsewhere.
func (h *Hub) putShut(ctx context.Context, scope string, before registration.Identity, credential registration.Credential, generation uint64) (registration.Identity, error) {
	put := registration.IdentityPut{Was: before.Generation, WasVersion: before.Version, Identity: before}
	put.Generation, put.Disabled = generation, true
	if !before.Disabled || before.Cutting {
		reach, owner := h.owner.reach()
		if reach == registration.Elsewhere {
			return before, registration.ErrElsewhere
		}
		put.Owner, put.Cutting = owner, h.config.Owners != nil && reach == registration.Here
	}
	if !before.Disabled {
		put.StatusReason, put.StatusUpdated = "", h.config.Now()
	}
	return h.write(ctx, scope, put, credential, false)
}

// remove removes an identity that is shut, with all that hangs on it, or makes sure that there is none, and leaves the generation behind.
func (h *Hub) remove(ctx context.Context, scope string, stored registration.Identity, generation uint64) error {
	now := h.config.Now()
	audit, err := h.audit(registration.ActionIdentityDelete, stored.DeviceID, now, struct {
		Hub        string `json:"hub"`
		Generation uint64 `json:"generation"`
		Existed    bool   `json:"existed"`
	}{stored.Hub, generation, stored.Generation != 0})
	if err != nil {
		return err
	}
	verdict, err := h.config.Identities.DeleteIdentity(ctx, scope, registration.IdentityDelete{
		Hub: stored.Hub, DeviceID: stored.DeviceID, Was: stored.Generation, WasVersion: stored.Version, Generation: generation, At: now,
	}, audit)
	return h.became("removing the identity", verdict, err)
}
