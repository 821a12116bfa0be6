package embedded

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"

	"latchkey.example/latchkey/internal/registration"
)

const keySize = 32

func digestOf(key []byte) [32]byte { return sha256.Sum256(key) }

// EnsureDevice implements registration.Hub. The order is: the new key durable, then every session that was made under another
// key ended, then the answer. Sessions remember their key, so a call that repeats a half-done one ends them too.
func (h *Hub) EnsureDevice(ctx context.Context, scope, hub string, d registration.HubDevice) error {
	hub = hostOf(hub)
	if owner, ok := h.config.Names(hub); !ok || owner != scope {
		return fmt.Errorf("hub: scope %q has no hub %q", scope, clip(hub))
	}
	if !validDeviceID(d.DeviceID) || len(d.Key) != keySize {
		return errors.New("hub: the device id has characters that no device can have, or the key is not 32 bytes")
	}
	key := deviceKey(hub, d.DeviceID)
	unlock, err := h.logins.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := h.putKey(ctx, scope, hub, d); err != nil {
		return err
	}
	digest := digestOf(d.Key)
	if !h.boundToOther(key, digest) {
		return nil
	}
	if err := h.evict(ctx, key, causeRekeyed); err != nil {
		return fmt.Errorf("hub: ending the session under the old key: %w", err)
	}
	h.forgetOthers(key, digest)
	return nil
}

// putKey makes d's key the durable one, if it is not already, and never goes back to an older generation.
func (h *Hub) putKey(ctx context.Context, scope, hub string, d registration.HubDevice) error {
	sealContext := registration.ContextIdentityKey(scope, hub, d.DeviceID)
	before, err := h.config.Identities.Identity(ctx, scope, hub, d.DeviceID)
	known := err == nil
	if !known && !errors.Is(err, registration.ErrNotFound) {
		return fmt.Errorf("hub: reading the identity: %w", err)
	}
	same := false
	if known {
		if before.Generation > d.Generation {
			return registration.ErrStale
		}
		old, err := h.config.Sealer.Open(sealContext, before.SealedKey)
		if err != nil {
			return fmt.Errorf("hub: opening the device key: %w", err)
		}
		same = subtle.ConstantTimeCompare(old, d.Key) == 1
	}
	if same && before.Generation == d.Generation {
		return nil
	}
	// Sealed anew even if the key is the same: the value read could be under a master key that was just rotated away.
	sealed, err := h.config.Sealer.Seal(sealContext, d.Key)
	if err != nil {
		return fmt.Errorf("hub: sealing the device key: %w", err)
	}
	return h.write(ctx, scope, registration.Identity{
		Hub: hub, DeviceID: d.DeviceID, SealedKey: sealed, Generation: d.Generation, Updated: h.config.Now(),
	}, known && !same)
}

func (h *Hub) write(ctx context.Context, scope string, id registration.Identity, rekeyed bool) error {
	detail, err := json.Marshal(struct {
		Hub        string `json:"hub"`
		Generation uint64 `json:"generation"`
		Rekeyed    bool   `json:"rekeyed"`
	}{id.Hub, id.Generation, rekeyed})
	if err != nil {
		return err
	}
	verdict, err := h.config.Identities.PutIdentity(ctx, scope, id, registration.Audit{
		At: id.Updated, Actor: registration.ActorService, Action: registration.ActionIdentityPut, Object: id.DeviceID,
		Outcome: registration.OutcomeOK, Detail: string(detail),
	})
	switch {
	case err != nil:
		return fmt.Errorf("hub: writing the identity: %w", err)
	case verdict == registration.Conflict:
		return registration.ErrStale
	case verdict != registration.Applied:
		return fmt.Errorf("hub: writing the identity: verdict %d", verdict)
	}
	if rekeyed {
		h.metrics.rekeyed.Inc()
	}
	return nil
}
