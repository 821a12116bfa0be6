package upgrade

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
	"latchkey.example/latchkey/internal/registration"
)

// The service itself is started on what was upgraded, and on what was copied: operators find their enrollment under the etag they know.
func TestTheServiceStartsOnWhatWasUpgradedAndCopied(t *testing.T) {
	t.Parallel()
	cfg, f := migrated(t), readFacts(t)
	serves(t, cfg, f)
	cfg.Store = server.Address(emptyDatabase(t))
	_, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: cfg.Store})
	must(t, err)
	serves(t, cfg, f)
}

// serves starts the service, asks it for an enrollment and ends it.
func serves(t *testing.T, cfg config.Config, f facts) {
	t.Helper()
	cfg.HTTPS, cfg.MQTT, cfg.Metrics, cfg.LogFormat = "127.0.0.1:0", "127.0.0.1:0", "", "json"
	cfg.Hub.Telemetry = filepath.Join(t.TempDir(), "telemetry")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	log, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := daemon.Run(ctx, daemon.Options{Load: func() (config.Config, error) { return cfg, nil }, Log: write})
		write.Close()
		ended <- err
	}()
	var address string
	lines := bufio.NewScanner(log)
	for address == "" && lines.Scan() {
		var line struct{ Msg, What, Addr string }
		must(t, json.Unmarshal(lines.Bytes(), &line))
		if line.Msg == "listening" && line.What == "https" {
			address = line.Addr
		}
	}
	go func() { _, _ = io.Copy(io.Discard, log) }()
	if address == "" {
		t.Fatalf("it did not start: %v", <-ended)
	}
	if etag := enrollmentOverHTTPS(t, address, f); etag != f.SQLite.ETag {
		t.Errorf("the etag was %s and is %s", f.SQLite.ETag, etag)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// enrollmentOverHTTPS reads the enrollment "valve" as an SDK does. The kept certificate may have ended since.
func enrollmentOverHTTPS(t *testing.T, address string, f facts) (etag string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/enrollments/valve?api-version=2021-10-01", nil)
	must(t, err)
	token, err := dps.NewToken(dps.KeySigner(f.OwnerKey), home, time.Now().Add(time.Hour), registration.OwnerPolicy)
	must(t, err)
	request.Host = home
	request.Header.Set("Authorization", token)
	transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: home, InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(request)
	must(t, err)
	defer answer.Body.Close()
	var enrollment struct{ RegistrationID, ETag string }
	must(t, json.NewDecoder(answer.Body).Decode(&enrollment))
	if answer.StatusCode != http.StatusOK || enrollment.RegistrationID != "valve" {
		t.Errorf("answered %d, %+v", answer.StatusCode, enrollment)
	}
	return enrollment.ETag
}
