package daemon

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/config"
)

// A service with outputs: what a device sends reaches them and the file; an output that is down is seen and holds up nobody; when the outputs are taken
// out of the configuration, what the spool holds goes to the file, and the spool is gone.
func TestTelemetryReachesTheOutputsOfTheConfiguration(t *testing.T) {
	h := installed(t)
	var works atomic.Bool
	var calls, got atomic.Int64
	receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil || !works.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got.Add(int64(bytes.Count(body, []byte("\n"))))
	}))
	receiver.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	receiver.StartTLS()
	t.Cleanup(receiver.Close)
	must(t, os.WriteFile(filepath.Join(h.dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw}), 0o600))
	h.configure(t, fmt.Sprintf("webhooks: {private: 127.0.0.0/8, ca: ca.pem}\nhub:\n  outputs:\n  - {name: hook, kind: webhook, url: %q}\n  - {name: other, kind: file, path: other.ndjson, scope: 0ne00000000}\n", receiver.URL))
	cfg, err := h.load(nil)
	must(t, err)
	lines := func(path string) int {
		text, err := os.ReadFile(path)
		must(t, err)
		return bytes.Count(text, []byte("\n"))
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	r := h.run(t)
	c := r.device(0)
	must(t, c.whole()) // sends one
	must(t, c.send("second"))
	until("the file does not get them", func() bool { return lines(cfg.Hub.Telemetry) == 2 })
	until("nobody is told of the output", func() bool {
		status, body := r.probe("/readyz")
		return status == http.StatusOK && strings.Contains(body, "telemetry output hook is failing\n")
	})
	works.Store(true)
	until("the webhook does not get them", func() bool { return got.Load() == 2 })
	until("it is still told of", func() bool { _, body := r.probe("/readyz"); return body == "ok\n" })
	works.Store(false)
	must(t, c.send("third"))
	r.stop()
	if n := lines(filepath.Join(h.dir, "other.ndjson")); n != 0 {
		t.Errorf("%d lines of another scope", n)
	}

	h.configure(t, "{}\n")
	r = h.run(t)
	if _, err := os.Stat(cfg.Hub.Spool); !os.IsNotExist(err) {
		t.Errorf("the spool is still there: %v", err)
	}
	must(t, c.moved(r).send("fourth"))
	if n := lines(cfg.Hub.Telemetry); n != 4 {
		t.Errorf("the file holds %d lines", n)
	}
}

func TestAnOutputThatCannotBeIsRefusedAtTheStart(t *testing.T) {
	h := installed(t)
	h.configure(t, "hub:\n  outputs:\n  - {name: hook, kind: webhook, url: 'https://example.net/', secretFile: secret}\n")
	err := Run(t.Context(), Options{Load: func() (config.Config, error) { return h.load(nil) }, Log: io.Discard})
	if err == nil || !strings.HasPrefix(err.Error(), "telemetry output hook: open ") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}
