package hubapi_test

import (
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// A further embedded hub has its service side under its own name: applications reach the devices there, and those alone. A token is for the name that it says.
func TestAFurtherHubHasItsServiceSideUnderItsOwnName(t *testing.T) {
	h := newHouse(t)
	const line = "line.one.example.net"
	h.create("press")
	inLine := func(method, path, body, resource string) answer {
		return h.ask(method, path+version, body, token(t, key(scope, owner, "primary"), resource, owner, tomorrow()), "Host", line)
	}
	inLine("GET", "/devices", "", line).want(401)
	_, verdict, err := h.store.PutHub(t.Context(), scope, registration.LinkedHub{Name: line, Kind: registration.HubEmbedded, Weight: 1, Allocate: true}, nil,
		registration.Audit{At: time.Now(), Action: registration.ActionHubLink, Object: line, Outcome: registration.OutcomeOK})
	if err != nil || verdict != registration.Applied {
		t.Fatal(verdict, err)
	}
	inLine("GET", "/devices", "", line).want(200).is("[]")
	inLine("PUT", "/devices/valve", `{"deviceId":"valve"}`, line).want(200)
	inLine("PATCH", "/twins/valve", `{"tags":{"line":4}}`, line).want(200)
	inLine("GET", "/devices/press", "", line).want(404)
	inLine("GET", "/devices/valve", "", host).want(401)
	h.owner("GET", "/devices/valve", "").want(404)
	h.owner("GET", "/devices/press", "").want(200)
	h.ask("GET", "/devices"+version, "", token(t, key(otherScope, owner, "primary"), line, owner, tomorrow()), "Host", line).want(401)
}
