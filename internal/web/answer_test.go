package web_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// requestID is the header as it stands on the wire: .NET looks it up in lower case.
const requestID = "x-ms-request-id"

// heldLog is a log whose writer waits, so that a test sees what is sent before anything is written down.
type heldLog struct {
	slog.Handler
	hold func()
}

func (heldLog) Enabled(context.Context, slog.Level) bool { return true }

func (l heldLog) Handle(context.Context, slog.Record) error { l.hold(); return nil }

func TestTheAnswerIsOutBeforeAnythingIsWrittenDown(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	read := make(chan struct{}, 1)
	log := slog.New(heldLog{slog.DiscardHandler, func() {
		select {
		case <-read:
		case <-time.After(10 * time.Second):
			t.Error("the answer waits for the log")
		}
	}})
	h.server = web.NewServer("test", h.core, log, web.NewMetrics(prometheus.NewRegistry()), h.shared)
	for _, route := range []web.Route{route(false), h.server.NotFound(scope, "")} {
		c := dial(t, h.listen(route))
		c.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		c.hear()
		read <- struct{}{}
	}
}

func TestEveryRefusalHasOneLineOneCountAndOneDecision(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	inside := errors.New("inside: table devices is locked")
	failing := func(err error) web.Route {
		r := route(false)
		r.Handle = func(context.Context, web.Call) (web.Reply, error) { return web.Reply{}, err }
		return r
	}
	for _, row := range []struct {
		reason string
		code   int
		route  web.Route
	}{
		{"not-found", 404000, h.server.NotFound(scope, "")},
		{"method", 405000, h.server.MethodNotAllowed(scope)},
		{"disabled", 403001, failing(h.core.Fault(scope, dps.CodeDisabled, registration.ReasonDisabled, "", nil))},
		{"store-down", 503001, failing(h.core.Fault(scope, dps.CodeUnavailable, registration.ReasonStoreDown, "", inside))},
		{"internal", 500001, failing(inside)},
	} {
		w := h.serve(t.Context(), row.route)
		answer := refusal(t, w.Body.Bytes())
		if answer.ErrorCode != row.code || w.Code != row.code/1000 {
			t.Errorf("%s: status %d, %+v", row.reason, w.Code, answer)
		}
		if strings.Contains(w.Body.String(), "inside") {
			t.Errorf("%s: the inside error went out: %s", row.reason, w.Body)
		}
		lines := h.log.requests(row.reason)
		if n := h.counted(row.reason); n != 1 || len(lines) != 1 {
			t.Fatalf("%s: %v counted, %d lines; want one of each", row.reason, n, len(lines))
		}
		if lines[0]["trackingId"] != answer.TrackingID || lines[0]["status"] != float64(w.Code) || lines[0]["scope"] != scope || lines[0]["from"] != "192.0.2.1" {
			t.Errorf("%s: line %v", row.reason, lines[0])
		}
		x := h.why(answer.TrackingID)
		if x.Reason.String() != row.reason || x.Recent == nil || x.Recent.Count != 1 || x.Recent.Address != "192.0.2.1" {
			t.Errorf("%s: why %+v", row.reason, x)
		}
	}
	if lines := h.log.requests("store-down"); lines[0]["err"] != inside.Error() {
		t.Errorf("the log does not have the cause: %v", lines[0])
	}
}

func TestAGoodAnswerIsLoggedAndCountedAndIsNoDecision(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	if w := h.serve(t.Context(), route(false)); w.Code != 200 || w.Header().Get("Content-Length") != "2" {
		t.Errorf("status %d, %v", w.Code, w.Header())
	}
	if n, lines := h.counted("polled"), h.log.requests("polled"); n != 1 || len(lines) != 1 {
		t.Errorf("%v counted, %d lines", n, len(lines))
	}
}

func TestHostileNamesAreCutInTheLog(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	long := route(false)
	long.Scope, long.ID = strings.Repeat("s", 5000), strings.Repeat("i", 5000)
	h.serve(t.Context(), long)
	line := h.log.requests("polled")[0]
	for _, name := range []string{"scope", "id"} {
		if text := line[name].(string); len(text) > 200 {
			t.Errorf("%s has %d bytes in the log", name, len(text))
		}
	}
}

func TestAnAnswerWithoutContentHasNoLength(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	empty := route(false)
	empty.Handle = func(context.Context, web.Call) (web.Reply, error) {
		return web.Reply{Status: http.StatusNoContent, Reason: registration.ReasonManaged, TrackingID: "t"}, nil
	}
	w := h.serve(t.Context(), empty)
	if w.Code != 204 || w.Body.Len() != 0 || len(w.Header()["Content-Length"])+len(w.Header()["Content-Type"]) != 0 || len(map[string][]string(w.Header())[requestID]) != 1 {
		t.Errorf("status %d, headers %v, body %q", w.Code, w.Header(), w.Body)
	}
}

func TestRetryAfterIsWholeSecondsRoundedUp(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	for advice, want := range map[time.Duration]string{0: "", 1: "1", time.Second: "1", 1500 * time.Millisecond: "2", 2 * time.Second: "2"} {
		r := route(false)
		r.Handle = func(context.Context, web.Call) (web.Reply, error) {
			return web.Reply{Status: 202, RetryAfter: advice}, nil
		}
		if got := h.serve(t.Context(), r).Header().Get("Retry-After"); got != want {
			t.Errorf("%s: %q, want %q", advice, got, want)
		}
	}
}

func TestSegmentsAreDecodedOnceAndKeepTheirSlashes(t *testing.T) {
	deep := strings.Repeat("/a", 9)
	for raw, want := range map[string][]string{
		"/":                        nil,
		"":                         nil,
		"/a":                       {"a"},
		"/a/":                      {"a"},
		"/a//":                     {"a", ""},
		"//a":                      {"", "a"},
		"/a//b":                    {"a", "", "b"},
		"/a%2Fb/c":                 {"a/b", "c"},
		"/a%2fb":                   {"a/b"},
		"/a%252Fb":                 {"a%2Fb"},
		"/%41%3A%3a":               {"A::"},
		"/a+b":                     {"a+b"},
		"/a/../b/./c":              {"a", "..", "b", ".", "c"},
		"/%2E%2E/b":                {"..", "b"},
		"/a%00b":                   {"a\x00b"},
		"/a;b=c":                   {"a;b=c"},
		"/%C3%A4":                  {"ä"},
		"/a/%2F":                   {"a", "/"},
		deep:                       strings.Split(deep[1:], "/"),
		deep + "/a":                nil,
		strings.Repeat("/", 1<<15): nil,
	} {
		u, err := url.ParseRequestURI("http://h" + raw)
		must(t, err)
		got, ok := web.Segments(u)
		if !ok || strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Errorf("%.40q: %q, %t; want %q", raw, got, ok, want)
		}
	}
}

// net/http refuses broken escapes before any handler; Segments does so on its own too.
func TestSegmentsRefusesBrokenEscapes(t *testing.T) {
	for _, raw := range []string{"/a%", "/a%2", "/a%zz", "/%"} {
		if _, err := url.ParseRequestURI(raw); err == nil {
			t.Errorf("%q was parsed", raw)
		}
		// A URL that was made by hand: RawPath does not fit Path, so it does not count.
		if got, ok := web.Segments(&url.URL{Path: raw, RawPath: raw}); !ok || got[0] != raw[1:] {
			t.Errorf("%q: %q, %t", raw, got, ok)
		}
	}
}

func TestOneKnownAPIVersionIsNeeded(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	for query, good := range map[string]bool{
		"api-version=2021-10-01": true, "api-version=2019-03-31&forceRegistration=true": true, "x=1&api-version=2021-06-01": true, "api%2Dversion=2021-06-01": true,
		"": false, "api-version": false, "api-version=": false, "api-version=2021-10-02": false, "Api-Version=2021-10-01": false,
		"api-version=2021-10-01&api-version=2021-10-01": false, "api-version=2021-10-01%20": false, "api-version=%zz": false,
	} {
		err := h.server.APIVersion(scope, &http.Request{URL: &url.URL{RawQuery: query}})
		var fault *registration.Fault
		if good != (err == nil) || !good && (!errors.As(err, &fault) || fault.Code != dps.CodeBadRequest || fault.Reason != registration.ReasonAPIVersion) {
			t.Errorf("%q: %v", query, err)
		}
	}
}
