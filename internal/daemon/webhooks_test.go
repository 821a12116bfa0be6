package daemon

import (
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/registration"
)

// receiver is a webhook on this machine, and the file of its certificate authority.
func receiver(t *testing.T) (url, ca string) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Webhook-Id") != "7" || !strings.HasPrefix(r.Header.Get("Webhook-Signature"), "v1,") || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return server.URL, ca
}

func TestWebhooksAreCalledWhereTheConfigurationLetsThem(t *testing.T) {
	url, ca := receiver(t)
	call := registration.WebhookCall{URL: url, ID: "7", Body: []byte(`{"a":1}`), Key: []byte("key")}
	for name, test := range map[string]struct {
		config config.Webhooks
		want   error
		works  bool
	}{
		"opened, and its authority known":    {config.Webhooks{Private: "127.0.0.0/8", CA: ca}, nil, true},
		"private networks are closed":        {config.Webhooks{CA: ca}, registration.ErrWebhookRefused, false},
		"its authority is not the system's":  {config.Webhooks{Private: "127.0.0.0/8"}, nil, false},
		"another private network was opened": {config.Webhooks{Private: "10.0.0.0/8", CA: ca}, registration.ErrWebhookRefused, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			cfg.Webhooks = test.config
			hooks, err := openWebhooks(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(hooks.client.Close)
			status, body, err := hooks.Post(t.Context(), call)
			switch {
			case test.works && (err != nil || status != http.StatusOK || string(body) != `{"a":1}`):
				t.Errorf("got %d %s, %v", status, body, err)
			case !test.works && (err == nil || errors.Is(err, registration.ErrWebhookRefused) != (test.want != nil)):
				t.Errorf("got %d %s, %v", status, body, err)
			}
		})
	}
}

func TestAFileThatHoldsNoAuthorityIsToldOf(t *testing.T) {
	cfg := config.Default()
	for text, want := range map[string]string{"": "holds no certificate", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n": "holds no certificate"} {
		cfg.Webhooks.CA = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(cfg.Webhooks.CA, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openWebhooks(cfg); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "webhooks.ca") {
			t.Errorf("%q gave %v", text, err)
		}
	}
	cfg.Webhooks.CA = filepath.Join(t.TempDir(), "missing.pem")
	if _, err := openWebhooks(cfg); err == nil || !strings.Contains(err.Error(), "webhooks.ca") {
		t.Errorf("a missing file gave %v", err)
	}
}
