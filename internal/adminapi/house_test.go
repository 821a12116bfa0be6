package adminapi_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/internal/web"
	"latchkey.example/latchkey/test/softtpm"
)

const (
	scope, host           = "0lkOne", "one.example.net"
	alias                 = "also-one.example.net"
	otherScope, otherHost = "0lkTwo", "two.example.net"
	version               = "?api-version=2021-10-01"
	owner                 = "provisioningserviceowner"
)

// rights are the access policies by name: those that hold one permission each, one that reads, and the owner's.
var rights = map[string]registration.Right{
	"service-config": registration.ServiceConfig, "enrollment-read": registration.EnrollmentRead, "enrollment-write": registration.EnrollmentWrite,
	"status-read": registration.RegistrationStatusRead, "status-write": registration.RegistrationStatusWrite, "reader": registration.EnrollmentRead | registration.RegistrationStatusRead, owner: registration.AllRights,
}

// tester is a test, or one round of a property.
type tester interface {
	Helper()
	Context() context.Context
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// house is the management API over the real core, store and key ring, with two scopes.
type house struct {
	t      tester
	url    string
	server *httptest.Server
	shared *web.Shared
	store  *sqlite.Store
	core   *registration.Core
}

func newHouse(t *testing.T) *house {
	t.Helper()
	return newHouseOn(t, func(s registration.Store) registration.Store { return s }, web.DefaultLimits)
}

// newHouseOn is a house whose core sees the store through a wrapper, and whose server has limits of its own.
func newHouseOn(t *testing.T, wrap func(registration.Store) registration.Store, limits web.Limits) *house {
	t.Helper()
	dir := t.TempDir()
	ring, err := keyring.Create(filepath.Join(dir, "master.key"), time.Now())
	must(t, err)
	path := filepath.Join(dir, "latchkey.db")
	must(t, sqlite.Create(t.Context(), path, sqlite.Options{}))
	h := &house{t: t}
	h.store, err = sqlite.Open(t.Context(), path, sqlite.Options{Linger: -1})
	must(t, err)
	t.Cleanup(func() { must(t, h.store.Close()) })
	h.createScope(ring, scope, host, alias)
	h.createScope(ring, otherScope, otherHost)
	h.core, err = registration.New(t.Context(), registration.Config{Store: wrap(h.store), Hub: hub{}, Sealer: ring, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	h.shared = web.NewShared(limits)
	api := adminapi.New(h.core, web.NewServer("management", h.core, slog.New(slog.DiscardHandler), web.NewMetrics(prometheus.NewRegistry()), h.shared))
	h.server = httptest.NewServer(api)
	t.Cleanup(h.server.Close)
	h.url = h.server.URL
	return h
}

// key is the key of an access policy; each has two of its own.
func key(scope, policy, slot string) []byte {
	sum := sha256.Sum256([]byte("key of " + scope + policy + slot))
	return sum[:]
}

func (h *house) createScope(ring *keyring.Ring, id string, hosts ...string) {
	h.t.Helper()
	seal := func(context string, plain []byte) []byte {
		sealed, err := ring.Seal(context, plain)
		must(h.t, err)
		return sealed
	}
	made := registration.Scope{ID: id, Hosts: hosts, Created: time.Now(), SealedRoot: seal(registration.ContextScopeRoot(id), root(id))}
	for name, right := range rights {
		made.Policies = append(made.Policies, registration.AccessPolicy{
			Name: name, Rights: right,
			SealedPrimary:   seal(registration.ContextPolicyKey(id, name, "primary"), key(id, name, "primary")),
			SealedSecondary: seal(registration.ContextPolicyKey(id, name, "secondary"), key(id, name, "secondary")),
		})
	}
	verdict, err := h.store.CreateScope(h.t.Context(), made, registration.Audit{At: time.Now(), Actor: registration.ActorLocal, Action: registration.ActionScopeCreate, Object: id, Outcome: registration.OutcomeOK})
	must(h.t, err)
	if verdict != registration.Applied {
		h.t.Fatalf("creating scope %s: verdict %d", id, verdict)
	}
}

func root(scope string) []byte {
	sum := sha256.Sum256([]byte("root of " + scope))
	return sum[:]
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hub takes every device.
type hub struct{}

func (hub) EnsureDevice(context.Context, string, string, registration.HubDevice) error { return nil }

func (hub) Drop(context.Context, string, string) error { return nil }

func (hub) Reach(_, _ string) registration.Reach { return registration.Here }

func (hub) RemoveDevice(context.Context, string, string, string, uint64) error { return nil }

func (hub) DisableDevice(context.Context, string, string, string, uint64) error { return nil }

func (hub) DeviceData(context.Context, string, string, string) (registration.DeviceData, error) {
	return registration.DeviceData{}, registration.ErrNotFound
}

// spelled is a SAS token as the C#, Java and C clients order its fields, with sr as it is to stand in it.
func spelled(key []byte, sr, policy string, expiry time.Time) string {
	sig, se := signature(key, sr, expiry)
	return "SharedAccessSignature sr=" + sr + "&sig=" + sig + "&se=" + se + "&skn=" + policy
}

func signature(key []byte, sr string, expiry time.Time) (sig, se string) {
	se = fmt.Sprint(expiry.Unix())
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sr + "\n" + se))
	return url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))), se
}

// as is a fresh SAS token of one of the scope's access policies.
func as(policy string) string {
	return spelled(key(scope, policy, "primary"), host, policy, time.Now().Add(time.Hour))
}

// answer is what came back, whole.
type answer struct {
	t      tester
	status int
	header http.Header
	body   string
}

func (h *house) ask(method, path, body, authorization string, header ...string) answer {
	h.t.Helper()
	a, err := h.try(method, path, body, authorization, header...)
	must(h.t, err)
	return a
}

// try is ask for goroutines, which may not end the test.
func (h *house) try(method, path, body, authorization string, header ...string) (answer, error) {
	request, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Host = host
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
		} else {
			request.Header.Set(header[i], header[i+1])
		}
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{h.t, response.StatusCode, response.Header, string(text)}, err
}

// owner asks with every right.
func (h *house) owner(method, path, body string, header ...string) answer {
	h.t.Helper()
	return h.ask(method, path+version, body, as(owner), header...)
}

func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// refused checks a refusal: its status and code, the whole form of its body, and headers that agree with it.
func (a answer) refused(code dps.Code) answer {
	a.t.Helper()
	e, err := dps.DecodeError([]byte(a.body))
	if err != nil || a.status != code.Status() || e.ErrorCode != int(code) || e.Message == "" || e.TimestampUTC == "" {
		a.t.Fatalf("status %d, want a refusal with %d: %s", a.status, code, a.body)
	}
	if a.header.Get("x-ms-request-id") != e.TrackingID || e.TrackingID == "" || a.header.Get("x-ms-error-code") != fmt.Sprint(int(code)) {
		a.t.Errorf("headers %v do not agree with %s", a.header, a.body)
	}
	if a.header.Get("Content-Type") != "application/json; charset=utf-8" {
		a.t.Errorf("content type %q", a.header.Get("Content-Type"))
	}
	return a
}

func (a answer) says(text string) answer {
	a.t.Helper()
	if !strings.Contains(a.json("message"), text) {
		a.t.Errorf("message %q, want %q in it", a.json("message"), text)
	}
	return a
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
	case string:
		return v
	case float64:
		return fmt.Sprintf("%.0f", v)
	}
	text, err := json.Marshal(value)
	must(a.t, err)
	return string(text)
}

// because asks why, and checks the reason.
func (h *house) because(a answer, reason string) answer {
	h.t.Helper()
	why := h.ask(http.MethodGet, "/latchkey/v1/decisions/"+a.header.Get("x-ms-request-id"), "", as(owner)).want(200)
	if why.json("reason") != reason || why.json("meaning") == "" {
		h.t.Errorf("reason %q, want %q: %s", why.json("reason"), reason, why.body)
	}
	return why
}

var chip = softtpm.New(softtpm.ECC, 0)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// enrollment is the smallest body of an enrollment of the chip; more is further members, with a leading comma.
func enrollment(more string) string {
	return fmt.Sprintf(`{"attestation":{"type":"tpm","tpm":{"endorsementKey":%q}}%s}`, b64(chip.EK.Bytes()), more)
}

// register takes the chip through a whole registration, by the core alone.
func (h *house) register(id string) {
	h.t.Helper()
	now := time.Now()
	request := registration.Request{Scope: scope, ID: id, Address: "192.0.2.1", Arrived: now,
		Body: dps.RegisterRequest{TPM: &dps.TPMKeys{EndorsementKey: chip.EK.Bytes(), StorageRootKey: chip.SRK.Bytes()}}}
	challenged, err := h.core.Register(h.t.Context(), request)
	must(h.t, err)
	hmacKey, err := chip.Open(challenged.Challenge)
	must(h.t, err)
	request.Authorization, err = dps.NewToken(dps.KeySigner(hmacKey), scope+"/registrations/"+id, now.Add(time.Hour), dps.KeyNameRegistration)
	must(h.t, err)
	accepted, err := h.core.Register(h.t.Context(), request)
	must(h.t, err)
	polled, err := h.core.Poll(h.t.Context(), request, accepted.Status.OperationID)
	must(h.t, err)
	if polled.Status.Status != dps.StatusAssigned || bytes.Equal(hmacKey, nil) {
		h.t.Fatalf("registering %s: %+v", id, polled.Status)
	}
}
