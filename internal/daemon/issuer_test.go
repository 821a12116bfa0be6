package daemon

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An operator who asks for a scope learns that there is no CA to use, and nothing of files; the cause is in the log.
func TestACAThatCannotBeReadIsInTheLogAlone(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	path := filepath.Join(h.dir, TLSFolder, "ca.key")
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	ask := func(name string) string {
		t.Helper()
		status, body, err := r.manage(r.client(), http.MethodPost, "/latchkey/v1/scopes", []byte(`{"hosts":["`+name+`"]}`))
		must(t, err)
		if status != http.StatusBadRequest {
			t.Fatalf("%d %s", status, body)
		}
		return string(body)
	}
	const line = "no certificate can be issued for a scope: the private CA cannot be used"
	if body := ask("Not-A-Name.example"); strings.Contains(r.log.String(), line) {
		t.Errorf("the CA was asked for what is no name: %s", body)
	}
	if body := ask("plant2." + host); !strings.Contains(body, "no private CA at hand") || strings.Contains(body, "ca.key") {
		t.Errorf("answer %s", body)
	}
	if cause, _ := r.log.wait(t, 0, line, message(line))["err"].(string); !strings.Contains(cause, path) {
		t.Errorf("the log tells the cause as %q", cause)
	}
}
