package hubapi

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// writeTries bounds how often a write that names no etag is tried anew because somebody else has written meanwhile.
const writeTries = 4

// mostListed is the largest list of devices.
const mostListed = 1000

// unkept is the header of answers with keys, that nothing between here and the caller may keep.
func unkept(etag string) map[string]string {
	header := map[string]string{"Cache-Control": "no-store"}
	if etag != "" {
		header["ETag"] = `"` + etag + `"`
	}
	return header
}

func deviceReply(d registration.KnownDevice) web.Reply {
	wire := shown(d)
	return web.Reply{Status: http.StatusOK, Header: unkept(wire.ETag), Body: wire.Answer()}
}

func (a *API) getDevice(id string) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if err := a.deviceID(c.by, id); err != nil {
			return web.Reply{}, err
		}
		d, err := a.hub.KnownDevice(ctx, c.by.Scope, c.hub, id)
		if err != nil {
			return web.Reply{}, a.refuse(c.by, "reading a device", err)
		}
		if d.Credential.Certificate == nil {
			if err := a.reveal(ctx, c.by, d); err != nil {
				return web.Reply{}, err
			}
		}
		return deviceReply(d), nil
	}
}

func (a *API) listDevices(ctx context.Context, c call) (web.Reply, error) {
	top := mostListed
	if text := c.URL.Query().Get("top"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostListed {
			return web.Reply{}, a.fault(c.by, iothub.ArgumentInvalid, registration.ReasonBadRequest, fmt.Sprintf("top must be a number from 1 to %d. To read more, use POST /devices/query.", mostListed))
		}
		top = n
	}
	list, err := a.hub.KnownDevices(ctx, c.by.Scope, c.hub, "", top)
	if err != nil {
		return web.Reply{}, a.refuse(c.by, "listing devices", err)
	}
	if len(list) > 0 {
		if err := a.core.NoteHubCall(ctx, c.by, registration.ActionDeviceReveal, c.hub, fmt.Sprintf(`{"devices":%d}`, len(list))); err != nil {
			return web.Reply{}, err
		}
	}
	body := []byte{'['}
	for i, d := range list {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, shown(d).Answer()...)
	}
	return web.Reply{Status: http.StatusOK, Header: unkept(""), Body: append(body, ']')}, nil
}

func (a *API) putDevice(id string) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if err := a.deviceID(c.by, id); err != nil {
			return web.Reply{}, err
		}
		want, ok := conditionOf(c.Header)
		if !ok {
			return web.Reply{}, a.badCondition(c.by)
		}
		device, err := iothub.DecodeDevice(c.Body)
		switch {
		case err != nil:
			return web.Reply{}, a.bad(c.by, err)
		case device.DeviceID != id:
			return web.Reply{}, a.fault(c.by, iothub.ArgumentInvalid, registration.ReasonBadDevice, "deviceId: is another one than the path names.")
		}
		want.absent = want.absent || !want.any && want.etag == ""
		d, err := a.write(ctx, c, want, device)
		if err != nil {
			return web.Reply{}, err
		}
		return deviceReply(d), nil
	}
}

func (a *API) badCondition(by registration.Caller) error {
	return a.fault(by, iothub.ArgumentInvalid, registration.ReasonBadRequest, "Send one If-Match with an etag or *, or If-None-Match: *, or neither.")
}

// write makes the device what is wanted, if what is there is what the condition says.
func (a *API) write(ctx context.Context, c call, want condition, device iothub.Device) (registration.KnownDevice, error) {
	if device.DeviceScope != "" || len(device.ParentScopes) > 0 {
		return registration.KnownDevice{}, a.fault(c.by, notImplemented, registration.ReasonNoModules, "deviceScope: this hub has no parents of devices.")
	}
	for try := 1; ; try++ {
		d, err := a.tryWrite(ctx, c, want, device)
		if !errors.Is(err, registration.ErrChanged) {
			return d, err
		}
		if want.etag != "" || try == writeTries {
			return d, a.refuse(c.by, "writing a device", err)
		}
	}
}

// tryWrite writes in the place of what it has read. ErrChanged goes to the caller as it is.
func (a *API) tryWrite(ctx context.Context, c call, want condition, device iothub.Device) (registration.KnownDevice, error) {
	before, err := a.find(ctx, c, want, device.DeviceID)
	if err != nil {
		return registration.KnownDevice{}, err
	}
	write := registration.DeviceWrite{DeviceID: device.DeviceID, Disabled: device.Status == iothub.Disabled, StatusReason: device.StatusReason, IoTEdge: device.IoTEdge}
	var known *registration.Credential
	if before != nil {
		write.Was, known = before.Version, &before.Credential
	}
	var problem string
	if write.Credential, problem = credentialOf(device.Authentication, known); problem != "" {
		return registration.KnownDevice{}, a.fault(c.by, iothub.ArgumentInvalid, registration.ReasonBadDevice, problem)
	}
	audit := a.core.HubAudit(c.by, registration.ActionDevicePut, device.DeviceID, registration.ReasonChanged, told(before, write))
	d, err := a.hub.WriteDevice(ctx, c.by.Scope, c.hub, write, audit)
	if err != nil && !errors.Is(err, registration.ErrChanged) {
		err = a.refuse(c.by, "writing a device", err)
	}
	return d, err
}

// find reads the device that a write is for, and judges the condition. Nil: there is none and there must be none.
func (a *API) find(ctx context.Context, c call, want condition, id string) (*registration.KnownDevice, error) {
	d, err := a.hub.KnownDevice(ctx, c.by.Scope, c.hub, id)
	switch {
	case errors.Is(err, registration.ErrNotFound) && want.absent:
		return nil, nil
	case err != nil:
		return nil, a.refuse(c.by, "reading a device", err)
	case want.absent:
		return nil, a.fault(c.by, iothub.DeviceAlreadyExists, registration.ReasonDeviceExists, "A device of this id exists already. To change it, send its etag or * in If-Match.")
	case want.etag != "" && subtle.ConstantTimeCompare([]byte(want.etag), []byte(etag(d.Identity))) != 1:
		return nil, a.refuse(c.by, "", registration.ErrChanged)
	}
	return &d, nil
}

// told is a write as the audit tells it: what of the device changes, never a key.
func told(before *registration.KnownDevice, w registration.DeviceWrite) string {
	created := before == nil
	if created {
		return fmt.Sprintf(`{"created":true,"disabled":%t}`, w.Disabled)
	}
	return fmt.Sprintf(`{"rekeyed":%t,"disabled":{"before":%t,"after":%t}}`, !before.Credential.Equal(w.Credential), before.Disabled, w.Disabled)
}

func (a *API) deleteDevice(id string) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if err := a.deviceID(c.by, id); err != nil {
			return web.Reply{}, err
		}
		want, ok := conditionOf(c.Header)
		if !ok || want.absent {
			return web.Reply{}, a.badCondition(c.by)
		}
		if err := a.remove(ctx, c, want, id); err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusNoContent}, nil
	}
}

// remove deletes a device. Without an etag it takes it as it is.
func (a *API) remove(ctx context.Context, c call, want condition, id string) error {
	for try := 1; ; try++ {
		d, err := a.find(ctx, c, want, id)
		if err != nil {
			return err
		}
		audit := a.core.HubAudit(c.by, registration.ActionDeviceDelete, id, registration.ReasonDeleted, "")
		err = a.hub.RemoveKnown(ctx, c.by.Scope, c.hub, id, d.Version, audit)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, registration.ErrChanged) && want.etag == "" && try < writeTries:
			continue
		}
		return a.refuse(c.by, "deleting a device", err)
	}
}
