package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/config"
)

// balanced runs a service with balancers at 127.0.0.8 to 127.0.0.15. Everything else on this machine connects from elsewhere.
func (h house) balanced(t *testing.T, change ...func(*Options)) *running {
	t.Helper()
	return h.run(t, append(change, func(o *Options) {
		o.Load = func() (config.Config, error) { return h.load(map[string]string{"proxy-from": "127.0.0.8/29"}) }
	})...)
}

const balancer, elsewhere = "127.0.0.9", "127.0.0.3"

// dialFrom connects from an address of this machine.
func dialFrom(from, to string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := dialer.Dial("tcp", to)
	if err == nil {
		conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// proxyHeader is what a balancer sends for a peer with an IPv4 address.
func proxyHeader(peer string) []byte {
	from := netip.MustParseAddrPort(peer)
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), from.Addr().AsSlice()...)
	return append(b, 192, 0, 2, 1, byte(from.Port()>>8), byte(from.Port()), 1, 187)
}

// through is a client whose connections come from an address and begin with some bytes.
func (r *running) through(from string, wire []byte) *http.Client {
	client := r.client()
	client.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		conn, err := dialFrom(from, r.https)
		if err == nil {
			_, err = conn.Write(wire)
		}
		return conn, err
	}
	return client
}

// auditedFrom are the addresses in the audit rows of a device.
func (r *running) auditedFrom(id string) (addresses []string) {
	r.t.Helper()
	status, body, err := r.manage(r.client(), http.MethodGet, "/latchkey/v1/audit?object="+id, nil)
	must(r.t, err)
	var page struct {
		Entries []struct{ Action, Address string }
	}
	if err := json.Unmarshal(body, &page); err != nil || status != http.StatusOK {
		r.t.Fatalf("%d %s", status, body)
	}
	for _, row := range page.Entries {
		addresses = append(addresses, row.Action+" "+row.Address)
	}
	return addresses
}

func TestTheAddressInTheHeaderIsThePeer(t *testing.T) {
	h := installed(t)
	r := h.balanced(t)
	c := r.device(0)
	must(t, c.enroll()) // direct: not every client need come through the balancer
	c.client = r.through(balancer, proxyHeader("203.0.113.9:50000"))
	must(t, c.register())
	rows := fmt.Sprint(r.auditedFrom(c.id))
	if !strings.Contains(rows, "device.register 203.0.113.9") || strings.Contains(rows, balancer) {
		t.Errorf("the audit rows are %s", rows)
	}
	r.log.wait(t, 0, "a request from the device", func(line map[string]any) bool { return line["msg"] == "request" && line["from"] == "203.0.113.9" })

	// Who is refused before any proof: the decision tells the operator where from.
	tracking := r.refusedThrough(proxyHeader("203.0.113.77:50000"))
	status, body, err := r.manage(r.client(), http.MethodGet, "/latchkey/v1/decisions/"+tracking, nil)
	if err != nil || status != http.StatusOK || !strings.Contains(string(body), `"address":"203.0.113.77"`) {
		t.Errorf("the decision is %d %s %v", status, body, err)
	}
	conn, err := dialFrom(balancer, r.mqtt)
	must(t, err)
	conn.Write(proxyHeader("203.0.113.78:50000"))
	conn.Close()
	r.log.wait(t, 0, "a stranger at the hub", func(line map[string]any) bool {
		return line["msg"] == "hub: refused" && line["remote"] == "203.0.113.78:50000"
	})
}

// refusedThrough asks for a device that is not enrolled, and gives the answer's tracking id.
func (r *running) refusedThrough(wire []byte) string {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodPut, "https://"+host+"/"+r.made.IDScope+"/registrations/nobody/register"+apiVersion, bytes.NewReader(r.device(1).body()))
	must(r.t, err)
	request.Header.Set("Content-Type", "application/json")
	client := r.through(balancer, wire)
	answer, err := client.Do(request)
	must(r.t, err)
	_, err = io.Copy(io.Discard, answer.Body)
	must(r.t, err)
	answer.Body.Close()
	if answer.StatusCode/100 != 4 {
		r.t.Fatalf("nobody got %d", answer.StatusCode)
	}
	// The decision is written down behind the answer, and before the next request of the same connection.
	if status, _, err := ask(client, http.MethodGet, "https://"+host+"/healthz", "", nil); err != nil || status != http.StatusOK {
		r.t.Fatalf("%d %v", status, err)
	}
	return answer.Header.Get("x-ms-request-id")
}

// Nobody who is not listed can say where he comes from, whether he sends the header to HTTPS or to MQTT.
func TestAHeaderFromElsewhereIsRefused(t *testing.T) {
	h := installed(t)
	r := h.balanced(t)
	for what, addr := range map[string]string{"https": r.https, "mqtt": r.mqtt} {
		conn, err := dialFrom(elsewhere, addr)
		must(t, err)
		conn.Write(proxyHeader("203.0.113.9:50000"))
		client := tls.Client(conn, r.tls())
		if err := client.Handshake(); err == nil {
			t.Errorf("%s: it was taken", what)
		}
		conn.Close()
	}
	if text := r.log.String(); strings.Contains(text, "203.0.113.9") {
		t.Errorf("the log has the address that was claimed:\n%s", text)
	}
}

// Each of these from a balancer is ended in bounded time on either listener, which goes on.
func TestABalancersConnectionWithoutAGoodHeaderIsEnded(t *testing.T) {
	h := installed(t)
	r := h.balanced(t, func(o *Options) { o.headerTime = 300 * time.Millisecond })
	good := proxyHeader("203.0.113.9:50000")
	endless := append(bytes.Clone(good[:14]), 0x0f, 0xff)
	for what, addr := range map[string]string{"https": r.https, "mqtt": r.mqtt} {
		for name, wire := range map[string][]byte{
			"no header":        {0x16, 3, 1, 0, 200, 1},
			"version 1":        []byte("PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n"),
			"nothing":          nil,
			"a part of one":    good[:20],
			"an endless TLV":   append(endless, make([]byte, 2000)...),
			"a longer one":     append(bytes.Clone(good[:14]), 0xff, 0xff),
			"a Unix socket's":  append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8"), make([]byte, 216)...),
			"an unknown peer":  []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x00"),
			"an unknown order": []byte("\r\n\r\n\x00\r\nQUIT\n\x25\x11\x00\x00"),
		} {
			conn, err := dialFrom(balancer, addr)
			must(t, err)
			conn.Write(wire)
			if n, err := io.Copy(io.Discard, conn); n > 0 || isTimeout(err) {
				t.Errorf("%s, %s: %d bytes, %v", what, name, n, err)
			}
			conn.Close()
		}
	}
	if status, body, err := ask(r.through(balancer, good), http.MethodGet, "https://"+host+"/healthz", "", nil); err != nil || status != http.StatusOK {
		t.Errorf("afterwards: %d %s %v", status, body, err)
	}
	// The balancer's own connections are health checks.
	local := []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
	if status, body, err := ask(r.through(balancer, local), http.MethodGet, "https://"+host+"/readyz", "", nil); err != nil || status != http.StatusOK {
		t.Errorf("a health check: %d %s %v", status, body, err)
	}
}

// Connections whose header is awaited count as open ones: they wait for a place like all, and lose it when the header's time is over.
func TestAwaitedHeadersCountAsConnections(t *testing.T) {
	h := installed(t)
	h.configure(t, "limits: {connections: 2}\n")
	const awaited = 500 * time.Millisecond
	r := h.balanced(t, func(o *Options) { o.headerTime = awaited })
	begin := time.Now()
	for range 2 {
		silent, err := dialFrom(balancer, r.https)
		must(t, err)
		defer silent.Close()
	}
	good := r.through(balancer, proxyHeader("203.0.113.9:50000"))
	if status, body, err := ask(good, http.MethodGet, "https://"+host+"/healthz", "", nil); err != nil || status != http.StatusOK {
		t.Errorf("%d %s %v", status, body, err)
	}
	if took := time.Since(begin); took < awaited {
		t.Errorf("the third connection was served after %v, while two were awaited", took)
	}
}

// Metrics are asked for on this machine, and not through a balancer.
func TestTheMetricsListenerKnowsNoBalancers(t *testing.T) {
	r := installed(t).balanced(t)
	conn, err := dialFrom(balancer, r.metrics)
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	must(t, err)
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("%q %v", answer, err)
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// The hub lets so many of one address wait at its door. Behind a balancer that is the device's address: one that takes all its places does not
// shut out another.
func TestTheHubCountsStrangersByTheirRealAddress(t *testing.T) {
	h := installed(t)
	r := h.balanced(t)
	knock := func(peer string) net.Conn {
		conn, err := dialFrom(balancer, r.mqtt)
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		_, err = conn.Write(proxyHeader(peer))
		must(t, err)
		return conn
	}
	greeted := func(conn net.Conn) bool { return tls.Client(conn, r.tls()).Handshake() == nil }
	for i := range 64 {
		if !greeted(knock(fmt.Sprintf("203.0.113.9:%d", 40000+i))) {
			t.Fatalf("connection %d was refused", i+1)
		}
	}
	if greeted(knock("203.0.113.9:50000")) {
		t.Error("one address has more places than it should")
	}
	if !greeted(knock("203.0.113.10:50000")) {
		t.Error("another address has none, though the balancer is the same")
	}
}
