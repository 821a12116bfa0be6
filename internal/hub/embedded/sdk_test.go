package embedded

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// client makes a real MQTT client that behaves as device SDKs do.
func client(addr string, h hello, change func(*paho.ClientOptions)) paho.Client {
	o := paho.NewClientOptions()
	o.Servers = []*url.URL{{Scheme: "tls", Host: addr}}
	o.SetClientID(h.clientID).SetUsername(h.user).SetPassword(h.password).SetCleanSession(false).SetKeepAlive(180 * time.Second)
	o.SetProtocolVersion(4).SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(patience)
	change(o)
	return paho.NewClient(o)
}

func wait(t *testing.T, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) {
		t.Fatal("no answer")
	}
	if err := token.Error(); err != nil {
		t.Fatal(err)
	}
}

// TestADeviceWorksOverTLSAsItsSDKDoes is the whole life of a device at its hub, with a client we did not write, a real listener
// and a real file.
func TestADeviceWorksOverTLSAsItsSDKDoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "telemetry.ndjson")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	w := newWorld(t, func(c *Config) { c.Telemetry = file })
	key := newKey()
	w.ensure("dev", key, 1)
	addr, trust := w.serveTLS()
	lost := make(chan error, 1)
	sdk := func(o *paho.ClientOptions) {
		o.SetTLSConfig(trust)
		o.SetConnectionLostHandler(func(_ paho.Client, err error) { lost <- err })
	}

	// The Node client connects, disconnects and connects again at once with the same client id.
	for range 10 {
		c := client(addr, w.greet("dev", key), sdk)
		wait(t, c.Connect())
		c.Disconnect(0)
	}
	c := client(addr, w.greet("dev", key), sdk)
	wait(t, c.Connect())
	answers := make(chan paho.Message, 1)
	wait(t, c.SubscribeMultiple(map[string]byte{"devices/dev/messages/devicebound/#": 1, "$iothub/methods/POST/#": 0}, nil))
	wait(t, c.Subscribe("$iothub/twin/res/#", 0, func(_ paho.Client, m paho.Message) { answers <- m }))
	wait(t, c.Publish("devices/dev/messages/events/%24.ct=application%2Fjson&n=1", 1, false, `{"temperature": 21}`))
	wait(t, c.Publish("$iothub/twin/GET/?$rid=7", 0, false, " "))
	select {
	case m := <-answers:
		if m.Topic() != "$iothub/twin/res/200/?$rid=7" {
			t.Errorf("answer on %s", m.Topic())
		}
	case <-time.After(patience):
		t.Fatal("no answer to a twin request")
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mustContain(t, string(written), `"properties":{"n":"1"},"systemProperties":{"contentType":"application/json"},"body":{"temperature":21}}`+"\n")

	// A second instance replaces it.
	replaced := client(addr, w.greet("dev", key), sdk)
	wait(t, replaced.Connect())
	expectLost(t, lost)

	// The device gets a new owner.
	w.ensure("dev", newKey(), 2)
	expectLost(t, lost)
	refused := client(addr, w.greet("dev", key), sdk).Connect()
	if refused.WaitTimeout(patience); refused.Error() == nil || !strings.Contains(refused.Error().Error(), "not Authorized") {
		t.Errorf("the old key: %v", refused.Error())
	}
}

func expectLost(t *testing.T, lost <-chan error) {
	t.Helper()
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("the connection was not lost")
	}
}
