package daemon

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/store/sqlite"
)

// tape records every answer, header and body, on its way to a client.
type tape struct {
	under http.RoundTripper
	mu    sync.Mutex
	text  bytes.Buffer
}

func (p *tape) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := p.under.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(body))
	p.mu.Lock()
	defer p.mu.Unlock()
	answer.Header.Write(&p.text)
	p.text.Write(body)
	return answer, err
}

// secrets of an installation, by name.
type secrets map[string][]byte

// atRest opens what lies sealed in the database, and reads the keys that lie in files of their own.
func atRest(t *testing.T, h house) secrets {
	t.Helper()
	cfg, err := h.load(nil)
	must(t, err)
	ring, err := keyring.Open(cfg.MasterKey)
	must(t, err)
	found := secrets{"access policy key of init": h.made.Connection.SharedAccessKey}
	store, err := sqlite.Open(t.Context(), cfg.Database, sqlite.Options{})
	must(t, err)
	defer store.Close()
	values, next, err := store.SealedValues(t.Context(), "", 1000)
	if err != nil || next != "" {
		t.Fatalf("sealed values: %v, more at %q", err, next)
	}
	for i, v := range values {
		plain, err := ring.Open(v.Context(), v.Sealed)
		must(t, err)
		for part, secret := range parts(t, v.Kind, plain) {
			found[fmt.Sprintf("%s %d%s", v.Kind, i, part)] = secret
		}
	}
	var file struct{ Keys []struct{ Key []byte } }
	text, err := os.ReadFile(cfg.MasterKey)
	must(t, err)
	must(t, json.Unmarshal(text, &file))
	found["master key"] = file.Keys[0].Key
	for _, listener := range []string{"https", "mqtt"} {
		for i, key := range newTickets(ring, time.Now).keys(listener) {
			found[fmt.Sprintf("ticket key %d of %s", i, listener)] = key[:]
		}
	}
	for _, name := range []string{"ca.key", "server.key"} {
		text, err := os.ReadFile(filepath.Join(h.dir, TLSFolder, name))
		must(t, err)
		block, _ := pem.Decode(text)
		for part, secret := range number(block.Bytes) {
			found[name+part] = secret
		}
	}
	return found
}

// Everything that a service is asked in its life, then a search for every
// secret through everything that it wrote and answered.
func TestSecretsShowUpNowhere(t *testing.T) {
	h := installed(t)
	h.configure(t, "logLevel: debug\n")
	r := h.run(t)
	p, shown := &tape{}, &tape{}
	tokens := life(t, r, p)
	given, used := keyed(t, r.device(0), p, shown)
	maps.Copy(tokens, used)
	_, metrics := r.probe("/metrics")
	found := atRest(t, h) // beside the running service: nothing is pruned yet
	for name, token := range tokens {
		found[name] = token
	}
	while := contents(t, h.dir)
	r.stop()
	known(t, found)
	places := map[string]string{"the log": r.log.String(), "the answers": p.text.String(), "/metrics": metrics}
	for state, files := range map[string]map[string]string{"running": while, "stopped": contents(t, h.dir)} {
		for name, text := range files {
			if name != "master.key" && !strings.HasSuffix(name, ".key") {
				places[name+", "+state] = text
			}
		}
	}
	for place, text := range places {
		for name, secret := range found {
			if holds(text, secret) {
				t.Errorf("%s shows the %s", place, name)
			}
		}
	}
	for name, secret := range found {
		if holds(shown.text.String(), secret) && !given.have(secret) {
			t.Errorf("an answer that shows keys shows the %s too", name)
		}
	}
	controls(t, r, p, places)
}

// controls show that the search looks at the right things.
func controls(t *testing.T, r *running, p *tape, places map[string]string) {
	t.Helper()
	c := r.device(0)
	for place, text := range map[string]string{"the log": c.id, "the answers": c.id, "/metrics": "latchkey_requests_total", "telemetry/hub.ndjson, stopped": c.id} {
		if !strings.Contains(places[place], text) {
			t.Errorf("%s does not even hold %q", place, text)
		}
	}
	if !strings.Contains(places["latchkey.db, stopped"], string(c.tpm.EK.Bytes())) {
		t.Error("the database does not even hold the EK")
	}
	for _, operation := range []string{"register", "poll", "lookup", "enrollment-get", "enrollment-put", "enrollment-delete", "registration-get", "registration-delete", "decision-get",
		"group-put", "group-get", "enrollment-attestation", "group-attestation", "enrollment-import", "enrollment-export", "export", "audit-list", "enrollment-query", "scope-create", "scope-list"} {
		if !strings.Contains(places["the log"], `"operation":"`+operation+`"`) {
			t.Errorf("%s was never asked", operation)
		}
	}
	if !strings.Contains(places["the log"], "hub: refused") || !strings.Contains(p.text.String(), "errorCode") {
		t.Error("nothing was refused")
	}
}

// life asks a service everything, rightly and wrongly, and gives the secrets that it took to do so.
func life(t *testing.T, r *running, p *tape) secrets {
	t.Helper()
	c := r.device(0)
	p.under, c.client.Transport = c.client.Transport, p
	must(t, c.enroll())
	must(t, c.register())
	first := *c
	password, err := c.password()
	must(t, err)
	must(t, c.send("hello"))
	lookup(t, c)
	refused(t, c, password)
	managed(t, c)
	c.tpm.Clear()
	must(t, c.register()) // another owner: another hub key
	must(t, c.send("again"))
	return secrets{"challenge key": first.challengeKey, "hub key": first.hubKey, "challenge key of the next owner": c.challengeKey,
		"hub key of the next owner": c.hubKey, "signature of the hub's SAS token": signature(t, password), "hub's SAS token": []byte(password[20:]),
		"signature of the proof": signature(t, first.token), "proof": []byte(first.token[20:])}
}

// signature is the sig of a SAS token.
func signature(t *testing.T, token string) []byte {
	t.Helper()
	for part := range strings.SplitSeq(strings.TrimPrefix(token, "SharedAccessSignature "), "&") {
		if value, ok := strings.CutPrefix(part, "sig="); ok {
			text, err := url.QueryUnescape(value)
			must(t, err)
			raw, err := base64.StdEncoding.DecodeString(text)
			must(t, err)
			return raw
		}
	}
	t.Fatal("the token has no signature")
	return nil
}

// lookup asks for the status, with a challenge of its own.
func lookup(t *testing.T, c *chip) {
	t.Helper()
	d := *c
	status, body, err := ask(c.client, http.MethodPost, c.path(""), "", c.body())
	must(t, err)
	if status != http.StatusUnauthorized {
		t.Fatalf("lookup: %d %s", status, body)
	}
	must(t, d.answer(body))
	status, body, err = ask(c.client, http.MethodPost, c.path(""), d.token, c.body())
	if err != nil || status != http.StatusOK {
		t.Fatalf("lookup: %d %s %v", status, body, err)
	}
}

// refused asks what is refused, with good secrets in wrong places.
func refused(t *testing.T, c *chip, password string) {
	t.Helper()
	admin, err := c.r.adminToken()
	must(t, err)
	stranger := c.r.device(1)
	stranger.client = c.client
	expired, err := dps.NewToken(dps.KeySigner(c.challengeKey), c.r.made.IDScope+"/registrations/"+c.id, time.Now().Add(-time.Hour), "registration")
	must(t, err)
	key := base64.StdEncoding.EncodeToString(c.hubKey)
	for name, try := range map[string]func() (int, []byte, error){
		"stranger":               func() (int, []byte, error) { return stranger.put("") },
		"expired proof":          func() (int, []byte, error) { return c.put(expired) },
		"hub's token as proof":   func() (int, []byte, error) { return c.put(password) },
		"admin's token as proof": func() (int, []byte, error) { return c.put(admin) },
		"key as token":           func() (int, []byte, error) { return c.put("SharedAccessSignature " + key) },
		"key as bearer":          func() (int, []byte, error) { return c.put("Bearer " + key) },
		"unknown operation": func() (int, []byte, error) {
			return ask(c.client, http.MethodGet, c.path("/operations/none"), c.token, nil)
		},
		"key in the body": func() (int, []byte, error) {
			return ask(c.client, http.MethodPut, c.path("/register"), "", []byte(`{"registrationId":"`+key+`"}`))
		},
		"proof at the management": func() (int, []byte, error) {
			return ask(c.client, http.MethodGet, "https://"+host+"/enrollments/"+c.id+apiVersion, c.token, nil)
		},
		"token without version": func() (int, []byte, error) {
			return ask(c.client, http.MethodGet, "https://"+host+"/enrollments/"+c.id, admin, nil)
		},
	} {
		status, body, err := try()
		if err != nil || status < 400 {
			t.Errorf("%s: %d %s %v", name, status, body, err)
		}
	}
	for name, wrong := range map[string]string{"proof": c.token, "admin's token": admin, "key": key} {
		if _, err := c.login(wrong); err == nil {
			t.Errorf("the hub took the %s as password", name)
		}
	}
}

// managed asks everything of the management API, the reason of a refusal among it.
func managed(t *testing.T, c *chip) {
	t.Helper()
	other := c.r.device(2)
	other.client = c.client
	must(t, other.enroll())
	must(t, other.register())
	_, body, err := c.put("SharedAccessSignature sr=x&sig=AAAA&se=1")
	must(t, err)
	refusal, err := dps.DecodeError(body)
	must(t, err)
	for _, call := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/enrollments/" + c.id, http.StatusOK},
		{http.MethodGet, "/enrollments/none", http.StatusNotFound},
		{http.MethodPut, "/enrollments/" + c.id, http.StatusBadRequest},
		{http.MethodGet, "/registrations/" + c.id, http.StatusOK},
		{http.MethodGet, "/latchkey/v1/decisions/" + refusal.TrackingID, http.StatusOK},
		{http.MethodDelete, "/registrations/" + other.id, http.StatusNoContent},
		{http.MethodDelete, "/enrollments/" + other.id, http.StatusNoContent},
	} {
		status, body, err := c.r.manage(c.client, call.method, call.path+apiVersion, nil)
		if err != nil || status != call.status {
			t.Errorf("%s %s: %d %s %v", call.method, call.path, status, body, err)
		}
	}
}

// The settings and everything that holds a secret print without it.
func TestAnInstallationPrintsWithoutItsKey(t *testing.T) {
	h := installed(t)
	cfg, err := config.Load(h.dir, "", func(string) string { return "" }, nil)
	must(t, err)
	asJSON, err := json.Marshal(h.made)
	must(t, err)
	text := fmt.Sprintf("%v %+v %#v %s %v", h.made, h.made, h.made, asJSON, cfg)
	if holds(text, h.made.Connection.SharedAccessKey) {
		t.Errorf("printed: %s", text)
	}
}
