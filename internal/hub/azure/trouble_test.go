package azure_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// act is a call of the interface, what is there before it and what is there after it succeeded.
type act struct {
	name   string
	before func(f *fakeHub)
	do     func(t *testing.T, h *azure.Hub) error
	after  func(f *fakeHub) string // what is wrong; empty: nothing
}

// existing puts a device there that was made for generation 1, with a twin and messages for its owner.
func existing(f *fakeHub) {
	d := &fakeDevice{Device: iothub.Device{DeviceID: device, ETag: "v0", Status: iothub.Enabled, StatusReason: "latchkey generation 1", CloudToDeviceMessageCount: 3,
		Authentication: iothub.Authentication{Type: iothub.SAS, PrimaryKey: oldKey.Primary, SecondaryKey: oldKey.Primary}},
		tags: map[string]any{"a": 1.0}, desired: map[string]any{"b": 1.0}}
	f.devices[device] = d
}

func nothing(*fakeHub) {}

// holdsNow tells what is wrong with a device of the second generation.
func holdsNow(f *fakeHub, tags, messages int) string {
	d := f.device(device)
	switch {
	case d == nil:
		return "there is no device"
	case d.Status != iothub.Enabled || d.StatusReason != "latchkey generation 2":
		return "it is " + d.Status + ", " + d.StatusReason
	case !bytes.Equal(d.Authentication.PrimaryKey, newKey.Primary) || !bytes.Equal(d.Authentication.SecondaryKey, newKey.Secondary):
		return "it holds another credential"
	case len(d.tags) != tags || len(d.desired) != 1:
		return fmt.Sprintf("its twin is %v %v", d.tags, d.desired)
	case d.CloudToDeviceMessageCount != messages:
		return fmt.Sprintf("%d messages wait", d.CloudToDeviceMessageCount)
	}
	return ""
}

func acts() []act {
	twin := data(`{"x":1,"y":2}`, `{"z":3}`, ``)
	replaced := *twin
	replaced.Replace = true
	ensure := func(d *registration.DeviceData) func(t *testing.T, h *azure.Hub) error {
		return func(t *testing.T, h *azure.Hub) error {
			return h.EnsureDevice(t.Context(), scope, name, wanted(newKey, 2, d))
		}
	}
	return []act{
		{"a new device", nothing, ensure(twin), func(f *fakeHub) string { return holdsNow(f, 2, 0) }},
		{"a new owner", existing, ensure(twin), func(f *fakeHub) string { return holdsNow(f, 1, 0) }},
		{"a new owner and new data", existing, ensure(&replaced), func(f *fakeHub) string { return holdsNow(f, 2, 0) }},
		{"remove", existing, func(t *testing.T, h *azure.Hub) error { return h.RemoveDevice(t.Context(), scope, name, device, 2) }, func(f *fakeHub) string {
			if f.device(device) != nil {
				return "the device is there"
			}
			return ""
		}},
		{"disable", existing, func(t *testing.T, h *azure.Hub) error { return h.DisableDevice(t.Context(), scope, name, device, 2) }, func(f *fakeHub) string {
			if d := f.device(device); d == nil || d.Status != iothub.Disabled || d.StatusReason != "latchkey generation 2" {
				return fmt.Sprintf("the device is %+v", d)
			}
			return ""
		}},
		{"data", existing, func(t *testing.T, h *azure.Hub) error {
			d, err := h.DeviceData(t.Context(), scope, name, device)
			if err == nil && string(d.Tags) != `{"a":1}` {
				return errors.New("wrong data: " + string(d.Tags))
			}
			return err
		}, func(*fakeHub) string { return "" }},
	}
}

// outcome is what a call comes to.
type outcome string

const (
	well    outcome = "well"
	failing outcome = "fails" // to be called again, any time
	waits   outcome = "waits" // a RetryError
	refused outcome = "refused"
)

func outcomeOf(err error) outcome {
	var retry *registration.RetryError
	var refusal *registration.RefusedError
	switch {
	case err == nil:
		return well
	case errors.As(err, &retry):
		return waits
	case errors.As(err, &refusal):
		return refused
	}
	return failing
}

func answers(code iothub.Code) trouble {
	return trouble{status: code.Status(), body: string(iothub.ErrorBody(code, "as the fake says", "fake-1", time.Unix(0, 0)))}
}

func with(t trouble, header, value string) trouble {
	t.header = map[string]string{header: value}
	return t
}

func says(status int, body string) trouble { return trouble{status: status, body: body} }

// TestEveryCallMeetsEveryTrouble: each call of the interface × each of its requests × each trouble, once and without end. What comes of it is in the table; and whatever it
// was, another process that calls afterwards, when the hub is well, ends it as if nothing had been. At no moment is a device enabled before all is done.
// Without LATCHKEY_LONG what is much like another trouble (like) is met by a new device alone, and trouble without end begins with the first request.
func TestEveryCallMeetsEveryTrouble(t *testing.T) {
	long := os.Getenv("LATCHKEY_LONG") != ""
	for name, c := range map[string]struct {
		trouble      trouble
		once, always outcome
		like         bool
	}{
		"cut before the request":         {trouble{cut: "before"}, well, failing, false},
		"cut after its effect":           {trouble{cut: "after"}, well, "", false},
		"cut in the middle of a body":    {trouble{cut: "mid"}, well, "", false},
		"no answer":                      {trouble{hang: true}, well, failing, false},
		"a byte now and then":            {trouble{status: 200, drip: true, good: true}, well, "", false},
		"500":                            {answers(iothub.ServerError), well, failing, false},
		"500 though it was done":         {trouble{status: 500, good: true}, well, "", true},
		"502 with a page":                {with(says(502, "<html>Bad gateway</html>"), "Content-Type", "text/html"), well, failing, true},
		"503":                            {answers(iothub.ServiceUnavailable), well, failing, true},
		"503, to come back":              {with(answers(iothub.ServiceUnavailable), "Retry-After", "7"), waits, waits, true},
		"504":                            {answers(iothub.GatewayTimeout), well, failing, true},
		"429":                            {answers(iothub.ThrottlingException), waits, waits, false},
		"429, seconds":                   {with(answers(iothub.ThrottlingBacklogTimeout), "Retry-After", "12"), waits, waits, true},
		"429 though it was done":         {trouble{status: 429, good: true}, waits, "", false},
		"409":                            {answers(iothub.DeviceAlreadyExists), well, failing, true},
		"412":                            {answers(iothub.PreconditionFailed), well, failing, false},
		"400":                            {answers(iothub.ArgumentInvalid), refused, refused, false},
		"401":                            {answers(iothub.IotHubUnauthorizedAccess), refused, refused, false},
		"401 with nothing":               {says(401, ""), refused, refused, true},
		"403, the quota":                 {answers(iothub.IotHubQuotaExceeded), refused, refused, true},
		"413":                            {answers(iothub.MessageTooLarge), refused, refused, true},
		"404 of a server that is no hub": {says(404, "404 page not found"), well, failing, false},
		"a redirect":                     {with(says(302, ""), "Location", "https://elsewhere.example.com/"), well, failing, true},
		"418":                            {says(418, `{"Message":7}`), well, failing, true},
		"200 with garbage":               {says(200, "\x00\xff{{{"), well, "", false},
		"200 with another device":        {says(200, `{"deviceId":"other","etag":"x"}`), well, "", true},
		"200 without etag":               {says(200, `{"deviceId":"press-07"}`), well, "", true},
		"200 with ten megabytes":         {says(200, `{"deviceId":"press-07","etag":"x","y":"`+strings.Repeat("y", 10<<20)+`"}`), well, "", false},
		"200 with a page":                {with(says(200, `{"deviceId":"press-07","etag":"x"}`), "Content-Type", "text/html; charset=utf-8"), well, "", true},
		"500 with ten megabytes":         {says(500, strings.Repeat("y", 10<<20)), well, failing, true},
	} {
		t.Run(name, func(t *testing.T) {
			for i, a := range acts() {
				if c.like && i > 0 && !long {
					continue
				}
				for at, asked := range a.requests(t) {
					for _, ending := range []bool{true, false} {
						want := c.once
						if !ending {
							want = c.always
						}
						if !ending && at > 0 && !long {
							continue
						}
						if asked == purgeIt && c.trouble.status == 404 {
							want = refused // a hub need not have it
						}
						label := fmt.Sprintf("%s, from request %d (%s), ending %v", a.name, at+1, asked, ending)
						synctest.Test(t, func(t *testing.T) { a.meets(t, label, c.trouble, at+1, ending, want) })
					}
				}
			}
		})
	}
}

// requests lists what the call takes when nothing is wrong.
func (a act) requests(t *testing.T) (asked []string) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a.before(f)
		if err := a.do(t, f.open(nil)); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		if wrong := a.after(f); wrong != "" {
			t.Fatalf("%s: %s", a.name, wrong)
		}
		asked = f.requests()
	})
	return asked
}

// meets runs the call into trouble at its nth request, and then once more without. want empty: whatever comes of it, as it depends on whether the hub
// has done what it did not answer well.
func (a act) meets(t *testing.T, label string, tr trouble, at int, ending bool, want outcome) {
	f := newFake(t)
	a.before(f)
	f.judge = func(d *fakeDevice) {
		if bytes.Equal(d.Authentication.PrimaryKey, newKey.Primary) && (d.CloudToDeviceMessageCount != 0 || len(d.tags) == 0) {
			t.Errorf("%s: the device is let in too early", label)
		}
	}
	f.set(func(n int) *trouble {
		if n == at || n > at && !ending {
			return &tr
		}
		return nil
	})
	err := a.do(t, f.open(nil))
	if got := outcomeOf(err); want != "" && got != want {
		t.Errorf("%s: %s (%v), want %s", label, got, err, want)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: more than a line: %v", label, err)
	}
	if wrong := a.after(f); err == nil && wrong != "" {
		t.Errorf("%s: it is said to be done, but %s", label, wrong)
	}
	f.set(nil)
	if err := a.do(t, f.open(nil)); err != nil {
		t.Errorf("%s: and then: %v", label, err)
	}
	if wrong := a.after(f); wrong != "" {
		t.Errorf("%s: and then %s", label, wrong)
	}
}
