package azure_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// left puts a device there as a process has left it that was killed.
func left(f *fakeHub, c registration.Credential, reason string, messages int) {
	existing(f)
	d := f.devices[device]
	d.Status, d.StatusReason, d.CloudToDeviceMessageCount = iothub.Disabled, reason, messages
	d.Authentication.PrimaryKey, d.Authentication.SecondaryKey = c.Primary, c.Secondary
	d.tags, d.desired = nil, nil
}

// What an earlier proof has left unfinished is finished by the next one, whatever that is.
func TestWhatAnEarlierProofHasLeftUnfinishedIsFinished(t *testing.T) {
	twin := data(`{"x":1,"y":2}`, `{"z":3}`, ``)
	for name, c := range map[string]struct {
		credential registration.Credential
		reason     string
	}{
		"the same key, the twin to be written":    {newKey, "latchkey generation 1 new"},
		"another key, the twin to be written":     {oldKey, "latchkey generation 1 new"},
		"of this proof, the twin to be written":   {newKey, "latchkey generation 2 new"},
		"shut out before the twin was written":    {newKey, "latchkey generation 1 new"},
		"of this proof, by a caller without data": {newKey, "latchkey generation 2 new"},
	} {
		f := newFake(t)
		left(f, c.credential, c.reason, 3)
		h := f.open(nil)
		want := wanted(newKey, 2, twin)
		switch {
		case strings.HasPrefix(name, "shut out"):
			must(t, h.DisableDevice(t.Context(), scope, hubName, device, 2))
		case strings.HasSuffix(name, "without data"):
			want.Data = nil
			ensure(t, f, h, want, readIt, purgeIt, writeIt)
			continue
		}
		must(t, h.EnsureDevice(t.Context(), scope, hubName, want))
		if wrong := holdsNow(f, 2, 0); wrong != "" {
			t.Errorf("%s: %s", name, wrong)
		}
	}
	for _, reason := range []string{"latchkey generation 1 rekeyed", "latchkey generation 2 rekeyed"} {
		f := newFake(t)
		left(f, newKey, reason, 3)
		d := ensure(t, f, f.open(nil), wanted(newKey, 2, nil))
		if d.CloudToDeviceMessageCount != 0 {
			t.Errorf("%s: the messages of the owner before are still there", reason)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A device that goes while it is made or removed is made anew, or is gone.
func TestADeviceThatGoesInBetween(t *testing.T) {
	for n := 2; n <= 4; n++ {
		f := newFake(t)
		goes := func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.devices, device)
		}
		must(t, between(t, f, n, goes, func(h *azure.Hub) error {
			return h.EnsureDevice(t.Context(), scope, name, wanted(newKey, 2, data(`{"x":1,"y":2}`, `{"z":3}`, ``)))
		}))
		if wrong := holdsNow(f, 2, 0); wrong != "" {
			t.Errorf("gone before request %d: %s", n, wrong)
		}
	}
	f := newFake(t)
	existing(f)
	must(t, between(t, f, 2, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.devices, device)
	}, func(h *azure.Hub) error { return h.RemoveDevice(t.Context(), scope, name, device, 2) }))
}

func TestAFenceRisesThoughTheDeviceIsShutOutAlready(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	ensure(t, f, h, wanted(oldKey, 5, nil))
	must(t, h.DisableDevice(t.Context(), scope, name, device, 6))
	must(t, h.DisableDevice(t.Context(), scope, name, device, 8))
	if err := h.EnsureDevice(t.Context(), scope, name, wanted(oldKey, 7, nil)); !errors.Is(err, registration.ErrStale) {
		t.Errorf("a proof from before it was shut out lets it in again: %v", err)
	}
}

// Nothing is done to a device because the hub answers with another one.
func TestAnAnswerAboutAnotherDeviceIsNotBelieved(t *testing.T) {
	for _, a := range acts() {
		f := newFake(t)
		existing(f)
		other := *f.devices[device]
		other.DeviceID, other.ETag = "other", "v9"
		f.devices["other"] = &other
		before := fmt.Sprint(other.Device)
		f.set(func(n int) *trouble {
			if strings.HasPrefix(f.asked[n-1], "GET /devices") {
				return &trouble{status: 200, body: string(other.Answer())}
			}
			if strings.HasPrefix(f.asked[n-1], "GET /twins") {
				return &trouble{status: 200, body: other.show()}
			}
			return nil
		})
		if err := a.do(t, f.open(nil)); outcomeOf(err) != failing {
			t.Errorf("%s: %v", a.name, err)
		}
		if asked := f.requests(); slices.ContainsFunc(asked, func(r string) bool { return !strings.HasPrefix(r, "GET ") }) {
			t.Errorf("%s: the hub was asked %q", a.name, asked)
		}
		if after := fmt.Sprint(f.device("other").Device); after != before {
			t.Errorf("%s: the other device was changed to %s", a.name, after)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	f := newFake(t)
	f.set(func(n int) *trouble {
		tr := with(says(307, ""), "Location", "https://example.com/elsewhere/x")
		return &tr
	})
	err := f.open(nil).RemoveDevice(t.Context(), scope, name, device, 2)
	if outcomeOf(err) != failing {
		t.Errorf("it ends in %v", err)
	}
	if asked := f.requests(); !slices.Equal(asked, []string{readIt, readIt, readIt}) {
		t.Errorf("the hub was asked %q", asked)
	}
}
