package daemon

import (
	"net"
	"net/url"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/hub/embedded"
)

// loginWeb connects to the hub over WebSocket, on the HTTPS port, as a device SDK does.
func (c *chip) loginWeb(password, path string) (paho.Client, error) {
	at, err := url.Parse("wss://" + c.r.https + path)
	if err != nil {
		return nil, err
	}
	o := paho.NewClientOptions()
	o.Servers = []*url.URL{at}
	o.SetTLSConfig(c.r.tls()).SetClientID(c.id).SetUsername(host + "/" + c.id + "/?api-version=2021-04-12").SetPassword(password)
	o.SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(patience)
	client := paho.NewClient(o)
	return client, settled(client.Connect())
}

func TestDevicesReachTheirHubOnTheHTTPSPort(t *testing.T) {
	r := installed(t).run(t)
	c := r.device(0)
	must(t, c.whole())
	password, err := c.password()
	must(t, err)
	var last paho.Client
	for _, path := range []string{embedded.WebSocketPath, embedded.WebSocketPath + "?iothub-no-client-cert=true", "/%24iothub/WebSocket/"} {
		last, err = c.loginWeb(password, path)
		must(t, err)
		must(t, settled(last.Publish("devices/"+c.id+"/messages/events/", 1, false, "over "+path)))
	}
	r.end() // it is the hub's to end, with the others
	r.log.wait(t, 0, "the device's end", func(line map[string]any) bool {
		return line["msg"] == "hub: disconnected" && line["cause"] == "shutdown"
	})
	r.stop()
	if settled(last.Publish("devices/"+c.id+"/messages/events/", 1, false, "late")) == nil {
		t.Error("the hub took a message after the end")
	}
}

// A stranger at the hub who came through a balancer is counted and told by his own address.
func TestThePeerOfAWebSocketIsTheOneInTheHeader(t *testing.T) {
	r := installed(t).balanced(t)
	conn, err := dialFrom(balancer, r.https)
	must(t, err)
	_, err = conn.Write(proxyHeader("203.0.113.79:50000"))
	must(t, err)
	dialer := websocket.Dialer{TLSClientConfig: r.tls(), Subprotocols: []string{"mqtt"}, NetDial: func(string, string) (net.Conn, error) { return conn, nil }}
	frames, _, err := dialer.Dial("wss://"+host+embedded.WebSocketPath, nil)
	must(t, err)
	frames.SetReadDeadline(time.Now().Add(patience))
	must(t, frames.WriteMessage(websocket.BinaryMessage, []byte("\x10\x12\x00\x04MQTT\x04\xc0\x00\x00\x00\x00\x00\x01x\x00\x01y")))
	r.log.wait(t, 0, "a stranger at the hub", func(line map[string]any) bool {
		return line["msg"] == "hub: refused" && line["remote"] == "203.0.113.79:50000"
	})
}

// A connection of the HTTPS listener that became the hub's gives its place back when it ends, whoever ends it.
func TestAWebSocketGivesItsPlaceBack(t *testing.T) {
	h := installed(t)
	r := h.run(t, func(o *Options) {
		o.Load = func() (config.Config, error) { return h.load(map[string]string{"limits-connections": "4"}) }
	})
	c := r.device(0)
	must(t, c.whole())
	password, err := c.password()
	must(t, err)
	for i := range 12 {
		client, err := c.loginWeb(password, embedded.WebSocketPath) // every second one is cut, because the device is here again
		must(t, err)
		if i%2 == 0 {
			client.Disconnect(0)
		}
	}
	if status, _ := r.probe("/healthz"); status != 200 {
		t.Errorf("status %d", status)
	}
}
