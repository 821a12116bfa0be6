package hubapi_test

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/hubapi"
	"latchkey.example/latchkey/internal/registration"
)

const methodTopic = "$iothub/methods/POST/#"

// answering has the device answer each direct method.
func (d *device) answering(status, payload string) {
	go func() {
		for range d.arrived {
			d.mu.Lock()
			m := d.received[0]
			d.received = d.received[1:]
			d.mu.Unlock()
			_, rid, _ := strings.Cut(m.Topic(), "$rid=")
			d.Publish("$iothub/methods/res/"+status+"/?$rid="+rid, 0, false, strings.ReplaceAll(payload, "ASKED", string(m.Payload())))
		}
	}()
}

func TestAMethodIsAnsweredByItsDevice(t *testing.T) {
	h := newHouse(t)
	h.connect("d", h.create("d"), methodTopic).answering("207", `{"asked":ASKED}`)
	a := h.owner("POST", "/twins/d/methods", `{"methodName":"reboot","responseTimeoutInSeconds":10,"payload":{"in":"5 s"}}`).want(200)
	if a.get("status") != "207" || a.body != `{"status":207,"payload":{"asked":{"in":"5 s"}}}` {
		t.Errorf("answered %s", a.body)
	}
	if rows := h.audited(a); len(rows) != 1 || rows[0].Action != registration.ActionMethodInvoke || rows[0].Detail != `{"method":"reboot"}` {
		t.Errorf("audited %+v", rows)
	}
	if a := h.owner("POST", "/twins/d/methods", `{"methodName":"reboot"}`).want(200); a.body != `{"status":207,"payload":{"asked":null}}` {
		t.Errorf("without a payload: %s", a.body)
	}
}

func TestAMethodOfADeviceThatIsNotThere(t *testing.T) {
	h := newHouse(t)
	d := h.create("d")
	h.because(h.owner("POST", "/twins/d/methods", `{"methodName":"reboot"}`).refused(404, "DeviceNotOnline", "connect"), "device-offline")
	h.connect("d", d) // and does not listen
	h.owner("POST", "/twins/d/methods", `{"methodName":"reboot"}`).refused(404, "DeviceNotOnline", "listen")
	h.because(h.owner("POST", "/twins/nobody/methods", `{"methodName":"reboot"}`).refused(404, "DeviceNotFound", "no device"), "device-missing")
}

func TestBadMethodsReachNoDevice(t *testing.T) {
	h := newHouse(t)
	d := h.connect("d", h.create("d"), methodTopic)
	for body, says := range map[string]string{
		"": "JSON", "{}": "methodName", `{"methodName":""}`: "methodName", `{"methodName":"a/b"}`: "methodName", `{"methodName":"a#"}`: "methodName", `{"methodName":7}`: "methodName",
		`{"methodName":"` + strings.Repeat("m", 101) + `"}`: "methodName", `{"methodName":"m","responseTimeoutInSeconds":4}`: "5 to 300", `{"methodName":"m","responseTimeoutInSeconds":301}`: "5 to 300",
		`{"methodName":"m","connectTimeoutInSeconds":-1}`: "0 to 300", `{"methodName":"m","responseTimeoutInSeconds":"30"}`: "whole number",
	} {
		h.owner("POST", "/twins/d/methods", body).refused(400, "ArgumentInvalid", says)
	}
	h.owner("POST", "/twins/d/methods", `{"methodName":"m","payload":"`+strings.Repeat("x", 140<<10)+`"}`).refused(413, "MessageTooLarge", "larger")
	if len(d.arrived) != 0 {
		t.Error("the device was called")
	}
}

// slow is a hub whose devices answer when they are told to.
type slow struct {
	hubapi.Hub
	called chan context.Context
	err    *error // nil: none
}

func (s slow) InvokeMethod(ctx context.Context, _, _, _, _ string, _ json.RawMessage, _, respond time.Duration) (int, json.RawMessage, error) {
	s.called <- ctx
	if s.err != nil {
		return 0, nil, *s.err
	}
	<-ctx.Done()
	return 0, nil, ctx.Err()
}

func TestWhatAMethodMayMeet(t *testing.T) {
	var meets error
	h := newHouseWith(t, func(hub hubapi.Hub) hubapi.Hub { return slow{hub, make(chan context.Context, 8), &meets} })
	h.create("d")
	for name, row := range map[string]struct {
		err          error
		status       int
		code, reason string
		retry        bool
	}{
		"no answer": {registration.ErrNoAnswer, 504, "GatewayTimeout", "method-timeout", true},
		"too many":  {registration.ErrBusy, 429, "ThrottlingException", "overload", true},
		"elsewhere": {registration.ErrElsewhere, 503, "ServiceUnavailable", "hub-elsewhere", true},
		"offline":   {registration.ErrOffline, 404, "DeviceNotOnline", "device-offline", false},
	} {
		meets = row.err
		a := h.owner("POST", "/twins/d/methods", `{"methodName":"m"}`).refused(row.status, row.code, "")
		h.because(a, row.reason)
		if got := a.header.Get("Retry-After") != ""; got != row.retry {
			t.Errorf("%s: Retry-After %q", name, a.header.Get("Retry-After"))
		}
	}
}

// A caller who hangs up does not keep the place of his call.
func TestACallEndsWithItsCaller(t *testing.T) {
	s := slow{called: make(chan context.Context, 1)}
	h := newHouseWith(t, func(hub hubapi.Hub) hubapi.Hub { s.Hub = hub; return s })
	h.create("d")
	ctx, hangUp := context.WithCancel(t.Context())
	impatient := *h
	impatient.t = caller{t, ctx}
	authorization := as(t, owner)
	done := make(chan error, 1)
	go func() {
		_, err := impatient.try("POST", "/twins/d/methods"+version, `{"methodName":"m","responseTimeoutInSeconds":300}`, authorization)
		done <- err
	}()
	call := <-s.called
	hangUp()
	select {
	case <-call.Done():
	case <-time.After(patience):
		t.Fatal("the call goes on")
	}
	if err := <-done; err == nil {
		t.Error("the caller was answered")
	}
}

// caller is a test with a context of its own.
type caller struct {
	testing.TB
	ctx context.Context
}

func (c caller) Context() context.Context { return c.ctx }

const devicebound = "devices/d/messages/devicebound/"

func TestAMessageWaitsForItsDevice(t *testing.T) {
	h := newHouse(t)
	key := h.create("d")
	h.owner("POST", "/devices/d/messages/deviceBound", "hello", "Content-Type", "application/octet-stream", "iothub-messageid", "m 1", "iothub-correlationid", "c-1",
		"iothub-app-Shade", "blue & white", "iothub-contenttype", "text/plain", "X-Latchkey-Properties", "Kept=As%20It%26Is&n=1").want(204)
	h.owner("POST", "/messages/deviceBound", "second", "iothub-to", "/devices/d/messages/deviceBound", "iothub-expiry", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)).want(204)
	if got := h.owner("GET", "/devices/d", "").get("cloudToDeviceMessageCount"); got != "2" {
		t.Errorf("%s messages wait", got)
	}
	d := h.connect("d", key, devicebound+"#")
	bodies := map[string]url.Values{}
	for range 2 {
		m := d.next()
		bag, err := url.ParseQuery(strings.TrimPrefix(m.Topic(), devicebound))
		must(t, err)
		bodies[string(m.Payload())] = bag
	}
	got := bodies["hello"]
	for name, want := range map[string]string{"$.mid": "m 1", "$.cid": "c-1", "shade": "blue & white", "Kept": "As It&Is", "n": "1", "$.ct": "text/plain"} {
		if got.Get(name) != want {
			t.Errorf("%s is %q, want %q: %v", name, got.Get(name), want, got)
		}
	}
	if bodies["second"] == nil {
		t.Errorf("received %v", bodies)
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	for _, row := range []struct {
		says   string
		header []string
	}{
		{"ack", []string{"iothub-ack", "always"}},
		{"iothub-messageid", []string{"iothub-messageid", strings.Repeat("m", 129)}},
		{"expiryTimeUtc", []string{"iothub-expiry", "tomorrow"}},
		{"expiryTimeUtc", []string{"iothub-expiry", time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)}},
		{"expiryTimeUtc", []string{"iothub-expiry", time.Now().Add(49 * time.Hour).UTC().Format(time.RFC3339)}},
		{"properties", []string{"X-Latchkey-Properties", "%24.mid=x"}},
		{"x-latchkey-properties", []string{"X-Latchkey-Properties", "a=%zz"}},
		{"properties", []string{"X-Latchkey-Properties", hundredAndOne()}},
	} {
		h.owner("POST", "/devices/d/messages/deviceBound", "m", row.header...).refused(400, "ArgumentInvalid", row.says)
	}
	h.owner("POST", "/devices/d/messages/deviceBound", strings.Repeat("x", 64<<10+1)).refused(413, "MessageTooLarge", "64 KB")
	h.owner("POST", "/devices/d/messages/deviceBound", strings.Repeat("x", 97<<10)).refused(413, "MessageTooLarge", "larger")
	h.owner("POST", "/devices/d/messages/deviceBound", strings.Repeat("x", 64<<10)).want(204)
	h.owner("POST", "/devices/nobody/messages/deviceBound", "m").refused(404, "DeviceNotFound", "no device")
	for _, to := range []string{"", "/devices/d", "https://elsewhere/devices/d/messages/deviceBound", "/devices/d/messages/events", "/devices//messages/deviceBound"} {
		h.owner("POST", "/messages/deviceBound", "m", "iothub-to", to).want(400)
	}
	if got := h.owner("GET", "/devices/d", "").get("cloudToDeviceMessageCount"); got != "1" {
		t.Errorf("%s messages wait", got)
	}
}

func hundredAndOne() string {
	var bag strings.Builder
	for i := range 101 {
		bag.WriteString("&p" + strings.Repeat("x", i) + "=1")
	}
	return bag.String()
}

func TestAQueueIsBoundedAndCanBePurged(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	for range 50 {
		h.owner("POST", "/devices/d/messages/deviceBound", "m").want(204)
	}
	h.because(h.owner("POST", "/devices/d/messages/deviceBound", "m").refused(403, "DeviceMaximumQueueDepthExceeded", "wait"), "queue-full")
	if a := h.owner("DELETE", "/devices/d/commands", "").want(200); a.get("totalMessagesPurged") != "50" || a.get("deviceId") != "d" {
		t.Errorf("purged %s", a.body)
	}
	h.owner("POST", "/devices/d/messages/deviceBound", "m").want(204)
	h.owner("DELETE", "/devices/nobody/commands", "").refused(404, "DeviceNotFound", "no device")
}
