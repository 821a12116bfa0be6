package adminapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

const eventsPath = "/latchkey/v1/hub/events"

// events is a hub that shows what the test says, and asks of its caller what the real one may.
type events struct {
	show  chan registration.HubEvent
	asked chan string
	err   error
}

func (e *events) Watch(ctx context.Context, scope, deviceID string, since time.Time, each func(registration.HubEvent) error) error {
	if e.err != nil {
		return e.err
	}
	text := scope + " " + deviceID
	if !since.IsZero() {
		text += " " + since.UTC().Format(time.RFC3339)
	}
	e.asked <- text
	for err := each(registration.HubEvent{}); ; {
		if err != nil {
			return err
		}
		select {
		case x := <-e.show:
			err = each(x)
		case <-ctx.Done():
			return nil
		}
	}
}

// watched is a house with a hub to watch.
func watched(t *testing.T) (*house, *events) {
	t.Helper()
	h := newHouse(t)
	e := &events{show: make(chan registration.HubEvent), asked: make(chan string, 100)}
	api := adminapi.New(h.core, web.NewServer("management", h.core, slog.New(slog.DiscardHandler), web.NewMetrics(prometheus.NewRegistry()), h.shared))
	api.Watch(e)
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	h.url = server.URL
	return h, e
}

// open begins to watch.
func (h *house) open(ctx context.Context, query, authorization string) (*http.Response, *bufio.Scanner) {
	h.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+eventsPath+query, nil)
	must(h.t, err)
	request.Host = host
	request.Header.Set("Authorization", authorization)
	answer, err := http.DefaultClient.Do(request)
	must(h.t, err)
	return answer, bufio.NewScanner(answer.Body)
}

func next(t *testing.T, lines *bufio.Scanner) map[string]any {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the stream ended: %v", lines.Err())
	}
	var line map[string]any
	if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
		t.Fatalf("%s: %v", lines.Bytes(), err)
	}
	return line
}

func TestEventsAreSentAsTheyCome(t *testing.T) {
	h, e := watched(t)
	ctx, hangUp := context.WithCancel(t.Context())
	answer, lines := h.open(ctx, "?deviceId=pump&since=2026-03-01T12:00:00Z&api-version=2021-10-01", as(owner))
	defer answer.Body.Close()
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != ndjson || answer.Header.Get("x-ms-request-id") == "" || answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", answer.StatusCode, answer.Header)
	}
	if got := <-e.asked; got != scope+" pump 2026-03-01T12:00:00Z" {
		t.Errorf("asked for %s", got)
	}
	if line := next(t, lines); line["heartbeat"] == nil || len(line) != 1 {
		t.Errorf("first %v", line)
	}
	for _, x := range []struct {
		event registration.HubEvent
		key   string
		want  any
	}{{registration.HubEvent{Record: []byte(`{"id":"1"}` + "\n")}, "id", "1"}, {registration.HubEvent{Missed: 7}, "missed", 7.0}, {registration.HubEvent{Record: []byte(`{"id":"2"}` + "\n")}, "id", "2"}} {
		e.show <- x.event // and nothing comes after it that could push it
		if line := next(t, lines); line[x.key] != x.want || len(line) != 1 {
			t.Errorf("got %v, want %s %v", line, x.key, x.want)
		}
	}
	hangUp()
	if lines.Scan() {
		t.Errorf("more: %s", lines.Bytes())
	}
}

func TestEventsEndWithTheKeyTheyWereAskedForWith(t *testing.T) {
	h, e := watched(t)
	answer, lines := h.open(t.Context(), "", spelled(key(scope, owner, "secondary"), host, owner, time.Now().Add(time.Hour)))
	defer answer.Body.Close()
	next(t, lines)
	h.owner(http.MethodPost, "/latchkey/v1/accessPolicies/"+owner+"/regenerate", `{"key":"secondary"}`).want(200)
	go func() {
		for range 2 * 100 { // enough that somebody looks at the key
			select {
			case e.show <- registration.HubEvent{Record: []byte(`{"id":"x"}` + "\n")}:
			case <-t.Context().Done():
				return
			}
		}
	}()
	shown := 0
	for lines.Scan() {
		if shown++; shown > 150 {
			t.Fatal("the events go on")
		}
	}
	if lines.Err() == nil {
		t.Error("they ended as if they were all")
	}
}

func TestEventsEndWhenTheServiceDrains(t *testing.T) {
	h, _ := watched(t)
	answer, lines := h.open(t.Context(), "", as(owner))
	defer answer.Body.Close()
	next(t, lines)
	h.shared.Drain()
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("%s, %v", lines.Bytes(), lines.Err())
	}
}

func TestEventsThatCannotBeSentAreRefusedWithAReason(t *testing.T) {
	for name, c := range map[string]struct {
		query  string
		err    error
		status int
		want   string
	}{
		"no time":             {"?since=yesterday", nil, 400, "since must be a time"},
		"another name":        {"?device=pump", nil, 400, "The query may hold, once each: deviceId, since, api-version."},
		"another node's":      {"", registration.ErrElsewhere, 503, "This node does not serve the embedded hub"},
		"as many as may be":   {"", registration.ErrManyWatchers, 429, "As many watch the hubs of this scope as may"},
		"a name given twice":  {"?deviceId=a&deviceId=b", nil, 400, "once each"},
		"a query that is not": {"?%zz", nil, 400, "not well formed"},
	} {
		t.Run(name, func(t *testing.T) {
			h, e := watched(t)
			e.err = c.err
			answer, lines := h.open(t.Context(), c.query, as(owner))
			defer answer.Body.Close()
			lines.Scan()
			if answer.StatusCode != c.status || !strings.Contains(lines.Text(), c.want) {
				t.Errorf("%d %s", answer.StatusCode, lines.Text())
			}
		})
	}
}

// Those who watch take none of the places of imports and exports, and cannot take all of the process.
func TestWatchersHaveABoundOfTheirOwn(t *testing.T) {
	h, _ := watched(t)
	for range web.LivePlaces {
		answer, lines := h.open(t.Context(), "", as(owner))
		defer answer.Body.Close()
		next(t, lines)
	}
	answer, _ := h.open(t.Context(), "", as(owner))
	defer answer.Body.Close()
	if answer.StatusCode != 429 || answer.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %d", answer.StatusCode)
	}
	h.owner(http.MethodGet, "/latchkey/v1/enrollments/export", "").want(200)
}
