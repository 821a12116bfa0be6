package adminapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/registration"
)

// audit asks for a page of the log; pairs of query parameters follow.
func (h *house) audit(pairs ...string) answer {
	h.t.Helper()
	query := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		query.Add(pairs[i], pairs[i+1])
	}
	return h.ask(http.MethodGet, "/latchkey/v1/audit?"+query.Encode(), "", as(owner))
}

func (a answer) log() adminapi.AuditLog {
	a.t.Helper()
	var log adminapi.AuditLog
	unmarshal(a.t, a.want(200).body, &log)
	if log.Next == "" || log.Entries == nil {
		a.t.Errorf("a page without a place to follow from, or without entries: %s", a.body)
	}
	return log
}

func deeds(log adminapi.AuditLog) string {
	var all []string
	for _, e := range log.Entries {
		all = append(all, e.Action+" "+e.Object)
	}
	return strings.Join(all, ", ")
}

func TestTheAuditLogIsRead(t *testing.T) {
	h := newHouse(t)
	put := h.owner(http.MethodPut, "/enrollments/Pump", enrollment("")).want(200)
	h.register("Pump")
	h.owner(http.MethodDelete, "/registrations/pump", "").want(204)
	page := h.audit()
	log := page.log()
	if got, want := deeds(log), "scope.create "+scope+", enrollment.put pump, device.register pump, device.assign pump, registration.delete pump"; got != want {
		t.Errorf("the log tells %s, want %s", got, want)
	}
	if strings.Contains(page.body, `"continuation"`) || strings.Contains(page.body, otherScope) {
		t.Errorf("the last page: %s", page.body)
	}
	e := log.Entries[1]
	if at, err := time.Parse(time.RFC3339Nano, e.Time); err != nil || time.Since(at) > time.Minute {
		t.Errorf("time %q: %v", e.Time, err)
	}
	if e.Actor != "policy:"+owner || e.Address != "127.0.0.1" || e.Outcome != "ok" || e.Reason != "changed" || e.TrackingID != put.header.Get("x-ms-request-id") {
		t.Errorf("the row of the PUT: %+v", e)
	}
	var detail struct{ Before, After map[string]any }
	unmarshal(t, string(e.Detail), &detail)
	if detail.Before != nil || detail.After["provisioningStatus"] != "enabled" {
		t.Errorf("its detail: %s", e.Detail)
	}
	for i, e := range log.Entries {
		if i > 0 && e.Seq <= log.Entries[i-1].Seq {
			t.Errorf("place %d comes after %d", e.Seq, log.Entries[i-1].Seq)
		}
	}
}

func TestTheAuditLogIsPagedFilteredAndFollowed(t *testing.T) {
	h := newHouse(t)
	h.create("a", "b", "c")
	var met []string
	continuation, pages := "", 0
	for more := true; more; more = continuation != "" {
		log := h.audit("action", "enrollment.put", "size", "2", "continuation", continuation).log()
		if log.Continuation != "" && log.Continuation != log.Next {
			t.Errorf("continuation %q, next %q", log.Continuation, log.Next)
		}
		met, continuation, pages = append(met, deeds(log)), log.Continuation, pages+1
	}
	if got, want := fmt.Sprint(met), "[enrollment.put a, enrollment.put b enrollment.put c]"; got != want {
		t.Errorf("pages %s, want %s", got, want)
	}
	for filter, want := range map[string]string{
		"object=B":                          "enrollment.put b",
		"object=b&api-version=any":          "enrollment.put b",
		"object=b&action=enrollment.delete": "",
		"since=" + url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339)):                                        "",
		"action=enrollment.put&since=" + url.QueryEscape(time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)):           "enrollment.put a, enrollment.put b, enrollment.put c",
		"object=c&since=" + url.QueryEscape(time.Now().Add(-time.Hour).In(time.FixedZone("", 7200)).Format(time.RFC3339)): "enrollment.put c",
	} {
		if got := deeds(h.ask(http.MethodGet, "/latchkey/v1/audit?"+filter, "", as(owner)).log()); got != want {
			t.Errorf("%s: %s, want %s", filter, got, want)
		}
	}
	next := h.audit().log().Next
	if got := deeds(h.audit("continuation", next).log()); got != "" {
		t.Errorf("nothing was written, and the log goes on with %s", got)
	}
	h.create("d")
	if got := deeds(h.audit("continuation", next).log()); got != "enrollment.put d" {
		t.Errorf("followed: %s", got)
	}
}

func TestABadQuestionToTheAuditLogIsRefused(t *testing.T) {
	h := newHouse(t)
	next := h.audit().log().Next
	for query, says := range map[string]string{
		"objekt=a":                      "object, action, since, size, continuation",
		"object=a&object=b":             "once each",
		"Object=a":                      "once each",
		"object=%zz":                    "well formed",
		"object=a;action=b":             "well formed",
		"action=enrollment":             "enrollment.put",
		"action=%00":                    "enrollment.put",
		"since=yesterday":               "2026-03-01T12:00:00Z",
		"since=1h":                      "2026-03-01T12:00:00Z",
		"size=-1":                       "whole number",
		"size=ten":                      "whole number",
		"continuation=x":                "Begin again",
		"continuation=" + next + "A":    "Begin again",
		"object=a&continuation=" + next: "Begin again",
	} {
		h.because(h.ask(http.MethodGet, "/latchkey/v1/audit?"+query, "", as(owner)).refused(dps.CodeBadRequest).says(says), "bad-request")
	}
	h.audit("size", "99999999999999999999").want(200)
	foreign := spelled(key(otherScope, owner, "primary"), otherHost, owner, time.Now().Add(time.Hour))
	h.ask(http.MethodGet, "/latchkey/v1/audit?continuation="+next, "", foreign, "Host", otherHost).refused(dps.CodeBadRequest)
	if got := deeds(h.ask(http.MethodGet, "/latchkey/v1/audit", "", foreign, "Host", otherHost).log()); got != "scope.create "+otherScope {
		t.Errorf("the other scope reads %s", got)
	}
}

// A row whose detail is not JSON, which no release writes, is shown as the text that it is.
func TestARowWithoutJSONDoesNotHideTheOthers(t *testing.T) {
	h := newHouse(t)
	must(t, h.store.AppendAudit(t.Context(), scope, registration.Audit{At: time.Now(), Actor: registration.ActorService, Action: registration.ActionAssign, Object: "odd", Detail: `{"x":"\x7f"}`}))
	log := h.audit("object", "odd").log()
	if len(log.Entries) != 1 || string(log.Entries[0].Detail) != `"{\"x\":\"\\x7f\"}"` {
		t.Errorf("%+v", log)
	}
}

func TestTheDescriptionNeedsNoToken(t *testing.T) {
	h := newHouse(t)
	for _, at := range []string{host, otherHost, "nobody.example.net"} {
		for _, token := range []string{"", "SharedAccessSignature sr=x", as(owner)} {
			a := h.ask(http.MethodGet, "/latchkey/v1/openapi.json", "", token, "Host", at).want(200)
			if !json.Valid([]byte(a.body)) || !strings.HasPrefix(a.json("openapi"), "3.1.") || a.header.Get("Content-Type") != "application/json; charset=utf-8" || a.header.Get("x-ms-request-id") == "" {
				t.Errorf("headers %v, %.80s", a.header, a.body)
			}
		}
	}
	h.ask(http.MethodPost, "/latchkey/v1/openapi.json", "", "").refused(dps.CodeMethodNotAllowed)
	for _, path := range []string{"/latchkey/v1/openapi.json/x", "/latchkey/v1/openapi", "/latchkey/v1/audit/x"} {
		h.ask(http.MethodGet, path, "", "").refused(dps.CodeNotFound)
	}
	h.ask(http.MethodGet, "/latchkey/v1/audit", "", "").refused(dps.CodeUnauthorized)
}
