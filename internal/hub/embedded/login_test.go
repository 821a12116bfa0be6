package embedded

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"latchkey.example/latchkey/internal/registration"

	"github.com/prometheus/client_golang/prometheus"
)

func metric(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}

// signed makes a SAS token over sr exactly as given.
func signed(key []byte, sr string, expiry time.Time) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s\n%d", sr, expiry.Unix())
	return fmt.Sprintf("SharedAccessSignature sr=%s&sig=%s&se=%d", sr, url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))), expiry.Unix())
}

func TestDevicesLogInWithEverySpellingTheSDKsUse(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	const id = "Dev:1"
	w.ensure(id, key, 1)
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct{ user, sr string }{
		"Node":                    {testHub + "/" + id + "/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4", testHub + "%2Fdevices%2FDev%3A1"},
		"C, not encoded":          {testHub + "/" + id + "/?api-version=2020-09-30&DeviceClientType=iothubclient", testHub + "/devices/Dev:1"},
		"lower-case hex":          {testHub + "/" + id + "/?api-version=2020-09-30", testHub + "%2fdevices%2fDev%3a1"},
		"all lower-cased":         {testHub + "/" + id + "/?api-version=2017-11-08-preview", testHub + "%2fdevices%2fdev%3a1"},
		"C#, device id twice":     {testHub + "/" + id + "/?api-version=2020-09-30", testHub + "%2Fdevices%2FDev%253A1"},
		"hub with port":           {testHub + ":8883/" + id + "/?api-version=2021-04-12", testHub + "%3A8883%2Fdevices%2FDev%3A1"},
		"port in user name only":  {testHub + ":8883/" + id + "/?api-version=2021-04-12", testHub + "%2Fdevices%2FDev%3A1"},
		"hub in upper case":       {strings.ToUpper(testHub) + "/" + id + "/?api-version=2021-04-12", strings.ToUpper(testHub) + "/devices/Dev:1"},
		"old client, no question": {testHub + "/" + id + "/api-version=2016-11-14", testHub + "/devices/Dev:1"},
		"no api-version":          {testHub + "/" + id, testHub + "/devices/Dev:1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.dial()
			r.send(hello{flags: 2, clientID: id, user: c.user, password: signed(key, c.sr, later)}.packet())
			r.expect(0x20, 2, 0, 0)
			r.send(packet(0xc0))
			r.expect(0xd0, 0)
			r.send(packet(0xe0))
			r.expectClosed()
		})
	}
}

func TestALoginIsRefusedWithoutSayingWhy(t *testing.T) {
	w := newWorld(t, nil)
	key, otherKey := newKey(), newKey()
	w.ensure("dev", key, 1)
	w.ensure("other", otherKey, 1)
	later := time.Now().Add(time.Hour)
	mine := testHub + "/devices/dev"
	good := hello{flags: 2, clientID: "dev", user: userName("dev"), password: signed(key, mine, later)}
	for name, c := range map[string]struct {
		change func(*hello)
		why    cause
	}{
		"wrong key": {func(h *hello) { h.password = signed(otherKey, mine, later) }, causeCredentials},
		"unknown device": {func(h *hello) {
			h.clientID, h.user, h.password = "dev2", userName("dev2"), signed(key, mine+"2", later)
		}, causeCredentials},
		"id in another case": {func(h *hello) { h.clientID, h.user = "DEV", userName("DEV") }, causeCredentials},
		"dummy key is not zero": {func(h *hello) {
			h.clientID, h.user, h.password = "x", userName("x"), signed(make([]byte, 32), testHub+"/devices/x", later)
		}, causeCredentials},
		"expired":                 {func(h *hello) { h.password = signed(key, mine, time.Now().Add(-time.Second)) }, causeExpired},
		"ten years ahead":         {func(h *hello) { h.password = signed(key, mine, later.AddDate(10, 0, 0)) }, causeFar},
		"a day and six minutes":   {func(h *hello) { h.password = signed(key, mine, time.Now().Add(24*time.Hour+6*time.Minute)) }, causeFar},
		"token for another":       {func(h *hello) { h.password = signed(key, testHub+"/devices/other", later) }, causeToken},
		"token for all devices":   {func(h *hello) { h.password = signed(key, testHub+"/devices", later) }, causeToken},
		"token for the hub":       {func(h *hello) { h.password = signed(key, testHub, later) }, causeToken},
		"token for another hub":   {func(h *hello) { h.password = signed(key, otherHub+"/devices/dev", later) }, causeToken},
		"sr changed after":        {func(h *hello) { h.password = strings.Replace(h.password, "/devices/", "%2Fdevices%2F", 1) }, causeCredentials},
		"se changed after":        {func(h *hello) { h.password = strings.Replace(h.password, "&se=", "&se=0", 1) }, causeCredentials},
		"no token":                {func(h *hello) { h.password = "secret" }, causeToken},
		"no scheme":               {func(h *hello) { _, h.password, _ = strings.Cut(h.password, " ") }, causeToken},
		"client id of another":    {func(h *hello) { h.clientID = "other" }, causeUser},
		"client id empty":         {func(h *hello) { h.clientID = "" }, causeUser},
		"user name of another":    {func(h *hello) { h.user = userName("other") }, causeUser},
		"user name of a module":   {func(h *hello) { h.user = testHub + "/dev/mod/?api-version=2021-04-12" }, causeUser},
		"unknown hub":             {func(h *hello) { h.user = "hub.example/dev/?api-version=2021-04-12" }, causeUser},
		"hub of another scope":    {func(h *hello) { h.user = otherHub + "/dev/"; h.password = signed(key, otherHub+"/devices/dev", later) }, causeCredentials},
		"provisioning user name":  {func(h *hello) { h.user = "0ne00000001/registrations/dev/api-version=2019-03-31" }, causeUser},
		"user name empty":         {func(h *hello) { h.user = "" }, causeUser},
		"device id with wildcard": {func(h *hello) { h.clientID, h.user = "#", userName("#") }, causeUser},
		"device id with a plus":   {func(h *hello) { h.clientID, h.user = "a+b", userName("a+b") }, causeUser},
		"device id too long":      {func(h *hello) { h.clientID = strings.Repeat("a", 129); h.user = userName(h.clientID) }, causeUser},
		"user name not UTF-8":     {func(h *hello) { h.user = testHub + "/\xff/" }, causeUser},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.endings(c.why)
			h := good
			c.change(&h)
			r := w.dial()
			r.send(h.packet())
			r.expect(0x20, 2, 0, 5)
			r.expectClosed()
			w.settled()
			if got := w.endings(c.why); got != before+1 {
				t.Errorf("cause %s counted %d times, want %d; log:\n%s", c.why, got, before+1, w.logs)
			}
		})
	}
	w.login(good, 0)
}

func TestAnUnknownDeviceCostsTheSameWorkAsAWrongKey(t *testing.T) {
	w := newWorld(t, nil)
	w.ensure("known", newKey(), 1)
	work := func(deviceID string) (reads, opens int) {
		reads, opens = w.store.reads, w.sealer.opens
		w.refusedWith(w.greet(deviceID, newKey()), 5)
		w.settled()
		return w.store.reads - reads, w.sealer.opens - opens
	}
	wrongReads, wrongOpens := work("known")
	unknownReads, unknownOpens := work("stranger")
	if wrongReads != unknownReads || wrongOpens != unknownOpens || wrongReads != 1 || wrongOpens != 1 {
		t.Errorf("wrong key: %d reads, %d opens; unknown: %d, %d", wrongReads, wrongOpens, unknownReads, unknownOpens)
	}
}

func TestADownStoreAsksTheDeviceToComeAgain(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	w.store.set(func() { w.store.failRead = errors.New("disk on fire") })
	w.refusedWith(w.greet("dev", key), 3)
	w.store.set(func() { w.store.failRead = nil })
	w.login(w.greet("dev", key), 0)
}

func TestTheSameDeviceIDAtTwoHubsIsTwoDevices(t *testing.T) {
	w := newWorld(t, nil)
	key, otherKey := newKey(), newKey()
	w.ensure("dev", key, 1)
	ctx := t.Context()
	device := registration.HubDevice{DeviceID: "dev", Credential: registration.Credential{Primary: otherKey}, Generation: 1}
	if err := w.EnsureDevice(ctx, "0ne00000002", otherHub, device); err != nil {
		t.Fatal(err)
	}
	if err := w.EnsureDevice(ctx, "0ne00000002", testHub, device); err == nil {
		t.Error("a scope was given a device at a hub that is not its own")
	}
	first := w.login(w.greet("dev", key), 0)
	second := w.login(hello{clientID: "dev", user: otherHub + "/dev/", password: token(t, otherKey, otherHub+"/devices/dev", time.Now().Add(time.Hour))}, 0)
	for _, r := range []*raw{first, second} {
		r.send(packet(0xc0))
		r.expect(0xd0, 0)
	}
}
