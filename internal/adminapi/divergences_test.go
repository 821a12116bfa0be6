package adminapi_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
)

// What docs/divergences.md says of tokens of access policies.
func TestTokensAtTheEdgeOfWhatCounts(t *testing.T) {
	h := newHouse(t)
	primary, hour := key(scope, owner, "primary"), time.Now().Add(time.Hour)
	whole := spelled(primary, host, owner, hour)
	nameless, _, _ := strings.Cut(whole, "&skn=")
	for name, c := range map[string]struct {
		token  string
		status int
	}{
		"whole":                      {whole, 200},
		"without skn":                {nameless, 401},
		"expired 4 minutes ago":      {spelled(primary, host, owner, time.Now().Add(-4*time.Minute)), 200},
		"expired 6 minutes ago":      {spelled(primary, host, owner, time.Now().Add(-6*time.Minute)), 401},
		"for the host in upper case": {spelled(primary, strings.ToUpper(host), owner, hour), 200},
		"for the host, encoded path": {spelled(primary, url.QueryEscape(host+"/enrollments"), owner, hour), 200},
		"bearer":                     {"Bearer " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + ".e30.", 401},
		"basic":                      {"Basic " + base64.StdEncoding.EncodeToString([]byte(owner+":"+base64.StdEncoding.EncodeToString(primary))), 401},
	} {
		a := h.ask(http.MethodPost, "/enrollments/query"+version, queryAll, c.token)
		if a.status != c.status {
			t.Errorf("%s: %d, want %d: %s", name, a.status, c.status, a.body)
		} else if c.status == 401 {
			a.refused(dps.CodeUnauthorized)
		}
	}
}

// What docs/divergences.md says of requests that are taken, and of those that are not.
func TestEntriesAtTheEdgeOfWhatIsTaken(t *testing.T) {
	h := newHouse(t)
	sym := `"attestation":{"type":"symmetricKey"}`
	definition := `"customAllocationDefinition":{"webhookUrl":"https://hook.example.net/a","apiVersion":"2021-10-01"}`
	for _, collection := range []string{"/enrollments", "/enrollmentGroups"} {
		path := collection + "/e"
		put := func(members string) answer {
			t.Helper()
			a := h.owner(http.MethodPut, path, "{"+sym+members+"}", "If-Match", "*").want(200)
			shown := h.owner(http.MethodGet, path, "").want(200)
			return answer{a.t, shown.status, shown.header, shown.body}
		}
		id := map[string]string{"/enrollments": "registrationId", "/enrollmentGroups": "enrollmentGroupId"}[collection]
		if a := h.owner(http.MethodPut, path, "{"+sym+"}").want(200); a.json(id) != "e" {
			t.Errorf("an id from the path: %s", a.body)
		}
		h.owner(http.MethodPut, path, "{"+sym+`,"`+id+`":"other"}`, "If-Match", "*").refused(dps.CodeBadRequest)
		if a := put(`,"allocationPolicy":"geoLatency"`); a.json("allocationPolicy") != "geoLatency" {
			t.Error(a.body)
		}
		if a := put(`,"allocationPolicy":"static"`); a.json("allocationPolicy") != "static" || a.json("iotHubs") != "" {
			t.Error(a.body)
		}
		if a := put(`,"allocationPolicy":"hashed",` + definition); a.json("customAllocationDefinition", "apiVersion") != "2021-10-01" {
			t.Error(a.body)
		}
		if a := put(`,"allocationPolicy":"hashed","iotHubHostName":"` + host + `"`); a.json("iotHubHostName") != host {
			t.Error(a.body)
		}
		h.owner(http.MethodPut, path, "{"+sym+`,"iotHubHostName":"foreign.example.net"}`, "If-Match", "*").refused(dps.CodeBadRequest)
		for _, newer := range []string{`"credentialPolicyName":"p"`, `"namespaceName":"n"`, `"deviceTypeRefs":["a"]`, `"clientCertificateIssuancePolicy":{"certificateAuthorityName":"c"}`} {
			name := strings.Split(newer, `"`)[1]
			if a := put("," + newer); a.json(name) != "" {
				t.Errorf("%s is stored: %s", name, a.body)
			}
		}
		h.owner(http.MethodPut, path, "{"+sym+"}", "If-Match", "*", "Content-Type", "").refused(dps.CodeUnsupportedMediaType)
		h.owner(http.MethodPost, collection+"/query", `{"query":"*"}`, "x-ms-max-item-count", "0").want(200)
		h.owner(http.MethodPost, collection+"/query", `{"query":"*"}`, "x-ms-max-item-count", "99999999999999999999").want(200)
		items := collection[1:]
		h.owner(http.MethodPost, collection, `{"mode":"create","`+items+`":[]}`).refused(dps.CodeBadRequest)
		h.owner(http.MethodPost, collection, `{"mode":"create","`+items+`":[{"`+id+`":"twice",`+sym+`},{"`+id+`":"TWICE",`+sym+`}]}`).refused(dps.CodeBadRequest)
		h.owner(http.MethodPost, collection, `{"mode":"create","`+items+`":[`+strings.Repeat(`{"`+id+`":"a",`+sym+`},`, 10)+`{"`+id+`":"b",`+sym+`}]}`).refused(dps.CodeBadRequest)
		h.owner(http.MethodGet, collection+"/twice", "").want(404)
	}
	if a := h.owner(http.MethodPost, "/registrations/unknown/query", "").want(200); a.body != "[]" {
		t.Errorf("registrations of an unknown group: %s", a.body)
	}
}
