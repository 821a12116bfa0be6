package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/hub/broker"
	"latchkey.example/latchkey/internal/registration"
)

func TestWhoShowsWhatLogsInWhere(t *testing.T) {
	w := newWorld(t, broker.Generic)
	w.must(w.ensure("dev-1", 1, keyOne))
	w.must(w.ensure("dev-2", 2, keyTwo))
	long := testHub + "/dev-1/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18"
	good := w.token("dev-1", keyOne, time.Hour)
	sign := func(resource string, key []byte, life time.Duration) string {
		token, err := dps.NewToken(dps.KeySigner(key), resource, w.clock.now().Add(life), "")
		w.must(err)
		return token
	}
	for name, c := range map[string]struct {
		user, client, password string
		want                   registration.Reason
	}{
		"its id":                     {"dev-1", "dev-1", good, registration.ReasonBrokerLogin},
		"as device SDKs do":          {long, "dev-1", good, registration.ReasonBrokerLogin},
		"as old ones do":             {testHub + "/dev-1", "dev-1", good, registration.ReasonBrokerLogin},
		"with a port":                {testHub + ":8883/dev-1/?api-version=x", "dev-1", sign(testHub+":8883/devices/dev-1", keyOne, time.Hour), registration.ReasonBrokerLogin},
		"another client id":          {"dev-1", "dev-2", good, registration.ReasonBrokerUser},
		"no client id":               {"dev-1", "", good, registration.ReasonBrokerUser},
		"another hub":                {"other.example/dev-1/?api-version=x", "dev-1", good, registration.ReasonBrokerUser},
		"a module":                   {testHub + "/dev-1/module/?api-version=x", "dev-1", good, registration.ReasonBrokerUser},
		"no user":                    {"", "", good, registration.ReasonBrokerUser},
		"a wildcard":                 {"+", "+", good, registration.ReasonBrokerUser},
		"another device's token":     {"dev-1", "dev-1", w.token("dev-2", keyTwo, time.Hour), registration.ReasonTokenOtherResource},
		"another device's key":       {"dev-1", "dev-1", w.token("dev-1", keyTwo, time.Hour), registration.ReasonTokenSignature},
		"another hub's token":        {"dev-1", "dev-1", sign("other.example/devices/dev-1", keyOne, time.Hour), registration.ReasonTokenOtherResource},
		"an expired one":             {"dev-1", "dev-1", w.token("dev-1", keyOne, -time.Minute), registration.ReasonTokenExpired},
		"one that lasts too long":    {"dev-1", "dev-1", w.token("dev-1", keyOne, 48*time.Hour), registration.ReasonTokenFuture},
		"no token":                   {"dev-1", "dev-1", "", registration.ReasonBadToken},
		"the key itself":             {"dev-1", "dev-1", string(keyOne), registration.ReasonBadToken},
		"an unknown device":          {"dev-3", "dev-3", w.token("dev-3", keyOne, time.Hour), registration.ReasonUnknownID},
		"the id in another case":     {"DEV-1", "DEV-1", w.token("DEV-1", keyOne, time.Hour), registration.ReasonUnknownID},
		"what the broker left empty": {"dev-1", "dev-1", "undefined", registration.ReasonBadToken},
	} {
		_, expires, why, err := w.hub.Login(t.Context(), testHub, c.user, c.client, c.password, "")
		if err != nil || why != c.want {
			t.Errorf("%s: %s, %v; want %s", name, why, err, c.want)
		}
		if left := expires.Sub(w.clock.now()); why == registration.ReasonBrokerLogin && (left < 59*time.Minute || left > time.Hour) {
			t.Errorf("%s: the connection is to end in %s", name, left)
		}
	}
}

// Both keys of a device let in, and what differs between an unknown device and a wrong key is not how often the store is asked.
func TestAnUnknownDeviceCostsWhatAWrongKeyDoes(t *testing.T) {
	w := newWorld(t, broker.Generic)
	w.must(w.hub.EnsureDevice(t.Context(), testScope, testHub, registration.HubDevice{DeviceID: "dev-1", Generation: 1,
		Credential: registration.Credential{Primary: keyOne, Secondary: keyTwo}}))
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyOne))
	w.wantReason(registration.ReasonBrokerLogin, w.login("dev-1", keyTwo))
	reads := func(device string, want registration.Reason) int {
		before := w.store.reads
		w.wantReason(want, w.login(device, []byte("another key of 32 bytes, or more")))
		return w.store.reads - before
	}
	wrong, unknown := reads("dev-1", registration.ReasonTokenSignature), reads("nobody", registration.ReasonUnknownID)
	w.must(w.hub.DisableDevice(t.Context(), testScope, testHub, "dev-1", 2))
	if disabled := reads("dev-1", registration.ReasonTokenSignature); wrong != unknown || wrong != disabled {
		t.Errorf("a wrong key costs %d reads, an unknown device %d, a disabled one %d", wrong, unknown, disabled)
	}
}

func TestOnlyTheSharedSecretMakesABrokerACaller(t *testing.T) {
	w := newWorld(t, broker.Generic)
	if scope, product, ok := w.hub.Caller(testHub, secret); !ok || scope != testScope || product != "generic" {
		t.Fatalf("the secret: %q %q %v", scope, product, ok)
	}
	for _, c := range [][2]string{{testHub, ""}, {testHub, secret + "x"}, {testHub, password}, {"other.example", secret}, {"", ""}} {
		if scope, product, ok := w.hub.Caller(c[0], c[1]); ok || scope != "" || product != "" {
			t.Errorf("%v was taken for a broker of %q", c, scope)
		}
	}
	w.linked.Settings = []byte(`{"product":"generic","publish":["broken/#/template"]}`)
	w.linked.Revision++
	if _, _, ok := w.hub.Caller(testHub, secret); ok {
		t.Error("a hub whose settings cannot be read has a broker")
	}
}

// A hub that was linked after somebody asked for it is found within a second, however often strangers ask for others.
func TestAHubThatIsLinkedLaterIsFound(t *testing.T) {
	w := newWorld(t, broker.Generic)
	now := w.linked
	w.linked.Name = "elsewhere.example"
	if _, _, ok := w.hub.Caller(testHub, secret); ok {
		t.Fatal("it is not linked")
	}
	w.linked = now
	w.clock.pass(2 * time.Second)
	if _, _, ok := w.hub.Caller(testHub, secret); !ok {
		t.Fatal("it is linked, and not found")
	}
}

// certificate makes one for a device, and gives its DER.
func certificate(t *testing.T, from, to time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dev-1"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Where the broker says what certificate a client has shown, a device may have one in place of a key.
func TestADeviceWithACertificateLogsInWhereTheBrokerShowsIt(t *testing.T) {
	w := newWorld(t, broker.Generic)
	now := w.clock.now()
	der, past := certificate(t, now.Add(-time.Hour), now.Add(time.Hour)), certificate(t, now.Add(-2*time.Hour), now.Add(-time.Hour))
	sum := sha256.Sum256(der)
	w.must(w.hub.EnsureDevice(t.Context(), testScope, testHub, registration.HubDevice{DeviceID: "dev-1", Generation: 1, Credential: registration.Credential{Certificate: sum[:]}}))
	w.must(w.ensure("dev-2", 2, keyOne))
	asPEM := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	for name, c := range map[string]struct {
		device, shown string
		want          registration.Reason
	}{
		"PEM":                {"dev-1", asPEM(der), registration.ReasonBrokerLogin},
		"PEM, escaped":       {"dev-1", url.PathEscape(asPEM(der)), registration.ReasonBrokerLogin},
		"base64 of DER":      {"dev-1", base64.StdEncoding.EncodeToString(der), registration.ReasonBrokerLogin},
		"base64 of PEM":      {"dev-1", base64.StdEncoding.EncodeToString([]byte(asPEM(der))), registration.ReasonBrokerLogin},
		"another":            {"dev-1", asPEM(certificate(t, now.Add(-time.Hour), now.Add(time.Hour))), registration.ReasonTokenSignature},
		"one that has ended": {"dev-1", asPEM(past), registration.ReasonCertificateTime},
		"none":               {"dev-1", "certificate", registration.ReasonBadRequest},
		"of another device":  {"dev-2", asPEM(der), registration.ReasonTokenSignature},
	} {
		_, expires, why, err := w.hub.Login(t.Context(), testHub, c.device, c.device, "", c.shown)
		if err != nil || why != c.want || why == registration.ReasonBrokerLogin && expires.Sub(now).Round(time.Minute) != time.Hour {
			t.Errorf("%s: %s until %s, %v", name, why, expires, err)
		}
	}
	w.wantReason(registration.ReasonTokenSignature, w.login("dev-1", keyOne))
	// A broker that cannot know lets nobody in by what it says.
	w.linked.Settings, w.linked.Revision = []byte(`{"product":"mosquitto"}`), 2
	if _, _, why, err := w.hub.Login(t.Context(), testHub, "dev-1", "dev-1", "", asPEM(der)); err != nil || why != registration.ReasonBadToken {
		t.Errorf("Mosquitto: %s, %v", why, err)
	}
}
