package daemon

import (
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/authority"
	"latchkey.example/latchkey/internal/config"
)

// leaf is the certificate that a new connection is shown.
func (r *running) leaf() *x509.Certificate {
	r.t.Helper()
	conn := r.dial()
	defer conn.Close() // one that never asked would hold up the end for 5 s
	return conn.ConnectionState().PeerCertificates[0]
}

func TestReloadTakesANewCertificate(t *testing.T) {
	r := installed(t).run(t)
	before, old := r.leaf(), r.dial()
	must(t, authority.Issue(filepath.Join(r.dir, TLSFolder), []string{host}, time.Now()))
	if r.leaf().SerialNumber.Cmp(before.SerialNumber) != 0 {
		t.Fatal("the certificate changed without a reload")
	}
	r.reloaded()
	after := r.leaf()
	if after.SerialNumber.Cmp(before.SerialNumber) == 0 {
		t.Error("new connections are still shown the old certificate")
	}
	mqtt := *r
	mqtt.https = r.mqtt
	if shown := mqtt.leaf(); shown.SerialNumber.Cmp(after.SerialNumber) != 0 {
		t.Error("the MQTT listener shows another certificate")
	}
	_, err := io.WriteString(old, "GET /healthz HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	must(t, err)
	if answer, err := io.ReadAll(old); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("an open connection did not outlive the reload: %q %v", answer, err)
	}
}

func TestReloadTakesNewPathsOfTheCertificate(t *testing.T) {
	r := installed(t).run(t)
	other := filepath.Join(r.dir, "other")
	must(t, os.CopyFS(other, os.DirFS(filepath.Join(r.dir, TLSFolder))))
	must(t, authority.Issue(other, []string{host}, time.Now()))
	before := r.leaf()
	r.configure(t, "certificate: other/server.crt\nprivateKey: other/server.key\n")
	r.reloaded()
	if r.leaf().SerialNumber.Cmp(before.SerialNumber) == 0 {
		t.Error("the old paths are still in use")
	}
}

// What cannot be read stays as it was and is named; the rest is taken.
func TestReloadKeepsWhatItCannotReplace(t *testing.T) {
	for _, c := range []struct {
		name, file, text, says string
		restIsTaken            bool
	}{
		{"broken certificate", "tls/server.crt", "no PEM", "the server's certificate", true},
		{"key of another certificate", "tls/server.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "the server's certificate", true},
		{"broken key ring", "master.key", "{", "master.key: the file is cut short or is not a key ring", true},
		{"unknown setting", config.FileName, "logLevel: debug\nhtps: x\n", `line 2: there is no key "htps"`, false},
		{"bad value", config.FileName, "logLevel: debug\nlimits: {parked: -1}\n", "limits.parked must not be negative", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := installed(t)
			r := h.run(t)
			d := r.device(0)
			must(t, d.enroll())
			r.log.wait(t, 0, "the line of the enrollment, which comes after its answer", message("request"))
			before := r.leaf()
			h.configure(t, "logLevel: error\n")
			must(t, os.WriteFile(filepath.Join(r.dir, c.file), []byte(c.text), 0o600))
			line := r.hup()
			if text, _ := line["err"].(string); line["level"] != "ERROR" || !strings.Contains(text, c.says) {
				t.Errorf("the reload ended with %v, want %q", line, c.says)
			}
			from := r.log.len()
			if r.leaf().SerialNumber.Cmp(before.SerialNumber) != 0 {
				t.Error("the certificate changed")
			}
			must(t, d.register()) // the key ring is in order
			must(t, d.send("still here"))
			r.stop() // lines of requests come after their answers
			if line, _ := r.log.find(from, message("request")); (line == nil) != c.restIsTaken {
				t.Errorf("the new log level counts: %v, want %v", line == nil, c.restIsTaken)
			}
		})
	}
}

func TestReloadTakesTheLogLevel(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	client := r.client()
	visit := func(scope string) {
		t.Helper()
		_, _, err := ask(client, http.MethodGet, "https://"+host+"/"+scope+"/registrations/x", "", nil)
		must(t, err)
	}
	of := func(scope string) func(map[string]any) bool {
		return func(line map[string]any) bool { return line["msg"] == "request" && line["scope"] == scope }
	}
	visit("first")
	r.log.wait(t, 0, "request", of("first"))
	h.configure(t, "logLevel: error\n")
	r.hangup <- nil
	r.hangup <- nil // taken when the one before is done; at this level none is reported
	visit("second")
	visit("third") // on the same connection, so the line of the second is written or never will be
	h.configure(t, "logLevel: info\n")
	r.reloaded()
	visit("fourth")
	r.log.wait(t, 0, "request", of("fourth"))
	if line, _ := r.log.find(0, of("second")); line != nil {
		t.Errorf("at error a request writes %v", line)
	}
}

func TestReloadTakesTheLimits(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	c := r.device(0)
	must(t, c.enroll())
	if status, _, err := c.put(""); err != nil || status != http.StatusUnauthorized {
		t.Fatalf("%d %v", status, err)
	}
	h.configure(t, "limits: {bodyTime: 100ms}\n")
	r.reloaded()
	conn := r.dial()
	must(t, c.begin(conn))
	must(t, conn.SetReadDeadline(time.Now().Add(5*time.Second))) // the default is 10 s
	answer, err := io.ReadAll(conn)                              // the body never comes
	if err != nil || !strings.Contains(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("a slow body ends with %q %v", answer, err)
	}
}

func TestReloadOpensTheTelemetryFileAnew(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	c := r.device(0)
	must(t, c.whole())
	cfg, err := h.load(nil)
	must(t, err)
	must(t, os.Rename(cfg.Hub.Telemetry, cfg.Hub.Telemetry+".1"))
	must(t, c.send("before"))
	r.reloaded()
	must(t, c.send("after"))
	for path, want := range map[string]int{cfg.Hub.Telemetry + ".1": 2, cfg.Hub.Telemetry: 1} {
		text, err := os.ReadFile(path)
		must(t, err)
		if n := strings.Count(string(text), "\n"); n != want {
			t.Errorf("%s holds %d lines, want %d", filepath.Base(path), n, want)
		}
	}
}

func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	h.configure(t, "hub: {maxTokenLife: 1h}\ndatabase: other.db\nlogLevel: debug\n")
	from := r.log.len()
	r.reloaded()
	line := r.log.wait(t, from, "need a restart", message("reload: these settings changed and need a restart"))
	names, _ := line["settings"].([]any)
	if len(names) != 2 || names[0] != "database" || names[1] != "hub-max-token-life" {
		t.Errorf("names %v", names)
	}
}
