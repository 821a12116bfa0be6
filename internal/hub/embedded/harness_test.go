package embedded

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

const (
	testScope = "0ne00000001"
	testHub   = "hub.latchkey.test"
	otherHub  = "other.latchkey.test"
	patience  = 10 * time.Second // how long a test waits for what must happen
)

func scopeOf(hub string) (string, bool) {
	scope, ok := map[string]string{testHub: testScope, otherHub: "0ne00000002"}[hub]
	return scope, ok
}

// memory is an Identities that judges its caller: generations never move back, rows are complete, secrets are sealed, and the
// audit row comes with them. Failures can be ordered in both forms.
type memory struct {
	t testing.TB

	mu            sync.Mutex
	rows          map[string]registration.Identity
	left          map[string]uint64 // generations of what was deleted
	gone          map[string]uint64 // versions of that
	twins         map[string]registration.Twin
	messages      map[string][]registration.HubMessage
	sessions      map[string]uint32
	lastSeq       uint64
	news          []registration.OutboxRow
	audits        []registration.Audit
	reads         int
	failRead      error
	failPut       error               // without effect
	losePut       error               // after the effect
	latePut       func(effect func()) // called in place of the effect, which comes whenever it wants; the answer is lost
	beforePut     func()              // called without the lock
	thenRead      func()              // called once, after the next reading, without the lock
	owners        *register
	beforeTwin    func() // called before a twin is written, without the lock
	beforeSession func()
}

func newMemory(t testing.TB) *memory {
	return &memory{t: t, rows: map[string]registration.Identity{}, left: map[string]uint64{}, gone: map[string]uint64{}, twins: map[string]registration.Twin{}, messages: map[string][]registration.HubMessage{}, sessions: map[string]uint32{}}
}

func rowKey(scope, hub, deviceID string) string { return scope + "|" + hub + "|" + deviceID }

func (m *memory) PutIdentity(ctx context.Context, scope string, id registration.IdentityPut, audit registration.Audit) (registration.Verdict, error) {
	if m.beforePut != nil {
		m.beforePut()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if owner, ok := scopeOf(id.Hub); !ok || owner != scope || id.DeviceID == "" || len(id.SealedKey) < 48 || id.Updated.IsZero() {
		m.t.Errorf("an identity that is not whole: %+v in %s", id, scope)
	}
	byCore := audit.Action == registration.ActionIdentityPut && audit.Actor == registration.ActorService
	byApplication := audit.Action == registration.ActionDevicePut && strings.HasPrefix(audit.Actor, "policy:")
	if !byCore && !byApplication || audit.Object != id.DeviceID || audit.Outcome != registration.OutcomeOK || !json.Valid([]byte(audit.Detail)) {
		m.t.Errorf("audit row: %+v", audit)
	}
	if m.failPut != nil {
		return 0, m.failPut
	}
	if id.Owner != nil && (m.owners == nil || *id.Owner != m.owners.now().ID) {
		return registration.OtherOwner, nil
	}
	k := rowKey(scope, id.Hub, id.DeviceID)
	old, known := m.rows[k]
	switch {
	case old.Generation != id.Was || old.Generation > id.Generation || id.WasVersion != 0 && id.WasVersion != old.Version:
		return registration.Conflict, nil
	case m.left[k] > id.Generation:
		return registration.Superseded, nil
	case id.Twin != nil && id.Twin.Was != m.twins[k].Version:
		return registration.Conflict, nil
	}
	effect := func() {
		row := id.Identity
		if row.Version = max(old.Version, m.gone[k]) + 1; known {
			row.Created = old.Created
		}
		m.rows[k] = row
		delete(m.left, k)
		delete(m.gone, k)
		if id.Twin != nil {
			m.setTwin(k, *id.Twin)
		}
		if id.Purge {
			delete(m.messages, k)
			delete(m.sessions, k)
		}
		m.audits = append(m.audits, audit)
	}
	if m.latePut != nil {
		m.latePut(func() { m.set(effect) })
		return 0, context.DeadlineExceeded
	}
	effect()
	return registration.Applied, m.losePut
}

func (m *memory) Identity(_ context.Context, scope, hub, deviceID string) (registration.Identity, error) {
	m.mu.Lock()
	then := m.thenRead
	m.thenRead = nil
	defer func() {
		m.mu.Unlock()
		if then != nil {
			then()
		}
	}()
	m.reads++
	if m.failRead != nil {
		return registration.Identity{}, m.failRead
	}
	id, ok := m.rows[rowKey(scope, hub, deviceID)]
	if !ok {
		return id, registration.ErrNotFound
	}
	return id, nil
}

func (m *memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// sealer is AES-256-GCM with the context as additional data, and counts.
type sealer struct {
	aead  cipher.AEAD
	mu    sync.Mutex
	opens int
	boom  int // the opening that panics
}

func newSealer(t testing.TB) *sealer {
	block, err := aes.NewCipher(newKey())
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return &sealer{aead: aead}
}

func (s *sealer) Seal(context string, plaintext []byte) ([]byte, error) {
	return s.aead.Seal(nil, nil, plaintext, []byte(context)), nil
}

func (s *sealer) Open(context string, sealed []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opens++; s.opens == s.boom {
		panic("sealer")
	}
	return s.aead.Open(nil, nil, sealed, []byte(context))
}

func (s *sealer) panicIn(opens int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boom = s.opens + opens
}

// lines is a sink in memory; fail decides what happens to a line.
type lines struct {
	mu   sync.Mutex
	all  [][]byte
	fail func() error
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		if err := l.fail(); err != nil {
			return 0, err
		}
	}
	l.all = append(l.all, bytes.Clone(p))
	return len(p), nil
}

func (l *lines) records(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []map[string]any
	for _, line := range l.all {
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
			t.Fatalf("not one line: %q", line)
		}
		var r map[string]any
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// logBuffer is all that was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is a hub with all that is around it.
type world struct {
	*Hub
	t      testing.TB
	store  *memory
	sealer *sealer
	sink   *lines
	logs   *logBuffer
	pipe   *pipeListener
	served chan error
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	w := &world{t: t, store: newMemory(t), sealer: newSealer(t), sink: &lines{}, logs: &logBuffer{}, served: make(chan error, 4)}
	config := Config{
		Identities: w.store, Serve: true, Sealer: w.sealer, Names: scopeOf, Telemetry: w.sink,
		Logger: slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&config)
	}
	var err error
	if w.Hub, err = New(config); err != nil {
		t.Fatal(err)
	}
	w.pipe = &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	w.serve(w.pipe)
	t.Cleanup(w.shut)
	return w
}

func (w *world) serve(l net.Listener) { go func() { w.served <- w.Serve(l) }() }

func (w *world) shut() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		w.t.Errorf("closing: %v", err)
	}
}

// ensure gives the device a key.
func (w *world) ensure(deviceID string, key []byte, generation uint64) {
	w.t.Helper()
	if err := w.tryEnsure(deviceID, key, generation); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryEnsure(deviceID string, key []byte, generation uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return w.EnsureDevice(ctx, testScope, testHub, registration.HubDevice{DeviceID: deviceID, Credential: registration.Credential{Primary: key}, Generation: generation})
}

func newKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

func token(t testing.TB, key []byte, resource string, expiry time.Time) string {
	t.Helper()
	text, err := dps.NewToken(dps.KeySigner(key), resource, expiry, "")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// pipeListener accepts the other ends of dialled pipes.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// raw is a device that speaks MQTT by the byte.
type raw struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (w *world) dial() *raw {
	w.t.Helper()
	return w.dialFrom(pipeAddr{})
}

// remote is a connection that comes from a chosen address.
type remote struct {
	net.Conn
	addr net.Addr
}

func (r remote) RemoteAddr() net.Addr { return r.addr }

func (w *world) dialFrom(addr net.Addr) *raw {
	w.t.Helper()
	ours, theirs := net.Pipe()
	select {
	case w.pipe.conns <- remote{theirs, addr}:
	case <-time.After(patience):
		w.t.Fatal("nobody accepts")
	}
	ours.SetDeadline(time.Now().Add(patience))
	w.t.Cleanup(func() { ours.Close() })
	return newRaw(w.t, ours)
}

func newRaw(t testing.TB, nc net.Conn) *raw { return &raw{Conn: nc, t: t, r: bufio.NewReader(nc)} }

func (r *raw) send(b ...[]byte) {
	r.t.Helper()
	if _, err := r.Write(bytes.Join(b, nil)); err != nil {
		r.t.Fatalf("sending: %v", err)
	}
}

func (r *raw) expect(want ...byte) {
	r.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(r.r, got)
	if !bytes.Equal(got, want) {
		r.t.Fatalf("read % x (%v), want % x", got[:n], err, want)
	}
}

func (r *raw) expectClosed() {
	r.t.Helper()
	if b, err := r.r.ReadByte(); err == nil {
		r.t.Fatalf("read %#x, want the connection closed", b)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		r.t.Fatal("the connection is still open")
	}
}

// connect options of the byte-wise device.
type hello struct {
	level     byte
	flags     byte // clean, will …; user name and password are added
	keepAlive uint16
	clientID  string
	will      [2]string
	user      string
	password  string
	bare      bool // without a password
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func packet(head byte, body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	p := []byte{head}
	for n := len(b); ; {
		d := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			p = append(p, d|0x80)
			continue
		}
		return append(append(p, d), b...)
	}
}

func (h hello) packet() []byte {
	if h.level == 0 {
		h.level = 4
	}
	credentials := byte(0xc0)
	if h.bare {
		credentials = 0x80
	}
	body := append(text("MQTT"), h.level, h.flags|credentials)
	body = binary.BigEndian.AppendUint16(body, h.keepAlive)
	body = append(body, text(h.clientID)...)
	if h.flags&4 != 0 {
		body = append(append(body, text(h.will[0])...), text(h.will[1])...)
	}
	if h.bare {
		return packet(0x10, body, text(h.user))
	}
	return packet(0x10, body, text(h.user), text(h.password))
}

func publish(head byte, topic string, id uint16, payload string) []byte {
	b := text(topic)
	if head&6 != 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return packet(head, b, []byte(payload))
}

func subscribe(id uint16, filters ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	for _, f := range filters {
		b = append(append(b, text(f)...), 1)
	}
	return packet(0x82, b)
}

func userName(deviceID string) string {
	return testHub + "/" + deviceID + "/?api-version=2021-04-12&DeviceClientType=test"
}

// greet is what an ordinary device sends: not clean, an hour's token.
func (w *world) greet(deviceID string, key []byte) hello {
	return hello{clientID: deviceID, user: userName(deviceID), password: token(w.t, key, testHub+"/devices/"+deviceID, w.config.Now().Add(time.Hour))}
}

// login dials and logs in; present is the expected session-present flag.
func (w *world) login(h hello, present byte) *raw {
	w.t.Helper()
	r := w.dial()
	r.send(h.packet())
	r.expect(0x20, 2, present, 0)
	return r
}

func (w *world) refusedWith(h hello, code byte) {
	w.t.Helper()
	r := w.dial()
	r.send(h.packet())
	r.expect(0x20, 2, 0, code)
	r.expectClosed()
}

// endings says how often a cause ended a connection, once all connections are settled.
func (w *world) endings(why cause) int {
	return int(metric(w.t, w.metrics.ended.WithLabelValues(string(why))))
}

var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{testHub, otherHub}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// serveTLS serves the hub on a real listener and returns its address and what a device must trust.
func (w *world) serveTLS() (string, *tls.Config) {
	w.t.Helper()
	cert, err := certificate()
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.serve(l)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: testHub}
}

func mustContain(t *testing.T, s, part string) {
	t.Helper()
	if !strings.Contains(s, part) {
		t.Errorf("%q is missing in %s", part, s)
	}
}

// settled waits until all connections have ended and are counted. The test has seen them closed.
func (w *world) settled() { w.waitIdle() }
