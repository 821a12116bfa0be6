package adminapi_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
)

const policies = "/latchkey/v1/accessPolicies"

// keyOf decodes a key of an answer.
func (a answer) keyOf(slot string) []byte {
	a.t.Helper()
	key, err := base64.StdEncoding.Strict().DecodeString(a.json(slot))
	if err != nil || len(key) != 32 {
		a.t.Fatalf("%s is %q: %v", slot, a.json(slot), err)
	}
	return key
}

// signed is a fresh SAS token under a key.
func signed(key []byte, policy string) string {
	return spelled(key, host, policy, time.Now().Add(time.Hour))
}

// config asks about access policies with ServiceConfig alone.
func (h *house) config(method, path, body string, header ...string) answer {
	h.t.Helper()
	return h.ask(method, policies+path, body, as("service-config"), header...)
}

func TestAccessPoliciesNeedServiceConfig(t *testing.T) {
	h := newHouse(t)
	for _, operation := range [][3]string{
		{"GET", "", ""}, {"GET", "/" + owner, ""}, {"PUT", "/line", `{"rights":["EnrollmentRead"]}`},
		{"POST", "/line/regenerate", `{"key":"primary"}`}, {"DELETE", "/line", ""},
	} {
		for policy := range rights {
			if policy == "service-config" || policy == owner {
				continue
			}
			refused := h.ask(operation[0], policies+operation[1], operation[2], as(policy)).refused(dps.CodeUnauthorized)
			h.because(refused, "admin-right")
			if strings.Contains(refused.body, "Key") || strings.Contains(refused.body, owner) {
				t.Errorf("%s %s as %s: %s", operation[0], operation[1], policy, refused.body)
			}
		}
		h.because(h.ask(operation[0], policies+operation[1], operation[2], "").refused(dps.CodeUnauthorized), "admin-token")
		expired := spelled(key(scope, owner, "primary"), host, owner, time.Now().Add(-6*time.Minute))
		h.because(h.ask(operation[0], policies+operation[1], operation[2], expired).refused(dps.CodeUnauthorized), "admin-token")
		h.ask(operation[0], policies+operation[1], operation[2], as(owner), "Host", otherHost).refused(dps.CodeUnauthorized)
		h.because(h.ask(operation[0], policies+operation[1], operation[2], spelled(key(scope, owner, "primary"), host+"/enrollments", owner, time.Now().Add(time.Hour))).refused(dps.CodeUnauthorized), "admin-token")
		if a := h.config(operation[0], operation[1], operation[2]); a.status >= 300 {
			t.Errorf("%s %s with ServiceConfig: %s", operation[0], operation[1], a.body)
		}
	}
}

func TestAnAccessPolicyIsMadeUsedChangedAndRemoved(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200)
	made := h.config("PUT", "/line-4", `{"rights":["EnrollmentRead"]}`).want(200)
	primary, secondary := made.keyOf("primaryKey"), made.keyOf("secondaryKey")
	want := `{"name":"line-4","rights":["EnrollmentRead"],"primaryKey":"` + b64(primary) + `","secondaryKey":"` + b64(secondary) + `"}`
	if made.body != want || made.header.Get("Cache-Control") != "no-store" {
		t.Errorf("PUT\n%s\nwant\n%s, headers %v", made.body, want, made.header)
	}
	if got := h.config("GET", "/line-4", "").want(200); got.body != want || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("GET\n%s\nwant\n%s, headers %v", got.body, want, got.header)
	}
	for _, key := range [][]byte{primary, secondary} {
		h.ask("GET", "/enrollments/e"+version, "", signed(key, "line-4")).want(200)
		h.because(h.ask("PUT", "/enrollments/f"+version, enrollment(""), signed(key, "line-4")).refused(dps.CodeUnauthorized), "admin-right")
		h.because(h.ask("GET", "/registrations/e"+version, "", signed(key, "line-4")).refused(dps.CodeUnauthorized), "admin-right")
		h.because(h.ask("GET", policies, "", signed(key, "line-4")).refused(dps.CodeUnauthorized), "admin-right")
	}
	changed := h.config("PUT", "/line-4", `{"rights":["RegistrationStatusRead","EnrollmentWrite"]}`).want(200)
	if changed.json("rights") != `["EnrollmentWrite","RegistrationStatusRead"]` || changed.json("primaryKey") != b64(primary) || changed.json("secondaryKey") != b64(secondary) {
		t.Errorf("changed: %s", changed.body)
	}
	h.because(h.ask("GET", "/enrollments/e"+version, "", signed(primary, "line-4")).refused(dps.CodeUnauthorized), "admin-right")
	h.ask("PUT", "/enrollments/f"+version, enrollment(""), signed(primary, "line-4")).want(200)

	if gone := h.config("DELETE", "/line-4", "").want(204); gone.body != "" {
		t.Errorf("DELETE: %q", gone.body)
	}
	h.because(h.ask("PUT", "/enrollments/g"+version, enrollment(""), signed(primary, "line-4")).refused(dps.CodeUnauthorized), "admin-token")
	h.because(h.config("GET", "/line-4", "").refused(dps.CodeNotFound), "access-policy-missing")
	h.because(h.config("DELETE", "/line-4", "").refused(dps.CodeNotFound), "access-policy-missing")
}

func TestTheListOfAccessPoliciesHoldsNoKeys(t *testing.T) {
	h := newHouse(t)
	made := h.config("PUT", "/a", `{"rights":["EnrollmentRead","ServiceConfig"]}`).want(200)
	list := h.config("GET", "", "").want(200)
	want := `{"accessPolicies":[{"name":"a","rights":["ServiceConfig","EnrollmentRead"]},{"name":"enrollment-read","rights":["EnrollmentRead"]},` +
		`{"name":"enrollment-write","rights":["EnrollmentWrite"]},{"name":"provisioningserviceowner","rights":["ServiceConfig","EnrollmentRead","EnrollmentWrite","RegistrationStatusRead","RegistrationStatusWrite","RegistryRead","RegistryWrite","ServiceConnect"]},` +
		`{"name":"reader","rights":["EnrollmentRead","RegistrationStatusRead"]},{"name":"service-config","rights":["ServiceConfig"]},{"name":"status-read","rights":["RegistrationStatusRead"]},{"name":"status-write","rights":["RegistrationStatusWrite"]}]}`
	if list.body != want {
		t.Errorf("listed\n%s\nwant\n%s", list.body, want)
	}
	for _, secret := range []string{made.json("primaryKey"), b64(key(scope, owner, "primary"))} {
		if strings.Contains(list.body, secret) {
			t.Error("the list holds a key")
		}
	}
}

func TestARegeneratedKeyIsRefusedFromTheAnswerOn(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200)
	ask := func(key []byte) answer { return h.ask("GET", "/enrollments/e"+version, "", signed(key, owner)) }
	oldPrimary, oldSecondary := key(scope, owner, "primary"), key(scope, owner, "secondary")
	first := h.config("POST", "/"+owner+"/regenerate", `{"key":"primary"}`).want(200)
	h.explained(ask(oldPrimary).refused(dps.CodeUnauthorized), "admin-token")
	ask(first.keyOf("primaryKey")).want(200)
	ask(oldSecondary).want(200)
	if first.json("secondaryKey") != b64(oldSecondary) || first.header.Get("Cache-Control") != "no-store" {
		t.Errorf("regenerating the primary key: secondary %s, headers %v", first.json("secondaryKey"), first.header)
	}
	second := h.config("POST", "/"+owner+"/regenerate", `{"key":"secondary"}`).want(200)
	h.explained(ask(oldSecondary).refused(dps.CodeUnauthorized), "admin-token")
	ask(second.keyOf("secondaryKey")).want(200)
	ask(first.keyOf("primaryKey")).want(200)
	h.explained(h.config("POST", "/nobody/regenerate", `{"key":"primary"}`).refused(dps.CodeNotFound), "access-policy-missing")
}

// explained asks why by the one policy that may and is not the owner, whose keys the test has changed.
func (h *house) explained(a answer, reason string) {
	h.t.Helper()
	why := h.ask(http.MethodGet, "/latchkey/v1/decisions/"+a.header.Get("x-ms-request-id"), "", as("status-read")).want(200)
	if why.json("reason") != reason {
		h.t.Errorf("reason %q, want %q", why.json("reason"), reason)
	}
}

func TestNobodyIsLockedOutOfAScope(t *testing.T) {
	h := newHouse(t)
	h.config("DELETE", "/service-config", "").want(204)
	for _, a := range []answer{
		h.ask("DELETE", policies+"/"+owner, "", as(owner)),
		h.ask("PUT", policies+"/"+owner, `{"rights":["EnrollmentRead"]}`, as(owner)),
	} {
		h.because(a.refused(dps.CodeConflict).says("Give it to another one first"), "last-access-policy")
	}
	h.ask("GET", policies, "", as(owner)).want(200)
}

func TestAPutOfAnAccessPolicySaysWhatItWantsToFind(t *testing.T) {
	h := newHouse(t)
	const body = `{"rights":["EnrollmentRead"]}`
	h.because(h.config("PUT", "/line", body, "If-Match", "*").refused(dps.CodeNotFound), "access-policy-missing")
	made := h.config("PUT", "/line", body, "If-None-Match", "*").want(200)
	h.because(h.config("PUT", "/line", `{"rights":["EnrollmentWrite"]}`, "If-None-Match", "*").refused(dps.CodePreconditionFailed).says("exists already"), "access-policy-exists")
	if got := h.config("PUT", "/line", body, "If-Match", "*").want(200); got.body != made.body {
		t.Errorf("%s, want %s", got.body, made.body)
	}
	for _, header := range [][]string{{"If-Match", `"1"`}, {"If-None-Match", `"1"`}, {"If-Match", "*", "If-None-Match", "*"}, {"If-Match", ""}} {
		h.because(h.config("PUT", "/line", body, header...).refused(dps.CodeBadRequest).says("has no etag"), "bad-request")
	}
}

func TestBadMessagesAboutAccessPoliciesChangeNothing(t *testing.T) {
	h := newHouse(t)
	before := h.config("GET", "", "").want(200).body
	for body, says := range map[string]string{
		"": "not valid JSON", "[]": "must be a JSON object", "{}": "at least one", `{"rights":[]}`: "at least one", `{"rights":["enrollmentRead"]}`: "the permissions are ServiceConfig, EnrollmentRead",
		`{"rights":["All"]}`: "the permissions are", `{"rights":["EnrollmentRead","EnrollmentRead"]}`: "twice", `{"rights":31}`: "must be an array",
		`{"rights":["EnrollmentRead"],"primaryKey":"AAAA"}`: "only", `{"rights":["EnrollmentRead"],"rights":["ServiceConfig"]}`: "twice",
		"{\"rights\":[\"\xff\"]}": "UTF-8", `{"rights":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}": "deeper",
	} {
		h.because(h.config("PUT", "/line", body).refused(dps.CodeBadRequest).says(says), "bad-request")
		h.config("PUT", "/"+owner, body).refused(dps.CodeBadRequest)
	}
	for _, body := range []string{"", "{}", `{"key":"both"}`, `{"key":"primary","force":true}`} {
		h.because(h.config("POST", "/"+owner+"/regenerate", body).refused(dps.CodeBadRequest), "bad-request")
	}
	for _, name := range []string{"a%20b", "a%2Fb", "%2E", "%2E%2E", "a;b", "%00", "%C3%A4", "a'b", strings.Repeat("a", 129)} {
		h.because(h.config("PUT", "/"+name, `{"rights":["EnrollmentRead"]}`).refused(dps.CodeBadRequest).says("The name of an access policy"), "bad-request")
		h.config("GET", "/"+name, "").refused(dps.CodeBadRequest)
		h.config("DELETE", "/"+name, "").refused(dps.CodeBadRequest)
		h.config("POST", "/"+name+"/regenerate", `{"key":"primary"}`).refused(dps.CodeBadRequest)
	}
	h.because(h.config("PUT", "/line", `{"rights":["EnrollmentRead"]}`, "Content-Type", "text/plain").refused(dps.CodeUnsupportedMediaType), "content-type")
	h.because(h.config("PUT", "/line", `{"rights":["`+strings.Repeat("x", 97<<10)+`"]}`).refused(dps.CodeTooLarge), "too-large")
	for _, request := range [][2]string{{"POST", ""}, {"PUT", ""}, {"POST", "/line"}, {"GET", "/line/regenerate"}, {"PATCH", "/line"}} {
		h.config(request[0], request[1], "{}").refused(dps.CodeMethodNotAllowed)
	}
	if now := h.config("GET", "", "").want(200).body; now != before {
		t.Errorf("now %s, was %s", now, before)
	}
	h.owner("GET", "/registrations/e", "").refused(dps.CodeRegistrationNotFound) // the owner's keys are as they were
}

func TestAccessPoliciesOfAnotherScopeAreOutOfReach(t *testing.T) {
	h := newHouse(t)
	other := func(method, path, body string) answer {
		token := spelled(key(otherScope, owner, "primary"), otherHost, owner, time.Now().Add(time.Hour))
		return h.ask(method, policies+path, body, token, "Host", otherHost)
	}
	h.config("PUT", "/line", `{"rights":["EnrollmentRead"]}`).want(200)
	other("GET", "/line", "").refused(dps.CodeNotFound)
	other("DELETE", "/line", "").refused(dps.CodeNotFound)
	other("POST", "/"+owner+"/regenerate", `{"key":"primary"}`).want(200)
	h.ask("GET", policies+"/line", "", as(owner)).want(200)
}

func TestTheAuditTellsWhoChangedAnAccessPolicy(t *testing.T) {
	h := newHouse(t)
	made := h.config("PUT", "/line", `{"rights":["EnrollmentRead"]}`).want(200)
	why := h.because(made, "managed")
	if !strings.Contains(why.body, `"actor":"policy:service-config"`) || !strings.Contains(why.body, `"action":"access-policy.put"`) || !strings.Contains(why.body, `"detail":{"before":null,"after":{"rights":["EnrollmentRead"],"newKeys":["primary","secondary"]}}`) {
		t.Errorf("audit: %s", why.body)
	}
	shown := h.because(h.config("GET", "/line", "").want(200), "managed")
	if !strings.Contains(shown.body, `"action":"access-policy.reveal"`) {
		t.Errorf("audit: %s", shown.body)
	}
	for _, text := range []string{why.body, shown.body} {
		if strings.Contains(text, made.json("primaryKey")) || strings.Contains(text, made.json("secondaryKey")) {
			t.Errorf("the audit holds a key: %s", text)
		}
	}
}
