package adminapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/adminapi"
)

func unmarshal(t tester, text string, into any) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), into))
}

func TestEveryOperationNeedsItsOwnRight(t *testing.T) {
	h := newHouse(t)
	for _, operation := range []struct {
		method, path, right string
		status              int // with the right
	}{
		{"PUT", "/enrollments/new", "enrollment-write", 200},
		{"GET", "/enrollments/new", "enrollment-read", 200},
		{"POST", "/enrollments/new/attestationmechanism", "enrollment-write", 200},
		{"POST", "/enrollments/query", "enrollment-read", 400}, // the body is no query
		{"POST", "/enrollments", "enrollment-write", 400},
		{"GET", "/registrations/new", "status-read", 404},
		{"DELETE", "/registrations/new", "status-write", 404},
		{"DELETE", "/enrollments/new", "enrollment-write", 204},
		{"GET", "/latchkey/v1/decisions/00000000-0000-0000-0000-000000000000", "status-read", 404},
		{"GET", "/latchkey/v1/audit", "reader", 200},
		{"POST", "/latchkey/v1/enrollments/import", "enrollment-write", 415}, // the content type is JSON
		{"GET", "/latchkey/v1/enrollments/export", "enrollment-read", 200},
	} {
		for policy := range rights {
			if rights[policy]&rights[operation.right] == rights[operation.right] {
				continue
			}
			h.because(h.ask(operation.method, operation.path+version, enrollment(""), as(policy)).refused(dps.CodeUnauthorized), "admin-right")
		}
		h.ask(operation.method, operation.path+version, enrollment(""), as(operation.right)).want(operation.status)
	}
}

func TestTokensOfEveryClientAreTaken(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200)
	primary, secondary := key(scope, owner, "primary"), key(scope, owner, "secondary")
	hour := time.Now().Add(time.Hour)
	node := func() string {
		sig, se := signature(primary, host, hour)
		return "SharedAccessSignature sr=" + host + "&sig=" + sig + "&skn=" + owner + "&se=" + se
	}
	for name, row := range map[string]struct{ token, path, host string }{
		"C#":                              {spelled(primary, host, owner, hour), "/enrollments/e", host},
		"Node's order":                    {node(), "/enrollments/e", host},
		"Java: host in lower case":        {spelled(primary, host, owner, hour), "/enrollments/e", "One.Example.NET"},
		"host in capitals":                {spelled(primary, "ONE.example.net", owner, hour), "/enrollments/e", host},
		"host with a port":                {spelled(primary, host, owner, hour), "/enrollments/e", host + ":8443"},
		"another name of the scope":       {spelled(primary, alias, owner, hour), "/enrollments/e", alias},
		"secondary key":                   {spelled(secondary, host, owner, hour), "/enrollments/e", host},
		"for a subtree":                   {spelled(primary, host+"%2Fenrollments", owner, hour), "/enrollments/e", host},
		"for a subtree, lower escapes":    {spelled(primary, host+"%2fenrollments", owner, hour), "/enrollments/e", host},
		"for a subtree, raw":              {spelled(primary, host+"/enrollments", owner, hour), "/Enrollments/e", host},
		"for one enrollment":              {spelled(primary, host+"/enrollments/e", owner, hour), "/enrollments/E", host},
		"expired within the leeway":       {spelled(primary, host, owner, time.Now().Add(-4*time.Minute)), "/enrollments/e", host},
		"of an operator's own, ten years": {spelled(primary, host, owner, time.Now().AddDate(10, 0, 0)), "/enrollments/e", host},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			h.ask(http.MethodGet, row.path+version, "", row.token, "Host", row.host).want(200)
		})
	}
}

func TestTokensThatDoNotVerifyAreRefusedAlike(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200)
	primary, hour := key(scope, owner, "primary"), time.Now().Add(time.Hour)
	good := spelled(primary, host, owner, hour)
	var first string
	for name, row := range map[string]struct{ token, host string }{
		"none":                           {"", host},
		"bearer":                         {"Bearer eyJhbGciOiJub25lIn0.e30.", host},
		"malformed":                      {"SharedAccessSignature sr=x", host},
		"expired":                        {spelled(primary, host, owner, time.Now().Add(-6*time.Minute)), host},
		"unknown policy":                 {spelled(primary, host, "nobody", hour), host},
		"no policy":                      {spelled(primary, host, "", hour), host},
		"another policy's name":          {spelled(primary, host, "enrollment-read", hour), host},
		"policy in capitals":             {spelled(primary, host, strings.ToUpper(owner), hour), host},
		"wrong key":                      {spelled([]byte("wrong"), host, owner, hour), host},
		"the scope's challenge root":     {spelled(root(scope), host, owner, hour), host},
		"the root under no policy":       {spelled(root(scope), host, "nobody", hour), host},
		"altered expiry":                 {strings.Replace(good, "&se=", "&se=1", 1), host},
		"the other scope's key":          {spelled(key(otherScope, owner, "primary"), host, owner, hour), host},
		"our token at the other scope":   {good, otherHost},
		"a token for the other scope":    {spelled(primary, otherHost, owner, hour), host},
		"a host that nobody has":         {spelled(primary, "nobody.example.net", owner, hour), "nobody.example.net"},
		"a host that ends like ours":     {spelled(primary, "evil-one.example.net", owner, hour), "evil-one.example.net"},
		"for another subtree":            {spelled(primary, host+"/registrations", owner, hour), host},
		"for half a segment":             {spelled(primary, host+"/enroll", owner, hour), host},
		"for another enrollment":         {spelled(primary, host+"/enrollments/other", owner, hour), host},
		"for the scope, as devices sign": {spelled(primary, scope+"/registrations/e", owner, hour), host},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			refused := h.ask(http.MethodGet, "/enrollments/e"+version, "", row.token, "Host", row.host).refused(dps.CodeUnauthorized)
			blank := strings.NewReplacer(refused.json("trackingId"), "…", refused.json("timestampUtc"), "…").Replace(refused.body)
			if first == "" {
				first = blank
			}
			if blank != first {
				t.Errorf("%s differs from %s", blank, first)
			}
			if row.host == host {
				h.because(refused, "admin-token")
			}
		})
	}
}

// A token for one enrollment must not reach others by way of dots or encoded slashes.
func TestATokenForASubtreeStaysInIt(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200)
	token := spelled(key(scope, owner, "primary"), host+"/registrations", owner, time.Now().Add(time.Hour))
	for _, path := range []string{"/enrollments/e", "/registrations/../enrollments/e", "/registrations/%2E%2E/enrollments/e", "/registrations%2F..%2Fenrollments/e", "//registrations/e", "/registrations/..%2Fenrollments%2Fe"} {
		if a := h.ask(http.MethodGet, path+version, "", token); a.status < 400 || strings.Contains(a.body, "endorsementKey") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	h.ask(http.MethodGet, "/registrations/e"+version, "", token).refused(dps.CodeRegistrationNotFound)
}

func TestEveryOperationNeedsAnAPIVersion(t *testing.T) {
	h := newHouse(t)
	for _, request := range [][2]string{{"GET", "/enrollments/e"}, {"PUT", "/enrollments/e"}, {"DELETE", "/enrollments/e"}, {"GET", "/registrations/e"}, {"DELETE", "/registrations/e"}} {
		for _, query := range []string{"", "?api-version=", "?api-version=2020-01-01", version + "&api-version=2021-10-01"} {
			h.because(h.ask(request[0], request[1]+query, enrollment(""), as(owner)).refused(dps.CodeBadRequest).says("api-version"), "api-version")
		}
		// Who may not ask is not told what is wrong with the question.
		h.ask(request[0], request[1], enrollment(""), "").refused(dps.CodeUnauthorized)
	}
	for _, v := range []string{"2017-08-31-preview", "2017-11-15", "2018-04-01", "2018-09-01-preview", "2019-03-31", "2021-06-01", "2021-10-01", "2025-07-01-preview", "2026-04-01", "2026-11-01", "2026-11-02-preview"} {
		h.ask(http.MethodPut, "/enrollments/v-"+v+"?api-version="+v, enrollment(""), as(owner)).want(200)
	}
}

func TestOtherPathsAndMethodsAreRefusedAndExplained(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/", "/enrollments/a/b", "/enrollments/a/attestationmechanism/b", "/latchkey", "/latchkey/v1", "/latchkey/v2/decisions/x", "/latchkey/v1/decisions", "/latchkey/v1/decisions/x/y"} {
		h.because(h.owner(http.MethodGet, path, "").refused(dps.CodeNotFound).says("This service has"), "not-found")
	}
	for _, request := range [][2]string{{"GET", "/enrollments"}, {"POST", "/enrollments/e"}, {"PATCH", "/enrollments/e"}, {"PUT", "/registrations/e"}, {"POST", "/registrations/e"}, {"DELETE", "/latchkey/v1/decisions/x"}} {
		h.because(h.owner(request[0], request[1], "").refused(dps.CodeMethodNotAllowed), "method")
	}
}

// The operator of the second scope finds the reasons of its own refusals too, also of those that were given before any token was read.
func TestEachScopeExplainsItsOwnRefusals(t *testing.T) {
	h := newHouse(t)
	other := spelled(key(otherScope, owner, "primary"), otherHost, owner, time.Now().Add(time.Hour))
	for path, reason := range map[string]string{"/enrollments/a/b": "not-found", "/enrollments/absent": "enrollment-missing", "/registrations/absent": "registration-missing"} {
		refused := h.ask(http.MethodGet, path+version, "", other, "Host", otherHost).want(404)
		why := h.ask(http.MethodGet, "/latchkey/v1/decisions/"+refused.json("trackingId"), "", other, "Host", otherHost)
		if why.status != 200 || why.json("reason") != reason {
			t.Errorf("%s: %s", path, why.body)
		}
		h.ask(http.MethodGet, "/latchkey/v1/decisions/"+refused.json("trackingId"), "", as(owner)).refused(dps.CodeNotFound)
	}
	method := h.ask(http.MethodPatch, "/enrollments/e"+version, "", other, "Host", otherHost).refused(dps.CodeMethodNotAllowed)
	why := h.ask(http.MethodGet, "/latchkey/v1/decisions/"+method.json("trackingId"), "", other, "Host", otherHost)
	if why.status != 200 || why.json("reason") != "method" {
		t.Errorf("method: %s", why.body)
	}
}

func TestATrackingIDThatIsNotOursIsNotExplained(t *testing.T) {
	h := newHouse(t)
	for _, id := range []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "x", "%00", strings.Repeat("0", 5000), "2cb8f317-10f5-44f4-a5a6-380a998146e9"} {
		h.ask(http.MethodGet, "/latchkey/v1/decisions/"+id, "", as(owner)).refused(dps.CodeNotFound)
	}
}

func TestBodiesOfOperatorsHaveTheSameLimits(t *testing.T) {
	h := newHouse(t)
	large := enrollment(`,"optionalDeviceInformation":{"x":"` + strings.Repeat("x", 96<<10) + `"}`)
	h.because(h.owner(http.MethodPut, "/enrollments/e", large).refused(dps.CodeTooLarge), "too-large")
	h.because(h.owner(http.MethodPut, "/enrollments/e", enrollment(""), "Content-Type", "text/plain").refused(dps.CodeUnsupportedMediaType), "content-type")
	h.owner(http.MethodGet, "/enrollments/e", "").refused(dps.CodeNotEnrolled)
	h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200)
	h.owner(http.MethodGet, "/enrollments/e", "{}", "Content-Type", "text/plain").want(200) // a GET's body does not matter
}

// C# looks these headers up in lower case, in a dictionary that minds it.
func TestTheServicesOwnHeadersAreInLowerCaseOnTheWire(t *testing.T) {
	h := newHouse(t)
	for _, row := range []struct {
		method, body string
		names        []string
	}{
		{"PUT", enrollment(""), []string{"HTTP/1.1 200 OK\r\n", "\r\nx-ms-request-id: "}},
		{"PUT", enrollment(""), []string{"HTTP/1.1 409 Conflict\r\n", "\r\nx-ms-request-id: ", "\r\nx-ms-error-code: 409201\r\n"}},
		{"DELETE", "", []string{"HTTP/1.1 204 No Content\r\n", "\r\nx-ms-request-id: "}},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		must(t, err)
		_, err = fmt.Fprintf(conn, "%s /enrollments/e%s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
			row.method, version, host, as(owner), len(row.body), row.body)
		must(t, err)
		text, err := io.ReadAll(bufio.NewReader(conn))
		must(t, err)
		must(t, conn.Close())
		for _, name := range row.names {
			if strings.Count(string(text), name) != 1 {
				t.Errorf("%q is not there once:\n%s", name, text)
			}
		}
	}
}

func TestTheManagementAPIsFirstSegmentsAreItsOwn(t *testing.T) {
	for _, segment := range []string{"enrollments", "enrollmentGroups", "EnrollmentGroups", "enrollmentgroups", "Registrations", "devices", "twins", "latchkey", "LATCHKEY"} {
		if !adminapi.Serves(segment) || dps.ValidIDScope(segment) {
			t.Errorf("%q: served %t, may name a scope %t", segment, adminapi.Serves(segment), dps.ValidIDScope(segment))
		}
	}
	for _, segment := range []string{scope, "", "enrollment", "latchkeys", "operations"} {
		if adminapi.Serves(segment) {
			t.Errorf("%q is served", segment)
		}
	}
}
