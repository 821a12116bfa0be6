package adminapi_test

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
)

const hubs, azureHub = "/latchkey/v1/hubs", "fleet-a.hubs.example.net"

// hub asks about linked hubs with ServiceConfig alone.
func (h *house) hub(method, path, body string, header ...string) answer {
	h.t.Helper()
	return h.ask(method, hubs+path, body, as("service-config"), header...)
}

func TestAHubIsLinkedChangedDrainedAndUnlinked(t *testing.T) {
	h := newHouse(t)
	const canary = "HostName=x;SharedAccessKeyName=p;SharedAccessKey=Y2FuYXJ5LWNhbmFyeS1jYW5hcnk="
	made := h.hub("PUT", "/"+azureHub, `{"kind":"azure","weight":5,"region":"north","settings":{"a":1},"secret":{"connectionString":"`+canary+`"}}`).want(200)
	for member, want := range map[string]string{"name": azureHub, "kind": "azure", "own": "false", "weight": "5", "allocate": "true", "draining": "false",
		"region": "north", "settings": `{"a":1}`, "secretSet": "true", "devices": "0"} {
		if got := made.json(member); got != want {
			t.Errorf("%s is %s, want %s: %s", member, got, want, made.body)
		}
	}
	h.because(h.hub("PUT", "/"+azureHub, `{"kind":"azure"}`).refused(dps.CodeConflict), "hub-linked")
	h.because(h.hub("PUT", "/"+azureHub, `{"kind":"azure"}`, "If-None-Match", "*").refused(dps.CodeConflict), "hub-linked")
	h.hub("PUT", "/"+azureHub, `{"kind":"azure"}`, "If-Match", "AAAA").refused(dps.CodePreconditionFailed)
	h.because(h.hub("PUT", "/"+azureHub, `{"kind":"broker"}`, "If-Match", "*").refused(dps.CodeBadRequest).says("another kind"), "bad-hub")

	changed := h.hub("PATCH", "/"+strings.ToUpper(azureHub), `{"draining":true}`, "If-Match", `"`+made.json("etag")+`"`).want(200)
	if changed.json("draining") != "true" || changed.json("weight") != "5" || changed.json("secretSet") != "true" || changed.json("etag") == made.json("etag") {
		t.Errorf("drained: %s", changed.body)
	}
	h.hub("PATCH", "/"+azureHub, `{"draining":false}`, "If-Match", made.json("etag")).refused(dps.CodePreconditionFailed)
	replaced := h.hub("PUT", "/"+azureHub, `{"allocate":false}`, "If-Match", changed.json("etag")).want(200)
	if replaced.json("draining") != "false" || replaced.json("weight") != "1" || replaced.json("allocate") != "false" || replaced.json("secretSet") != "true" || strings.Contains(replaced.body, `"settings"`) {
		t.Errorf("replaced: %s", replaced.body)
	}
	list := h.hub("GET", "", "").want(200)
	if strings.Count(list.body, `"kind"`) != 2 || !strings.Contains(list.body, `"name":"`+host+`","kind":"embedded","own":true`) {
		t.Errorf("listed: %s", list.body)
	}
	// What was read may be sent back.
	shown := h.hub("GET", "/"+azureHub, "").want(200)
	h.hub("PUT", "/"+azureHub, shown.body, "If-Match", shown.json("etag")).want(200)

	h.hub("DELETE", "/"+azureHub, "", "If-Match", made.json("etag")).refused(dps.CodePreconditionFailed)
	h.hub("DELETE", "/"+azureHub, "").want(204)
	h.because(h.hub("GET", "/"+azureHub, "").refused(dps.CodeNotFound), "hub-missing")
	h.because(h.hub("DELETE", "/"+azureHub, "").refused(dps.CodeNotFound), "hub-missing")
	h.because(h.hub("PATCH", "/"+azureHub, `{"weight":2}`).refused(dps.CodeNotFound), "hub-missing")

	audit := h.owner("GET", "/latchkey/v1/audit", "").want(200).body
	for _, secret := range []string{"Y2FuYXJ5", "connectionString"} {
		if strings.Contains(audit+made.body+list.body+shown.body, secret) {
			t.Errorf("an answer or the audit holds %s", secret)
		}
	}
	for _, action := range []string{"linked-hub.link", "linked-hub.change", "linked-hub.unlink"} {
		if !strings.Contains(audit, `"`+action+`"`) {
			t.Errorf("the audit has no %s: %s", action, audit)
		}
	}
	if !strings.Contains(audit, `\"secretChanged\":true`) && !strings.Contains(audit, `"secretChanged":true`) {
		t.Errorf("the audit does not tell that a secret came: %s", audit)
	}
}

func TestTheScopesOwnHubIsAlwaysLinked(t *testing.T) {
	h := newHouse(t)
	own := h.hub("GET", "/"+host, "").want(200)
	if own.json("own") != "true" || own.json("allocate") != "true" || own.json("weight") != "1" {
		t.Errorf("at first: %s", own.body)
	}
	h.because(h.hub("PUT", "/"+host, `{"kind":"embedded"}`).refused(dps.CodeConflict), "hub-linked")
	h.because(h.hub("DELETE", "/"+host, "").refused(dps.CodeBadRequest).says("always linked"), "bad-hub")
	changed := h.hub("PATCH", "/"+host, `{"weight":7,"allocate":false}`, "If-Match", own.json("etag")).want(200)
	if changed.json("weight") != "7" || changed.json("allocate") != "false" {
		t.Errorf("changed: %s", changed.body)
	}
	h.hub("PATCH", "/"+host, `{"weight":8}`, "If-Match", own.json("etag")).refused(dps.CodePreconditionFailed)
	h.because(h.hub("PUT", "/"+alias, `{"kind":"azure"}`).refused(dps.CodeBadRequest).says("management API"), "bad-hub")
}

func TestBadHubsAreRefusedClearlyAndChangeNothing(t *testing.T) {
	h := newHouse(t)
	before := h.hub("GET", "", "").want(200).body
	for _, row := range []struct{ name, body, says string }{
		{"h.example.net", `{}`, "kind"},
		{"h.example.net", `{"kind":"Azure"}`, "kind"},
		{"h.example.net", `{"kind":null}`, "kind"},
		{"h.example.net", `{"kind":"azure","weight":0}`, "1 to 1000"},
		{"h.example.net", `{"kind":"azure","weight":1001}`, "1 to 1000"},
		{"h.example.net", `{"kind":"azure","weight":1.5}`, "1 to 1000"},
		{"h.example.net", `{"kind":"azure","weight":"3"}`, "1 to 1000"},
		{"h.example.net", `{"kind":"azure","weight":99999999999999999999}`, "1 to 1000"},
		{"h.example.net", `{"kind":"azure","allocate":1}`, "true or false"},
		{"h.example.net", `{"kind":"azure","region":"` + strings.Repeat("x", 65) + `"}`, "region"},
		{"h.example.net", `{"kind":"azure","region":"a\u0000b"}`, "region"},
		{"h.example.net", `{"kind":"azure","settings":[]}`, "settings"},
		{"h.example.net", `{"kind":"azure","secret":"HostName=canary"}`, "secret"},
		{"h.example.net", `{"kind":"azure","secret":{"k":"` + strings.Repeat("x", 9<<10) + `"}}`, "secret"},
		{"h.example.net", `{"kind":"azure","Weight":3}`, "members"},
		{"h.example.net", `{"kind":"azure","kind":"broker"}`, "twice"},
		{"h.example.net", `[]`, "object"},
		{"h.example.net:8883", `{"kind":"azure"}`, "without a port"},
		{"-h.example.net", `{"kind":"azure"}`, "host name"},
		{"h..example.net", `{"kind":"azure"}`, "host name"},
		{"h%00.example.net", `{"kind":"azure"}`, "host name"},
		{"h%2Fexample.net", `{"kind":"azure"}`, "host name"},
		{strings.Repeat("a", 64) + ".example", `{"kind":"azure"}`, "host name"},
	} {
		a := h.hub("PUT", "/"+row.name, row.body)
		if a.status != 400 || !strings.Contains(a.json("message"), row.says) || strings.Contains(a.body, "canary") {
			t.Errorf("PUT %s %s: %d %s", row.name, row.body, a.status, a.body)
		}
	}
	for _, query := range []string{"?check=maybe", "?force=true", "?check=true&check=true"} {
		h.hub("PUT", "/h.example.net"+query, `{"kind":"azure"}`).refused(dps.CodeBadRequest)
	}
	h.hub("PUT", "/h.example.net", `{"kind":"azure"}`, "If-None-Match", "AAAA").refused(dps.CodeBadRequest)
	h.hub("PUT", "/h.example.net", `{"kind":"azure"}`, "If-Match", "*").refused(dps.CodePreconditionFailed)
	if after := h.hub("GET", "", "").want(200).body; after != before {
		t.Errorf("something was changed: %s", after)
	}
}

// The names of a scope's hubs and hosts are no other's.
func TestNoTwoScopesShareAHub(t *testing.T) {
	h := newHouse(t)
	h.hub("PUT", "/"+azureHub, `{"kind":"azure"}`).want(200)
	theirs := func(name string) answer {
		t.Helper()
		return h.ask("PUT", hubs+"/"+name, `{"kind":"azure"}`, as2(owner), "Host", otherHost)
	}
	for _, name := range []string{azureHub, strings.ToUpper(azureHub), host, alias} {
		theirs(name).refused(dps.CodeConflict).says("another scope")
	}
	if a := h.ask("GET", hubs, "", as2(owner), "Host", otherHost).want(200); strings.Count(a.body, `"name"`) != 1 {
		t.Errorf("the other scope has %s", a.body)
	}
	h.ask("GET", hubs+"/"+azureHub, "", as2(owner), "Host", otherHost).want(404)
	h.ask("DELETE", hubs+"/"+azureHub+"?force=true", "", as2(owner), "Host", otherHost).want(404)
}

func TestAHubThatIsUsedIsUnlinkedByForceOnly(t *testing.T) {
	h := newHouse(t)
	h.hub("PUT", "/"+azureHub, `{"kind":"azure"}`).want(200)
	h.owner(http.MethodPut, "/enrollmentGroups/line-4", `{"attestation":{"type":"symmetricKey"},"allocationPolicy":"static","iotHubs":["`+azureHub+`"]}`).want(200)
	h.because(h.hub("DELETE", "/"+azureHub, "").refused(dps.CodeConflict).says("line-4"), "hub-in-use")
	h.owner(http.MethodPut, "/enrollments/e", `{"attestation":{"type":"symmetricKey"},"allocationPolicy":"static","iotHubs":["gone.example.net"]}`).refused(dps.CodeBadRequest).says("not linked")
	h.owner(http.MethodDelete, "/enrollmentGroups/line-4", "").want(204)
	for i := range 7 {
		h.owner(http.MethodPut, "/enrollments/valve-"+strconv.Itoa(i), `{"attestation":{"type":"symmetricKey"},"allocationPolicy":"hashed","iotHubs":["`+host+`","`+strings.ToUpper(azureHub)+`"]}`).want(200)
	}
	h.because(h.hub("DELETE", "/"+azureHub, "").refused(dps.CodeConflict).says("Enrollments name the hub: valve-0, valve-1, valve-2, valve-3, valve-4."), "hub-in-use")
	h.hub("DELETE", "/"+azureHub+"?force=true", "").want(204)
}

func TestHowHubsAreChosenIsSetAndShown(t *testing.T) {
	h := newHouse(t)
	path := "/latchkey/v1/allocation"
	ask := func(method, below, body string, header ...string) answer {
		t.Helper()
		return h.ask(method, path+below, body, as("service-config"), header...)
	}
	at := ask("GET", "", "").want(200)
	if at.json("defaultPolicy") != "hashed" || at.json("regions") != "[]" || at.json("webhookKeySet") != "false" || at.json("warnings") != "[]" {
		t.Errorf("at first: %s", at.body)
	}
	table := `[{"name":"north","networks":["192.0.2.0/24","2001:db8::/32"],"latency":{"` + host + `":3,"absent.example.net":40}}]`
	set := ask("PATCH", "", `{"defaultPolicy":"geoLatency","regions":`+table+`}`, "If-Match", at.json("etag")).want(200)
	if set.json("defaultPolicy") != "geoLatency" || !strings.Contains(set.json("regions"), `"2001:db8::/32"`) || !strings.Contains(set.json("warnings"), "absent.example.net") {
		t.Errorf("set: %s", set.body)
	}
	ask("PATCH", "", `{"defaultPolicy":"static"}`, "If-Match", at.json("etag")).refused(dps.CodePreconditionFailed)
	if again := ask("PATCH", "", `{"defaultPolicy":"static"}`).want(200); again.json("defaultPolicy") != "static" || again.json("regions") == "[]" {
		t.Errorf("changed in part: %s", again.body)
	}

	key := ask("POST", "/webhookKey", "").want(200)
	text, ok := strings.CutPrefix(key.json("webhookKey"), "whsec_")
	if raw, err := base64.StdEncoding.DecodeString(text); !ok || err != nil || len(raw) != 32 || key.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the key is %q (%v)", key.body, err)
	}
	if another := ask("POST", "/webhookKey", "").want(200); another.json("webhookKey") == key.json("webhookKey") {
		t.Error("a fresh key is the old one")
	}
	if shown := ask("GET", "", "").want(200); shown.json("webhookKeySet") != "true" || shown.json("defaultPolicy") != "static" || strings.Contains(shown.body, text) {
		t.Errorf("with a key: %s", shown.body)
	}
	if audit := h.owner("GET", "/latchkey/v1/audit", "").want(200).body; strings.Contains(audit, text) || strings.Count(audit, "webhook-key.put") != 2 || !strings.Contains(audit, "allocation.put") {
		t.Errorf("the audit: %s", audit)
	}
	ask("DELETE", "/webhookKey", "").want(204)
	ask("DELETE", "/webhookKey", "").refused(dps.CodeNotFound)
}

func TestBadAllocationSettingsAreRefused(t *testing.T) {
	h := newHouse(t)
	region := func(more string) string { return `{"regions":[{"name":"n","networks":["192.0.2.0/24"]` + more + `}]}` }
	for body, says := range map[string]string{
		`{"defaultPolicy":"custom"}`:                                            "defaultPolicy",
		`{"defaultPolicy":7}`:                                                   "string",
		`{"regions":{}}`:                                                        "array",
		`{"regions":[7]}`:                                                       "objects",
		`{"regions":[{"name":"n"}]}`:                                            "networks",
		`{"regions":[{"networks":["192.0.2.0/24"]}]}`:                           "name",
		`{"regions":[{"name":"n","networks":["192.0.2.1/24"]}]}`:                "bits",
		`{"regions":[{"name":"n","networks":["::ffff:192.0.2.0/120"]}]}`:        "networks",
		`{"regions":[{"name":"n","networks":["192.0.2.0"]}]}`:                   "networks",
		`{"regions":[{"name":"n","networks":["192.0.2.0/24","192.0.2.0/24"]}]}`: "twice",
		`{"regions":[{"name":"n","networks":["192.0.2.0/24"]},{"name":"N","networks":["192.0.3.0/24"]}]}`: "twice",
		region(`,"latency":{"H.example":1}`):   "lower case",
		region(`,"latency":{"h.example":-1}`):  "0 to 60000",
		region(`,"latency":{"h.example":1e3}`): "0 to 60000",
		region(`,"latency":[]`):                "object",
		region(`,"more":1`):                    "name, networks and latency",
		`{"webhookKey":"whsec_canary"}`:        "members",
	} {
		a := h.ask("PATCH", "/latchkey/v1/allocation", body, as("service-config"))
		if a.status != 400 || !strings.Contains(a.json("message"), says) || strings.Contains(a.body, "canary") {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if a := h.ask("GET", "/latchkey/v1/allocation", "", as("service-config")).want(200); a.json("regions") != "[]" || a.json("defaultPolicy") != "hashed" {
		t.Errorf("something was changed: %s", a.body)
	}
}

// as2 is a token of the other scope.
func as2(policy string) string {
	return spelled(key(otherScope, policy, "primary"), otherHost, policy, time.Now().Add(time.Hour))
}
