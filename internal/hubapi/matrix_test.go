package hubapi_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// operation is one of the service side. Any of the rights is enough.
type operation struct {
	method, path, body string
	needs              []registration.Right
	status             int // of whoever may, after the operations before
}

var (
	read    = []registration.Right{registration.RegistryRead}
	write   = []registration.Right{registration.RegistryWrite}
	service = []registration.Right{registration.ServiceConnect}
	either  = []registration.Right{registration.RegistryRead, registration.ServiceConnect}
	any3    = []registration.Right{registration.RegistryRead, registration.RegistryWrite, registration.ServiceConnect}
)

var operations = []operation{
	{"GET", "/devices", "", read, 200},
	{"POST", "/devices", `[{"id":"b","importMode":"create"}]`, write, 200},
	{"PUT", "/devices/d", `{"deviceId":"d"}`, write, 200},
	{"GET", "/devices/d", "", read, 200},
	{"POST", "/devices/query", `{"query":"SELECT * FROM devices"}`, either, 200},
	{"GET", "/twins/d", "", either, 200},
	{"PATCH", "/twins/d", `{"tags":{"a":1}}`, service, 200},
	{"PUT", "/twins/d", `{"tags":{"a":2}}`, service, 200},
	{"POST", "/twins/d/methods", `{"methodName":"reboot"}`, service, 404}, // it is not online
	{"POST", "/devices/d/messages/deviceBound", "hello", service, 204},
	{"POST", "/messages/deviceBound", "hello", service, 400}, // it names no device
	{"DELETE", "/devices/d/commands", "", service, 200},
	{"GET", "/statistics/devices", "", read, 200},
	{"GET", "/statistics/service", "", read, 200},
	{"DELETE", "/devices/d", "", write, 204},
	{"GET", "/jobs", "", any3, 501},
	{"PUT", "/configurations/c", "{}", any3, 501},
	{"GET", "/digitaltwins/d", "", any3, 501},
	{"GET", "/devices/d/modules", "", any3, 501},
	{"PUT", "/devices/d/modules/m", "{}", any3, 501},
	{"PATCH", "/twins/d/modules/m", "{}", any3, 501},
	{"POST", "/devices/d/files", "{}", any3, 501},
	{"POST", "/devices/d/messages/events", "{}", any3, 501},
	{"GET", "/messages/serviceBound/feedback", "", any3, 501},
}

// Every operation × every right, and for each the tokens that count for nobody.
func TestEveryOperationIsOnlyForThoseWhoMay(t *testing.T) {
	h := newHouse(t)
	hour := time.Now().Add(time.Hour)
	primary := key(scope, owner, "primary")
	strangers := map[string]struct{ token, host string }{
		"no token":             {"", host},
		"an expired token":     {token(t, primary, host, owner, time.Now().Add(-time.Hour)), host},
		"for another host":     {token(t, primary, otherHost, owner, hour), host},
		"for another path":     {token(t, primary, host+"/somewhere", owner, hour), host},
		"of the wrong scope":   {token(t, key(otherScope, owner, "primary"), host, owner, hour), host},
		"at the wrong scope":   {as(t, owner), otherHost},
		"at no scope":          {as(t, owner), "nowhere.example.net"},
		"with a wrong key":     {token(t, key(scope, owner, "third"), host, owner, hour), host},
		"of an unknown policy": {token(t, primary, host, "nobody", hour), host},
	}
	for _, o := range operations {
		name := o.method + " " + o.path
		for who, s := range strangers {
			if a := h.ask(o.method, o.path+version, o.body, s.token, "Host", s.host); a.status != 401 {
				t.Errorf("%s, %s: %d %s", name, who, a.status, a.body)
			} else {
				a.refused(401, "IotHubUnauthorizedAccess", "Unauthorized.")
			}
		}
		for policy, has := range rights {
			if slices.ContainsFunc(o.needs, func(r registration.Right) bool { return has&r != 0 }) {
				continue
			}
			a := h.ask(o.method, o.path+version, o.body, as(t, policy)).refused(401, "IotHubUnauthorizedAccess", "Unauthorized.")
			h.because(a, "admin-right")
		}
		for policy, has := range rights {
			if len(o.needs) > 1 && policy != owner && slices.Contains(o.needs, has) { // each of them is enough; what it does is the same
				if a := h.ask(o.method, o.path+version, o.body, as(t, policy)); a.status != o.status {
					t.Errorf("%s by %s: %d, want %d: %s", name, policy, a.status, o.status, a.body)
				}
			}
		}
		if a := h.owner(o.method, o.path, o.body); a.status != o.status {
			t.Errorf("%s by the owner: %d, want %d: %s", name, a.status, o.status, a.body)
		}
	}
}

// The rights that let in alone, and the token of a part of the hub.
func TestARightAloneIsEnough(t *testing.T) {
	h := newHouse(t)
	for _, row := range []struct{ policy, method, path, body string }{
		{"registry-write", "PUT", "/devices/a", `{"deviceId":"a"}`}, {"registry-read", "GET", "/devices/a", ""}, {"service", "PATCH", "/twins/a", `{"tags":{}}`},
		{"service", "POST", "/devices/a/messages/deviceBound", "m"},
	} {
		if a := h.ask(row.method, row.path+version, row.body, as(t, row.policy)); a.status >= 300 {
			t.Errorf("%s %s by %s: %d %s", row.method, row.path, row.policy, a.status, a.body)
		}
	}
	part := token(t, key(scope, "registry-read", "secondary"), host+"/devices/a", "registry-read", time.Now().Add(time.Hour))
	h.ask("GET", "/devices/a"+version, "", part).want(200)
	h.ask("GET", "/devices/b"+version, "", part).want(401)
}

// The router serves the operations of the matrix and no others.
func TestTheRouterServesTheMatrixAndNothingElse(t *testing.T) {
	h := newHouse(t)
	served := map[string][]string{}
	for _, o := range operations {
		if o.status != 501 {
			served[o.path] = append(served[o.path], o.method)
		}
	}
	served["/devices/query"] = append(served["/devices/query"], "GET", "PUT", "DELETE") // a device may have that id
	for path := range maps.Keys(served) {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"} {
			a := h.ask(method, path+version, "", "")
			if want := map[bool]int{true: 401, false: 405}[slices.Contains(served[path], method)]; a.status != want {
				t.Errorf("%s %s without a token: %d, want %d", method, path, a.status, want)
			}
		}
	}
	for _, path := range []string{"/devices/a/b", "/devices/a/b/c", "/twins", "/twins/a/b", "/statistics", "/statistics/a/b", "/devices/a/messages/deviceBound/7", "/devices//"} {
		if a := h.ask("GET", path+version, "", as(t, owner)); a.status != 404 && a.status != 501 && a.status != 400 {
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
	}
}

func TestAnAPIVersionIsNeeded(t *testing.T) {
	h := newHouse(t)
	for query, good := range map[string]bool{"?api-version=2021-04-12": true, "?api-version=2018-06-30": true, "?api-version=2020-05-31-preview": true,
		"": false, "?api-version=": false, "?api-version=latest": false, "?api-version=2021-04-12&api-version=2021-04-12": false} {
		a := h.ask("GET", "/devices"+query, "", as(t, owner))
		if good {
			a.want(200)
		} else {
			h.because(a.refused(400, "InvalidProtocolVersion", "api-version"), "api-version")
		}
	}
}

func TestPathsOfADeviceHaveNoCase(t *testing.T) {
	h := newHouse(t)
	h.create("Dev")
	for _, path := range []string{"/devices/Dev/messages/devicebound", "/Devices/Dev/Messages/DeviceBound"} {
		h.owner(http.MethodPost, path, "m").want(204)
	}
	h.owner("GET", "/devices/dev", "").refused(404, "DeviceNotFound", "no device")
	if !strings.Contains(h.owner("GET", "/devices/Dev", "").want(200).body, `"cloudToDeviceMessageCount":2`) {
		t.Error("the messages do not wait")
	}
}
