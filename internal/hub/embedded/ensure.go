package embedded

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
// it ended, then the answer. Sessions remember what they were made with, so a call that repeats a half-done one ends them too; and so that one
// in another process does not take a half-done one for done, the identity says that it is (Cutting).
func (h *Hub) EnsureDevice(ctx context.Context, scope, hub string, d registration.HubDevice) error {
	if !d.Credential.Valid() {
		return errors.New("hub: the credential is none")
	}
	hub = hostOf(hub)
	unlock, err := h.lockNamed(ctx, scope, hub, d.DeviceID)
	if err != nil {
		return err
	}
	defer unlock()
	key := deviceKey(hub, d.DeviceID)
	stored, err := repeated(func() (registration.Identity, error) { return h.tryCredential(ctx, scope, hub, d) })
	if err != nil {
		return err
	}
	if d.Data != nil {
		h.wakeDevice(key, newTwin)
	}
	digests := digestsOf(d.Credential)
	if !h.boundToOther(key, digests...) {
		h.wakeDevice(key, newTwin) // of data that came with it
		return h.noteCut(ctx, scope, stored, d.Credential)
	}
	if err := h.evict(ctx, key, causeRekeyed); err != nil {
		return fmt.Errorf("hub: ending the session under the old key: %w", err)
	}
	h.forgetOthers(key, digests...)
	return h.noteCut(ctx, scope, stored, d.Credential)
}

// tries bounds how often an identity is read anew because another process has written it since.
const tries = 4

var errMoved = errors.New("hub: the identity moved while it was written")

// repeated repeats what reads an identity and writes in its place, while that fails because the identity moved.
func repeated[T any](try func() (T, error)) (result T, err error) {
	for range tries {
		if result, err = try(); !errors.Is(err, errMoved) {
			break
		}
	}
	return result, err
}

// tryCredential makes d's credential the durable one, if it is not already, and never goes back to an older generation. It returns the identity as it
// is then. It writes in the place of what it has read, or not at all: errMoved.
//
// Where no session can hang on what is replaced, since there was no identity or it held the same credential and nothing is left to cut, any
// process may write. Otherwise only the one that has the sessions, or any while none has: the write names it.
func (h *Hub) tryCredential(ctx context.Context, scope, hub string, d registration.HubDevice) (registration.Identity, error) {
	before, err := h.config.Identities.Identity(ctx, scope, hub, d.DeviceID)
	known := err == nil
	if !known && !errors.Is(err, registration.ErrNotFound) {
		return before, fmt.Errorf("hub: reading the identity: %w", err)
	}
	same, purge := false, false
	if known {
		if before.Generation > d.Generation {
			return before, registration.ErrStale
		}
		old, err := h.config.Sealer.Open(registration.ContextIdentityKey(scope, hub, d.DeviceID), before.SealedKey)
		if err != nil {
			return before, fmt.Errorf("hub: opening the device key: %w", err)
		}
		same = subtle.ConstantTimeCompare(old, d.Credential.Encode()) == 1
		if held, err := registration.DecodeCredential(old); err == nil {
			purge = !slices.ContainsFunc(digestsOf(held), func(digest [32]byte) bool { return slices.Contains(digestsOf(d.Credential), digest) })
		}
	}
	if same && before.Generation == d.Generation && !before.Disabled {
		return before, nil
	}
	put := registration.IdentityPut{Was: before.Generation, Purge: purge, Identity: h.enabled(before, hub, d)}
	if put.Twin, err = h.twinOf(ctx, scope, &put.Identity, before, d.Data); err != nil {
		return before, err
	}
	if known && (!same || before.Cutting) {
		reach, owner := h.owner.reach()
		if reach == registration.Elsewhere {
			return before, registration.ErrElsewhere
		}
		// While the device is locked nobody logs in. But a write of which this process does not hear may be seen after that only, and until then the old
		// credential lets in: so the mark is set whether there is a session now or not. While nobody has the hub, nobody can take it before that write is seen.
		put.Owner = owner
		put.Cutting = h.config.Owners != nil && (!same && reach == registration.Here || h.boundToOther(deviceKey(hub, d.DeviceID), digestsOf(d.Credential)...))
	}
	return h.write(ctx, scope, put, d.Credential, known && !same)
}

// enabled is the identity before, or a new one, as it is once the device may log in.
func (h *Hub) enabled(before registration.Identity, hub string, d registration.HubDevice) registration.Identity {
	is := before
	is.Hub, is.DeviceID, is.Generation, is.Cutting = hub, d.DeviceID, d.Generation, false
	if before.Generation == 0 {
		is.Created = h.config.Now()
	}
	if is.Disabled {
		is.Disabled, is.StatusReason, is.StatusUpdated = false, "", h.config.Now()
	}
	return is
}

// noteCut takes the mark from an identity that sessions were left of, now that none are; ErrElsewhere if only another process knows that.
func (h *Hub) noteCut(ctx context.Context, scope string, stored registration.Identity, credential registration.Credential) error {
	if !stored.Cutting {
		return nil
	}
	reach, owner := h.owner.reach()
	if reach == registration.Elsewhere {
		return registration.ErrElsewhere
	}
	put := registration.IdentityPut{Was: stored.Generation, Owner: owner, Identity: stored}
	put.Cutting = false
	_, err := h.write(ctx, scope, put, credential, false)
	return err
}

// write seals the credential into put and writes it. It seals anew even if the credential is the same: what was read could be under a master key that was just
// rotated away.
func (h *Hub) write(ctx context.Context, scope string, put registration.IdentityPut, credential registration.Credential, rekeyed bool) (registration.Identity, error) {
	var err error
	put.Updated = h.config.Now()
	if put.SealedKey, err = h.config.Sealer.Seal(registration.ContextIdentityKey(scope, put.Hub, put.DeviceID), credential.Encode()); err != nil {
		return put.Identity, fmt.Errorf("hub: sealing the device key: %w", err)
	}
	audit, err := h.audit(registration.ActionIdentityPut, put.DeviceID, put.Updated, struct {
		Hub        string `json:"hub"`
		Generation uint64 `json:"generation"`
		Rekeyed    bool   `json:"rekeyed"`
		Cutting    bool   `json:"cutting,omitempty"`
		Disabled   bool   `json:"disabled,omitempty"`
		Twin       bool   `json:"twin,omitempty"`
	}{put.Hub, put.Generation, rekeyed, put.Cutting, put.Disabled, put.Twin != nil})
	if err != nil {
		return put.Identity, err
	}
	verdict, err := h.config.Identities.PutIdentity(ctx, scope, put, audit)
	if err := h.became("writing the identity", verdict, err); err != nil {
		return put.Identity, err
	}
	if rekeyed {
		h.metrics.rekeyed.Inc()
	}
	return put.Identity, nil
}

// audit is the row of what the hub does by order of the service.
func (h *Hub) audit(action, deviceID string, at time.Time, what any) (registration.Audit, error) {
	detail, err := json.Marshal(what)
	return registration.Audit{
		At: at, Actor: registration.ActorService, Action: action, Object: deviceID, Outcome: registration.OutcomeOK, Detail: string(detail),
	}, err
}

// became makes an error of what became of a write that a proof has ordered: errMoved if it is worth another look at what is there.
func (h *Hub) became(doing string, verdict registration.Verdict, err error) error {
	switch {
	case err == nil && verdict == registration.Superseded:
		return registration.ErrStale
	case err == nil && (verdict == registration.Conflict || verdict == registration.Missing):
		return errMoved
	}
	return h.judge(doing, verdict, err)
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
