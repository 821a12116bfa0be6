package hubapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/hubapi"
	"latchkey.example/latchkey/internal/registration"
)

// troubled is a hub whose calls fail, before their effect or after it.
type troubled struct {
	hubapi.Hub
	err   *error // nil in it: none
	after *bool
}

// meets runs a call, or has it fail.
func meets[T any](t troubled, call func() (T, error)) (T, error) {
	if *t.err == nil || *t.after {
		got, err := call()
		if err != nil || *t.err == nil {
			return got, err
		}
	}
	var none T
	return none, *t.err
}

func (t troubled) KnownDevices(ctx context.Context, scope, hub, after string, limit int) ([]registration.KnownDevice, error) {
	return meets(t, func() ([]registration.KnownDevice, error) { return t.Hub.KnownDevices(ctx, scope, hub, after, limit) })
}

func (t troubled) CountDevices(ctx context.Context, scope, hub string) (registration.DeviceCount, error) {
	return meets(t, func() (registration.DeviceCount, error) { return t.Hub.CountDevices(ctx, scope, hub) })
}

func (t troubled) WriteDevice(ctx context.Context, scope, hub string, w registration.DeviceWrite, audit registration.Audit) (registration.KnownDevice, error) {
	return meets(t, func() (registration.KnownDevice, error) { return t.Hub.WriteDevice(ctx, scope, hub, w, audit) })
}

func (t troubled) RemoveKnown(ctx context.Context, scope, hub, id string, was uint64, audit registration.Audit) error {
	_, err := meets(t, func() (struct{}, error) { return struct{}{}, t.Hub.RemoveKnown(ctx, scope, hub, id, was, audit) })
	return err
}

func (t troubled) KnownTwin(ctx context.Context, scope, hub, id string) (registration.Twin, error) {
	return meets(t, func() (registration.Twin, error) { return t.Hub.KnownTwin(ctx, scope, hub, id) })
}

func (t troubled) ChangeTwin(ctx context.Context, scope, hub, id string, change registration.TwinChange) (registration.Twin, error) {
	return meets(t, func() (registration.Twin, error) { return t.Hub.ChangeTwin(ctx, scope, hub, id, change) })
}

func (t troubled) SendMessage(ctx context.Context, scope string, m registration.HubMessage) error {
	_, err := meets(t, func() (struct{}, error) { return struct{}{}, t.Hub.SendMessage(ctx, scope, m) })
	return err
}

func (t troubled) PurgeMessages(ctx context.Context, scope, hub, id string) (int, error) {
	return meets(t, func() (int, error) { return t.Hub.PurgeMessages(ctx, scope, hub, id) })
}

func (t troubled) InvokeMethod(ctx context.Context, scope, hub, id, method string, payload json.RawMessage, connect, respond time.Duration) (int, json.RawMessage, error) {
	return 0, nil, *t.err
}

// Every call of the hub fails, before its effect and after it. The answer says when to come again and nothing of the inside; what was done can be
// seen, and a device that was not made can be made.
func TestAHubInTroubleIsToldAsSuch(t *testing.T) {
	var err error
	var after bool
	h := newHouseWith(t, func(hub hubapi.Hub) hubapi.Hub { return troubled{hub, &err, &after} })
	inside := errors.New("inside: table identities is locked")
	for _, row := range []struct {
		err          error
		name, reason string
	}{{inside, "ServiceUnavailable", "store-down"}, {registration.ErrElsewhere, "ServiceUnavailable", "hub-elsewhere"}} {
		for _, after = range []bool{false, true} {
			err = nil
			h.ask("DELETE", "/devices/made"+version, "", as(t, owner))
			h.ask("PUT", "/devices/d"+version, `{"deviceId":"d"}`, as(t, owner))
			err = row.err
			for _, o := range []struct{ method, path, body string }{
				{"GET", "/devices", ""}, {"GET", "/statistics/devices", ""}, {"GET", "/statistics/service", ""}, {"POST", "/devices/query", `{"query":"SELECT * FROM devices"}`},
				{"PUT", "/devices/made", `{"deviceId":"made"}`}, {"GET", "/twins/d", ""}, {"PATCH", "/twins/d", `{"tags":{"a":1}}`}, {"PUT", "/twins/d", `{"tags":{"a":1}}`},
				{"POST", "/devices/d/messages/deviceBound", "m"}, {"DELETE", "/devices/d/commands", ""}, {"POST", "/twins/d/methods", `{"methodName":"m"}`}, {"DELETE", "/devices/d", ""},
			} {
				a := h.owner(o.method, o.path, o.body).refused(503, row.name, "")
				h.because(a, row.reason)
				if a.header.Get("Retry-After") == "" || strings.Contains(a.body, "inside") {
					t.Errorf("%s %s: %v %s", o.method, o.path, a.header, a.body)
				}
			}
			got := h.bulk(400, `{"id":"bulk","importMode":"createOrUpdate"}`)
			if len(got.Errors) != 1 || got.Errors[0].ErrorCode != row.name || strings.Contains(got.Errors[0].ErrorStatus, "inside") {
				t.Errorf("a bulk: %+v", got)
			}
			err = nil
			want := map[bool]int{true: 200, false: 404}[after]
			h.owner("GET", "/devices/made", "").want(want)
		}
	}
}
