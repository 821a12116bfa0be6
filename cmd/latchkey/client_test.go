package main

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// clientOf is a client of a service that answers as told.
func clientOf(t *testing.T, answer http.HandlerFunc) *client {
	t.Helper()
	server := httptest.NewTLSServer(answer)
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := newClient(someString, strings.TrimPrefix(server.URL, "https://"), ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// someString is a connection string that no service made.
var someString = "HostName=example.com;SharedAccessKeyName=owner;SharedAccessKey=" + base64.StdEncoding.EncodeToString(make([]byte, 32))

// A cut answer could be taken for the whole: one that is too long is an error.
func TestAnswerThatIsTooLong(t *testing.T) {
	for _, c := range []struct {
		size int
		good bool
	}{{answerLimit, true}, {answerLimit + 1, false}} {
		service := clientOf(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), c.size)) })
		data, err := service.call(t.Context(), http.MethodGet, "/enrollments/a", versioned(), "", nil)
		switch {
		case c.good && (err != nil || len(data) != c.size):
			t.Errorf("%d bytes: %d, %v", c.size, len(data), err)
		case !c.good && (err == nil || err.Error() != "the answer is longer than 8388608 bytes"):
			t.Errorf("%d bytes: %v", c.size, err)
		}
	}
}

// No service sends its operators elsewhere, and a token of one host is no other host's to see.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var elsewhere atomic.Bool
	service := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			elsewhere.Store(true)
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	_, err := service.call(t.Context(), http.MethodGet, "/enrollments/a", versioned(), "", nil)
	if err == nil || err.Error() != "the service answered 307 Temporary Redirect" || elsewhere.Load() {
		t.Errorf("%v, followed: %v", err, elsewhere.Load())
	}
}
