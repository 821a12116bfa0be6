package embedded

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"latchkey.example/latchkey/internal/registration"
)

// digestOf names a key or a certificate among those of a device; the kind keeps the two apart.
func digestOf(kind string, secret []byte) [32]byte {
	return sha256.Sum256(append([]byte(kind), secret...))
}

// Kinds of what a session is made with.
const (
	withKey         = "key\x00"
	withCertificate = "certificate\x00"
)

// digestsOf names all that a credential lets in.
func digestsOf(c registration.Credential) [][32]byte {
	if c.Certificate != nil {
		return [][32]byte{digestOf(withCertificate, c.Certificate)}
	}
	digests := [][32]byte{digestOf(withKey, c.Primary)}
	if c.Secondary != nil {
		digests = append(digests, digestOf(withKey, c.Secondary))
	}
	return digests
}

// EnsureDevice implements registration.Hub. The order is: the new credential durable, then every session that was made with what is not in
// it ended, then the answer. Sessions remember what they were made with, so a call that repeats a half-done one ends them too.
func (h *Hub) EnsureDevice(ctx context.Context, scope, hub string, d registration.HubDevice) error {
	hub = hostOf(hub)
	if owner, ok := h.config.Names(hub); !ok || owner != scope {
		return fmt.Errorf("hub: scope %q has no hub %q", scope, clip(hub))
	}
	if !validDeviceID(d.DeviceID) || !d.Credential.Valid() {
		return errors.New("hub: the device id has characters that no device can have, or the credential is none")
	}
	key := deviceKey(hub, d.DeviceID)
	unlock, err := h.logins.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	// Another node may have written the identity since it was read: it is read anew, then.
	again := true
	for try := 0; again && err == nil; try++ {
		if try == putTries {
			return errors.New("hub: the identity moved each time it was read")
		}
		again, err = h.putCredential(ctx, scope, hub, d)
	}
	if err != nil {
		return err
	}
	digests := digestsOf(d.Credential)
	if !h.boundToOther(key, digests...) {
		return nil
	}
	if err := h.evict(ctx, key, causeRekeyed); err != nil {
		return fmt.Errorf("hub: ending the session under the old key: %w", err)
	}
	h.forgetOthers(key, digests...)
	return nil
}

// putTries bounds how often EnsureDevice reads an identity anew.
const putTries = 4

// putCredential makes d's credential the durable one, if it is not already, and never goes back to an older generation. It writes nothing, and
// says so, if the identity has moved since it was read.
func (h *Hub) putCredential(ctx context.Context, scope, hub string, d registration.HubDevice) (moved bool, err error) {
	sealContext := registration.ContextIdentityKey(scope, hub, d.DeviceID)
	before, err := h.config.Identities.Identity(ctx, scope, hub, d.DeviceID)
	known := err == nil
	if !known && !errors.Is(err, registration.ErrNotFound) {
		return false, fmt.Errorf("hub: reading the identity: %w", err)
	}
	same := false
	if known {
		if before.Generation > d.Generation {
			return false, registration.ErrStale
		}
		old, err := h.config.Sealer.Open(sealContext, before.SealedKey)
		if err != nil {
			return false, fmt.Errorf("hub: opening the device key: %w", err)
		}
		same = subtle.ConstantTimeCompare(old, d.Credential.Encode()) == 1
	}
	if same && before.Generation == d.Generation {
		return false, nil
	}
	// Sealed anew even if the key is the same: the value read could be under a master key that was just rotated away.
	sealed, err := h.config.Sealer.Seal(sealContext, d.Credential.Encode())
	if err != nil {
		return false, fmt.Errorf("hub: sealing the device key: %w", err)
	}
	return h.write(ctx, scope, registration.IdentityPut{Was: before.Generation, Identity: registration.Identity{
		Hub: hub, DeviceID: d.DeviceID, SealedKey: sealed, Generation: d.Generation, Updated: h.config.Now(),
	}}, known && !same)
}

func (h *Hub) write(ctx context.Context, scope string, id registration.IdentityPut, rekeyed bool) (moved bool, err error) {
	detail, err := json.Marshal(struct {
		Hub        string `json:"hub"`
		Generation uint64 `json:"generation"`
		Rekeyed    bool   `json:"rekeyed"`
	}{id.Hub, id.Generation, rekeyed})
	if err != nil {
		return false, err
	}
	verdict, err := h.config.Identities.PutIdentity(ctx, scope, id, registration.Audit{
		At: id.Updated, Actor: registration.ActorService, Action: registration.ActionIdentityPut, Object: id.DeviceID,
		Outcome: registration.OutcomeOK, Detail: string(detail),
	})
	switch {
	case err != nil:
		return false, fmt.Errorf("hub: writing the identity: %w", err)
	case verdict == registration.Conflict:
		return true, nil
	case verdict != registration.Applied:
		return false, fmt.Errorf("hub: writing the identity: verdict %d", verdict)
	}
	if rekeyed {
		h.metrics.rekeyed.Inc()
	}
	return false, nil
}

// Drop implements registration.Hub. Logins fail already, as Config.Names does not know the hub any more. All connections are cut before any
// is waited for, so that one that does not end leaves no other open.
func (h *Hub) Drop(ctx context.Context, _, hub string) error {
	var failed error
	for _, key := range h.cutAll(deviceKey(hostOf(hub), "")) {
		failed = errors.Join(failed, h.dropDevice(ctx, key))
	}
	if failed != nil {
		return fmt.Errorf("hub: ending the sessions of a hub that is gone: %w", failed)
	}
	return nil
}

// cutAll cuts the connections of all devices whose keys begin so, and names the devices.
func (h *Hub) cutAll(prefix string) (keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, d := range h.devices {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		keys = append(keys, key)
		if d.conn != nil {
			d.conn.cut(causeDropped)
		}
	}
	return keys
}

func (h *Hub) dropDevice(ctx context.Context, key string) error {
	unlock, err := h.logins.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := h.evict(ctx, key, causeDropped); err != nil {
		return err
	}
	h.forgetOthers(key) // whatever it was made with
	return nil
}
