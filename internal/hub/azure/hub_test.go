package azure_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// open makes a client of the fake.
func (f *fakeHub) open(change func(*azure.Config)) *azure.Hub {
	config := f.config()
	if change != nil {
		change(&config)
	}
	h, err := azure.New(config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(h.Close)
	return h
}

const (
	scope  = "plant"
	name   = "example.com"
	device = "press-07"
)

var (
	oldKey = registration.Credential{Primary: bytes.Repeat([]byte{1}, 32)}
	newKey = registration.Credential{Primary: bytes.Repeat([]byte{2}, 32), Secondary: bytes.Repeat([]byte{3}, 32)}
	paper  = registration.Credential{Certificate: bytes.Repeat([]byte{0xab}, 32)}
)

func data(tags, desired, reported string) *registration.DeviceData {
	return &registration.DeviceData{Tags: json.RawMessage(tags), Desired: json.RawMessage(desired), Reported: json.RawMessage(reported)}
}

func wanted(c registration.Credential, generation uint64, d *registration.DeviceData) registration.HubDevice {
	return registration.HubDevice{DeviceID: device, Credential: c, Generation: generation, Data: d}
}

// ensure expects it to succeed, with exactly these requests.
func ensure(t *testing.T, f *fakeHub, h *azure.Hub, want registration.HubDevice, requests ...string) *fakeDevice {
	t.Helper()
	f.requests()
	if err := h.EnsureDevice(t.Context(), scope, name, want); err != nil {
		t.Fatal(err)
	}
	if got := f.requests(); len(requests) > 0 && !reflect.DeepEqual(got, requests) {
		t.Errorf("it took %q, want %q", got, requests)
	}
	d := f.device(want.DeviceID)
	if d == nil {
		t.Fatal("there is no device")
	}
	mark, _ := iothub.ParseMark(d.StatusReason)
	if d.Status != iothub.Enabled || mark != (iothub.Mark{Generation: want.Generation}) {
		t.Errorf("the device is %s, %q", d.Status, d.StatusReason)
	}
	return d
}

const (
	readIt  = "GET /devices/press-07"
	writeIt = "PUT /devices/press-07"
	patchIt = "PATCH /twins/press-07"
	putTwin = "PUT /twins/press-07"
	purgeIt = "DELETE /devices/press-07/commands"
)

func TestANewDeviceIsEnabledOnceItsTwinIsThere(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	want := wanted(newKey, 42, data(`{"line":4}`, `{"rate":5,"deep":{"a":[1]}}`, `{"temp":7}`))
	want.Data.IoTEdge = true
	d := ensure(t, f, h, want, readIt, writeIt, patchIt, writeIt)
	if !bytes.Equal(d.Authentication.PrimaryKey, newKey.Primary) || !bytes.Equal(d.Authentication.SecondaryKey, newKey.Secondary) || !d.IoTEdge {
		t.Errorf("the identity is %+v", d.Device)
	}
	if d.tags["line"] != 4.0 || d.desired["rate"] != 5.0 || len(d.reported) != 0 {
		t.Errorf("the twin is %v %v %v", d.tags, d.desired, d.reported)
	}
	if f.enabled[device] != 1 {
		t.Errorf("%d writes left it enabled, want the last alone", f.enabled[device])
	}
	ensure(t, f, h, want, readIt) // again: nothing is written
}

func TestADeviceWithoutTwinIsWrittenOnce(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	d := ensure(t, f, h, wanted(oldKey, 7, data(`{}`, ``, ` { } `)), readIt, writeIt)
	if !bytes.Equal(d.Authentication.SecondaryKey, oldKey.Primary) {
		t.Error("a single key does not stand in both slots")
	}
	ensure(t, f, h, wanted(oldKey, 8, nil), readIt, writeIt)
	ensure(t, f, h, wanted(oldKey, 8, nil), readIt)
}

func TestACertificateIsHeldAsItsSHA256(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	ensure(t, f, h, wanted(oldKey, 1, nil))
	d := ensure(t, f, h, wanted(paper, 2, nil))
	want := iothub.Authentication{Type: iothub.SelfSigned, PrimaryThumbprint: strings.Repeat("AB", 32), SecondaryThumbprint: strings.Repeat("AB", 32)}
	if !reflect.DeepEqual(d.Authentication, want) {
		t.Errorf("the identity holds %+v", d.Authentication)
	}
	ensure(t, f, h, wanted(paper, 2, nil), readIt)
}

func TestANewOwnerCutsTheOldOneOffAndGetsNoneOfHisMessages(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	ensure(t, f, h, wanted(oldKey, 1, data(`{"a":1}`, `{"b":1}`, ``)))
	f.device(device).CloudToDeviceMessageCount, f.enabled[device] = 3, 0
	d := ensure(t, f, h, wanted(newKey, 2, data(`{"a":2}`, `{"b":2}`, ``)), readIt, writeIt, purgeIt, writeIt)
	if d.CloudToDeviceMessageCount != 0 || f.enabled[device] != 1 {
		t.Errorf("%d messages wait, %d writes left it enabled", d.CloudToDeviceMessageCount, f.enabled[device])
	}
	if d.tags["a"] != 1.0 || d.desired["b"] != 1.0 {
		t.Errorf("what it had is gone: %v %v", d.tags, d.desired)
	}
}

func TestDataIsReplacedWhereThatIsSaid(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	ensure(t, f, h, wanted(oldKey, 1, data(`{"a":1}`, `{"b":1}`, ``)))
	want := wanted(oldKey, 2, data(`{"c":1}`, ``, ``))
	want.Data.Replace = true
	f.enabled[device] = 0
	d := ensure(t, f, h, want, readIt, writeIt, putTwin, writeIt)
	if len(d.tags) != 1 || d.tags["c"] != 1.0 || len(d.desired) != 0 {
		t.Errorf("the twin is %v %v", d.tags, d.desired)
	}
	if f.enabled[device] != 2 {
		t.Error("a device whose credential stays was shut out meanwhile")
	}
	d.desired["since"] = true
	if d := ensure(t, f, h, want, readIt); d.desired["since"] != true { // a call that is repeated late
		t.Error("it was replaced twice for one proof")
	}
}

func TestReportedPropertiesGoToAHubThatTakesThem(t *testing.T) {
	f := newFake(t)
	f.reads = true
	h := f.open(nil)
	d := ensure(t, f, h, wanted(oldKey, 1, data(``, ``, `{"temp":7}`)), readIt, writeIt, patchIt, writeIt)
	if d.reported["temp"] != 7.0 {
		t.Errorf("reported is %v", d.reported)
	}
	ensure(t, f, h, wanted(oldKey, 1, nil), readIt) // though it shows one slot alone
	ensure(t, f, h, wanted(paper, 2, nil), readIt, writeIt, writeIt)
	ensure(t, f, h, wanted(paper, 2, nil), readIt)
}

func TestWhatADeviceTakesAlong(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	if _, err := h.DeviceData(t.Context(), scope, name, device); !errors.Is(err, registration.ErrNotFound) {
		t.Errorf("of a device that is not there: %v", err)
	}
	want := wanted(oldKey, 1, data(`{"a b":{"x":[1,2.50]}}`, `{"b":"é\"<"}`, ``))
	want.Data.IoTEdge = true
	d := ensure(t, f, h, want)
	d.reported = map[string]any{"temp": 7}
	got, err := h.DeviceData(t.Context(), scope, name, device)
	if err != nil {
		t.Fatal(err)
	}
	if !got.IoTEdge || string(got.Tags) != `{"a b":{"x":[1,2.5]}}` || string(got.Desired) != `{"b":"é\"\u003c"}` || string(got.Reported) != `{"temp":7}` {
		t.Errorf("it takes along %s %s %s", got.Tags, got.Desired, got.Reported)
	}
}

func TestRemovedAndDisabled(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	for range 2 { // there is none: that is what was wanted
		if err := errors.Join(h.RemoveDevice(t.Context(), scope, name, device, 1), h.DisableDevice(t.Context(), scope, name, device, 1)); err != nil {
			t.Fatal(err)
		}
	}
	ensure(t, f, h, wanted(oldKey, 5, nil))
	for range 2 {
		if err := h.DisableDevice(t.Context(), scope, name, device, 6); err != nil {
			t.Fatal(err)
		}
	}
	if d := f.device(device); d.Status != iothub.Disabled || d.StatusReason != "latchkey generation 6" {
		t.Errorf("the device is %s, %q", d.Status, d.StatusReason)
	}
	ensure(t, f, h, wanted(oldKey, 6, nil), readIt, writeIt)
	if err := h.RemoveDevice(t.Context(), scope, name, device, 6); err != nil || f.device(device) != nil {
		t.Errorf("removed: %v, %v", err, f.device(device))
	}
}

func TestALateCallIsStale(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	ensure(t, f, h, wanted(newKey, 9, nil))
	before := *f.device(device)
	for name, err := range map[string]error{
		"ensure":  h.EnsureDevice(t.Context(), scope, name, wanted(oldKey, 8, data(`{"a":1}`, ``, ``))),
		"remove":  h.RemoveDevice(t.Context(), scope, name, device, 8),
		"disable": h.DisableDevice(t.Context(), scope, name, device, 8),
	} {
		if !errors.Is(err, registration.ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := f.device(device); !reflect.DeepEqual(before, *after) {
		t.Errorf("a late call has changed %+v to %+v", before, *after)
	}
}

// An identity that somebody else made, or whose reason an operator has written over, is taken over: a proof is more than a name.
func TestADeviceThatSomebodyElseMadeIsTakenOverWithItsTwin(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	ensure(t, f, h, wanted(oldKey, 9, data(`{"a":1}`, ``, ``)))
	f.device(device).StatusReason = "stolen, see ticket 7"
	f.device(device).DeviceScope = "ms-azure-iot-edge://x-1"
	d := ensure(t, f, h, wanted(newKey, 2, data(`{"a":2}`, ``, ``)))
	if d.tags["a"] != 1.0 || d.DeviceScope != "ms-azure-iot-edge://x-1" {
		t.Errorf("it lost %v, %q", d.tags, d.DeviceScope)
	}
}

func TestCallsForWhatIsNotHere(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	if err := h.EnsureDevice(t.Context(), scope, "other.example.com", wanted(oldKey, 1, nil)); !errors.Is(err, registration.ErrUnlinked) {
		t.Errorf("another hub: %v", err)
	}
	bad := wanted(oldKey, 1, nil)
	bad.DeviceID = "a/../b"
	if err := h.EnsureDevice(t.Context(), scope, name, bad); err == nil {
		t.Error("a device id with slashes is taken")
	}
	if err := h.EnsureDevice(t.Context(), scope, name, wanted(registration.Credential{}, 1, nil)); err == nil {
		t.Error("no credential is taken")
	}
	if got := f.requests(); len(got) != 0 {
		t.Errorf("the hub was asked %q", got)
	}
	if h.Reach(scope, name) != registration.Remote || h.Drop(t.Context(), scope, name) != nil {
		t.Error("it is not remote, or a scope that goes does harm")
	}
}

func TestUnusualDeviceIDsReachTheHubWhole(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	for _, id := range []string{"-.%_*?!(),:=@$'", "a%2fb", "..a", "A", strings.Repeat("x", 128)} {
		want := wanted(oldKey, 1, data(`{"a":1}`, ``, ``))
		want.DeviceID = id
		ensure(t, f, h, want)
		if d := f.device(id); d.tags["a"] != 1.0 {
			t.Errorf("%s: the twin went elsewhere", id)
		}
	}
}

func TestTheHubIsAskedBeforeItIsLinked(t *testing.T) {
	f := newFake(t)
	if err := f.open(nil).Probe(t.Context()); err != nil {
		t.Error(err)
	}
	wrong := f.open(func(c *azure.Config) { c.Connection.SharedAccessKey = []byte("another-key-than-the-hubs") })
	var refused *registration.RefusedError
	if err := wrong.Probe(t.Context()); !errors.As(err, &refused) || !strings.Contains(err.Error(), "does not accept the connection string") {
		t.Errorf("with another key: %v", err)
	}
}

// What the network is like shows on a real one only.
func TestAHubIsReachedWhereItsAddressSaysAndKnownByItsName(t *testing.T) {
	f := newFake(t)
	tcp := httptest.NewUnstartedServer(f)
	tcp.Config.ErrorLog = log.New(io.Discard, "", 0) // a handshake is meant to fail
	tcp.TLS = f.server.TLS
	tcp.StartTLS()
	defer tcp.Close()
	reach := func(change func(*azure.Config)) error {
		return f.open(func(c *azure.Config) {
			c.Dial, c.Settings.Address = nil, tcp.Listener.Addr().String()
			change(c)
		}).Probe(t.Context())
	}
	if err := reach(func(*azure.Config) {}); err != nil {
		t.Error(err)
	}
	if err := reach(func(c *azure.Config) { c.Settings.CA = "" }); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	if err := reach(func(c *azure.Config) { c.Name, c.Connection.HostName = "hub-b.example.com", "hub-b.example.com" }); err == nil || !strings.Contains(err.Error(), "not hub-b.example.com") {
		t.Errorf("a certificate of another name: %v", err)
	}
	tcp.Close()
	if err := reach(func(*azure.Config) {}); outcomeOf(err) != failing || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestCallsShareAConnection(t *testing.T) {
	f := newFake(t)
	h := f.open(nil)
	for generation := range uint64(3) { // found and not found, made, changed, shut out, removed
		d := data(`{"a":1}`, ``, ``)
		want := wanted(oldKey, 4*generation+1, d)
		ensure(t, f, h, want)
		f.device(device).CloudToDeviceMessageCount = 1
		ensure(t, f, h, wanted(newKey, 4*generation+2, d))
		if _, err := h.DeviceData(t.Context(), scope, name, device); err != nil {
			t.Fatal(err)
		}
		must(t, h.DisableDevice(t.Context(), scope, name, device, 4*generation+3))
		must(t, h.RemoveDevice(t.Context(), scope, name, device, 4*generation+4))
	}
	f.pipes.mu.Lock()
	defer f.pipes.mu.Unlock()
	if n := len(f.pipes.all) / 2; n != 1 {
		t.Errorf("it took %d connections", n)
	}
}
