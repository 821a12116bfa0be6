package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/web"
	"latchkey.example/latchkey/test/softtpm"
)

// outside is all that a stranger sees of an answer, without what differs between any two.
func outside(a answer) string {
	text := a.body
	for _, own := range []string{a.json("trackingId"), a.json("timestampUtc")} {
		text = strings.ReplaceAll(text, own, "…")
	}
	var names []string
	for name, values := range a.header {
		if name != "Date" && name != "X-Ms-Request-Id" {
			names = append(names, name+": "+strings.Join(values, ","))
		}
	}
	return text + "\n" + strings.Join(sorted(names), "\n")
}

func TestAStrangerCannotTellWhatIsEnrolled(t *testing.T) {
	s := newStage(t)
	ask := func(scope, id string, c *softtpm.TPM, header ...string) answer {
		return s.ask(http.MethodPut, "/"+scope+"/registrations/"+id+"/register"+version, contactBody(id, c), header...)
	}
	var contacts, proofs []string
	for _, who := range []struct{ scope, id string }{{"0lkNone", "enrolled"}, {otherScope, "enrolled"}, {scope, "absent00"}, {scope, "enrolled"}} {
		contacts = append(contacts, outside(ask(who.scope, who.id, s.stranger).want(404)))
		token := sasFor(t, make([]byte, 32), who.scope+"/registrations/"+who.id, time.Now().Add(time.Hour))
		proofs = append(proofs, outside(ask(who.scope, who.id, s.stranger, "Authorization", token).want(401)))
		poll := s.ask(http.MethodGet, "/"+who.scope+"/registrations/"+who.id+"/operations/"+s.operation+version, "", "Authorization", token)
		proofs = append(proofs, outside(poll.want(401)))
	}
	same(t, "first contacts", contacts)
	same(t, "proofs and polls", proofs)
}

// same demands that all texts are the first one.
func same(t *testing.T, what string, texts []string) {
	t.Helper()
	for _, text := range texts[1:] {
		if text != texts[0] {
			t.Errorf("%s can be told apart:\n%s\n%s", what, texts[0], text)
		}
	}
}

func TestADisabledDeviceIsChallengedAndThenRefusedForGood(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("disabled", c, `,"provisioningStatus":"disabled"`)
	token := sas(t, h.contact("disabled", c), "disabled")
	before := h.snapshot()
	refused := h.ask(http.MethodPut, registerPath("disabled"), contactBody("disabled", c), "Authorization", token).want(403)
	if refused.json("errorCode") != "403001" || strings.Contains(refused.body, "authenticationKey") {
		t.Errorf("answer %s", refused.body)
	}
	// The refusal is in the audit, the challenge is spent, and nothing else happened.
	after := h.snapshot()
	if before["audit"] == after["audit"] || before["generations"] == after["generations"] {
		t.Error("the refusal left no audit row, or the challenge open")
	}
	for _, table := range []string{"audit", "generations"} {
		delete(before, table)
	}
	unchanged(t, before, after)
	if after["registrations"]+after["operations"] != "" || h.hub.device(scope, host, "disabled").Credential.Primary != nil {
		t.Error("the refused device has a registration, an operation or a place at the hub")
	}
	why := h.why(host, refused.json("trackingId"))
	if why.json("reason") != "disabled" || !strings.Contains(why.body, `"action":"device.register","object":"disabled","outcome":"refused","reason":"disabled"`) {
		t.Errorf("why: %s", why.body)
	}
	// The same token again finds no open challenge.
	again := h.ask(http.MethodPut, registerPath("disabled"), contactBody("disabled", c), "Authorization", token).want(401)
	if why := h.why(host, again.json("trackingId")); why.json("reason") != "token-signature" {
		t.Errorf("the spent token: %s", why.body)
	}
}

func TestADeviceDisabledMeanwhileGetsNoKeyByPolling(t *testing.T) {
	s := newStage(t)
	etag := s.manage(host, http.MethodGet, "/enrollments/registered", "").want(200).json("etag")
	body := `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + b64(s.registered.EK.Bytes()) + `"}},"provisioningStatus":"disabled"}`
	s.manage(host, http.MethodPut, "/enrollments/registered", body, "If-Match", etag).want(200)
	refused := s.ask(http.MethodGet, pollPath("registered", s.operation), "", "Authorization", s.token).want(403)
	if refused.json("errorCode") != "403001" || strings.Contains(refused.body, "authenticationKey") {
		t.Errorf("answer %s", refused.body)
	}
	if why := s.why(host, refused.json("trackingId")); why.json("reason") != "disabled" {
		t.Errorf("why: %s", why.body)
	}
}

func TestAPinnedOwnerKeepsOthersOut(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	body := `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + b64(c.EK.Bytes()) + `","storageRootKey":"` + b64(c.SRK.Bytes()) + `"}}}`
	h.manage(host, http.MethodPut, "/enrollments/pinned", body).want(200)
	h.prove("pinned", c)
	before := h.snapshot()
	c.Clear()
	token := sas(t, h.contact("pinned", c), "pinned")
	refused := h.ask(http.MethodPut, registerPath("pinned"), contactBody("pinned", c), "Authorization", token).want(403)
	if refused.json("errorCode") != "403002" {
		t.Errorf("answer %s", refused.body)
	}
	if why := h.why(host, refused.json("trackingId")); why.json("reason") != "pinned-srk" || !strings.Contains(why.body, `"outcome":"refused"`) {
		t.Errorf("why: %s", why.body)
	}
	after := h.snapshot()
	for _, table := range []string{"audit", "generations"} {
		delete(before, table)
	}
	unchanged(t, before, after)
}

func TestWhyTellsWhoAskedAndHowOften(t *testing.T) {
	s := newStage(t)
	var last answer
	for range 3 {
		last = s.ask(http.MethodPut, registerPath("enrolled"), contactBody("enrolled", s.stranger)).want(404)
	}
	why := s.why(host, last.json("trackingId"))
	for member, want := range map[string]string{"registrationId": "enrolled", "scope": scope, "address": "127.0.0.1", "count": "3"} {
		if got := why.json("request", member); got != want {
			t.Errorf("request.%s: %q, want %q", member, got, want)
		}
	}
	timed(t, why.json("time"))
	timed(t, why.json("request", "first"))
}
