package httpapi_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/web"
	"latchkey.example/latchkey/test/softtpm"
)

var guid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// headers checks all headers of an answer but Date: exactly those named, in the spelling of Go's canonical form.
func headers(t *testing.T, a answer, want map[string]string) {
	t.Helper()
	want["Content-Length"] = fmt.Sprint(len(a.body))
	want["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
	got := a.header.Clone()
	got.Del("Date")
	for name, value := range want {
		if value == "GUID" {
			if !guid.MatchString(got.Get(name)) {
				t.Errorf("%s: %q is not a GUID", name, got.Get(name))
			}
		} else if got.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, got.Get(name), value)
		}
		got.Del(name)
	}
	if len(got) > 0 {
		t.Errorf("further headers: %v", got)
	}
}

// timed checks that a time of the body is UTC in the protocol's form and of now.
func timed(t *testing.T, text string) {
	t.Helper()
	at, err := time.Parse("2006-01-02T15:04:05.9999999Z", text)
	if age := time.Since(at); err != nil || age < -time.Second || age > time.Minute {
		t.Errorf("time %q: %v", text, err)
	}
}

func TestEveryAnswerOfARegistrationIsAsTheClientsExpectIt(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("Line4-Press", c, `,"deviceId":"Press"`)

	challenge := h.ask(http.MethodPut, registerPath("line4-press"), contactBody("line4-press", c)).want(401)
	headers(t, challenge, map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Ms-Request-Id": "GUID"})
	timed(t, challenge.json("timestampUtc"))
	if want := fmt.Sprintf(`{"message":"Authorization required, resend request using supplied key","authenticationKey":"%s","keyName":"registration","trackingId":"%s","errorCode":401002,"timestampUtc":"%s"}`,
		challenge.json("authenticationKey"), challenge.header.Get("x-ms-request-id"), challenge.json("timestampUtc")); challenge.body != want {
		t.Errorf("challenge\n%s\nwant\n%s", challenge.body, want)
	}
	key, err := c.Open(challenge.blob("authenticationKey"))
	must(t, err)
	token := sas(t, key, "line4-press")

	accepted := h.ask(http.MethodPut, registerPath("line4-press"), contactBody("line4-press", c), "Authorization", token).want(202)
	headers(t, accepted, map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Ms-Request-Id": "GUID", "Retry-After": "2"})
	operation := accepted.json("operationId")
	if !regexp.MustCompile(`^[0-9]\.[0-9a-f]{16}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(operation) {
		t.Errorf("operation id %q", operation)
	}
	if want := `{"operationId":"` + operation + `","status":"assigning","registrationState":{"registrationId":"Line4-Press","status":"assigning"}}`; accepted.body != want {
		t.Errorf("accepted\n%s\nwant\n%s", accepted.body, want)
	}

	assigned := h.ask(http.MethodGet, pollPath("line4-press", operation), "", "Authorization", token).want(200)
	headers(t, assigned, map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Ms-Request-Id": "GUID"})
	state := func(name string) string { return assigned.json("registrationState", name) }
	timed(t, state("createdDateTimeUtc"))
	timed(t, state("lastUpdatedDateTimeUtc"))
	if want := fmt.Sprintf(`{"operationId":"%s","status":"assigned","registrationState":{"registrationId":"Line4-Press","createdDateTimeUtc":"%s","assignedHub":"one.example.net","deviceId":"Press","status":"assigned","substatus":"initialAssignment","lastUpdatedDateTimeUtc":"%s","etag":"%s","tpm":{"authenticationKey":"%s"}}}`,
		operation, state("createdDateTimeUtc"), state("lastUpdatedDateTimeUtc"), state("etag"), assigned.json("registrationState", "tpm", "authenticationKey")); assigned.body != want {
		t.Errorf("assigned\n%s\nwant\n%s", assigned.body, want)
	}
	hubKey, err := c.Open(assigned.blob("registrationState", "tpm", "authenticationKey"))
	must(t, err)
	if !bytes.Equal(hubKey, h.hub.device(scope, host, "Press").Credential.Primary) {
		t.Error("the device's hub key is not the hub's")
	}
}

func TestWhileTheHubIsDownTheDeviceIsToldToAskAgain(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("waiting", c, "")
	h.hub.fail(errors.New("hub down"))
	token := sas(t, h.contact("waiting", c), "waiting")
	operation := h.ask(http.MethodPut, registerPath("waiting"), contactBody("waiting", c), "Authorization", token).want(202).json("operationId")
	for range 2 {
		polled := h.ask(http.MethodGet, pollPath("waiting", operation), "", "Authorization", token).want(202)
		headers(t, polled, map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Ms-Request-Id": "GUID", "Retry-After": "2"})
		for path, want := range map[string]string{"status": "assigning", "operationId": operation} {
			if got := polled.json(path); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
		}
		if polled.json("registrationState", "status") != "assigning" || polled.json("registrationState", "registrationId") != "waiting" ||
			polled.json("registrationState", "tpm") != "" || polled.json("registrationState", "assignedHub") != "" {
			t.Errorf("state while assigning: %s", polled.body)
		}
	}
	h.hub.fail(nil)
	assigned := h.ask(http.MethodGet, pollPath("waiting", operation), "", "Authorization", token).want(200)
	if assigned.json("status") != "assigned" {
		t.Errorf("after the hub came back: %s", assigned.body)
	}
}

func TestARepeatedProofGetsTheSameAnswer(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("again", c, "")
	token := sas(t, h.contact("again", c), "again")
	first := h.ask(http.MethodPut, registerPath("again"), contactBody("again", c), "Authorization", token).want(202)
	before := h.snapshot()
	second := h.ask(http.MethodPut, registerPath("again"), contactBody("again", c), "Authorization", token).want(202)
	if first.body != second.body || first.header.Get("x-ms-request-id") != second.header.Get("x-ms-request-id") {
		t.Errorf("the repeat differs:\n%s\n%s", first.body, second.body)
	}
	unchanged(t, before, h.snapshot())
}

func TestALookupShowsTheStateAndNeverAKey(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("looked-up", c, "")
	challenge := h.ask(http.MethodPost, lookupPath("looked-up"), contactBody("looked-up", c)).want(401)
	key, err := c.Open(challenge.blob("authenticationKey"))
	must(t, err)
	never := h.ask(http.MethodPost, lookupPath("looked-up"), contactBody("looked-up", c), "Authorization", sas(t, key, "looked-up")).want(200)
	if want := `{"registrationId":"looked-up","status":"unassigned"}`; never.body != want {
		t.Errorf("before: %s, want %s", never.body, want)
	}
	headers(t, never, map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Ms-Request-Id": "GUID"})

	h.prove("looked-up", c)
	token := sas(t, h.contact("looked-up", c), "looked-up")
	found := h.ask(http.MethodPost, lookupPath("looked-up"), contactBody("looked-up", c), "Authorization", token).want(200)
	if want := fmt.Sprintf(`{"registrationId":"looked-up","createdDateTimeUtc":"%s","assignedHub":"one.example.net","deviceId":"looked-up","status":"assigned","substatus":"initialAssignment","lastUpdatedDateTimeUtc":"%s","etag":"%s"}`,
		found.json("createdDateTimeUtc"), found.json("lastUpdatedDateTimeUtc"), found.json("etag")); found.body != want {
		t.Errorf("after\n%s\nwant\n%s", found.body, want)
	}
	// A lookup does not use the challenge up: it is no redemption.
	h.ask(http.MethodPut, registerPath("looked-up"), contactBody("looked-up", c), "Authorization", token).want(202)
}

// unchanged compares two snapshots table by table.
func unchanged(t *testing.T, before, after map[string]string) {
	t.Helper()
	for table := range before {
		if before[table] != after[table] {
			t.Errorf("table %s changed:\n%s\nbefore:\n%s", table, after[table], before[table])
		}
	}
}
