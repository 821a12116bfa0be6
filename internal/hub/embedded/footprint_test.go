package embedded

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"latchkey.example/latchkey/dps"
)

// A test of what connections cost runs its devices in another process, so that all memory of this one is the hub's.
const crowdEnv = "LATCHKEY_TEST_CROWD"

func TestMain(m *testing.M) {
	if os.Getenv(crowdEnv) != "" {
		if err := crowd(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// idleLimit is what an idle connection may cost the process, its TLS and MQTT state, buffers and stacks, in bytes. sessionLimit is for what stays of it when
// it is gone, the lines in this test's log included.
const sessionLimit = 12 << 10

// footprint is the memory that the process has in use: what is alive on the heap, and stacks.
func footprint() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools still held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func TestAnIdleConnectionCostsLittle(t *testing.T) { idleCosts(t, "tls", idleDevices, idleLimit) }

// The frames cost what they hold of their own.
func TestAnIdleWebSocketCostsLittleMore(t *testing.T) {
	idleCosts(t, "wss", idleDevices/5, idleLimit+4<<10)
}

// idleCosts measures so many devices (or LATCHKEY_CONNECTIONS).
func idleCosts(t *testing.T, scheme string, devices int, limit uint64) {
	if n, err := strconv.Atoi(os.Getenv("LATCHKEY_CONNECTIONS")); err == nil {
		devices = n
	}
	w := newWorld(t, nil)
	key := newKey()
	for i := range devices {
		w.ensure(fmt.Sprintf("dev-%d", i), key, 1)
	}
	addr, _ := w.serveTLS()
	if scheme == "wss" {
		addr, _ = w.serveWeb(nil)
	}
	before := footprint()
	began := time.Now()
	leave := w.crowd(scheme, addr, devices, key)
	took := time.Since(began)
	each := (footprint() - before) / uint64(devices)
	w.mu.Lock()
	open := len(w.conns)
	w.mu.Unlock()
	t.Logf("%d connections in %.1f s, %d bytes each", open, took.Seconds(), each)
	if open != devices || each > limit {
		t.Errorf("%d of %d connections, %d bytes each, want at most %d", open, devices, each, limit)
	}
	leave()
	w.settled()
	if left := (max(footprint(), before) - before) / uint64(devices); left > sessionLimit && scheme == "tls" { // of a few, other things are more
		t.Errorf("%d bytes of each are left, want at most %d for its session", left, sessionLimit)
	} else {
		t.Logf("%d bytes of each are left, its session", left)
	}
}

// crowd has devices log in from another process, and returns once all have and listen; they stay until leave.
func (w *world) crowd(scheme, addr string, devices int, key []byte) (leave func()) {
	w.t.Helper()
	cert, err := certificate()
	if err != nil {
		w.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), crowdEnv+"=1")
	child.Stderr = os.Stderr
	in, err1 := child.StdinPipe()
	out, err2 := child.StdoutPipe()
	if err := errors.Join(err1, err2, child.Start()); err != nil {
		w.t.Fatal(err)
	}
	gone := false
	leave = func() {
		if !gone {
			gone = true
			in.Close()
			child.Wait()
		}
	}
	w.t.Cleanup(leave)
	fmt.Fprintf(in, "%s %s %d %s %s\n", scheme, addr, devices, base64.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(cert.Certificate[0]))
	answer, err := bufio.NewReader(out).ReadString('\n')
	if answer != "ready\n" {
		w.t.Fatalf("the devices say %q, %v", answer, err)
	}
	return leave
}

// crowd is the other process.
func crowd(in io.Reader, out io.Writer) error {
	var scheme, addr, key64, cert64 string
	var devices int
	lines := bufio.NewReader(in)
	if _, err := fmt.Fscanln(lines, &scheme, &addr, &devices, &key64, &cert64); err != nil {
		return err
	}
	key, err1 := base64.StdEncoding.DecodeString(key64)
	der, err2 := base64.StdEncoding.DecodeString(cert64)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: testHub}
	trust.RootCAs.AddCert(cert)
	places := make(chan struct{}, 16)
	results := make(chan error, devices)
	conns := make([]net.Conn, devices) // one that nobody knows any more would be closed
	for i := range devices {
		places <- struct{}{}
		go func() {
			var err error
			conns[i], err = idle(scheme, addr, fmt.Sprintf("dev-%d", i), key, trust, net.IPv4(127, 1, byte(i>>8), byte(i)))
			results <- err
			<-places
		}()
	}
	for range devices {
		if err := <-results; err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "ready")
	_, err = io.Copy(io.Discard, lines)
	runtime.KeepAlive(conns)
	return err
}

// idle logs in and listens to all that a device can, as SDKs do.
func idle(scheme, addr, deviceID string, key []byte, trust *tls.Config, from net.IP) (net.Conn, error) {
	c, err := dialCrowd(scheme, addr, trust, &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: patience})
	if err != nil {
		return nil, err
	}
	password, err := dps.NewToken(dps.KeySigner(key), testHub+"/devices/"+deviceID, time.Now().Add(time.Hour), "")
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	h := hello{clientID: deviceID, user: userName(deviceID), password: password, keepAlive: 240}
	if _, err := c.Write(h.packet()); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		return nil, err
	}
	filters := []string{twinAnswers, desiredChanges, methodCalls, devicebound(deviceID) + "#"}
	if _, err := c.Write(subscribe(1, filters...)); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(c, make([]byte, 4+len(filters)))
	c.SetDeadline(time.Time{})
	return c, err
}

func dialCrowd(scheme, addr string, trust *tls.Config, from *net.Dialer) (net.Conn, error) {
	if scheme == "tls" {
		return (&tls.Dialer{NetDialer: from, Config: trust}).Dial("tcp", addr)
	}
	dialer := websocket.Dialer{NetDialContext: from.DialContext, TLSClientConfig: trust, Subprotocols: []string{"mqtt"}}
	frames, _, err := dialer.Dial("wss://"+addr+WebSocketPath, nil)
	if err != nil {
		return nil, err
	}
	return &webSocket{Conn: frames.NetConn(), frames: frames}, nil // a stream is the same on either side
}
