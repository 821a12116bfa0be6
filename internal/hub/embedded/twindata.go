package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// twinOf makes what is written of a device's data together with its identity: all of it with a new identity, and with one that was there before
// only if it is to be replaced by a later proof than that of which it is. So a call that is repeated does not put back what the device has reported since.
func (h *Hub) twinOf(ctx context.Context, scope string, is *registration.Identity, before registration.Identity, data *registration.DeviceData) (*registration.TwinPut, error) {
	if data == nil || before.Generation != 0 && !(data.Replace && before.Generation < is.Generation) {
		return nil, nil
	}
	is.IoTEdge = data.IoTEdge
	was, err := h.config.Identities.Twin(ctx, scope, is.Hub, is.DeviceID)
	if err != nil && !errors.Is(err, registration.ErrNotFound) {
		return nil, fmt.Errorf("hub: reading the twin: %w", err)
	}
	if was.Version == 0 && len(data.Tags)+len(data.Desired)+len(data.Reported) == 0 {
		return nil, nil
	}
	put, err := replacedTwin(was, *data, h.config.Now())
	if err != nil {
		return nil, &registration.RefusedError{Message: "The device's twin is not one that the hub can hold: " + err.Error(), Err: err}
	}
	put.Hub, put.DeviceID, put.Outbox = is.Hub, is.DeviceID, h.newsFor(is.Hub, is.DeviceID)
	return put, nil
}

// replacedTwin puts data in the place of a twin. Versions rise from those that the device may know.
func replacedTwin(was registration.Twin, data registration.DeviceData, at time.Time) (*registration.TwinPut, error) {
	tags, err := iothub.ReplaceTags(orObject(data.Tags))
	if err != nil {
		return nil, err
	}
	desired, err := iothub.Part{Values: was.Desired, Metadata: was.DesiredMetadata, Version: was.DesiredVersion}.Replace(iothub.Desired, orObject(data.Desired), at)
	if err != nil {
		return nil, err
	}
	reported, err := iothub.Part{Values: was.Reported, Metadata: was.ReportedMetadata, Version: was.ReportedVersion}.Replace(iothub.Reported, orObject(data.Reported), at)
	if err != nil {
		return nil, err
	}
	return &registration.TwinPut{Was: was.Version, Twin: registration.Twin{
		Tags: tags, Desired: desired.Values, DesiredMetadata: desired.Metadata, DesiredVersion: desired.Version,
		Reported: reported.Values, ReportedMetadata: reported.Metadata, ReportedVersion: reported.Version, Updated: at,
	}}, nil
}

func orObject(text []byte) []byte {
	if len(text) == 0 {
		return []byte(`{}`)
	}
	return text
}

// DeviceData implements registration.Mover.
func (h *Hub) DeviceData(ctx context.Context, scope, hub, deviceID string) (registration.DeviceData, error) {
	hub = hostOf(hub)
	if owner, ok := h.config.Names(hub); !ok || owner != scope {
		return registration.DeviceData{}, fmt.Errorf("hub: scope %q has no hub %q: %w", scope, clip(hub), registration.ErrUnlinked)
	}
	id, err := h.config.Identities.Identity(ctx, scope, hub, deviceID)
	if err != nil {
		return registration.DeviceData{}, fmt.Errorf("hub: reading the identity: %w", err)
	}
	t, err := h.config.Identities.Twin(ctx, scope, hub, deviceID)
	if err != nil && !errors.Is(err, registration.ErrNotFound) {
		return registration.DeviceData{}, fmt.Errorf("hub: reading the twin: %w", err)
	}
	return registration.DeviceData{Tags: t.Tags, Desired: t.Desired, Reported: t.Reported, IoTEdge: id.IoTEdge}, nil
}
