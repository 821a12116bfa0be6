package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

var eventParameters = []string{"deviceId", "since", "api-version"}

// mostWatch is how long one request watches: its token is judged when it comes, so the next one shows a new one.
const mostWatch = time.Hour

// Events are what devices send to the embedded hubs of this process.
type Events interface {
	// Watch gives the records of a scope's devices, or of one, as they come, from what is still remembered since a time on, until ctx ends or each
	// returns an error. each is called now and then though nothing comes, and at once. ErrElsewhere if another process serves the hubs; ErrManyWatchers.
	Watch(ctx context.Context, scope, deviceID string, since time.Time, each func(registration.HubEvent) error) error
}

// Watch says where events come from. It is called before the first request.
func (a *API) Watch(events Events) { a.events = events }

// EventNote is a line of GET /latchkey/v1/hub/events that is no record.
type EventNote struct {
	Heartbeat string  `json:"heartbeat,omitempty"` // the time: the connection is alive, and nothing came
	Missed    *uint64 `json:"missed,omitempty"`    // so many records were not sent, since the client was too slow
}

func (a *API) eventAdditions() []addition {
	return []addition{{"hub/events", func(string) map[string]endpoint {
		return map[string]endpoint{http.MethodGet: {"hub-events", registration.ServiceConnect, bodiless, false, a.watchEvents}}
	}}}
}

// watchEvents sends telemetry as it comes, for as long as the caller may see it. Nothing is sent before the first event, so that a refusal is an answer of
// its own.
func (a *API) watchEvents(_ context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	asked := call.URL.Query() // judged before
	since, err := time.Time{}, error(nil)
	if text := asked.Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "since must be a time such as 2026-03-01T12:00:00Z.", nil)
		}
	}
	if a.events == nil {
		return web.Reply{}, a.elsewhere(by)
	}
	header := map[string]string{"Content-Type": linesType, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
	return web.Reply{Status: http.StatusOK, Header: header, Live: true, Stream: func(ctx context.Context, stream *web.Stream) error {
		ctx, cancel := context.WithTimeout(ctx, mostWatch)
		defer cancel()
		w := eventWriter{out: stream, again: a.again(call, registration.ServiceConnect)}
		err := a.events.Watch(ctx, by.Scope, asked.Get("deviceId"), since, w.event)
		switch {
		case errors.Is(err, registration.ErrElsewhere):
			return a.elsewhere(by)
		case errors.Is(err, registration.ErrManyWatchers):
			fault := a.core.Fault(by.Scope, dps.CodeTooManyRequests, registration.ReasonOverload, "As many watch the hubs of this scope as may; end one of them.", nil)
			fault.RetryAfter = 30 * time.Second
			return fault
		}
		return err
	}}, nil
}

func (a *API) elsewhere(by registration.Caller) error {
	return a.core.Fault(by.Scope, dps.CodeUnavailable, registration.ReasonHubElsewhere, "This node does not serve the embedded hub. Ask the node that does.", nil)
}

// eventWriter writes events as lines, and looks now and then whether its reader still may read them.
type eventWriter struct {
	out    *web.Stream
	again  func() error
	judged time.Time
	lines  int
}

// judgeEvery is how long a watcher whose access policy is gone is told more, at most.
const judgeEvery = 5 * time.Second

func (w *eventWriter) event(e registration.HubEvent) error {
	if w.lines++; w.lines%judgedLines == 0 || time.Since(w.judged) >= judgeEvery-time.Second {
		if err := w.again(); err != nil {
			return err
		}
		w.judged = time.Now()
	}
	line := e.Record
	if line == nil {
		note := EventNote{Missed: &e.Missed}
		if e.Missed == 0 {
			note = EventNote{Heartbeat: dps.FormatTime(time.Now())}
		}
		text, err := json.Marshal(note)
		if err != nil {
			return err
		}
		line = append(text, '\n')
	}
	if _, err := w.out.Write(line); err != nil {
		return err
	}
	return w.out.Flush()
}
