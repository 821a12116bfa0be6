package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Whoever starts a node while no server answers reads one line, which names every host that was tried and no password.
func TestNoConnectionIsSaidInOneLine(t *testing.T) {
	_, err := Open(t.Context(), "postgres://u:Pa55word@127.0.0.1:1,localhost:1/x?target_session_attrs=read-write", Options{})
	var connect *pgconn.ConnectError
	if err == nil || !errors.As(err, &connect) {
		t.Fatalf("error %v", err)
	}
	text := err.Error()
	for _, want := range []string{"database x at 127.0.0.1 or localhost: ", "connection refused", ". Start the server, or mend the address"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in: %s", want, text)
		}
	}
	if strings.ContainsAny(text, "\n\t") || strings.Contains(text, "Pa55word") {
		t.Errorf("said: %q", text)
	}
}
