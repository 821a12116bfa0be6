package httpapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/httpapi"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/internal/web"
	"latchkey.example/latchkey/test/softtpm"
)

const (
	scope, host           = "0lkOne", "one.example.net"
	otherScope, otherHost = "0lkTwo", "two.example.net"
	version               = "?api-version=2021-06-01"
	owner                 = "provisioningserviceowner"
)

// house is the service in this process: SQLite store, key ring, core, and both HTTP APIs behind one listener as the daemon puts them.
type house struct {
	t        *testing.T
	url      string
	database string
	store    *sqlite.Store
	core     *registration.Core
	hub      *hub
	key      []byte // of the access policy of every scope
	log      *lockedBuffer
	client   *http.Client
	atWork   atWork
}

func newHouse(t *testing.T, limits web.Limits) *house {
	t.Helper()
	dir := t.TempDir()
	ring, err := keyring.Create(filepath.Join(dir, "master.key"), time.Now())
	must(t, err)
	h := &house{t: t, database: filepath.Join(dir, "latchkey.db"), hub: &hub{devices: map[string]registration.HubDevice{}},
		key: bytes.Repeat([]byte{7}, 32), log: &lockedBuffer{}}
	must(t, sqlite.Create(t.Context(), h.database, sqlite.Options{}))
	h.store, err = sqlite.Open(t.Context(), h.database, sqlite.Options{Linger: -1})
	must(t, err)
	t.Cleanup(func() { must(t, h.store.Close()) })
	h.createScope(ring, scope, host)
	h.createScope(ring, otherScope, otherHost)
	logger := slog.New(slog.NewJSONHandler(h.log, nil))
	h.core, err = registration.New(t.Context(), registration.Config{Store: h.store, Hub: h.hub, Sealer: ring, Logger: logger})
	must(t, err)
	shared, metrics := web.NewShared(limits), web.NewMetrics(prometheus.NewRegistry())
	device := httpapi.New(h.core, web.NewServer("device", h.core, logger, metrics, shared))
	admin := adminapi.New(h.core, web.NewServer("management", h.core, logger, metrics, shared))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.atWork.enter()
		defer h.atWork.leave()
		if first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); adminapi.Serves(first) {
			admin.ServeHTTP(w, r)
			return
		}
		device.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	h.url, h.client = server.URL, server.Client()
	return h
}

func (h *house) createScope(ring *keyring.Ring, id, host string) {
	h.t.Helper()
	seal := func(context string, plain []byte) []byte {
		sealed, err := ring.Seal(context, plain)
		must(h.t, err)
		return sealed
	}
	root := sha256.Sum256([]byte("root of " + id))
	verdict, err := h.store.CreateScope(h.t.Context(), registration.Scope{
		ID: id, Hosts: []string{host}, Created: time.Now(), SealedRoot: seal(registration.ContextScopeRoot(id), root[:]),
		Policies: []registration.AccessPolicy{{
			Name: owner, Rights: registration.AllRights,
			SealedPrimary:   seal(registration.ContextPolicyKey(id, owner, "primary"), h.key),
			SealedSecondary: seal(registration.ContextPolicyKey(id, owner, "secondary"), h.key),
		}},
	}, registration.Audit{At: time.Now(), Actor: registration.ActorLocal, Action: registration.ActionScopeCreate, Object: id, Outcome: registration.OutcomeOK})
	must(h.t, err)
	if verdict != registration.Applied {
		h.t.Fatalf("creating scope %s: verdict %d", id, verdict)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is what came back, whole.
type answer struct {
	t      *testing.T
	path   string // that was asked for
	status int
	header http.Header
	body   string
}

// json gives a member of the body by its path, as text; empty if it is not there.
func (a answer) json(path ...string) string {
	a.t.Helper()
	var value any
	if err := json.Unmarshal([]byte(a.body), &value); err != nil {
		a.t.Fatalf("status %d, body %q: %v", a.status, a.body, err)
	}
	for _, name := range path {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	switch v := value.(type) {
	case nil:
		return ""
	case float64:
		return fmt.Sprintf("%.0f", v)
	case string:
		return v
	}
	return fmt.Sprint(value)
}

// blob decodes an activation blob at a path of the body.
func (a answer) blob(path ...string) []byte {
	a.t.Helper()
	b, err := base64.StdEncoding.DecodeString(a.json(path...))
	if err != nil || len(b) == 0 {
		a.t.Fatalf("status %d, no blob at %v: %s", a.status, path, a.body)
	}
	return b
}

func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// ask sends one request. Headers come in pairs; a body is sent as JSON unless they say otherwise.
func (h *house) ask(method, path, body string, header ...string) answer {
	h.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	return h.send(method, path, reader, header...)
}

func (h *house) send(method, path string, body io.Reader, header ...string) answer {
	h.t.Helper()
	request, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, body)
	must(h.t, err)
	if body != nil {
		request.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	for i := 0; i < len(header); i += 2 {
		switch {
		case header[i] == "Host":
			request.Host = header[i+1]
		case header[i+1] == "":
			request.Header.Del(header[i])
		default:
			request.Header[header[i]] = []string{header[i+1]}
		}
	}
	response, err := h.client.Do(request)
	must(h.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(h.t, err)
	return answer{h.t, path, response.StatusCode, response.Header, string(text)}
}

// manage sends a management request with a fresh token of the owner's policy.
func (h *house) manage(host, method, path, body string, header ...string) answer {
	h.t.Helper()
	token, err := dps.NewToken(dps.KeySigner(h.key), host, time.Now().Add(time.Hour), owner)
	must(h.t, err)
	return h.ask(method, path+"?api-version=2021-10-01", body, append(header, "Host", host, "Authorization", token)...)
}

// enroll writes an enrollment of the chip's EK; more is further members, with a leading comma.
func (h *house) enroll(id string, c *softtpm.TPM, more string) {
	h.t.Helper()
	body := fmt.Sprintf(`{"registrationId":%q,"attestation":{"type":"tpm","tpm":{"endorsementKey":%q}}%s}`, id, b64(c.EK.Bytes()), more)
	h.manage(host, http.MethodPut, "/enrollments/"+id, body).want(200)
}

// why asks for the decision behind a tracking id, once those who were answered have been written down.
func (h *house) why(host, trackingID string) answer {
	h.t.Helper()
	h.atWork.wait()
	return h.manage(host, http.MethodGet, "/latchkey/v1/decisions/"+trackingID, "").want(200)
}

// snapshot is every row of the database but the SQLite schema, for comparison.
func (h *house) snapshot() map[string]string {
	h.t.Helper()
	db, err := sqlite3.OpenFlags(h.database, sqlite3.OPEN_READONLY)
	must(h.t, err)
	defer db.Close()
	rows := map[string]string{}
	for _, table := range []string{"scopes", "scope_hosts", "access_policies", "revisions", "enrollments", "registrations", "operations", "generations", "audit", "identities"} {
		stmt, _, err := db.Prepare("SELECT * FROM " + table + " ORDER BY 1")
		must(h.t, err)
		var text strings.Builder
		for stmt.Step() {
			for i := range stmt.ColumnCount() {
				fmt.Fprintf(&text, "%q|", stmt.ColumnRawBlob(i))
			}
			text.WriteByte('\n')
		}
		must(h.t, errors.Join(stmt.Err(), stmt.Close()))
		rows[table] = text.String()
	}
	if rows["scopes"] == "" || rows["audit"] == "" {
		h.t.Fatal("the snapshot sees nothing: it would prove nothing")
	}
	return rows
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// hub is a hub that checks what it is told: 32-byte keys, generations that never move back, no new key under an old generation.
type hub struct {
	mu      sync.Mutex
	devices map[string]registration.HubDevice
	down    error
}

func (*hub) Drop(context.Context, string, string) error { return nil }

func (*hub) Reach(_, _ string) registration.Reach { return registration.Here }

func (*hub) RemoveDevice(context.Context, string, string, string, uint64) error { return nil }

func (*hub) DisableDevice(context.Context, string, string, string, uint64) error { return nil }

func (*hub) DeviceData(context.Context, string, string, string) (registration.DeviceData, error) {
	return registration.DeviceData{}, registration.ErrNotFound
}

func (u *hub) EnsureDevice(_ context.Context, scope, name string, d registration.HubDevice) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return u.down
	}
	at := scope + "/" + name + "/" + d.DeviceID
	known, there := u.devices[at]
	switch {
	case len(d.Credential.Primary) != 32:
		return fmt.Errorf("a hub key of %d bytes", len(d.Credential.Primary))
	case there && d.Generation < known.Generation:
		return registration.ErrStale
	case there && d.Generation == known.Generation && !bytes.Equal(d.Credential.Primary, known.Credential.Primary):
		return errors.New("another key under the same generation")
	}
	u.devices[at] = d
	return nil
}

func (u *hub) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down = err
}

func (u *hub) device(scope, name, id string) registration.HubDevice {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.devices[scope+"/"+name+"/"+id]
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// atWork counts handlers that have not returned. They do so after the answer was sent, so a test that looks at what is written then
// has to wait.
type atWork struct {
	mu   sync.Mutex
	none sync.Cond
	n    int
}

func (a *atWork) enter() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
}

func (a *atWork) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n--; a.n == 0 && a.none.L != nil {
		a.none.Broadcast()
	}
}

func (a *atWork) wait() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.none.L = &a.mu
	for a.n > 0 {
		a.none.Wait()
	}
}
