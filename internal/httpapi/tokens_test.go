package httpapi_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/web"
	"latchkey.example/latchkey/test/softtpm"
)

func sorted(s []string) []string { slices.Sort(s); return s }

// The table in section 3.3 of the wire facts, client by client: how sr is spelled, the order of fields, skn, the token's life, and whether
// the second PUT carries the keys.
func TestEveryClientsTokenIsTaken(t *testing.T) {
	encoded := func(id string) string {
		return strings.NewReplacer("/", "%2F", ":", "%3A").Replace(scope + "/registrations/" + id)
	}
	clients := []struct {
		name, format string
		sr           func(id string) string
		life         time.Duration
		keys         bool
		poll         string // "": with the very same token
	}{
		{"Node", "SharedAccessSignature sr={sr}&sig={sig}&se={se}&skn=registration", encoded, time.Hour, true, ""},
		{"C", "SharedAccessSignature sr={sr}&sig={SIG}&se={se}&skn=registration", func(id string) string { return lowerEscapes(encoded(id)) }, 40 * time.Minute, true, ""},
		{"C#", "SharedAccessSignature sr={sr}&sig={sig}&se={se}&skn=registration", encoded, 24 * time.Hour, true, ""},
		{"Java over HTTP", "SharedAccessSignature sr={sr}&sig={sig}&se={se}&skn=", func(id string) string { return scope + "/registrations/" + id }, time.Hour, true, ""},
		{"Java over AMQP", "SharedAccessSignature sr={sr}&sig={sig}&se={se}&skn=", func(id string) string { return scope + "/registrations/" + id }, time.Hour, false, ""},
		{"Rust", "SharedAccessSignature sr={sr}&sig={sig}&se={se}&skn=registration", func(id string) string {
			return strings.NewReplacer("/", "%2F").Replace(strings.ToLower(scope + "/registrations/" + id))
		}, 30 * time.Second, false, ""},
		{"Node's order for the service API", "SharedAccessSignature sr={sr}&sig={sig}&skn=registration&se={se}", encoded, time.Hour, true, ""},
		{"no skn, se first, unknown field", "SharedAccessSignature se={se}&x=y&sr={sr}&sig={sig}", encoded, time.Hour, false, ""},
		{"scheme in lower case", "sharedaccesssignature sr={sr}&sig={sig}&se={se}", encoded, 47 * time.Hour, true, ""},
		{"expired within the leeway", "SharedAccessSignature sr={sr}&sig={sig}&se={se}", encoded, -4 * time.Minute, true, ""},
	}
	h := newHouse(t, web.DefaultLimits)
	for i, client := range clients {
		t.Run(client.name, func(t *testing.T) {
			h.t = t
			id, c := "Client:"+strings.Repeat("i", i+1), softtpm.New(softtpm.ECC, i)
			h.enroll(id, c, "")
			token := spelled(h.contact(id, c), client.sr(id), time.Now().Add(client.life), client.format)
			body := contactBody(id, c)
			if !client.keys {
				body = `{"registrationId":"` + id + `"}`
			}
			accepted := h.ask(http.MethodPut, registerPath(id), body, "Authorization", token).want(202)
			assigned := h.ask(http.MethodGet, pollPath(id, accepted.json("operationId")), "", "Authorization", token).want(200)
			key, err := c.Open(assigned.blob("registrationState", "tpm", "authenticationKey"))
			must(t, err)
			if !bytes.Equal(key, h.hub.device(scope, host, id).Credential.Primary) {
				t.Error("the device's hub key is not the hub's")
			}
		})
	}
}

func TestASecondPutWithoutAnyBodyIsEnough(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("bare", c, "")
	h.ask(http.MethodPut, registerPath("bare"), "", "Authorization", sas(t, h.contact("bare", c), "bare")).want(202)
}

func TestAPollTakesTheRedeemedTokenOrAnotherUnderTheSameKey(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("polled", c, "")
	key := h.contact("polled", c)
	// A token that is past its expiry, within the leeway: the poll goes on taking exactly this one.
	redeemed := sasFor(t, key, scope+"/registrations/polled", time.Now().Add(-4*time.Minute))
	operation := h.ask(http.MethodPut, registerPath("polled"), contactBody("polled", c), "Authorization", redeemed).want(202).json("operationId")
	for _, token := range []string{redeemed, sas(t, key, "polled"), sas(t, key, "POLLED")} {
		h.ask(http.MethodGet, pollPath("polled", operation), "", "Authorization", token).want(200)
	}
	for _, life := range []time.Duration{-time.Hour, 49 * time.Hour} {
		token := sasFor(t, key, scope+"/registrations/polled", time.Now().Add(life))
		h.ask(http.MethodGet, pollPath("polled", operation), "", "Authorization", token).want(401)
	}
}

func TestACapturedTokenIsWorthNothingAfterUse(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("replayed", c, "")
	key := h.contact("replayed", c)
	token := sas(t, key, "replayed")
	first := h.ask(http.MethodPut, registerPath("replayed"), contactBody("replayed", c), "Authorization", token).want(202)
	before := h.snapshot()
	replay := h.ask(http.MethodPut, registerPath("replayed"), contactBody("replayed", c), "Authorization", token).want(202)
	if replay.json("operationId") != first.json("operationId") {
		t.Error("a replay made a new operation")
	}
	fresh := h.ask(http.MethodPut, registerPath("replayed"), contactBody("replayed", c), "Authorization", sasFor(t, key, scope+"/registrations/replayed", time.Now().Add(2*time.Hour)))
	fresh.want(401)
	unchanged(t, before, h.snapshot())
	// Once the device has registered again, the captured token opens nothing at all.
	h.prove("replayed", c)
	h.ask(http.MethodPut, registerPath("replayed"), contactBody("replayed", c), "Authorization", token).want(401)
	h.ask(http.MethodPost, lookupPath("replayed"), contactBody("replayed", c), "Authorization", token).want(401)
}

func TestANewOwnerGetsANewHubKeyAndTheSameOwnerTheOldOne(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("owned", c, "")
	_, first := h.prove("owned", c)
	_, again := h.prove("owned", c)
	c.Clear()
	_, next := h.prove("owned", c)
	switch {
	case !bytes.Equal(first, again):
		t.Error("the same owner was given another hub key")
	case bytes.Equal(first, next):
		t.Error("the new owner was given the old owner's hub key")
	case !bytes.Equal(next, h.hub.device(scope, host, "owned").Credential.Primary):
		t.Error("the hub still has the old key")
	}
}
