package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// RemoveDevice implements registration.Mover: the identity as it was read is deleted, and with it go its twin, messages and sessions.
func (h *Hub) RemoveDevice(ctx context.Context, _, hub, deviceID string, generation uint64) error {
	if err := h.check(hub, deviceID); err != nil {
		return err
	}
	return h.persist(ctx, func(ctx context.Context) error {
		have, err := h.fenced(ctx, deviceID, generation)
		if err != nil || have == nil {
			return err
		}
		err = h.call(ctx, request{method: "DELETE", path: iothub.DevicePath(deviceID), ifMatch: have.ETag, expect: http.StatusNoContent})
		if errors.Is(err, errAbsent) { // somebody else did, or we: the answer to a try before was lost
			return nil
		}
		if err != nil {
			return fmt.Errorf("removing the device: %w", err)
		}
		return nil
	})
}

// DisableDevice implements registration.Mover.
func (h *Hub) DisableDevice(ctx context.Context, _, hub, deviceID string, generation uint64) error {
	if err := h.check(hub, deviceID); err != nil {
		return err
	}
	return h.persist(ctx, func(ctx context.Context) error {
		have, err := h.fenced(ctx, deviceID, generation)
		if err != nil || have == nil {
			return err
		}
		mark, _ := iothub.ParseMark(have.StatusReason)
		if have.Status == iothub.Disabled && mark.Generation == generation {
			return nil
		}
		to := *have
		set(&to, generation, mark.Stage, iothub.Disabled) // whoever enables it finds what was left to do
		_, err = h.write(ctx, to)
		return err
	})
}

// fenced reads an identity; nil if there is none, ErrStale if it was made for a later proof.
func (h *Hub) fenced(ctx context.Context, deviceID string, generation uint64) (*iothub.Device, error) {
	have, err := h.read(ctx, deviceID)
	if err != nil || have == nil {
		return nil, err
	}
	if mark, _ := iothub.ParseMark(have.StatusReason); mark.Generation > generation {
		return nil, registration.ErrStale
	}
	return have, nil
}

// DeviceData implements registration.Mover.
func (h *Hub) DeviceData(ctx context.Context, _, hub, deviceID string) (data registration.DeviceData, err error) {
	if err := h.check(hub, deviceID); err != nil {
		return data, err
	}
	err = h.persist(ctx, func(ctx context.Context) error {
		data, err = h.readTwin(ctx, deviceID)
		return err
	})
	return data, err
}

// probeID is a device that nobody has: the hub says so to whoever may ask. Should it be there, it has not this etag.
const (
	probeID   = "latchkey.probe"
	probeETag = "bGF0Y2hrZXk="
)

// Probe asks the hub something that changes nothing, and says whether it answers as an IoT hub does to whoever has RegistryRead.
func (h *Hub) Probe(ctx context.Context) error {
	return h.persist(ctx, func(ctx context.Context) error {
		_, err := h.read(ctx, probeID)
		return err
	})
}

// lacks tells of a refusal which right it shows to be missing; of other failures, at what they came.
func lacks(doing, missing string, err error) error {
	var refused *registration.RefusedError
	if errors.As(err, &refused) {
		return &registration.HubError{Message: missing, Err: fmt.Errorf("%s: %w", doing, err)}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// permitted tells whether an answer shows that we had the right: who has it not is told that first.
func permitted(err error) bool {
	var judged *iothub.Error
	return err == nil || errors.Is(err, errAbsent) || errors.Is(err, errRaced) || errors.As(err, &judged) && judged.Status == http.StatusBadRequest
}

// ProbeRights says whether the hub would let us write identities and twins. It asks to remove a device that is not there, and to change its twin, on a condition that no
// device meets. To read a twin would not do: some hubs show twins to whoever has RegistryRead.
func (h *Hub) ProbeRights(ctx context.Context) error {
	return h.persist(ctx, func(ctx context.Context) error {
		err := h.call(ctx, request{method: "DELETE", path: iothub.DevicePath(probeID), ifMatch: probeETag, expect: http.StatusNoContent})
		if !permitted(err) {
			return lacks("asking for RegistryWrite", "the connection string lets us read devices and not write them: its access policy lacks RegistryWrite", err)
		}
		err = h.call(ctx, request{method: "PATCH", path: iothub.TwinPath(probeID), ifMatch: probeETag, body: []byte(`{"tags":{}}`), most: iothub.MaxTwinAnswer,
			read: func(body []byte) error { return twinOf(probeID, body, nil) }})
		if !permitted(err) {
			return lacks("asking for ServiceConnect", "the connection string does not let us change twins: its access policy lacks ServiceConnect", err)
		}
		return nil
	})
}
