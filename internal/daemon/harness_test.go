package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/registration"
)

// patience bounds every wait. All of it takes milliseconds on an idle machine.
const patience = 30 * time.Second

const host = "dps.example.net"

// logbook takes the service's log and wakes those who wait for a line.
type logbook struct {
	mu      sync.Mutex
	text    bytes.Buffer
	lines   []map[string]any
	changed chan struct{}
	ended   chan struct{} // no more lines will come
}

func newLogbook() *logbook { return &logbook{changed: make(chan struct{}), ended: make(chan struct{})} }

// Write takes one line, as slog writes it.
func (l *logbook) Write(line []byte) (int, error) {
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		fields = map[string]any{"msg": string(line)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(line)
	l.lines = append(l.lines, fields)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(line), nil
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// find looks for a line from a position on.
func (l *logbook) find(from int, fits func(map[string]any) bool) (map[string]any, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines[from:] {
		if fits(line) {
			return line, nil
		}
	}
	return nil, l.changed
}

// wait waits for a line from a position on, or fails the test.
func (l *logbook) wait(t *testing.T, from int, what string, fits func(map[string]any) bool) map[string]any {
	t.Helper()
	limit := time.After(patience)
	for {
		line, changed := l.find(from, fits)
		if line != nil {
			return line
		}
		select {
		case <-changed:
			continue
		case <-l.ended:
			if line, _ = l.find(from, fits); line != nil {
				return line
			}
		case <-limit:
		}
		t.Fatalf("the log has no line %q:\n%s", what, l)
	}
}

func message(text string) func(map[string]any) bool {
	return func(line map[string]any) bool { return line["msg"] == text }
}

// house is an installation on disk.
type house struct {
	dir   string
	made  Installation
	trust *x509.CertPool
}

// installed makes an installation in a directory of its own.
func installed(t *testing.T) house {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	made, err := Init(t.Context(), InitPlan{Dir: dir, Hosts: []string{host, "second.example.net"}})
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(made.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	trust := x509.NewCertPool()
	if !trust.AppendCertsFromPEM(pem) {
		t.Fatal("no CA certificate")
	}
	return house{dir, made, trust}
}

// configure writes the configuration file.
func (h house) configure(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, config.FileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// load reads the configuration as serve does, with free ports.
func (h house) load(flags map[string]string) (config.Config, error) {
	all := map[string]string{"https": "127.0.0.1:0", "mqtt": "127.0.0.1:0", "metrics": "127.0.0.1:0", "log-format": "json"}
	maps.Copy(all, flags)
	return config.Load(h.dir, "", func(string) string { return "" }, all)
}

// running is a running service.
type running struct {
	house
	t                    *testing.T
	log                  *logbook
	https, mqtt, metrics string
	hangup               chan os.Signal
	end                  context.CancelFunc
	done                 chan struct{}
	err                  error // after done
}

// run starts Run on the installation and returns when it listens; the test's end stops it.
func (h house) run(t *testing.T, change ...func(*Options)) *running {
	t.Helper()
	r := &running{house: h, t: t, log: newLogbook(), hangup: make(chan os.Signal), done: make(chan struct{})}
	ctx, end := context.WithCancel(context.Background())
	r.end = end
	opts := Options{Load: func() (config.Config, error) { return h.load(nil) }, Reload: r.hangup, Log: r.log}
	for _, c := range change {
		c(&opts)
	}
	go func() {
		r.err = Run(ctx, opts)
		close(r.done)
		close(r.log.ended)
	}()
	t.Cleanup(r.stop)
	for what, to := range map[string]*string{"https": &r.https, "mqtt": &r.mqtt, "metrics": &r.metrics} {
		line := r.log.wait(t, 0, "listening "+what, func(line map[string]any) bool { return line["msg"] == "listening" && line["what"] == what })
		*to = line["addr"].(string)
	}
	return r
}

// stop ends the service as SIGTERM does; a bad end fails the test. A second call does nothing.
func (r *running) stop() {
	r.t.Helper()
	r.end()
	select {
	case <-r.done:
		if r.err != nil {
			r.t.Errorf("the service ended with %v", r.err)
		}
	case <-time.After(patience):
		r.t.Fatalf("the service did not end:\n%s", r.log)
	}
}

// hup sends SIGHUP and gives the line that says how the reload went.
func (r *running) hup() map[string]any {
	r.t.Helper()
	from := r.log.len()
	select {
	case r.hangup <- syscall.SIGHUP:
	case <-time.After(patience):
		r.t.Fatal("nobody takes SIGHUP")
	}
	return r.log.wait(r.t, from, "reloaded", func(line map[string]any) bool {
		text, _ := line["msg"].(string)
		return text == "reloaded" || strings.HasPrefix(text, "reload: what failed")
	})
}

// reloaded wants a reload without complaint.
func (r *running) reloaded() {
	r.t.Helper()
	if line := r.hup(); line["msg"] != "reloaded" {
		r.t.Fatalf("reload: %v", line)
	}
}

// tls is the configuration of a client that trusts the installation's CA.
func (r *running) tls() *tls.Config { return &tls.Config{RootCAs: r.trust, ServerName: host} }

// dial opens a TLS connection of its own to the HTTPS listener.
func (r *running) dial() *tls.Conn {
	r.t.Helper()
	conn, err := tls.Dial("tcp", r.https, r.tls())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// client reaches the service under its name.
func (r *running) client() *http.Client {
	transport := &http.Transport{TLSClientConfig: r.tls(), DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, r.https)
	}}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// ask sends one request and gives status and body.
func ask(client *http.Client, method, url, authorization string, body []byte) (int, []byte, error) {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, text, err
}

// adminToken signs as the owner's access policy.
func (r *running) adminToken() (string, error) {
	return dps.NewToken(r.made.Connection.Signer(), host, time.Now().Add(time.Hour), registration.OwnerPolicy)
}

// manage calls the management API.
func (r *running) manage(client *http.Client, method, path string, body []byte) (int, []byte, error) {
	token, err := r.adminToken()
	if err != nil {
		return 0, nil, err
	}
	return ask(client, method, "https://"+host+path, token, body)
}

// probe reads a path of the metrics listener.
func (r *running) probe(path string) (int, string) {
	r.t.Helper()
	status, body, err := ask(http.DefaultClient, http.MethodGet, "http://"+r.metrics+path, "", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return status, string(body)
}

// metric reads one sample without labels.
func (r *running) metric(name string) float64 {
	r.t.Helper()
	_, text := r.probe("/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			var f float64
			if _, err := fmt.Sscan(value, &f); err != nil {
				r.t.Fatal(err)
			}
			return f
		}
	}
	r.t.Fatalf("there is no metric %s", name)
	return 0
}
