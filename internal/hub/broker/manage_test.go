package broker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// managed is a manager of a product whose management API answers as a test says, and what it was asked.
func managed(t *testing.T, product Product, answer http.HandlerFunc) (manager, *[]string) {
	t.Helper()
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		asked = append(asked, fmt.Sprintf("%s:%s %s %s", user, password, r.Method, r.RequestURI))
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	l := &link{Name: "broker.example", settings: Settings{Product: product, ManagementURL: server.URL + "/", ManagementUser: "user"}, secret: Secret{ManagementPassword: "pass"}}
	l.settings.setDefaults()
	m, free := newManager(l, (&net.Dialer{}).DialContext)
	t.Cleanup(free)
	return m, &asked
}

func listed(t *testing.T, m manager) (found []string) {
	t.Helper()
	if err := m.list(t.Context(), func(page []connection) {
		for _, c := range page {
			since := "?"
			if !c.since.IsZero() {
				since = c.since.UTC().Format(time.RFC3339)
			}
			found = append(found, c.name+" "+c.user+" "+c.clientID+" "+since)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The answers are those of EMQX 5's description of its API.
func TestEMQXIsAskedInItsWords(t *testing.T) {
	m, asked := managed(t, EMQX, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		switch {
		case r.Method == http.MethodDelete && strings.HasSuffix(r.URL.Path, "/gone"):
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"code":"CLIENTID_NOT_FOUND","message":"Client ID not found"}`)
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case r.URL.Query().Get("page") == "1":
			fmt.Fprint(w, `{"data":[{"clientid":"dev-1","username":"dev-1","connected":true,"connected_at":"2026-03-01T12:00:00.000+01:00"},
				{"clientid":"away","username":"away","connected":false,"connected_at":"2026-03-01T12:00:00.000+01:00"}],"meta":{"count":3,"hasnext":true,"limit":1000,"page":1}}`)
		default:
			fmt.Fprint(w, `{"data":[{"clientid":"dev/2","username":null,"connected":true}],"meta":{"count":3,"hasnext":false,"limit":1000,"page":2}}`)
		}
	})
	want(t, "listed", listed(t, m), "dev-1 dev-1 dev-1 2026-03-01T11:00:00Z", "dev/2  dev/2 ?")
	for device, closed := range map[string]int{"dev/1 ?": 1, "gone": 0} {
		if n, err := m.cut(t.Context(), device); err != nil || n != closed {
			t.Errorf("cut %s: %d, %v", device, n, err)
		}
		*asked = (*asked)[:2]
	}
	if err := m.end(t.Context(), connection{clientID: "dev 1"}); err != nil {
		t.Error(err)
	}
	if err := m.probe(t.Context()); err != nil {
		t.Error(err)
	}
	want(t, "asked", *asked,
		"user:pass GET /api/v5/clients?fields=clientid%2Cusername%2Cconnected%2Cconnected_at&limit=1000&page=1",
		"user:pass GET /api/v5/clients?fields=clientid%2Cusername%2Cconnected%2Cconnected_at&limit=1000&page=2",
		"user:pass DELETE /api/v5/clients/dev%201",
		"user:pass GET /api/v5/clients?page=1&limit=1")
}

// The answers are those of VerneMQ's description of its HTTP administration.
func TestVerneMQIsAskedInItsWords(t *testing.T) {
	m, asked := managed(t, VerneMQ, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/show") {
			fmt.Fprint(w, `{"table":[{"client_id":"dev-1","user":"dev-1"},{"client_id":"c","user":"backend"}],"type":"table"}`)
			return
		}
		fmt.Fprint(w, `{"text":"Done","type":"text"}`)
	})
	want(t, "listed", listed(t, m), "dev-1 dev-1 dev-1 ?", "c backend c ?")
	if n, err := m.cut(t.Context(), "dev=1"); err != nil || n != 1 {
		t.Errorf("cut: %d, %v", n, err)
	}
	if err := m.end(t.Context(), connection{clientID: `x" OR client_id != "x`}); err != nil { // of a user of the broker's own
		t.Error(err)
	}
	if err := m.end(t.Context(), connection{clientID: "dev-1"}); err != nil {
		t.Error(err)
	}
	if err := m.probe(t.Context()); err != nil {
		t.Error(err)
	}
	want(t, "asked", *asked,
		"pass: GET /api/v1/session/show?--client_id&--user&--is_online=true&--limit=100000",
		"pass: GET /api/v1/session/disconnect?client-id=dev%3D1&--cleanup",
		"pass: GET /api/v1/session/disconnect?client-id=dev-1",
		"pass: GET /api/v1/session/show?--client_id&--limit=1")

	*asked = nil
	m.(*verne).mountpoint = "plant one"
	listed(t, m)
	if _, err := m.cut(t.Context(), "dev-1"); err != nil {
		t.Error(err)
	}
	want(t, "asked", *asked,
		"pass: GET /api/v1/session/show?--client_id&--user&--is_online=true&--limit=100000&--mountpoint=plant+one",
		"pass: GET /api/v1/session/disconnect?client-id=dev-1&--mountpoint=plant+one&--cleanup")
}

// VerneMQ says of no list that it has an end. One that is full may lack the connection that is looked for.
func TestAListThatMayLackConnectionsIsNoList(t *testing.T) {
	sessions := 100_000
	m, _ := managed(t, VerneMQ, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"table":[{"client_id":"a","user":"a"}%s]}`, strings.Repeat(`,{}`, sessions-1))
	})
	ignore := func([]connection) {}
	if err := m.list(t.Context(), ignore); err == nil || !strings.Contains(err.Error(), "100000") {
		t.Errorf("a full list: %v", err)
	}
	sessions--
	if err := m.list(t.Context(), ignore); err != nil {
		t.Errorf("one less: %v", err)
	}
}

// The answers of the probe are those of RabbitMQ 3.10.8.
func TestRabbitMQIsProbedForWhatWillBeNeeded(t *testing.T) {
	tags, permissions := `["administrator"]`, http.StatusOK
	m, asked := managed(t, RabbitMQ, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/whoami" {
			fmt.Fprintf(w, `{"name":"latchkey","tags":%s}`, tags)
			return
		}
		w.WriteHeader(permissions)
		fmt.Fprint(w, `{"user":"latchkey","vhost":"/","configure":"^mqtt-","write":"^$","read":"^$"}`)
	})
	for _, c := range []struct {
		tags        string
		permissions int
		says        string
	}{
		{`["administrator"]`, http.StatusOK, ""}, {`"monitoring,administrator"`, http.StatusOK, ""}, {`["management"]`, http.StatusOK, "administrator"},
		{`["administrator"]`, http.StatusNotFound, "permissions"}, {`7`, http.StatusOK, "cannot be read"},
	} {
		tags, permissions = c.tags, c.permissions
		if err := m.probe(t.Context()); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("tags %s, status %d: %v", c.tags, c.permissions, err)
		}
	}
	want(t, "asked", (*asked)[:2], "user:pass GET /api/whoami", "user:pass GET /api/permissions/%2F/latchkey")
}

// Whatever a management API answers is bounded, told in a sentence, and never taken for done.
func TestWhateverAManagementAPIAnswersIsNoSuccess(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the password was sent elsewhere") }))
	defer elsewhere.Close()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		says   string
	}{
		"401": {status(401), "refuses the user or password"}, "403": {status(403), "refuses the user or password"}, "429": {status(429), "status 429"}, "500": {status(500), "status 500"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, "status 302"},
		"garbage":    {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "cannot be read"},
		"a list":     {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[]") }, "cannot be read"},
		"nothing":    {func(http.ResponseWriter, *http.Request) {}, "cannot be read"},
		"much":       {func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxAnswer+10)) }, "more than"},
		"a cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("{"))
		}, "broke off"},
		"a cut, late": {func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, "does not answer"},
	} {
		for _, product := range []Product{RabbitMQ, EMQX, VerneMQ} {
			m, _ := managed(t, product, c.answer)
			err := m.list(t.Context(), func([]connection) {})
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "pass:") {
				t.Errorf("%s of %s: %v", name, product, err)
			}
		}
	}
	// One that never ends the list is left in the end.
	m, asked := managed(t, RabbitMQ, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"page_count":1000000,"items":[]}`) })
	if err := m.list(t.Context(), func([]connection) {}); err == nil || len(*asked) != maxPages {
		t.Errorf("%d pages: %v", len(*asked), err)
	}
	// One that hangs is not waited for longer than the caller wants to.
	hung := make(chan struct{})
	m, _ = managed(t, RabbitMQ, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-hung:
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.list(ctx, func([]connection) {}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("hanging: %v", err)
	}
	close(hung)
}
