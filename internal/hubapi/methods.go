package hubapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// invoke calls a device and waits for its answer, outside the gate. That it is called is durable audit before the device hears of it.
func (a *API) invoke(id string) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if err := a.deviceID(c.by, id); err != nil {
			return web.Reply{}, err
		}
		m, err := iothub.DecodeMethod(c.Body)
		if err != nil {
			return web.Reply{}, a.bad(c.by, err)
		}
		if _, err := a.hub.KnownDevice(ctx, c.by.Scope, c.hub, id); err != nil {
			return web.Reply{}, a.refuse(c.by, "reading a device", err)
		}
		detail, err := json.Marshal(map[string]string{"method": m.Name})
		if err != nil {
			return web.Reply{}, err
		}
		if err := a.core.NoteHubCall(ctx, c.by, registration.ActionMethodInvoke, id, string(detail)); err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Wait: &web.Wait{Most: m.Connect + m.Respond + 5*time.Second, For: func(ctx context.Context) (web.Reply, error) {
			status, answer, err := a.hub.InvokeMethod(ctx, c.by.Scope, c.hub, id, m.Name, m.Payload, m.Connect, m.Respond)
			if err != nil {
				return web.Reply{}, a.refuseMethod(c.by, err)
			}
			return web.Reply{Status: http.StatusOK, Body: iothub.MethodAnswer(status, answer)}, nil
		}}}, nil
	}
}

func (a *API) refuseMethod(by registration.Caller, err error) error {
	switch {
	case errors.Is(err, registration.ErrOffline):
		return a.fault(by, iothub.DeviceNotOnline, registration.ReasonDeviceOffline, "Timed out waiting for device to connect: it is not connected, or does not listen for direct methods.")
	case errors.Is(err, registration.ErrNoAnswer):
		return a.fault(by, iothub.GatewayTimeout, registration.ReasonMethodTimeout, "Timed out waiting for the response from device.")
	case errors.Is(err, registration.ErrBusy):
		return a.busy(by)
	case errors.Is(err, context.Canceled):
		return a.fault(by, iothub.ServiceUnavailable, registration.ReasonMethodTimeout, "The service is stopping, or the caller hung up. The device may have been called.")
	}
	return a.refuse(by, "calling a device", err)
}

// busy advises to come back: the device has as many calls open as it may have.
func (a *API) busy(by registration.Caller) error {
	fault := a.core.Fault(by.Scope, 429001, registration.ReasonOverload, "Too many direct methods of this device wait for their answers. Wait as long as Retry-After says.", nil)
	fault.RetryAfter = 5 * time.Second
	return fault
}
