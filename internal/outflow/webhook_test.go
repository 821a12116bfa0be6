package outflow

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/outbound"
)

// hook is a receiver that answers as it is told.
type hook struct {
	*httptest.Server
	got    *arrivals
	calls  atomic.Int64
	answer func(call int, w http.ResponseWriter, r *http.Request, body []byte) (taken bool)

	mu   sync.Mutex
	last http.Header
	body []byte
}

func newHook(t *testing.T, answer func(call int, w http.ResponseWriter, r *http.Request, body []byte) bool) *hook {
	t.Helper()
	h := &hook{got: newArrivals(), answer: answer}
	h.Server = httptest.NewUnstartedServer(h)
	h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	h.StartTLS()
	t.Cleanup(h.Close)
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	h.mu.Lock()
	h.last, h.body = r.Header.Clone(), body
	h.mu.Unlock()
	if h.answer != nil && !h.answer(int(h.calls.Add(1)), w, r, body) {
		return
	}
	if r.Header.Get("Content-Type") == "application/json" {
		var all []json.RawMessage
		if err := json.Unmarshal(body, &all); err != nil {
			panic(err)
		}
		for _, line := range all {
			h.got.take(line)
		}
		return
	}
	for line := range bytes.Lines(body) {
		h.got.take(line)
	}
}

func (h *hook) roots() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
}

func trusting(roots []byte) *outbound.Client {
	return loopback(func(c *outbound.Config) {
		c.Roots = x509.NewCertPool()
		c.Roots.AppendCertsFromPEM(roots)
	})
}

// A receiver that fails in every way still gets everything, in order, and what it had when it failed it gets again.
func TestAWebhookThatFailsInEveryWayGetsEverything(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	var elsewhere atomic.Bool
	h := newHook(t, func(call int, w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != "/telemetry" {
			elsewhere.Store(true)
		}
		switch call {
		case 1:
			w.WriteHeader(500)
		case 2: // hangs, after it has read all
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		case 3:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		case 4: // is cut off
			panic(http.ErrAbortHandler)
		case 5: // garbage in place of HTTP
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				c.Write([]byte("\x00\x01garbage\r\n\r\n"))
				c.Close()
			}
		case 6:
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(307)
		case 7: // an answer that does not end within the bound
			w.Write(bytes.Repeat([]byte("x"), 1<<20))
		case 8:
			w.WriteHeader(401)
		default:
			return true
		}
		return false
	})
	var log logs
	f := openFlow(t, Config{Folder: t.TempDir(), Webhooks: trusting(h.roots()), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Outputs: []Output{{Name: "hook", To: ToWebhook{URL: h.URL + "/telemetry?key=canary", Format: Lines}}}})
	acknowledged := sendAll(t, f, 4, 0, 25)
	eventually(t, "not everything came", func() bool { return h.got.count() == 100 })
	eventually(t, "the answer to the last was not heard", func() bool { return log.count("works again") > 0 })
	must(t, f.Close())
	if wrong := h.got.missing(acknowledged); len(wrong) > 0 {
		t.Error(wrong)
	}
	if elsewhere.Load() {
		t.Error("a redirect was followed")
	}
	if n, m := log.count("the output fails"), log.count("works again"); n != 1 || m != 1 {
		t.Errorf("%d lines about the failure and %d about its end, of one outage:\n%s", n, m, log.String())
	}
	if log.count("canary") > 0 {
		t.Errorf("the log holds the URL's query:\n%s", log.String())
	}
}

func TestAReceiverMaySayWhenToComeAgain(t *testing.T) {
	t.Parallel()
	var first, second atomic.Int64
	h := newHook(t, func(call int, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		if call == 1 {
			first.Store(time.Now().UnixNano())
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
			return false
		}
		second.CompareAndSwap(0, time.Now().UnixNano())
		return true
	})
	f := openFlow(t, Config{Folder: t.TempDir(), Webhooks: trusting(h.roots()), Outputs: []Output{{Name: "hook", To: ToWebhook{URL: h.URL, Format: Array}}}})
	acknowledged := sendAll(t, f, 1, 0, 3)
	eventually(t, "not everything came", func() bool { return h.got.count() == 3 })
	must(t, f.Close())
	if wrong := h.got.missing(acknowledged); len(wrong) > 0 {
		t.Error(wrong)
	}
	if waited := time.Duration(second.Load() - first.Load()); waited < 900*time.Millisecond {
		t.Errorf("came again after %v", waited)
	}
}

// The check of a signature as a receiver would write it.
func TestAWebhookIsSigned(t *testing.T) {
	h := newHook(t, nil)
	key := bytes.Repeat([]byte("k"), 32)
	path := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(path, []byte("whsec_"+base64.StdEncoding.EncodeToString(key)+"\n"), 0o600))
	f := openFlow(t, Config{Folder: t.TempDir(), Webhooks: trusting(h.roots()), Outputs: []Output{{Name: "hook", To: ToWebhook{URL: h.URL, Format: Lines, KeyFile: path}}}})
	sendAll(t, f, 1, 0, 1)
	eventually(t, "nothing came", func() bool { return h.got.count() == 1 })
	check := func(key []byte) {
		t.Helper()
		h.mu.Lock()
		defer h.mu.Unlock()
		want := "v1," + base64.StdEncoding.EncodeToString(outbound.Signature(key, h.last.Get("Webhook-Id"), h.last.Get("Webhook-Timestamp"), h.body))
		if got := h.last.Get("Webhook-Signature"); got != want || h.last.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("signature %q, want %q; %v", got, want, h.last)
		}
	}
	check(key)
	other := bytes.Repeat([]byte("o"), 24)
	must(t, os.WriteFile(path, []byte("whsec_"+base64.StdEncoding.EncodeToString(other)), 0o600))
	must(t, f.Reload())
	sendAll(t, f, 1, 1, 2)
	eventually(t, "nothing came", func() bool { return h.got.count() == 2 })
	check(other)
	must(t, os.Chmod(path, 0o644))
	if err := f.Reload(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that all may read: %v", err)
	}
	must(t, f.Close())
}

// One record that a receiver does not want for what it holds neither stops the others nor is lost.
func TestARefusedRecordIsFoundAndSetAside(t *testing.T) {
	for name, status := range map[string]int{"400": 400, "413": 413, "422": 422} {
		t.Run(name, func(t *testing.T) {
			h := newHook(t, func(_ int, w http.ResponseWriter, _ *http.Request, body []byte) bool {
				if bytes.Contains(body, []byte("device03-000007")) || bytes.Contains(body, []byte("device00-000000")) {
					w.WriteHeader(status)
					return false
				}
				return true
			})
			folder := t.TempDir()
			var log logs
			f := openFlow(t, Config{Folder: folder, Webhooks: trusting(h.roots()), Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Outputs: []Output{{Name: "hook", To: ToWebhook{URL: h.URL, Format: Lines}}}})
			sendAll(t, f, 5, 0, 20)
			eventually(t, "not everything came", func() bool { return h.got.count() == 98 })
			must(t, f.Drained(t.Context()))
			must(t, f.Close())
			aside := newArrivals()
			readLines(t, filepath.Join(folder, "refused.hook.ndjson"), aside.take)
			if wrong := aside.missing([]string{"0ne00000001-device03-000007", "0ne00000001-device00-000000"}); len(wrong) > 0 || aside.count() != 2 {
				t.Errorf("%d set aside, %v", aside.count(), wrong)
			}
			if wrong := h.got.missing(nil); len(wrong) > 0 {
				t.Error(wrong)
			}
			if n := log.count("is set aside"); n != 1 {
				t.Errorf("%d lines about it", n)
			}
		})
	}
}

func TestAWebhookThatCannotBeCalledIsRefusedAtTheStart(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	must(t, os.WriteFile(open, []byte("whsec_x"), 0o644))
	wrong := filepath.Join(t.TempDir(), "wrong")
	must(t, os.WriteFile(wrong, []byte("canary-secret"), 0o600))
	for name, c := range map[string]struct {
		to   ToWebhook
		want string
	}{
		"no TLS":         {ToWebhook{URL: "http://example.net/"}, "must begin with https://"},
		"a password":     {ToWebhook{URL: "https://u:p@example.net/"}, "must not hold a user name"},
		"no such key":    {ToWebhook{URL: "https://example.net/", KeyFile: open + "x"}, "no such file"},
		"an open key":    {ToWebhook{URL: "https://example.net/", KeyFile: open}, "chmod 600"},
		"no key in it":   {ToWebhook{URL: "https://example.net/", KeyFile: wrong}, "must hold whsec_ and the base64"},
		"a key's folder": {ToWebhook{URL: "https://example.net/", KeyFile: filepath.Dir(wrong)}, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(Config{Folder: t.TempDir(), Limit: 64 << 20, Webhooks: loopback(nil), Outputs: []Output{{Name: "hook", To: c.to}}})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "telemetry output hook: ") || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A private address is not called unless the configuration opens it; what waits for it waits.
func TestAWebhookIntoAPrivateNetworkIsNotCalled(t *testing.T) {
	h := newHook(t, nil)
	roots := x509.NewCertPool()
	roots.AddCert(h.Certificate())
	var log logs
	f := openFlow(t, Config{Folder: t.TempDir(), Webhooks: outbound.New(outbound.Config{Roots: roots}), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Outputs: []Output{{Name: "hook", To: ToWebhook{URL: h.URL, Format: Lines}}}})
	sendAll(t, f, 1, 0, 1)
	eventually(t, "no line says why", func() bool { return log.count("webhooks.private opens") == 1 })
	if got := fmt.Sprint(f.Trouble()); got != "[telemetry output hook is failing]" {
		t.Errorf("trouble: %s", got)
	}
	must(t, f.Close())
	if h.calls.Load()+int64(h.got.count()) > 0 {
		t.Error("it was called")
	}
}
