package edge

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"latchkey.example/latchkey/test/rig"
)

//go:embed haproxy.cfg
var configuration string

// frontends of the configuration, in the order of their descriptors.
var frontends = []string{"plain", "more", "six", "one", "none", "mqtt"}

// Addresses of this machine.
const (
	balancer = "127.0.0.20"
	device   = "127.0.0.3"
	other    = "127.0.0.4"
)

const patience = 60 * time.Second

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// site is a service with an HAProxy in front of it.
type site struct {
	*rig.Service
	t     *testing.T
	doors map[string]string // addresses of the frontends
}

func newSite(t *testing.T) *site {
	t.Helper()
	service, err := rig.Start(rig.Config{Proxy: balancer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &site{service, t, map[string]string{}}
	s.startHAProxy()
	return s
}

// startHAProxy makes the sockets and hands them over, so that no port is lost to another program.
func (s *site) startHAProxy() {
	s.t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/haproxy"); err != nil { // Debian installs it where only root's PATH leads
			s.t.Fatal("HAProxy is needed and not installed: run scripts/setup.sh test")
		}
	}
	var text bytes.Buffer
	s.must(template.Must(template.New("").Parse(configuration)).Execute(&text, struct{ From, HTTPS, MQTT string }{balancer, s.HTTPS, s.MQTT}))
	file := filepath.Join(s.t.TempDir(), "haproxy.cfg")
	s.must(os.WriteFile(file, text.Bytes(), 0o600))
	var sockets []*os.File
	for _, name := range frontends {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		s.must(err)
		defer l.Close()
		socket, err := l.(*net.TCPListener).File()
		s.must(err)
		defer socket.Close()
		sockets, s.doors[name] = append(sockets, socket), l.Addr().String()
	}
	process, err := rig.StartBackground(rig.Command{Path: program, Args: []string{"-db", "-f", file}}, sockets...)
	s.must(err)
	s.t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// dial connects from an address of this machine.
func (s *site) dial(from, door string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := dialer.Dial("tcp", s.doors[door])
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// enrolled is a device with a client certificate, which needs one request to register.
func (s *site) enrolled(id string) tls.Certificate {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: id}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	s.must(err)
	s.must(s.Put(s.t.Context(), "/enrollments/"+id,
		`{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"`+base64.StdEncoding.EncodeToString(der)+`"}}}}}`))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// register registers a device through a frontend.
func (s *site) register(id string, certificate tls.Certificate, door string) (status int, err error) {
	client := s.Client()
	transport := client.Transport.(*http.Transport)
	transport.TLSClientConfig.Certificates = []tls.Certificate{certificate}
	transport.DisableKeepAlives = true
	transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return s.dial(device, door) }
	request, err := http.NewRequest(http.MethodPut, s.URL("/"+s.IDScope+"/registrations/"+id+"/register?api-version=2021-06-01"), strings.NewReader(`{"registrationId":"`+id+`"}`))
	s.must(err)
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, answer.Body.Close()
}

// auditedFrom is the address in the audit row of a device's registration.
func (s *site) auditedFrom(id string) string {
	s.t.Helper()
	result, err := s.Latchkey(s.t.Context(), "audit", "--object", id, "--action", "device.register", "--output", "json")
	s.must(err)
	var row struct{ Address string }
	if err := json.NewDecoder(strings.NewReader(result.Stdout)).Decode(&row); err != nil {
		s.t.Fatalf("%v in %s", err, result.Stdout)
	}
	return row.Address
}

func TestBehindHAProxyThePeerIsTheDevice(t *testing.T) {
	s := newSite(t)
	for door, want := range map[string]string{"plain": device, "more": device, "six": "2001:db8::7"} {
		id := "press-" + door
		status, err := s.register(id, s.enrolled(id), door)
		if err != nil || status != http.StatusAccepted {
			t.Errorf("%s: %d, %v", door, status, err)
			continue
		}
		if from := s.auditedFrom(id); from != want {
			t.Errorf("%s: the audit row has %s, want %s", door, from, want)
		}
	}
	// What is not version 2 of the protocol is refused, and at once.
	begin := time.Now()
	for _, door := range []string{"one", "none"} {
		id := "press-" + door
		if status, err := s.register(id, s.enrolled(id), door); err == nil {
			t.Errorf("%s: %d", door, status)
		}
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("refusing took %v", took)
	}
	if strings.Contains(s.Log(), `"from":"`+balancer) {
		t.Error("the balancer is somewhere taken for the peer")
	}
	s.hubCountsDevices()
}

// hubCountsDevices: one address has its 64 places at the hub's door, and takes none of another's.
func (s *site) hubCountsDevices() {
	s.t.Helper()
	greeted := func(from string) bool {
		conn, err := s.dial(from, "mqtt")
		s.must(err)
		s.t.Cleanup(func() { conn.Close() })
		return tls.Client(conn, s.TLS()).Handshake() == nil
	}
	for i := range 64 {
		if !greeted(device) {
			s.t.Fatalf("connection %d was refused", i+1)
		}
	}
	if greeted(device) {
		s.t.Error("one address has more places than it should")
	}
	if !greeted(other) {
		s.t.Error("another address has no place, though the balancer is the same")
	}
}
