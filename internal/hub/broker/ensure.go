package broker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

const (
	maxDeviceID = 128
	// putTries bounds how often an identity is read anew because another process has written it since.
	putTries = 4
)

var (
	errMoved = fmt.Errorf("hub: the identity moved while it was written: %w", registration.ErrNotYet)
	// errSettling: what was asked for is done but for a connection that the broker may have and not show yet.
	errSettling = fmt.Errorf("the broker may have a connection of the device that it does not show yet: %w", registration.ErrNotYet)
)

// EnsureDevice implements registration.Hub. The order is: the new credential durable and marked as cutting, then every connection of the device
// ended, then the mark taken off, then the answer. Whoever repeats a half-done call finds the mark and goes on.
func (h *Hub) EnsureDevice(ctx context.Context, scope, hub string, d registration.HubDevice) error {
	l, err := h.of(scope, hub)
	if err != nil {
		return err
	}
	if err := l.takes(d); err != nil {
		return err
	}
	return h.change(ctx, l, d.DeviceID, causeChanged, func(before registration.Identity, known bool) (*registration.IdentityPut, error) {
		return h.ensured(l, d, before, known)
	})
}

// DisableDevice implements registration.Mover.
func (h *Hub) DisableDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	l, err := h.of(scope, hub)
	if err != nil {
		return err
	}
	return h.disable(ctx, l, deviceID, generation)
}

func (h *Hub) disable(ctx context.Context, l *link, deviceID string, generation uint64) error {
	return h.change(ctx, l, deviceID, causeChanged, func(before registration.Identity, known bool) (*registration.IdentityPut, error) {
		switch {
		case !known:
			return nil, nil
		case before.Generation > generation:
			return nil, registration.ErrStale
		case before.Disabled && before.Generation == generation:
			return nil, nil
		}
		put := follow(before)
		put.Generation = generation
		if !before.Disabled {
			put.Disabled, put.Cutting, put.Updated = true, true, h.config.Now()
			put.StatusUpdated, put.StatusReason = put.Updated, ""
		}
		return put, nil
	})
}

// RemoveDevice implements registration.Mover. The device is shut out first, so that a call that stops halfway leaves nobody in.
func (h *Hub) RemoveDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	l, err := h.of(scope, hub)
	if err != nil {
		return err
	}
	if err := h.disable(ctx, l, deviceID, generation); err != nil {
		return err
	}
	for range putTries {
		if err = h.remove(ctx, l, deviceID, generation); !errors.Is(err, errMoved) {
			return err
		}
	}
	return err
}

func (h *Hub) remove(ctx context.Context, l *link, deviceID string, generation uint64) error {
	id, err := h.config.Identities.Identity(ctx, l.Scope, l.Name, deviceID)
	switch {
	case errors.Is(err, registration.ErrNotFound):
		id = registration.Identity{}
	case err != nil:
		return fmt.Errorf("hub: reading the identity: %w", err)
	case id.Generation > generation:
		return registration.ErrStale
	case !id.Disabled || id.Cutting && l.manager != nil: // somebody let it in again, with this same proof
		return errMoved
	}
	now := h.config.Now()
	verdict, err := h.config.Identities.DeleteIdentity(ctx, l.Scope, registration.IdentityDelete{Hub: l.Name, DeviceID: deviceID, Was: id.Generation, WasVersion: id.Version,
		Generation: generation, At: now}, audit(now, registration.ActionIdentityDelete, deviceID, struct {
		Hub        string `json:"hub"`
		Generation uint64 `json:"generation"`
	}{l.Name, generation}))
	switch {
	case err != nil:
		return fmt.Errorf("hub: deleting the identity: %w", err)
	case verdict == registration.Superseded:
		return registration.ErrStale
	case verdict == registration.Conflict, verdict == registration.Missing:
		return errMoved
	case verdict != registration.Applied:
		return fmt.Errorf("hub: deleting the identity: verdict %d", verdict)
	}
	h.logins.forget(l.Name, deviceID)
	return nil
}

// takes refuses what this broker can never hold.
func (l *link) takes(d registration.HubDevice) error {
	refuse := func(format string, a ...any) error {
		message := fmt.Sprintf(format, a...)
		return &registration.RefusedError{Message: message, Err: errors.New(message)}
	}
	switch {
	case !validDeviceID(d.DeviceID):
		return refuse("The device id has characters that no device at a broker can have.")
	case !l.nameable(d.DeviceID):
		return refuse("%s Give the enrollment another device id.", unnameable[l.settings.Product].why)
	case !d.Credential.Valid():
		return errors.New("hub: the credential is none")
	case d.Credential.Certificate != nil && !l.settings.Product.sendsCertificates():
		return refuse("A broker of the kind %s does not tell what certificate a client has shown: devices there prove themselves with a key.", l.settings.Product)
	}
	return nil
}

// unnameable are the characters that mean something else in the topics of a product.
var unnameable = map[Product]struct{ characters, why string }{
	RabbitMQ: {".*", "RabbitMQ takes a dot in a topic for a slash and a star for a wildcard: a device there has neither in its id."},
	NanoMQ:   {",", "NanoMQ joins topics with commas when it asks about them: a device there has none in its id."},
}

// nameable: the id means itself in the broker's topics.
func (l *link) nameable(deviceID string) bool {
	return !strings.ContainsAny(deviceID, unnameable[l.settings.Product].characters)
}

// ensured is the write that lets the device in with its credential; nil if that is so already.
func (h *Hub) ensured(l *link, d registration.HubDevice, before registration.Identity, known bool) (*registration.IdentityPut, error) {
	put := follow(before)
	same := false
	if known {
		if before.Generation > d.Generation {
			return nil, registration.ErrStale
		}
		encoded, err := h.config.Sealer.Open(registration.ContextIdentityKey(l.Scope, l.Name, d.DeviceID), before.SealedKey)
		if err != nil {
			return nil, fmt.Errorf("hub: opening the device key: %w", err)
		}
		held, err := registration.DecodeCredential(encoded)
		if err != nil {
			return nil, fmt.Errorf("hub: opening the device key: %w", err)
		}
		same = held.Equal(d.Credential)
	}
	if same && !before.Disabled && before.Generation == d.Generation {
		return nil, nil
	}
	put.Hub, put.DeviceID, put.Generation = l.Name, d.DeviceID, d.Generation
	now := h.config.Now()
	if !same {
		put.Updated = now
		put.Cutting = known
	}
	if before.Disabled {
		put.Disabled, put.StatusReason, put.StatusUpdated = false, "", now
	}
	if !known {
		put.Created, put.StatusUpdated = now, now
	}
	// Sealed anew even if it is the same: what was read could be under a master key that was just rotated away.
	var err error
	if put.SealedKey, err = h.config.Sealer.Seal(registration.ContextIdentityKey(l.Scope, l.Name, d.DeviceID), d.Credential.Encode()); err != nil {
		return nil, fmt.Errorf("hub: sealing the device key: %w", err)
	}
	return put, nil
}

// follow begins a write that takes the place of what was read.
func follow(before registration.Identity) *registration.IdentityPut {
	return &registration.IdentityPut{Identity: before, Was: before.Generation, WasVersion: before.Version}
}

// change writes what decide wants in the place of what was read, or reads again, and then ends the connections that the identity says must end.
func (h *Hub) change(ctx context.Context, l *link, deviceID, cause string, decide func(before registration.Identity, known bool) (*registration.IdentityPut, error)) error {
	var stored registration.Identity
	err := errMoved
	for tries := 0; tries < putTries && errors.Is(err, errMoved); tries++ {
		stored, err = h.tryChange(ctx, l, deviceID, decide)
	}
	if err != nil || !stored.Cutting {
		return err
	}
	return h.settle(ctx, l, stored, cause)
}

func (h *Hub) tryChange(ctx context.Context, l *link, deviceID string, decide func(registration.Identity, bool) (*registration.IdentityPut, error)) (registration.Identity, error) {
	before, known, err := h.identity(ctx, l, deviceID)
	if err != nil {
		return before, fmt.Errorf("hub: %w", err)
	}
	put, err := decide(before, known)
	if err != nil || put == nil {
		return before, err
	}
	return h.write(ctx, l, *put)
}

// write writes an identity and reads back what the store made of it.
func (h *Hub) write(ctx context.Context, l *link, put registration.IdentityPut) (registration.Identity, error) {
	verdict, err := h.config.Identities.PutIdentity(ctx, l.Scope, put, audit(h.config.Now(), registration.ActionIdentityPut, put.DeviceID, struct {
		Hub        string `json:"hub"`
		Generation uint64 `json:"generation"`
		Disabled   bool   `json:"disabled,omitempty"`
		Cutting    bool   `json:"cutting,omitempty"`
	}{put.Hub, put.Generation, put.Disabled, put.Cutting}))
	switch {
	case err != nil:
		return put.Identity, fmt.Errorf("hub: writing the identity: %w", err)
	case verdict == registration.Superseded: // a newer generation was left behind when the device was removed
		return put.Identity, registration.ErrStale
	case verdict == registration.Conflict:
		return put.Identity, errMoved
	case verdict != registration.Applied:
		return put.Identity, fmt.Errorf("hub: writing the identity: verdict %d", verdict)
	}
	stored, err := h.config.Identities.Identity(ctx, l.Scope, l.Name, put.DeviceID)
	if err != nil {
		return put.Identity, fmt.Errorf("hub: reading the identity that was written: %w", err)
	}
	return stored, nil
}

func audit(at time.Time, action, object string, detail any) registration.Audit {
	text, _ := json.Marshal(detail) // plain structs of texts and numbers
	return registration.Audit{At: at, Actor: registration.ActorService, Action: action, Object: object, Outcome: registration.OutcomeOK, Detail: string(text)}
}

// settle ends all connections of a device whose identity is marked as cutting, and takes the mark off when none can be left. Without a management
// API the mark stays: until the device logs in with what it has now, which ends the connection before it, all topics are refused to it.
func (h *Hub) settle(ctx context.Context, l *link, id registration.Identity, cause string) error {
	if l.manager == nil {
		return nil
	}
	if !h.sweptAfter(l, id) {
		closed, err := l.manager.cut(ctx, id.DeviceID)
		h.metrics.closed.WithLabelValues(cause).Add(float64(closed))
		if err != nil {
			return fmt.Errorf("hub %s: ending the connections of the device: %w", l.Name, err)
		}
		if !h.settled(l, id) {
			return errSettling
		}
	}
	put := follow(id)
	put.Cutting = false
	_, err := h.write(ctx, l, *put)
	return err
}

// settled: whatever connection the broker let in before the identity was written, its management API shows by now. It may not yet have shown one that
// is younger than ListDelay; of those this process knows if it is the only one that lets in.
func (h *Hub) settled(l *link, id registration.Identity) bool {
	now, delay := h.config.Now(), time.Duration(l.settings.ListDelay)
	if now.Sub(id.Updated) >= delay {
		return true
	}
	return h.config.Alone && now.Sub(h.started) >= delay && !h.logins.since(l.Name, id.DeviceID, now.Add(-delay))
}

// sweptAfter: a look at all connections that began late enough has ended those of this device.
func (h *Hub) sweptAfter(l *link, id registration.Identity) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return l.swept.After(id.Updated.Add(time.Duration(l.settings.ListDelay)))
}

// validDeviceID says which ids can be a device: those of an IoT Hub that cannot be mistaken for a topic filter.
func validDeviceID(id string) bool {
	if id == "" || len(id) > maxDeviceID {
		return false
	}
	for i := range len(id) {
		c := id[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("-._:%*?!(),=@$'", c) < 0 {
			return false
		}
	}
	return true
}

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

// Kinds of what a connection is made with.
const (
	withKey         = "key\x00"
	withCertificate = "certificate\x00"
)

func digestOf(kind string, secret []byte) [32]byte {
	return sha256.Sum256(append([]byte(kind), secret...))
}
