package daemon

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/config"
)

func TestADeviceRegistersAndWorks(t *testing.T) {
	r := installed(t).run(t)
	c := r.device(0)
	must(t, c.enroll())
	must(t, c.register())
	if c.assigned.AssignedHub != host || c.assigned.DeviceID != c.id {
		t.Errorf("assigned %q at %q", c.assigned.DeviceID, c.assigned.AssignedHub)
	}
	must(t, c.send("hello"))
	cfg, err := r.load(nil)
	must(t, err)
	shown, err := os.ReadFile(cfg.Hub.Telemetry)
	must(t, err)
	if strings.Count(string(shown), "\n") != 1 || !strings.Contains(string(shown), c.id) {
		t.Errorf("the hub shows %s", shown)
	}
}

func TestProbesAndMetrics(t *testing.T) {
	r := installed(t).run(t)
	client := r.client()
	for _, path := range []string{"/healthz", "/readyz"} {
		status, body, err := ask(client, http.MethodGet, "https://"+host+path, "", nil)
		if err != nil || status != http.StatusOK || string(body) != "ok\n" {
			t.Errorf("HTTPS %s: %d %q %v", path, status, body, err)
		}
		if status, body := r.probe(path); status != http.StatusOK || body != "ok\n" {
			t.Errorf("metrics listener %s: %d %q", path, status, body)
		}
	}
	status, text := r.probe("/metrics")
	for _, name := range []string{"latchkey_certificate_expiry_seconds", "latchkey_hub_", "process_open_fds", "go_goroutines"} {
		if status != http.StatusOK || !strings.Contains(text, "\n"+name) {
			t.Errorf("/metrics: %d, no %s", status, name)
		}
	}
	if status, _, err := ask(client, http.MethodGet, "https://"+host+"/metrics", "", nil); err != nil || status != http.StatusNotFound {
		t.Errorf("/metrics to everybody: %d %v", status, err)
	}
	// It is counted behind the answer, and before the next request of the same connection.
	if status, _, err := ask(client, http.MethodGet, "https://"+host+"/healthz", "", nil); err != nil || status != http.StatusOK {
		t.Errorf("%d %v", status, err)
	}
	if _, text := r.probe("/metrics"); !strings.Contains(text, `latchkey_requests_total{api="device",operation="none",reason=`) {
		t.Errorf("the refused request was not counted")
	}
}

func TestWithoutAMetricsAddressThereIsNoMetricsListener(t *testing.T) {
	h := installed(t)
	log, ctx, end := newLogbook(), t.Context(), context.CancelFunc(nil)
	ctx, end = context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Load: func() (config.Config, error) { return h.load(map[string]string{"metrics": ""}) }, Log: log})
	}()
	for _, what := range []string{"https", "mqtt"} {
		log.wait(t, 0, what, func(line map[string]any) bool { return line["msg"] == "listening" && line["what"] == what })
	}
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), `"what":"metrics"`) {
		t.Errorf("it listens for metrics:\n%s", log)
	}
}

func TestBothListenersRefuseOldTLS(t *testing.T) {
	r := installed(t).run(t)
	for what, addr := range map[string]string{"https": r.https, "mqtt": r.mqtt} {
		for version, good := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			config := r.tls()
			config.MinVersion, config.MaxVersion = version, version
			conn, err := tls.Dial("tcp", addr, config)
			if (err == nil) != good {
				t.Errorf("%s, %s: %v", what, tls.VersionName(version), err)
			}
			if err == nil {
				conn.Close()
			}
		}
	}
}

// Slow headers hold a connection, and connections are counted.
func TestSlowHeadersAreCut(t *testing.T) {
	r := installed(t).run(t, func(o *Options) { o.headerTime = 300 * time.Millisecond })
	conn := r.dial()
	_, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: "+host+"\r\nX-Slow: ")
	must(t, err)
	answer, err := io.ReadAll(conn)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Errorf("the connection was held for %v", patience)
	}
	if strings.Contains(string(answer), "200 OK") {
		t.Errorf("answered %q", answer)
	}
	if s := (&service{headerTime: headerTime}).httpServer(nil); s.ReadHeaderTimeout != 10*time.Second {
		t.Errorf("outside of tests a header may take %v", s.ReadHeaderTimeout)
	}
}

func TestConnectionsAboveTheLimitWait(t *testing.T) {
	h := installed(t)
	h.configure(t, "limits: {connections: 1}\n")
	r := h.run(t)
	first := r.dial()
	second := make(chan error, 1)
	go func() {
		conn, err := (&tls.Dialer{Config: r.tls(), NetDialer: &net.Dialer{Timeout: patience}}).Dial("tcp", r.https)
		if err == nil {
			conn.Close()
		}
		second <- err
	}()
	reader := bufio.NewReader(first)
	for until := time.Now().Add(250 * time.Millisecond); time.Now().Before(until); { // a handshake takes a few
		_, err := io.WriteString(first, "GET /healthz HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		must(t, err)
		answer, err := http.ReadResponse(reader, nil)
		must(t, err)
		_, err = io.Copy(io.Discard, answer.Body)
		must(t, err)
	}
	select {
	case err := <-second:
		t.Fatalf("the second connection did not wait: %v", err)
	default:
	}
	first.Close()
	if err := <-second; err != nil {
		t.Errorf("the second connection was lost: %v", err)
	}
}

// The write deadline follows the limits of now, not those of the start: with
// the old one an answer after a longer wait would be cut.
func TestTheTimeForAnAnswerFollowsTheLimits(t *testing.T) {
	f := &front{ready: func(context.Context) error { return nil }}
	for _, limit := range []time.Duration{time.Minute, time.Hour} {
		f.answerTime.Store(int64(limit))
		w := &deadlineWriter{header: http.Header{}}
		before := time.Now()
		request, err := http.NewRequest(http.MethodGet, "/healthz", nil)
		must(t, err)
		f.ServeHTTP(w, request)
		if left := w.deadline.Sub(before); left < limit || left > limit+patience {
			t.Errorf("%v for an answer, want %v", left, limit)
		}
	}
}

// deadlineWriter is a ResponseWriter that notes its write deadline.
type deadlineWriter struct {
	header   http.Header
	deadline time.Time
}

func (w *deadlineWriter) Header() http.Header                 { return w.header }
func (w *deadlineWriter) Write(b []byte) (int, error)         { return len(b), nil }
func (w *deadlineWriter) WriteHeader(int)                     {}
func (w *deadlineWriter) SetWriteDeadline(at time.Time) error { w.deadline = at; return nil }

// Who hangs up while the store is asked must not have the probes behind him told that it does not answer: a load balancer would take the node away.
func TestAProbeThatIsGivenUpTellsNobodyThatTheStoreIsAway(t *testing.T) {
	f := &front{ready: func(ctx context.Context) error { return ctx.Err() }}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	_ = f.readiness(gone)
	if err := f.readiness(t.Context()); err != nil {
		t.Errorf("the next probe is told %q", err)
	}
}
