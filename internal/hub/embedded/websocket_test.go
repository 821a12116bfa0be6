package embedded

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"
)

// serveWeb serves the hub's WebSockets on an HTTPS listener whose write deadline is over before the handler begins, as that of a real one is some
// time after it. It returns the listener's address and what a device must trust.
func (w *world) serveWeb(change func(http.HandlerFunc) http.HandlerFunc) (addr string, trust *tls.Config) {
	w.t.Helper()
	_, trust = w.serveTLS()
	cert, err := certificate()
	if err != nil {
		w.t.Fatal(err)
	}
	handler := http.HandlerFunc(w.WebSocket)
	if change != nil {
		handler = change(handler)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	w.t.Cleanup(server.Close)
	return server.Listener.Addr().String(), trust
}

func late(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
		next(w, r)
	}
}

// dialWeb opens a WebSocket as a device that counts its frames.
func (w *world) dialWeb(addr string, trust *tls.Config) *websocket.Conn {
	w.t.Helper()
	dialer := websocket.Dialer{TLSClientConfig: trust, Subprotocols: []string{"mqtt"}, HandshakeTimeout: patience}
	c, answer, err := dialer.Dial("wss://"+addr+WebSocketPath, nil)
	if err != nil {
		w.t.Fatalf("%v %+v", err, answer)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(patience))
	if c.Subprotocol() != "mqtt" {
		w.t.Errorf("subprotocol %q", c.Subprotocol())
	}
	return c
}

func (w *world) sends(c *websocket.Conn, messages ...[]byte) {
	w.t.Helper()
	for _, m := range messages {
		if err := c.WriteMessage(websocket.BinaryMessage, m); err != nil {
			w.t.Fatal(err)
		}
	}
}

// reads wants packets, however they are put into messages, all of which are binary.
func (w *world) reads(c *websocket.Conn, want ...byte) {
	w.t.Helper()
	var got []byte
	for len(got) < len(want) {
		kind, m, err := c.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage {
			w.t.Fatalf("read % x, then %d, %v; want % x", got, kind, err, want)
		}
		got = append(got, m...)
	}
	if !bytes.Equal(got, want) {
		w.t.Fatalf("read % x, want % x", got, want)
	}
}

// closes wants the connection to end with a close frame of a code, or without any (0).
func (w *world) closes(c *websocket.Conn, code int) {
	w.t.Helper()
	_, m, err := c.ReadMessage()
	var closed *websocket.CloseError
	errors.As(err, &closed)
	if ne := net.Error(nil); err == nil || errors.As(err, &ne) && ne.Timeout() {
		w.t.Fatalf("it is open: % x, %v", m, err)
	}
	if code != 0 && (closed == nil || closed.Code != code) {
		w.t.Errorf("ended with %v, want code %d", err, code)
	}
}

func TestADeviceWorksOverWebSocketAsItsSDKDoes(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	addr, trust := w.serveWeb(late)
	for _, query := range []string{"", "?iothub-no-client-cert=true"} {
		c := client(addr, w.greet("dev", key), func(o *paho.ClientOptions) {
			at, err := url.Parse("wss://" + addr + WebSocketPath + query)
			if err != nil {
				t.Fatal(err)
			}
			o.Servers = []*url.URL{at}
			o.SetTLSConfig(trust)
		})
		wait(t, c.Connect())
		wait(t, c.Subscribe(twinAnswers, 0, nil))
		wait(t, c.Publish(devTopic, 1, false, strings.Repeat("x", 100<<10)))
		c.Disconnect(0)
		w.settled()
	}
	if n := len(w.sink.records(t)); n != 2 {
		t.Errorf("%d records", n)
	}
}

// Packets begin and end anywhere in messages, and messages anywhere in frames (MQTT 3.1.1, 6).
func TestPacketsNeedNotBeMessages(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	addr, trust := w.serveWeb(nil)
	c := w.dialWeb(addr, trust)
	hello := w.greet("dev", key).packet()
	for _, b := range hello {
		w.sends(c, []byte{b}, nil) // and empty messages between
	}
	w.reads(c, 0x20, 2, 0, 0)
	w.sends(c, bytes.Join([][]byte{publish(0x32, devTopic, 1, "1"), publish(0x32, devTopic, 2, "2"), packet(0xc0)}, nil))
	w.reads(c, 0x40, 2, 0, 1, 0x40, 2, 0, 2, 0xd0, 0)
	message, err := c.NextWriter(websocket.BinaryMessage)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range publish(0x32, devTopic, 3, strings.Repeat("x", 9000)) { // fragments of the client's buffer, 4 KiB each
		if _, err := message.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if err := message.Close(); err != nil {
		t.Fatal(err)
	}
	w.reads(c, 0x40, 2, 0, 3)
	if err := c.WriteControl(websocket.PingMessage, []byte("?"), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	pong := make(chan string, 1)
	c.SetPongHandler(func(data string) error { pong <- data; return nil })
	w.sends(c, packet(0xc0))
	w.reads(c, 0xd0, 0)
	select {
	case data := <-pong:
		if data != "?" {
			t.Errorf("pong %q", data)
		}
	default:
		t.Error("no pong came before the answer to what was sent after the ping")
	}
	c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), time.Now().Add(patience))
	w.closes(c, websocket.CloseGoingAway)
	w.settled()
	if n := len(w.sink.records(t)); n != 3 || w.endings(causeLost) != 1 {
		t.Errorf("%d records", n)
	}
}

func TestTextIsRefusedWhereverItComes(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	addr, trust := w.serveWeb(nil)
	first := w.dialWeb(addr, trust)
	if err := first.WriteMessage(websocket.TextMessage, w.greet("dev", key).packet()); err != nil {
		t.Fatal(err)
	}
	w.closes(first, websocket.CloseUnsupportedData)
	second := w.dialWeb(addr, trust)
	w.sends(second, w.greet("dev", key).packet())
	w.reads(second, 0x20, 2, 0, 0)
	if err := second.WriteMessage(websocket.TextMessage, packet(0xc0)); err != nil {
		t.Fatal(err)
	}
	w.closes(second, websocket.CloseUnsupportedData)
	w.settled()
	if n := w.endings(causeMalformed); n != 2 {
		t.Errorf("%d connections ended as malformed", n)
	}
}

// rawFrames speaks by the byte, once the handshake is over.
func (w *world) rawFrames(addr string, trust *tls.Config) *raw {
	w.t.Helper()
	c, err := tls.Dial("tcp", addr, trust)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	r := newRaw(w.t, c)
	r.send([]byte("GET " + WebSocketPath + " HTTP/1.1\r\nHost: " + testHub + "\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: foreign, MQTT\r\n\r\n"))
	answer, err := http.ReadResponse(r.r, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Sec-WebSocket-Protocol") != "MQTT" {
		w.t.Fatalf("%+v, %v", answer, err)
	}
	return r
}

// frame is the head of a masked one, with a mask that changes nothing.
func frame(head byte, length uint64) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{head, 0x80 | 127}, length), 0, 0, 0, 0)
}

func TestFramesThatNoDeviceSends(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	addr, trust := w.serveWeb(nil)
	hello := w.greet("dev", key).packet()
	huge := bytes.Repeat([]byte{0x30}, 64<<10)
	causes := map[cause]int{}
	for name, c := range map[string]struct {
		bytes []byte
		why   cause
	}{
		"a frame of a terabyte, without CONNECT":     {append(frame(0x82, 1<<40), huge...), causeMalformed},
		"a frame of a terabyte, with CONNECT in it":  {bytes.Join([][]byte{frame(0x82, 1<<40), hello, publish(0x30, devTopic, 0, strings.Repeat("x", 300<<10))}, nil), causeTooLarge},
		"a length that is negative":                  {frame(0x82, 1<<63), causeMalformed},
		"a length that is negative, later":           {append(append(frame(0x02, uint64(len(hello))), hello...), frame(0x80, 1<<63|5)...), causeMalformed},
		"no mask":                                    {[]byte{0x82, 2, 0x10, 0}, causeMalformed},
		"a reserved bit":                             {[]byte{0xc2, 0x80, 0, 0, 0, 0}, causeMalformed},
		"an opcode that is none":                     {[]byte{0x83, 0x80, 0, 0, 0, 0}, causeMalformed},
		"a continuation of nothing":                  {[]byte{0x80, 0x80, 0, 0, 0, 0}, causeMalformed},
		"a ping of 126 bytes":                        {[]byte{0x89, 0xfe, 0, 126, 0, 0, 0, 0}, causeMalformed},
		"a ping in fragments":                        {[]byte{0x09, 0x80, 0, 0, 0, 0}, causeMalformed},
		"a CONNECT that is too large":                {append(frame(0x82, 1<<20), append([]byte{0x10, 0x80, 0x80, 0x40}, huge...)...), causeTooLarge},
		"a close frame first":                        {[]byte{0x88, 0x80, 0, 0, 0, 0}, causeLost},
		"a close frame that says what may not be":    {[]byte{0x88, 0x82, 0, 0, 0, 0, 0, 1}, causeMalformed},
		"MQTT without frames":                        {hello, causeMalformed},
		"a request where frames are expected":        {[]byte("GET / HTTP/1.1\r\n\r\n"), causeMalformed},
		"a message of another after one begins anew": {append([]byte{0x02, 0x80, 0, 0, 0, 0}, 0x82, 0x80, 0, 0, 0, 0), causeMalformed},
	} {
		before := w.endings(c.why)
		r := w.rawFrames(addr, trust)
		_, _ = r.Write(c.bytes) // it may be cut before all is sent
		if _, err := io.Copy(io.Discard, r.r); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: it is still open", name)
		} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("%s: it is still open", name)
		}
		w.settled()
		if w.endings(c.why) != before+1 {
			t.Errorf("%s: not ended as %s", name, c.why)
		}
		causes[c.why]++
	}
	if metric(t, w.metrics.panics) != 0 || len(causes) != 3 {
		t.Errorf("panics, or causes %v", causes)
	}
}

func TestWhatIsNoHandshakeIsToldWhatToDo(t *testing.T) {
	w := newWorld(t, nil)
	addr, trust := w.serveWeb(nil)
	elsewhere := newWorld(t, func(c *Config) { c.Serve = false })
	other, _ := elsewhere.serveWeb(nil)
	closed := newWorld(t, nil)
	gone, _ := closed.serveWeb(nil)
	closed.shut()
	upgrade := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
	with := func(more ...string) map[string]string {
		all := map[string]string{}
		for k, v := range upgrade {
			all[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	defer client.CloseIdleConnections()
	for name, c := range map[string]struct {
		addr, method string
		header       map[string]string
		status       int
		says         string
	}{
		"a plain GET":          {addr, "GET", nil, http.StatusUpgradeRequired, "WebSocket handshake"},
		"no subprotocol":       {addr, "GET", upgrade, http.StatusBadRequest, "Sec-WebSocket-Protocol: mqtt"},
		"AMQP":                 {addr, "GET", with("Sec-WebSocket-Protocol", "AMQPWSB10"), http.StatusBadRequest, "Sec-WebSocket-Protocol: mqtt"},
		"another version":      {addr, "GET", with("Sec-WebSocket-Protocol", "mqtt", "Sec-WebSocket-Version", "8"), http.StatusBadRequest, "unsupported version"},
		"a key that is none":   {addr, "GET", with("Sec-WebSocket-Protocol", "mqtt", "Sec-WebSocket-Key", "x"), http.StatusBadRequest, "Sec-WebSocket-Key"},
		"another method":       {addr, "POST", with("Sec-WebSocket-Protocol", "mqtt"), http.StatusMethodNotAllowed, "GET"},
		"a node without a hub": {other, "GET", with("Sec-WebSocket-Protocol", "mqtt"), http.StatusServiceUnavailable, "hub.serve is false"},
		"a hub that stops":     {gone, "GET", with("Sec-WebSocket-Protocol", "mqtt"), http.StatusServiceUnavailable, "connect again"},
	} {
		r, err := http.NewRequest(c.method, "https://"+c.addr+WebSocketPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.status || !strings.Contains(string(body), c.says) {
			t.Errorf("%s: %d %s", name, answer.StatusCode, body)
		}
	}
}

// A stranger who opens a WebSocket and says nothing is one of those who have not logged in: bounded for its address, and not for long.
func TestASilentWebSocketIsPendingLikeAnyConnection(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PendingPerAddress, c.Limits.ConnectDeadline = 1, 200*time.Millisecond })
	addr, trust := w.serveWeb(nil)
	silent := w.dialWeb(addr, trust)
	second := w.dialWeb(addr, trust)
	w.closes(second, websocket.CloseNormalClosure)
	if w.endings(causeTooMany) != 1 {
		t.Error("the second one was let in")
	}
	w.closes(silent, 0)
	w.settled()
	if w.endings(causeSlow) != 1 {
		t.Error("the first one was not given up")
	}
}

func TestAWebSocketEndsWithItsKeyAndWithTheHub(t *testing.T) {
	w := newWorld(t, nil)
	key, newer := newKey(), newKey()
	w.ensure("dev", key, 1)
	addr, trust := w.serveWeb(nil)
	rekeyed := w.dialWeb(addr, trust)
	w.sends(rekeyed, w.greet("dev", key).packet())
	w.reads(rekeyed, 0x20, 2, 0, 0)
	w.ensure("dev", newer, 2)
	w.closes(rekeyed, 0)
	drained := w.dialWeb(addr, trust)
	w.sends(drained, w.greet("dev", newer).packet())
	w.reads(drained, 0x20, 2, 0, 0)
	w.shut()
	w.closes(drained, 0)
	if w.endings(causeRekeyed) != 1 || w.endings(causeShutdown) != 1 {
		t.Error("not counted")
	}
}

// A message at work when the hub stops is acknowledged before the connection ends.
func TestAMessageAtWorkIsAcknowledgedOverWebSocketBeforeTheEnd(t *testing.T) {
	working, goOn := make(chan struct{}), make(chan struct{})
	w := newWorld(t, nil)
	w.sink.fail = func() error { close(working); <-goOn; return nil }
	key := newKey()
	w.ensure("dev", key, 1)
	addr, trust := w.serveWeb(nil)
	c := w.dialWeb(addr, trust)
	w.sends(c, w.greet("dev", key).packet())
	w.reads(c, 0x20, 2, 0, 0)
	w.sends(c, publish(0x32, devTopic, 7, "last"))
	<-working
	closed := make(chan error, 1)
	go func() { closed <- w.Close(context.Background()) }()
	<-w.base.Done()
	close(goOn)
	w.reads(c, 0x40, 2, 0, 7)
	w.closes(c, 0)
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// pipeWeb is a WebSocket over a pipe, and its other end.
func (w *world) pipeWeb() (*raw, *webSocket) {
	w.t.Helper()
	ours, theirs := net.Pipe()
	ours.SetDeadline(time.Now().Add(patience))
	w.t.Cleanup(func() { ours.Close() })
	r := newRaw(w.t, ours)
	upgraded := make(chan error)
	go func() {
		answer, err := http.ReadResponse(r.r, nil)
		if err == nil && answer.StatusCode != http.StatusSwitchingProtocols {
			err = errors.New(answer.Status)
		}
		upgraded <- err
	}()
	frames := upgradeOn(w.t, theirs)
	if err := <-upgraded; err != nil {
		w.t.Fatal(err)
	}
	if err := w.begin(); err != nil {
		w.t.Fatal(err)
	}
	return r, newWebSocket(frames, w.config.Limits)
}

// A device that reads nothing holds up only itself, and is cut when a write to it takes too long. Over a pipe a write lasts until it is read.
func TestAWebSocketThatReadsNothingIsCut(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.WriteDeadline = 50 * time.Millisecond })
	key := newKey()
	w.ensure("dev", key, 1)
	w.login(w.greet("dev", key), 0).Close()
	w.settled()
	r, s := w.pipeWeb()
	w.accept(s)
	hello := w.greet("dev", key).packet()
	r.send(append(frame(0x82, uint64(len(hello))), hello...))
	r.expect(0x82, 4, 0x20, 2, 1, 0)
	r.send(append(frame(0x82, 2), packet(0xc0)...))
	w.settled()
	if w.endings(causeStalled) != 1 {
		t.Error("not ended for what it did")
	}
}

// So is one that sends pings and does not read what they are answered with, long before it had to log in.
func TestAWebSocketThatOnlyPingsIsCut(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.WriteDeadline, c.Limits.ConnectDeadline = 50*time.Millisecond, time.Hour })
	r, s := w.pipeWeb()
	w.accept(s)
	r.send([]byte{0x89, 0x80, 0, 0, 0, 0})
	w.settled()
	r.expectClosed()
}

func TestAClientCertificateIsSeenThroughAWebSocket(t *testing.T) {
	cert, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, nil)
	addr, trust := w.serveWeb(nil)
	seen := make(chan bool, 1)
	w.Hub.config.Names = func(hub string) (string, bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for c := range w.conns {
			shown := c.certificate()
			seen <- shown != nil && bytes.Equal(shown.Raw, cert.Certificate[0])
		}
		return "", false
	}
	trust = trust.Clone()
	trust.Certificates = []tls.Certificate{cert}
	c := w.dialWeb(addr, trust)
	w.sends(c, hello{clientID: "dev", user: userName("dev"), bare: true}.packet())
	w.reads(c, 0x20, 2, 0, 5)
	if !<-seen {
		t.Error("it is not")
	}
}

func FuzzWebSocketFrames(f *testing.F) {
	f.Add(append(frame(0x82, 4), 0x10, 2, 0, 0))
	f.Add([]byte{0x89, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0})
	f.Add([]byte{0x81, 0x81, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, wire []byte) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go io.Copy(io.Discard, ours)
		go func() {
			ours.Write(wire)
			ours.Close()
		}()
		s := newWebSocket(upgradeOn(t, theirs), Limits{WriteDeadline: patience})
		got, err := io.ReadAll(s)
		if len(got) > len(wire) {
			t.Errorf("%d bytes of %d, %v", len(got), len(wire), err)
		}
		if _, again := s.Read(make([]byte, 1)); again == nil {
			t.Error("it reads on after its end")
		}
		s.Close()
	})
}

// upgradeOn gives the frames of a connection as they are after a handshake.
func upgradeOn(t testing.TB, nc net.Conn) *websocket.Conn {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, WebSocketPath, nil)
	for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		r.Header.Set(k, v)
	}
	c, err := upgrader.Upgrade(hijacked{httptest.NewRecorder(), nc}, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hijacked is an answer whose connection is taken over.
type hijacked struct {
	http.ResponseWriter
	net.Conn
}

func (h hijacked) Write(p []byte) (int, error) { return h.ResponseWriter.Write(p) }

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.Conn, bufio.NewReadWriter(bufio.NewReader(h.Conn), bufio.NewWriter(h.Conn)), nil
}
