package iothub_test

import (
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
)

func TestTheServicesTokenIsSignedForTheWholeHub(t *testing.T) {
	c, err := iothub.ParseConnection("HostName=hub-a.example.net;SharedAccessKeyName=latchkey;SharedAccessKey=" + b64A)
	if err != nil {
		t.Fatal(err)
	}
	expiry := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	text, err := iothub.ServiceToken(c, expiry)
	if err != nil {
		t.Fatal(err)
	}
	token, err := dps.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	if !token.Verify(keyA) || token.Verify(keyB) || token.KeyName != "latchkey" || !token.Expiry.Equal(expiry) {
		t.Errorf("the SAS token is %v", token)
	}
	if !token.ResourceCovers("hub-a.example.net", "/devices/press-07") || token.ResourceCovers("hub-b.example.net", "/devices/press-07") {
		t.Errorf("it is for %q", token.Resource)
	}
}

func TestConnectionStringsThatAreRefused(t *testing.T) {
	for s, says := range map[string]string{
		"":             "HostName is missing",
		"HostName=hub": "SharedAccessKeyName is missing",
		"HostName=hub;DeviceId=a;SharedAccessKey=" + b64A:             "this is a device's",
		"HostName=hub;SharedAccessKeyName=x;SharedAccessKey=hunter2!": "SharedAccessKey is not base64",
	} {
		_, err := iothub.ParseConnection(s)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestADevicesOwnConnectionString(t *testing.T) {
	c := iothub.DeviceConnection{HostName: "hub-a.example.net", DeviceID: "press-07", Key: keyA}
	if got, want := c.Reveal(), "HostName=hub-a.example.net;DeviceId=press-07;SharedAccessKey="+b64A; got != want {
		t.Errorf("%s", got)
	}
	c.Key = nil
	if got, want := c.Reveal(), "HostName=hub-a.example.net;DeviceId=press-07;x509=true"; got != want {
		t.Errorf("%s", got)
	}
}

func TestPathsOfUnusualDeviceIDs(t *testing.T) {
	for id, want := range map[string]string{
		"press-07":            "/devices/press-07",
		"a%2f..":              "/devices/a%252f..",
		"-.%_*?!(),:=@$'":     "/devices/-.%25_*%3F!()%2C%3A%3D%40%24'",
		"LINE4:slot=1,bay(2)": "/devices/LINE4%3Aslot%3D1%2Cbay(2)",
	} {
		if got := iothub.DevicePath(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	if got := iothub.TwinPath("a?b"); got != "/twins/a%3Fb" {
		t.Error(got)
	}
}
