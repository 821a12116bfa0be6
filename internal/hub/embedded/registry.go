package embedded

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"latchkey.example/latchkey/internal/registration"
)

// Devices as applications see and change them. What they write goes the way of EnsureDevice: the new credential durable, then every session ended
// that it does not let in, then the answer. The generation stays as it was, so a proof that comes later still has the last word.

// KnownDevice reads one device; registration.ErrNotFound if there is none.
func (h *Hub) KnownDevice(ctx context.Context, scope, hub, deviceID string) (registration.KnownDevice, error) {
	hub = hostOf(hub)
	identity, err := h.config.Identities.Identity(ctx, scope, hub, deviceID)
	if err != nil {
		return registration.KnownDevice{}, err
	}
	return h.known(ctx, scope, identity)
}

// KnownDevices lists at most limit devices, those after the id after, in order of their ids.
func (h *Hub) KnownDevices(ctx context.Context, scope, hub, after string, limit int) ([]registration.KnownDevice, error) {
	rows, err := h.config.Identities.Identities(ctx, scope, hostOf(hub), after, limit)
	if err != nil {
		return nil, err
	}
	list := make([]registration.KnownDevice, 0, len(rows))
	for _, row := range rows {
		known, err := h.known(ctx, scope, row)
		if err != nil {
			return nil, err
		}
		list = append(list, known)
	}
	return list, nil
}

// countChunk is how many identities are read at once to count them.
const countChunk = 1000

// CountDevices counts the devices of a hub, those that are disabled, and those that are connected to this process.
func (h *Hub) CountDevices(ctx context.Context, scope, hub string) (n registration.DeviceCount, err error) {
	hub = hostOf(hub)
	for after := ""; ; {
		rows, err := h.config.Identities.Identities(ctx, scope, hub, after, countChunk)
		if err != nil {
			return n, err
		}
		for _, row := range rows {
			n.Total++
			if row.Disabled {
				n.Disabled++
			}
			after = row.DeviceID
		}
		if len(rows) < countChunk {
			break
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, d := range h.devices {
		if d.conn != nil && strings.HasPrefix(key, deviceKey(hub, "")) {
			n.Connected++
		}
	}
	return n, nil
}

// known completes what the store holds of a device.
func (h *Hub) known(ctx context.Context, scope string, identity registration.Identity) (registration.KnownDevice, error) {
	credential, err := h.credentialOf(scope, identity)
	if err != nil {
		return registration.KnownDevice{}, err
	}
	identity.SealedKey = nil
	d := registration.KnownDevice{Identity: identity, Credential: credential}
	if d.Waiting, err = h.config.Identities.CountMessages(ctx, scope, identity.Hub, identity.DeviceID); err != nil {
		return registration.KnownDevice{}, fmt.Errorf("hub: counting messages: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if session := h.devices[deviceKey(identity.Hub, identity.DeviceID)]; session != nil {
		d.Connected, d.ConnectionChanged, d.LastActivity = session.conn != nil, session.changed, session.changed
		if session.conn != nil && !session.conn.lastRead().IsZero() {
			d.LastActivity = session.conn.lastRead()
		}
	}
	return d, nil
}

func (h *Hub) credentialOf(scope string, identity registration.Identity) (registration.Credential, error) {
	encoded, err := h.config.Sealer.Open(registration.ContextIdentityKey(scope, identity.Hub, identity.DeviceID), identity.SealedKey)
	if err != nil {
		return registration.Credential{}, fmt.Errorf("hub: opening the device key: %w", err)
	}
	return registration.DecodeCredential(encoded)
}

// WriteDevice creates a device or changes all of one. ErrChanged if what is there is not what the write says was read, ErrElsewhere if sessions
// would have to end that another process has.
func (h *Hub) WriteDevice(ctx context.Context, scope, hub string, w registration.DeviceWrite, audit registration.Audit) (registration.KnownDevice, error) {
	hub = hostOf(hub)
	if !w.Credential.Valid() || len(w.StatusReason) > registration.MaxStatusReason {
		return registration.KnownDevice{}, errors.New("hub: a device that no hub can hold")
	}
	unlock, err := h.lockNamed(ctx, scope, hub, w.DeviceID)
	if err != nil {
		return registration.KnownDevice{}, err
	}
	defer unlock()
	before, known, err := h.readIdentity(ctx, scope, hub, w.DeviceID)
	if err != nil {
		return registration.KnownDevice{}, err
	}
	if known != (w.Was != 0) || known && before.Version != w.Was {
		return registration.KnownDevice{}, registration.ErrChanged
	}
	put := registration.IdentityPut{Was: before.Generation, WasVersion: before.Version, Identity: registration.Identity{
		Hub: hub, DeviceID: w.DeviceID, Generation: before.Generation, Created: before.Created,
		Disabled: w.Disabled, StatusReason: w.StatusReason, StatusUpdated: before.StatusUpdated, IoTEdge: w.IoTEdge}}
	put.Updated = h.config.Now()
	if !known {
		put.Created = put.Updated
	}
	if w.Disabled != before.Disabled {
		put.StatusUpdated = put.Updated
	}
	if err := h.fence(ctx, scope, &put, before, known, w.Credential); err != nil {
		return registration.KnownDevice{}, err
	}
	if err := h.putIdentity(ctx, scope, put, w.Credential, audit); err != nil {
		if known && unknownOutcome(err) {
			h.doubt(scope, hub, w.DeviceID, causeRekeyed)
		}
		return registration.KnownDevice{}, err
	}
	if err := h.cutForeign(ctx, scope, put, w.Credential); err != nil {
		return registration.KnownDevice{}, err
	}
	return h.KnownDevice(ctx, scope, hub, w.DeviceID)
}

// fence settles the generation of what is written, and who may write it: if sessions may hang on what is replaced, only who has them.
func (h *Hub) fence(ctx context.Context, scope string, put *registration.IdentityPut, before registration.Identity, known bool, credential registration.Credential) (err error) {
	if !known {
		left, err := h.config.Identities.IdentityGeneration(ctx, scope, put.Hub, put.DeviceID)
		if put.Generation = max(left, 1); err != nil {
			return fmt.Errorf("hub: reading the generation: %w", err)
		}
		return nil
	}
	old, err := h.config.Sealer.Open(registration.ContextIdentityKey(scope, put.Hub, put.DeviceID), before.SealedKey)
	if err != nil {
		return fmt.Errorf("hub: opening the device key: %w", err)
	}
	same := subtle.ConstantTimeCompare(old, credential.Encode()) == 1
	cuts := !same || put.Disabled && !before.Disabled
	if !cuts && !before.Cutting {
		return nil
	}
	reach, owner := h.owner.reach()
	if reach == registration.Elsewhere {
		return registration.ErrElsewhere
	}
	put.Owner = owner
	put.Cutting = h.config.Owners != nil && (cuts && reach == registration.Here || h.lingers(*put, credential))
	return nil
}

// lingers says whether a session is up, or remembered, that the identity does not let in.
func (h *Hub) lingers(put registration.IdentityPut, credential registration.Credential) bool {
	key := deviceKey(put.Hub, put.DeviceID)
	if put.Disabled {
		return h.boundToOther(key) // whatever it was made with
	}
	return h.boundToOther(key, digestsOf(credential)...)
}

// cutForeign ends what lingers, and takes the mark from the identity that it does.
func (h *Hub) cutForeign(ctx context.Context, scope string, put registration.IdentityPut, credential registration.Credential) error {
	if h.lingers(put, credential) {
		why := causeRekeyed
		if put.Disabled {
			why = causeDisabled
		}
		if err := h.end(ctx, deviceKey(put.Hub, put.DeviceID), why); err != nil {
			return fmt.Errorf("hub: ending the session: %w", err)
		}
	}
	if !put.Cutting {
		return nil
	}
	stored, known, err := h.readIdentity(ctx, scope, put.Hub, put.DeviceID)
	if err != nil || !known || !stored.Cutting {
		return err
	}
	put.Was, put.WasVersion, put.Cutting = stored.Generation, stored.Version, false
	return h.putIdentity(ctx, scope, put, credential, registration.Audit{At: put.Updated, Actor: registration.ActorService,
		Action: registration.ActionIdentityPut, Object: put.DeviceID, Outcome: registration.OutcomeOK, Detail: `{"cut":true}`})
}

// end cuts the device's connection and forgets its session. The caller holds the device's lock.
func (h *Hub) end(ctx context.Context, key string, why cause) error {
	if err := h.evict(ctx, key, why); err != nil {
		return err
	}
	h.forgetOthers(key)
	return nil
}

// RemoveKnown removes a device as it was read, with its twin, its messages and its sessions, in the order of RemoveDevice. ErrNotFound if there is none, ErrChanged if it is not of
// the version was (0: whichever), ErrElsewhere as WriteDevice.
func (h *Hub) RemoveKnown(ctx context.Context, scope, hub, deviceID string, was uint64, audit registration.Audit) error {
	hub = hostOf(hub)
	unlock, err := h.lockNamed(ctx, scope, hub, deviceID)
	if err != nil {
		return err
	}
	defer unlock()
	before, known, err := h.readIdentity(ctx, scope, hub, deviceID)
	switch {
	case err != nil:
		return err
	case !known:
		return registration.ErrNotFound
	case was != 0 && before.Version != was:
		return registration.ErrChanged
	}
	_, err = h.shut(ctx, scope, hub, deviceID, before.Generation, causeRemoved)
	switch {
	case errors.Is(err, errMoved), errors.Is(err, registration.ErrStale): // somebody else was faster
		return registration.ErrChanged
	case errors.Is(err, registration.ErrNotFound):
		return err
	case err != nil:
		if unknownOutcome(err) {
			h.doubt(scope, hub, deviceID, causeRemoved)
		}
		return err
	}
	stored, known, err := h.readIdentity(ctx, scope, hub, deviceID) // of which version it is
	switch {
	case err != nil:
		return err
	case !known || !stored.Disabled || stored.Cutting || stored.Generation != before.Generation:
		return registration.ErrChanged
	}
	verdict, err := h.config.Identities.DeleteIdentity(ctx, scope, registration.IdentityDelete{Hub: hub, DeviceID: deviceID,
		Was: stored.Generation, WasVersion: stored.Version, Generation: stored.Generation, At: h.config.Now()}, audit)
	return h.judge("deleting the identity", verdict, err)
}

// unknownOutcome says of a failed write that it may have been done, or may still be.
func unknownOutcome(err error) bool {
	return !errors.Is(err, registration.ErrChanged) && !errors.Is(err, registration.ErrElsewhere)
}

// lockNamed locks a device of a hub of the scope.
func (h *Hub) lockNamed(ctx context.Context, scope, hub, deviceID string) (unlock func(), err error) {
	if owner, ok := h.config.Names(hub); !ok || owner != scope {
		return nil, fmt.Errorf("hub: scope %q has no hub %q: %w", scope, clip(hub), registration.ErrUnlinked)
	}
	if !validDeviceID(deviceID) {
		return nil, errors.New("hub: the device id has characters that no device can have")
	}
	return h.logins.lock(ctx, deviceKey(hub, deviceID))
}

func (h *Hub) readIdentity(ctx context.Context, scope, hub, deviceID string) (id registration.Identity, known bool, err error) {
	id, err = h.config.Identities.Identity(ctx, scope, hub, deviceID)
	if errors.Is(err, registration.ErrNotFound) {
		return registration.Identity{}, false, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("hub: reading the identity: %w", err)
	}
	return id, true, nil
}

// putIdentity seals the credential and writes.
func (h *Hub) putIdentity(ctx context.Context, scope string, put registration.IdentityPut, credential registration.Credential, audit registration.Audit) (err error) {
	if put.SealedKey, err = h.config.Sealer.Seal(registration.ContextIdentityKey(scope, put.Hub, put.DeviceID), credential.Encode()); err != nil {
		return fmt.Errorf("hub: sealing the device key: %w", err)
	}
	verdict, err := h.config.Identities.PutIdentity(ctx, scope, put, audit)
	return h.judge("writing the identity", verdict, err)
}

// judge makes an error of what became of a write.
func (h *Hub) judge(doing string, verdict registration.Verdict, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("hub: %s: %w", doing, err)
	case verdict == registration.Applied:
		return nil
	case verdict == registration.OtherOwner:
		h.owner.mistaken()
		return registration.ErrElsewhere
	}
	return registration.ErrChanged // Conflict, Missing, Superseded: somebody else was faster
}
