package iothub_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/internal/iothub"
)

var (
	keyA = bytes.Repeat([]byte{0xa1}, 32)
	keyB = bytes.Repeat([]byte{0xb2}, 32)
	b64A = base64.StdEncoding.EncodeToString(keyA)
	b64B = base64.StdEncoding.EncodeToString(keyB)
	sha2 = strings.Repeat("AB", 32)
	sha1 = strings.Repeat("CD", 20)
)

func TestIdentitiesAsHubsAndClientsWriteThem(t *testing.T) {
	keys := iothub.Authentication{Type: iothub.SAS, PrimaryKey: keyA, SecondaryKey: keyB}
	plain := func(change func(*iothub.Device)) iothub.Device {
		d := iothub.Device{DeviceID: "press-07", Status: iothub.Enabled, ConnectionState: iothub.Disconnected, Authentication: iothub.Authentication{Type: iothub.SAS}}
		if change != nil {
			change(&d)
		}
		return d
	}
	for name, c := range map[string]struct {
		body string
		want iothub.Device
	}{
		"a client that gives the id alone": {`{"deviceId":"press-07"}`, plain(nil)},
		"nulls are absent": {`{"deviceId":"press-07","etag":null,"generationId":null,"status":null,"statusReason":null,"connectionState":null,"lastActivityTime":null,
			"cloudToDeviceMessageCount":null,"authentication":null,"capabilities":null,"deviceScope":null,"parentScopes":null}`, plain(nil)},
		"of 2016, without x509 and type": {`{"deviceId":"press-07","generationId":"635944482332920305","etag":"MA==","connectionState":"Disconnected","status":"enabled","statusReason":null,
			"connectionStateUpdatedTime":"0001-01-01T00:00:00","statusUpdatedTime":"0001-01-01T00:00:00","lastActivityTime":"0001-01-01T00:00:00","cloudToDeviceMessageCount":0,
			"authentication":{"symmetricKey":{"primaryKey":"` + b64A + `","secondaryKey":"` + b64B + `"}}}`,
			plain(func(d *iothub.Device) { d.GenerationID, d.ETag, d.Authentication = "635944482332920305", "MA==", keys })},
		"of today": {`{"deviceId":"press-07","generationId":"638","etag":"NzkxOTM4Njcx","connectionState":"Connected","status":"disabled","statusReason":"latchkey generation 42",
			"connectionStateUpdatedTime":"2030-01-02T03:04:05.1234567Z","statusUpdatedTime":"2030-01-02T03:04:05.5","lastActivityTime":"2030-01-02T05:04:05+02:00","cloudToDeviceMessageCount":3,
			"authentication":{"symmetricKey":{"primaryKey":"` + b64A + `","secondaryKey":"` + b64B + `"},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"},
			"capabilities":{"iotEdge":true},"deviceScope":"ms-azure-iot-edge://press-07-638","parentScopes":["ms-azure-iot-edge://up-1"]}`,
			plain(func(d *iothub.Device) {
				d.GenerationID, d.ETag, d.ConnectionState, d.Status, d.StatusReason = "638", "NzkxOTM4Njcx", iothub.Connected, iothub.Disabled, "latchkey generation 42"
				d.ConnectionStateUpdated = time.Date(2030, 1, 2, 3, 4, 5, 123456700, time.UTC)
				d.StatusUpdated = time.Date(2030, 1, 2, 3, 4, 5, 500000000, time.UTC)
				d.LastActivity, d.CloudToDeviceMessageCount = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), 3
				d.Authentication, d.IoTEdge = keys, true
				d.DeviceScope, d.ParentScopes = "ms-azure-iot-edge://press-07-638", []string{"ms-azure-iot-edge://up-1"}
			})},
		"by thumbprint, in lower case and without type": {`{"deviceId":"press-07","authentication":{"x509Thumbprint":{"primaryThumbprint":"` + strings.ToLower(sha2) + `","secondaryThumbprint":"` + sha1 + `"}}}`,
			plain(func(d *iothub.Device) {
				d.Authentication = iothub.Authentication{Type: iothub.SelfSigned, PrimaryThumbprint: sha2, SecondaryThumbprint: sha1}
			})},
		"words in another letter case":          {`{"deviceId":"press-07","status":"Disabled","authentication":{"type":"SAS"}}`, plain(func(d *iothub.Device) { d.Status = iothub.Disabled })},
		"keys that are empty are absent":        {`{"deviceId":"press-07","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}`, plain(nil)},
		"an etag in quotes":                     {`{"deviceId":"press-07","etag":"\"AAAAAAAAAAE=\""}`, plain(func(d *iothub.Device) { d.ETag = "AAAAAAAAAAE=" })},
		"unknown members of another generation": {`{"deviceId":"press-07","policyResourceId":"x","capabilities":{"iotEdge":false,"more":1},"authentication":{"type":"sas","x":{}}}`, plain(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := iothub.DecodeDevice([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			again, err := iothub.DecodeDevice(got.Answer())
			if err != nil {
				t.Fatalf("its own answer is refused: %v", err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("an answer does not come back: %s", diff)
			}
		})
	}
}

func TestIdentitiesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ body, says string }{
		"not JSON":               {`{`, "not valid JSON"},
		"an array":               {`[]`, "must be a JSON object"},
		"without id":             {`{"status":"enabled"}`, "deviceId: is missing"},
		"an id with a slash":     {`{"deviceId":"a/b"}`, "deviceId: must be"},
		"a number as id":         {`{"deviceId":7}`, "deviceId: must be a string"},
		"twice the same member":  {`{"deviceId":"a","deviceId":"b"}`, "names a member twice"},
		"a status nobody knows":  {`{"deviceId":"a","status":"paused"}`, "status: must be one of enabled, disabled"},
		"Status":                 {`{"deviceId":"a","Status":"disabled"}`, "status: must be spelled in exactly these letters"},
		"a long reason":          {`{"deviceId":"a","statusReason":"` + strings.Repeat("x", 129) + `"}`, "statusReason: is longer than 128 bytes"},
		"a short key":            {`{"deviceId":"a","authentication":{"symmetricKey":{"primaryKey":"AAAA"}}}`, "must be base64 of 16 to 64 bytes"},
		"a key with a line end":  {`{"deviceId":"a","authentication":{"symmetricKey":{"primaryKey":"` + b64A[:8] + `\n` + b64A[8:] + `"}}}`, "must be base64"},
		"a thumbprint of 62":     {`{"deviceId":"a","authentication":{"x509Thumbprint":{"primaryThumbprint":"` + sha2[2:] + `"}}}`, "SHA-256 (64 digits) or SHA-1"},
		"an unknown type":        {`{"deviceId":"a","authentication":{"type":"tpm"}}`, "authentication.type: must be one of"},
		"iotEdge as text":        {`{"deviceId":"a","capabilities":{"iotEdge":"true"}}`, "must be true or false"},
		"capabilities as list":   {`{"deviceId":"a","capabilities":[]}`, "must be an object"},
		"a count below nothing":  {`{"deviceId":"a","cloudToDeviceMessageCount":-1}`, "must be a number"},
		"a time that is none":    {`{"deviceId":"a","lastActivityTime":"yesterday"}`, "must be a time"},
		"a time after all years": {`{"deviceId":"a","lastActivityTime":"9999-12-31T23:59:59-23:00"}`, "must be a time"},
		"an etag with a blank":   {`{"deviceId":"a","etag":"a b"}`, "etag: must be printable"},
		"seventeen parents":      {`{"deviceId":"a","parentScopes":["a"` + strings.Repeat(`,"a"`, 16) + `]}`, "more than 16"},
		"longer than it may be":  {`{"deviceId":"a","x":"` + strings.Repeat("x", iothub.MaxIdentity) + `"}`, "longer than"},
		"nested without end":     {`{"deviceId":"a","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested deeper"},
		"text that is not UTF-8": {"{\"deviceId\":\"a\xff\"}", "not valid UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := iothub.DecodeDevice([]byte(c.body))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one with %q", err, c.says)
			}
		})
	}
}

func TestARequestHoldsNothingThatOnlyTheHubSets(t *testing.T) {
	d := iothub.Device{DeviceID: "press-07", GenerationID: "1", ETag: "MA==", Status: iothub.Enabled, ConnectionState: iothub.Connected, LastActivity: time.Now(),
		CloudToDeviceMessageCount: 4, Authentication: iothub.Authentication{Type: iothub.SAS, PrimaryKey: keyA, SecondaryKey: keyA}}
	want := `{"deviceId":"press-07","status":"enabled","statusReason":null,"authentication":{"symmetricKey":{"primaryKey":"` + b64A + `","secondaryKey":"` + b64A +
		`"},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"},"capabilities":{"iotEdge":false}}`
	if got := string(d.Request()); got != want {
		t.Errorf("the request is\n%s\nwant\n%s", got, want)
	}
}

func TestMarks(t *testing.T) {
	for _, m := range []iothub.Mark{{}, {Generation: 42}, {Generation: 7, Stage: iothub.New}, {Generation: 1<<64 - 1, Stage: iothub.Rekeyed}} {
		s := m.String()
		if got, ok := iothub.ParseMark(s); !ok || got != m || len(s) > iothub.MaxStatusReason {
			t.Errorf("%q is read as %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "latchkey generation ", "latchkey generation 042", "latchkey generation -1", "latchkey generation +1", "Latchkey generation 1", "latchkey generation 1 new new", "latchkey generation 1 old", "latchkey generation 1 ",
		"latchkey generation 18446744073709551616", "stolen, see ticket 7", "42"} {
		if m, ok := iothub.ParseMark(s); ok {
			t.Errorf("%q is taken for %v", s, m)
		}
	}
}

func TestAPIVersions(t *testing.T) {
	for v, want := range map[string]bool{"2021-04-12": true, "2016-02-03": true, "2020-05-31-preview": true, "2026-11-01": true,
		"": false, "2021-4-12": false, "2015-01-01": false, "2021-13-01": false, "2021-04-32": false, "2021-04-12-beta": false, "2021/04/12": false, "20a1-04-12": false} {
		if got := iothub.ValidAPIVersion(v); got != want {
			t.Errorf("ValidAPIVersion(%q) = %v", v, got)
		}
	}
	if !iothub.ValidAPIVersion(iothub.APIVersion) {
		t.Error("our own is not valid")
	}
}

func TestNoKeyIsPrinted(t *testing.T) {
	d := iothub.Device{DeviceID: "a", Authentication: iothub.Authentication{Type: iothub.SAS, PrimaryKey: []byte("canary-canary-canary")}}
	c := iothub.DeviceConnection{HostName: "hub", DeviceID: "a", Key: d.Authentication.PrimaryKey}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "device", d, "authentication", d.Authentication, "connection", c)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "authentication", d.Authentication, "connection", c)
	fmt.Fprintf(&log, "%v %+v %#v %v %v %+v %#v %s %d %x", d, d, d, &d, c, c, c, c, c, c)
	for _, form := range []string{"canary", base64.StdEncoding.EncodeToString(d.Authentication.PrimaryKey), fmt.Sprintf("%x", "canary"), fmt.Sprint([]byte("canary"))[1:10]} {
		if strings.Contains(log.String(), form) {
			t.Errorf("%q is in %s", form, log.String())
		}
	}
	if !strings.Contains(c.Reveal(), base64.StdEncoding.EncodeToString(c.Key)) {
		t.Error("the control: what is revealed has no key")
	}
}
