package azure_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/iothub"
)

// fakeHub is an IoT hub in memory that judges whoever calls it: each request must be signed, of the right api-version and, where it changes something
// that is there, on a condition. It meets its callers with trouble on command.
type fakeHub struct {
	t      *testing.T
	server *httptest.Server
	pipes  *pipes
	key    []byte
	reads  bool // takes reported properties, as a Latchkey does
	blind  bool // looks at no condition: the control of tests of races

	mu      sync.Mutex
	version int
	devices map[string]*fakeDevice
	asked   []string             // requests, as "PUT /devices/a"
	enabled map[string]int       // how often a session could have begun: writes that left the device enabled
	judge   func(d *fakeDevice)  // sees each write that leaves a device enabled
	trouble func(n int) *trouble // of the nth request, from 1
	between func(n int)          // runs before the nth request is looked at, without the lock
}

type fakeDevice struct {
	iothub.Device
	tags, desired, reported map[string]any
}

// trouble is what happens to one request.
type trouble struct {
	cut    string // "before", "after" its effect, or "mid" in the answer
	status int    // answered instead
	header map[string]string
	body   string
	good   bool // the effect took place nevertheless
	drip   bool // the answer comes byte by byte, without end
	hang   bool
}

func newFake(t *testing.T) *fakeHub {
	f := &fakeHub{t: t, key: []byte(strings.Repeat("service-key-", 3)), devices: map[string]*fakeDevice{}, enabled: map[string]int{}, pipes: newPipes()}
	f.server = httptest.NewUnstartedServer(f)
	f.server.Listener.Close()
	f.server.Listener = f.pipes
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that are meant to fail
	f.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}, CurvePreferences: []tls.CurveID{tls.X25519}}
	f.server.StartTLS()
	t.Cleanup(func() {
		f.pipes.cutAll() // or whoever is closing one waits for the other end to read of it
		f.server.Close()
	})
	return f
}

// config is that of a client of the hub.
func (f *fakeHub) config() azure.Config {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate().Certificate[0]})
	return azure.Config{
		Name:       "example.com",
		Connection: iothub.Connection{HostName: "example.com", SharedAccessKeyName: "latchkey", SharedAccessKey: f.key},
		Settings:   azure.Settings{CA: string(ca)},
		Random:     func() float64 { return 0 },
		Dial:       f.pipes.dial,
	}
}

// certificate is the hub's, for example.com and at any time: a key of a curve, as each test shakes hands.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}, NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func (f *fakeHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	n := len(f.asked)
	f.mu.Unlock()
	if f.between != nil {
		f.between(n)
	}
	met, status, answer := f.serve(n, r, body)
	switch {
	case met.hang:
		<-r.Context().Done()
	case met.cut != "":
		f.cut(w, met, status, answer)
	default:
		f.write(w, r, met, status, answer)
	}
}

// serve does the nth request, unless trouble comes before its effect. The lock is not held while anybody waits for the network.
func (f *fakeHub) serve(n int, r *http.Request, body []byte) (met *trouble, status int, answer string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble != nil {
		met = f.trouble(n)
	}
	if met == nil {
		met = &trouble{good: true}
	}
	if met.good || met.cut == "after" || met.cut == "mid" {
		status, answer = f.answer(r, body)
	}
	if met.status != 0 {
		status, answer = met.status, met.body
	}
	return met, status, answer
}

func (f *fakeHub) write(w http.ResponseWriter, r *http.Request, met *trouble, status int, answer string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if f.reads {
		w.Header().Set(iothub.ExtensionHeader, iothub.ReportedByService)
	}
	for name, value := range met.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(status)
	for met.drip && r.Context().Err() == nil {
		if _, err := w.Write([]byte(" ")); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		time.Sleep(100 * time.Millisecond) // of a clock that does not wait
	}
	io.WriteString(w, answer)
}

// cut closes the connection before the answer or in the middle of its body.
func (f *fakeHub) cut(w http.ResponseWriter, met *trouble, status int, answer string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if met.cut == "mid" && len(answer) > 1 {
		fmt.Fprintf(conn, "HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(answer), answer[:len(answer)/2])
	}
}

func (f *fakeHub) refuse(code iothub.Code) (int, string) {
	return code.Status(), string(iothub.ErrorBody(code, "as the fake says", "fake-1", time.Unix(0, 0)))
}

// answer judges and does one request.
func (f *fakeHub) answer(r *http.Request, body []byte) (int, string) {
	token, err := dps.ParseToken(r.Header.Get("Authorization"))
	if err != nil || !token.Verify(f.key) || token.KeyName != "latchkey" || !token.ResourceCovers("example.com", r.URL.Path) || token.Expiry.Before(time.Now()) {
		return f.refuse(iothub.IotHubUnauthorizedAccess)
	}
	if r.URL.RawQuery != "api-version=2021-04-12" {
		f.t.Errorf("the query is %q", r.URL.RawQuery)
		return f.refuse(iothub.InvalidProtocolVersion)
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	id := parts[1]
	switch d := f.devices[id]; {
	case parts[0] == "devices" && len(parts) == 2:
		return f.identity(r, id, d, body)
	case d == nil:
		return f.refuse(iothub.DeviceNotFound)
	case parts[0] == "twins" && len(parts) == 2:
		return f.twin(r, d, body)
	case r.Method == "DELETE" && len(parts) == 3 && parts[2] == "commands":
		count := d.CloudToDeviceMessageCount
		d.CloudToDeviceMessageCount = 0
		return 200, fmt.Sprintf(`{"deviceId":%q,"totalMessagesPurged":%d}`, id, count)
	}
	f.t.Errorf("no hub knows %s %s", r.Method, r.URL)
	return f.refuse(iothub.ArgumentInvalid)
}

func (f *fakeHub) identity(r *http.Request, id string, d *fakeDevice, body []byte) (int, string) {
	condition := r.Header.Get("If-Match")
	switch {
	case r.Method == "GET" && d != nil:
		return 200, string(d.Answer())
	case r.Method == "PUT" && d == nil && condition == "":
		return f.put(id, &fakeDevice{Device: iothub.Device{GenerationID: strconv.Itoa(f.version)}}, body)
	case d == nil:
		return f.refuse(iothub.DeviceNotFound)
	case r.Method == "PUT" && condition == "":
		return f.refuse(iothub.DeviceAlreadyExists)
	case f.blind && r.Method == "PUT":
	case condition == "*":
		f.t.Errorf("%s %s is made whatever is there", r.Method, r.URL)
		fallthrough
	case condition != `"`+d.ETag+`"`:
		return f.refuse(iothub.PreconditionFailed)
	case r.Method == "DELETE":
		delete(f.devices, id)
		return 204, ""
	}
	return f.put(id, d, body)
}

func (f *fakeHub) put(id string, d *fakeDevice, body []byte) (int, string) {
	to, err := iothub.DecodeDevice(body)
	if err != nil || to.DeviceID != id {
		f.t.Errorf("an identity that no hub takes: %v", err)
		return f.refuse(iothub.ArgumentInvalid)
	}
	if a := to.Authentication; a.Type == iothub.SAS && (len(a.PrimaryKey) == 0 || len(a.SecondaryKey) == 0) {
		f.t.Error("a slot is left to the hub, which would make a key for it")
	}
	if f.reads { // and shows one slot where both are alike
		to.Authentication.SecondaryThumbprint = ""
		if bytes.Equal(to.Authentication.PrimaryKey, to.Authentication.SecondaryKey) {
			to.Authentication.SecondaryKey = nil
		}
	}
	f.version++
	to.GenerationID, to.ETag, to.CloudToDeviceMessageCount = d.GenerationID, "v"+strconv.Itoa(f.version), d.CloudToDeviceMessageCount
	d.Device = to
	f.devices[id] = d
	if to.Status == iothub.Enabled {
		f.enabled[id]++
		if f.judge != nil {
			f.judge(d)
		}
	}
	return 200, string(d.Answer())
}

func (f *fakeHub) twin(r *http.Request, d *fakeDevice, body []byte) (int, string) {
	if r.Method == "GET" {
		return 200, d.show()
	}
	if d.DeviceID == "latchkey.probe" { // asked for on a condition that no twin meets
		return f.refuse(iothub.PreconditionFailed)
	}
	if r.Header.Get("If-Match") != "*" {
		f.t.Errorf("%s of a twin on the condition %q", r.Method, r.Header.Get("If-Match"))
	}
	var to struct {
		Tags       map[string]any
		Properties struct{ Desired, Reported map[string]any }
	}
	if err := json.Unmarshal(body, &to); err != nil {
		f.t.Errorf("a twin that is none: %v", err)
		return f.refuse(iothub.ArgumentInvalid)
	}
	if to.Properties.Reported != nil && (!f.reads || r.Header.Get(iothub.ExtensionHeader) != iothub.ReportedByService) {
		f.t.Error("reported properties are sent to a hub that does not take them")
		return f.refuse(iothub.ArgumentInvalid)
	}
	put := func(into *map[string]any, from map[string]any) {
		if r.Method == "PUT" || *into == nil {
			*into = map[string]any{}
		}
		maps.Copy(*into, from)
	}
	put(&d.tags, to.Tags)
	put(&d.desired, to.Properties.Desired)
	if to.Properties.Reported != nil {
		put(&d.reported, to.Properties.Reported)
	}
	return 200, d.show()
}

// show is the twin as a hub answers it.
func (d *fakeDevice) show() string {
	own := func(object map[string]any) map[string]any {
		with := map[string]any{"$version": 3, "$metadata": map[string]any{"$lastUpdated": "2030-01-02T03:04:05.1234567Z"}}
		maps.Copy(with, object)
		return with
	}
	shown, err := json.Marshal(map[string]any{"deviceId": d.DeviceID, "etag": "AAAAAAAAAAE=", "deviceEtag": "x", "status": d.Status, "version": 2, "tags": d.tags, "modelId": "",
		"x509Thumbprint": nil, "capabilities": map[string]any{"iotEdge": d.IoTEdge}, "properties": map[string]any{"desired": own(d.desired), "reported": own(d.reported)}})
	if err != nil {
		panic(err)
	}
	return string(shown)
}

// requests gives what was asked so far, and forgets it.
func (f *fakeHub) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func (f *fakeHub) device(id string) *fakeDevice {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.devices[id]
}

func (f *fakeHub) set(t func(n int) *trouble) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble, f.asked = t, nil
}

// pipes is a network of one host within this process, so that a clock of a test's own passes by itself while everybody waits.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once

	mu  sync.Mutex
	all []net.Conn
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.mu.Lock()
	p.all = append(p.all, ours, theirs)
	p.mu.Unlock()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *pipes) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.all {
		conn.Close()
	}
}
