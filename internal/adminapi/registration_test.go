package adminapi_test

import (
	"fmt"
	"net/http"
	"testing"

	"latchkey.example/latchkey/dps"
)

func TestTheStateOfARegistrationIsShownWithoutItsKey(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/Device-1", enrollment(`,"deviceId":"Press"`)).want(200)
	h.because(h.owner(http.MethodGet, "/registrations/device-1", "").refused(dps.CodeRegistrationNotFound), "registration-missing")
	h.register("Device-1")
	state := h.owner(http.MethodGet, "/registrations/device-1", "").want(200)
	want := fmt.Sprintf(`{"registrationId":"Device-1","createdDateTimeUtc":"%s","assignedHub":"one.example.net","deviceId":"Press","status":"assigned","substatus":"initialAssignment","lastUpdatedDateTimeUtc":"%s","etag":"%s"}`,
		state.json("createdDateTimeUtc"), state.json("lastUpdatedDateTimeUtc"), state.json("etag"))
	if state.body != want {
		t.Errorf("state\n%s\nwant\n%s", state.body, want)
	}
	if inside := h.owner(http.MethodGet, "/enrollments/device-1", "").want(200).json("registrationState", "etag"); inside != state.json("etag") {
		t.Errorf("the enrollment shows a state with etag %q, want %q", inside, state.json("etag"))
	}
}

func TestARegistrationIsDeletedUnderItsEtagOrNone(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200)
	remove := func(ifMatch ...string) answer { return h.owner(http.MethodDelete, "/registrations/E", "", ifMatch...) }
	etag := func() string { return h.owner(http.MethodGet, "/registrations/e", "").want(200).json("etag") }
	for _, header := range [][]string{nil, {"If-Match", "*"}, {"If-Match", "AAAA"}} {
		h.because(remove(header...).refused(dps.CodeRegistrationNotFound), "registration-missing")
	}
	h.register("e")
	stale := etag()
	gone := remove().want(204)
	if gone.body != "" || gone.header.Get("Content-Type") != "" {
		t.Errorf("DELETE: %q, %v", gone.body, gone.header)
	}
	h.register("e")
	for _, wrong := range append(spellings(stale)[:5], "AAAA", `""`) {
		h.because(remove("If-Match", wrong).refused(dps.CodePreconditionFailed), "etag")
	}
	for i := range spellings("") {
		remove("If-Match", spellings(etag())[i]).want(204)
		h.register("e")
	}
	// The enrollment is as it was; deleting it takes the registration with it.
	h.owner(http.MethodDelete, "/enrollments/e", "").want(204)
	h.owner(http.MethodGet, "/registrations/e", "").refused(dps.CodeRegistrationNotFound)
}

func TestAChangeAndItsAuditRowCarryOneTrackingID(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/Audited", enrollment("")).want(200)
	h.register("audited")
	etag := h.owner(http.MethodGet, "/enrollments/audited", "").want(200).json("etag")
	for _, change := range []struct{ method, path, ifMatch, action, reason string }{
		{"PUT", "/enrollments/Audited", etag, "enrollment.put", "changed"},
		{"DELETE", "/registrations/AUDITED", "", "registration.delete", "deleted"},
		{"DELETE", "/enrollments/audited", "", "enrollment.delete", "deleted"},
	} {
		done := h.owner(change.method, change.path, enrollment(""), "If-Match", change.ifMatch)
		if done.status/100 != 2 {
			t.Fatalf("%s %s: %s", change.method, change.path, done.body)
		}
		why := h.because(done, "managed")
		var rows []map[string]any
		unmarshal(t, why.json("audit"), &rows)
		if len(rows) != 1 {
			t.Fatalf("%s: %d audit rows: %s", change.action, len(rows), why.body)
		}
		for member, want := range map[string]string{"actor": "policy:" + owner, "address": "127.0.0.1", "action": change.action, "object": "audited", "outcome": "ok", "reason": change.reason} {
			if rows[0][member] != want {
				t.Errorf("%s: %s is %v, want %s", change.action, member, rows[0][member], want)
			}
		}
	}
}

func TestARefusedChangeLeavesNoAuditRow(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200)
	for _, refused := range []answer{
		h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(409),
		h.owner(http.MethodPut, "/enrollments/e", enrollment(""), "If-Match", "AAAA").want(412),
		h.owner(http.MethodDelete, "/registrations/e", "").want(404),
	} {
		if rows := h.because(refused, map[int]string{409: "enrollment-exists", 412: "etag", 404: "registration-missing"}[refused.status]).json("audit"); rows != "[]" {
			t.Errorf("status %d left %s", refused.status, rows)
		}
	}
}
