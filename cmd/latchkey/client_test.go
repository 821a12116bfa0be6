package main

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"io"
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

// What an answer says reaches a terminal, which obeys control characters.
func TestRefusalsDoNotCommandTheTerminal(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"an error body": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"errorCode":400004,"message":"\u001b[2Jno\nlatchkey: done","trackingId":"\u001b]0;x\u0007"}`))
		},
		"a status line": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 500 \x1b[2J\r\nContent-Length: 0\r\n\r\n"))
			conn.Close()
		},
	} {
		_, err := clientOf(t, answer).call(t.Context(), http.MethodGet, "/enrollments/a", versioned(), "", nil)
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\x07") || !strings.Contains(err.Error(), "\ufffd[2J") || strings.Contains(err.Error(), "\nlatchkey: done") {
			t.Errorf("%s: %q", name, err)
		}
	}
	var told bytes.Buffer
	err := printDecision(&told, []byte(`{"time":"\u001bt","reason":"\u001br","meaning":"\u001bm","request":{"registrationId":"\u001bi","scope":"\u001bs","address":"\u001ba","note":"\u001bn","first":"\u001bf","count":2},
		"audit":[{"time":"\u001bt","actor":"\u001bc","address":"\u001ba","action":"\u001bx","object":"\u001bo","outcome":"\u001bu","reason":"\u001br"}]}`))
	if err != nil || strings.Contains(told.String(), "\x1b") || !strings.Contains(told.String(), "2 times") || !strings.Contains(told.String(), "\ufffdo: ") {
		t.Errorf("%v, %q", err, told.String())
	}
}

func TestTablesDoNotCommandTheTerminal(t *testing.T) {
	for name, table := range map[string]struct {
		print  func(io.Writer, []byte) error
		answer string
	}{
		"CAs":        {printCAs, `{"caCertificates":[{"name":"\u001b","info":{"subjectName":"\u001b"}}]}`},
		"scopes":     {printScopes, `{"scopes":[{"idScope":"\u001b","hosts":["\u001b"],"createdDateTimeUtc":"\u001b","certificateEndUtc":"\u001b"}]}`},
		"statistics": {printStatistics, `{"enrollments":{"\u001b":1}}`},
	} {
		var told bytes.Buffer
		if err := table.print(&told, []byte(table.answer)); err != nil || strings.Contains(told.String(), "\x1b") || !strings.Contains(told.String(), "\ufffd") {
			t.Errorf("%s: %v, %q", name, err, told.String())
		}
	}
}
