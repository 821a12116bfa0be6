package azure

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// EnsureDevice implements registration.Hub. It reads the identity, decides what is next (next), does that, and so on until nothing is left to do. A try that ends in trouble
// is followed by another, from the beginning: what the first may have done is then seen.
//
// A device that is new, and one whose credential changed, is disabled until the twin is written and what the owner before has left is cleared. At
// Azure IoT Hub disabling is what ends a session; a key that is merely replaced would leave one open that was made with the old.
func (h *Hub) EnsureDevice(ctx context.Context, _, hub string, want registration.HubDevice) error {
	if err := h.check(hub, want.DeviceID); err != nil {
		return err
	}
	if !want.Credential.Valid() {
		return fmt.Errorf("hub %s: the credential is none", hub)
	}
	return h.persist(ctx, func(ctx context.Context) error { return h.ensure(ctx, want) })
}

func (h *Hub) check(hub, deviceID string) error {
	switch {
	case hub != h.config.Name:
		return fmt.Errorf("hub %s: %w", hub, registration.ErrUnlinked)
	case !dps.ValidDeviceID(deviceID):
		return fmt.Errorf("hub %s: the device id has characters that no device can have", hub)
	}
	return nil
}

// persist makes up to tries tries of what may be tried again at once, and puts the hub's name before the error.
func (h *Hub) persist(ctx context.Context, try func(ctx context.Context) error) error {
	for n := 1; ; n++ {
		err := try(ctx)
		var trouble *troubleError
		switch {
		case err == nil, errors.Is(err, registration.ErrStale), errors.Is(err, registration.ErrNotFound):
			return err
		case !errors.As(err, &trouble) || n == tries || ctx.Err() != nil:
			return fmt.Errorf("hub %s: %w", h.config.Name, err)
		}
		by := firstPause << (n - 1)
		if h.config.Wait(ctx, by/2+time.Duration(h.config.Random()*float64(by))) != nil {
			return fmt.Errorf("hub %s: %w", h.config.Name, err)
		}
	}
}

// maxSteps bounds a try: an identity is made in at most three writes.
const maxSteps = 4

func (h *Hub) ensure(ctx context.Context, want registration.HubDevice) error {
	have, err := h.read(ctx, want.DeviceID)
	if err != nil {
		return err
	}
	for range maxSteps {
		step, err := next(have, want, h.takes.Load())
		if err != nil || step == nil {
			return err
		}
		if err := h.clear(ctx, *step, have, want); err != nil {
			return err
		}
		if have, err = h.write(ctx, step.device); err != nil {
			return err
		}
	}
	return &troubleError{errors.New("the hub does not keep what is written to it")}
}

// step is what is done next: what goes before, then the write of the identity.
type step struct {
	twin, purge bool
	device      iothub.Device // ETag empty: create
}

// next decides. have is nil if there is no such device; a nil step says that all is done. takes: the hub takes reported properties.
func next(have *iothub.Device, want registration.HubDevice, takes bool) (*step, error) {
	if have == nil {
		return create(want, takes), nil
	}
	mark, _ := iothub.ParseMark(have.StatusReason) // what has none was made by somebody else, before any proof
	same := holds(have.Authentication, want.Credential)
	replace := want.Data != nil && (want.Data.Replace || mark.Stage == iothub.New)
	to := *have
	to.Authentication = authentication(want.Credential)
	switch {
	case mark.Generation > want.Generation:
		return nil, registration.ErrStale
	case same && mark == iothub.Mark{Generation: want.Generation} && have.Status == iothub.Enabled:
		return nil, nil
	case same && mark.Generation == want.Generation: // what is left to do
		set(&to, want.Generation, iothub.Made, iothub.Enabled)
		return &step{device: to, twin: mark.Stage == iothub.New && want.Data != nil, purge: mark.Stage != iothub.Made}, nil
	case replace:
		to.IoTEdge = want.Data.IoTEdge
		status := have.Status
		if !same {
			status = iothub.Disabled
		}
		set(&to, want.Generation, iothub.New, status)
	case !same || mark.Stage == iothub.Rekeyed: // the latter: somebody had begun to clear, and it may be his rest that is there
		set(&to, want.Generation, iothub.Rekeyed, iothub.Disabled)
	default:
		set(&to, want.Generation, iothub.Made, iothub.Enabled)
	}
	return &step{device: to}, nil
}

func set(d *iothub.Device, generation uint64, stage iothub.Stage, status string) {
	d.StatusReason, d.Status = iothub.Mark{Generation: generation, Stage: stage}.String(), status
}

// create is the first write of a device: all there is to do, if it has no twin to be written.
func create(want registration.HubDevice, takes bool) *step {
	d := iothub.Device{DeviceID: want.DeviceID, Authentication: authentication(want.Credential)}
	set(&d, want.Generation, iothub.Made, iothub.Enabled)
	if want.Data != nil {
		d.IoTEdge = want.Data.IoTEdge
		if !emptyTwin(*want.Data, takes) {
			set(&d, want.Generation, iothub.New, iothub.Disabled)
		}
	}
	return &step{device: d}
}

// clear does what goes before a write: the twin, and what waits for an owner who is gone. Either may be done twice.
func (h *Hub) clear(ctx context.Context, s step, have *iothub.Device, want registration.HubDevice) error {
	if s.twin {
		if err := h.writeTwin(ctx, want.DeviceID, *want.Data); err != nil {
			return err
		}
	}
	if s.purge && have.CloudToDeviceMessageCount > 0 {
		err := h.call(ctx, request{method: "DELETE", path: iothub.DevicePath(want.DeviceID) + "/commands",
			without: "The device has changed hands, and the hub has no way to remove the messages that wait for the owner before.", most: iothub.MaxIdentity, read: purged})
		if err != nil {
			return vanished(fmt.Errorf("removing the messages that wait for the owner before: %w", err))
		}
	}
	return nil
}

// purged judges the answer of a hub that has removed messages: it says how many.
func purged(body []byte) error {
	var count struct {
		TotalMessagesPurged *int `json:"totalMessagesPurged"`
	}
	if dps.CheckObject(body, iothub.MaxIdentity) != nil || json.Unmarshal(body, &count) != nil || count.TotalMessagesPurged == nil {
		return errors.New("the hub does not say that it has removed messages")
	}
	return nil
}

// vanished makes of a device that is gone in the middle of a try a reason to begin anew.
func vanished(err error) error {
	if errors.Is(err, errAbsent) {
		return &troubleError{err}
	}
	return err
}

// read reads an identity; nil if there is none.
func (h *Hub) read(ctx context.Context, deviceID string) (d *iothub.Device, err error) {
	err = h.call(ctx, request{method: "GET", path: iothub.DevicePath(deviceID), most: iothub.MaxIdentity, read: identity(deviceID, &d)})
	if errors.Is(err, errAbsent) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the device: %w", err)
	}
	return d, nil
}

// write creates an identity, or writes one in the place of that whose etag it has.
func (h *Hub) write(ctx context.Context, d iothub.Device) (written *iothub.Device, err error) {
	secrets := []string{base64.StdEncoding.EncodeToString(d.Authentication.PrimaryKey), base64.StdEncoding.EncodeToString(d.Authentication.SecondaryKey)}
	err = h.call(ctx, request{method: "PUT", path: iothub.DevicePath(d.DeviceID), ifMatch: d.ETag, body: d.Request(), secrets: secrets,
		most: iothub.MaxIdentity, read: identity(d.DeviceID, &written)})
	if err != nil {
		return nil, vanished(fmt.Errorf("writing the device: %w", err))
	}
	return written, nil
}

// identity reads the identity of a device out of an answer.
func identity(deviceID string, into **iothub.Device) func(body []byte) error {
	return func(body []byte) error {
		d, err := iothub.DecodeDevice(body)
		switch {
		case err != nil:
			return fmt.Errorf("the hub answered with what is no identity: %w", err)
		case d.DeviceID != deviceID:
			return errors.New("the hub answered with another device")
		case d.ETag == "":
			return errors.New("the hub answered with an identity that has no etag")
		}
		*into = &d
		return nil
	}
}

// authentication is a credential as an identity holds it. No slot is left to the hub, which would fill it with a key that nobody has asked for: a
// single key or certificate stands in both, as the imitated service does it.
func authentication(c registration.Credential) iothub.Authentication {
	if c.Certificate != nil {
		thumbprint := strings.ToUpper(hex.EncodeToString(c.Certificate))
		return iothub.Authentication{Type: iothub.SelfSigned, PrimaryThumbprint: thumbprint, SecondaryThumbprint: thumbprint}
	}
	a := iothub.Authentication{Type: iothub.SAS, PrimaryKey: c.Primary, SecondaryKey: c.Secondary}
	if a.SecondaryKey == nil {
		a.SecondaryKey = a.PrimaryKey
	}
	return a
}

// holds tells whether an identity lets in with exactly this credential, in constant time. A hub need not show a second slot that is like the first.
func holds(have iothub.Authentication, c registration.Credential) bool {
	want := authentication(c)
	if have.SecondaryKey == nil && c.Secondary == nil {
		have.SecondaryKey = have.PrimaryKey
	}
	if have.SecondaryThumbprint == "" {
		have.SecondaryThumbprint = have.PrimaryThumbprint
	}
	same := subtle.ConstantTimeCompare(have.PrimaryKey, want.PrimaryKey) & subtle.ConstantTimeCompare(have.SecondaryKey, want.SecondaryKey)
	return same == 1 && have.Type == want.Type && have.PrimaryThumbprint == want.PrimaryThumbprint && have.SecondaryThumbprint == want.SecondaryThumbprint
}
