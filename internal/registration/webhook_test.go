package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
)

// hearing answers each call of a webhook as the next of its turns says, and notes the calls.
type hearing struct {
	turns []turn
	calls []WebhookCall
}

type turn struct {
	status int
	answer string
	err    error
}

func (h *hearing) Post(_ context.Context, call WebhookCall) (int, []byte, error) {
	h.calls = append(h.calls, call)
	t := h.turns[min(len(h.calls), len(h.turns))-1]
	return t.status, []byte(t.answer), t.err
}

// plainSealer seals nothing.
type plainSealer struct{ Sealer }

func (plainSealer) Open(context string, sealed []byte) ([]byte, error) {
	key, ok := strings.CutPrefix(string(sealed), context)
	if !ok {
		return nil, errors.New("sealed under another context")
	}
	return []byte(key), nil
}

func TestTheWebhookChoosesAmongWhatItIsOffered(t *testing.T) {
	good := turn{status: 200, answer: `{"iotHubHostName":"HUB-B.example.net","payload":{"p":1}}`}
	const hub = "hub-b.example.net"
	for name, test := range map[string]struct {
		turns []turn
		calls int
		fails string // empty: it chooses hub
	}{
		"at once":                       {[]turn{good}, 1, ""},
		"after trouble of its own":      {[]turn{{status: 503}, good}, 2, ""},
		"after it could not be reached": {[]turn{{err: errors.New("connection refused")}, good}, 2, ""},
		"twice in trouble":              {[]turn{{status: 500}}, 2, "Custom allocation failed with status code: 500"},
		"twice out of reach":            {[]turn{{err: errors.New("reset by peer")}}, 2, "Custom allocation failed: the webhook does not answer."},
		"a refusal is one":              {[]turn{{status: 400, answer: "not this device"}}, 1, "Custom allocation failed with status code: 400"},
		"not found":                     {[]turn{{status: 404}}, 1, "Custom allocation failed with status code: 404"},
		"too many requests":             {[]turn{{status: 429}}, 1, "Custom allocation failed with status code: 429"},
		"a redirect":                    {[]turn{{status: 307}}, 1, "Custom allocation failed with status code: 307"},
		"no content":                    {[]turn{{status: 204}}, 1, "Custom allocation failed with status code: 204"},
		"a private address":             {[]turn{{err: fmt.Errorf("dial: %w", ErrWebhookRefused)}}, 1, "Custom allocation failed: its URL leads where this service does not call."},
		"an answer that is too long":    {[]turn{{err: fmt.Errorf("reading: %w", ErrWebhookAnswer)}}, 1, "Custom allocation failed: the webhook's answer is longer than 65536 bytes."},
		"garbage":                       {[]turn{{status: 200, answer: "<html>"}}, 1, "Custom allocation failed: the webhook's answer cannot be used"},
		"no hub":                        {[]turn{{status: 200, answer: "{}"}}, 1, "cannot be used"},
		"a hub that was not offered":    {[]turn{{status: 200, answer: `{"iotHubHostName":"hub-c.example.net"}`}}, 1, "a hub that it was not offered"},
	} {
		t.Run(name, func(t *testing.T) {
			hook := &hearing{turns: test.turns}
			c := &Core{webhooks: hook, log: slog.New(slog.DiscardHandler), sealer: plainSealer{}}
			s := &scope{Scope: Scope{ID: "s", Allocation: AllocationSettings{SealedWebhookKey: []byte(ContextWebhookKey("s") + "key")}}}
			answer, err := c.askWebhook(t.Context(), s, "operation-1", "https://alloc.example.net/pick?code=1", dps.AllocationRequest{LinkedHubs: []string{"hub-a.example.net", hub}})
			if len(hook.calls) != test.calls {
				t.Errorf("it was called %d times, want %d", len(hook.calls), test.calls)
			}
			for _, call := range hook.calls {
				if call.ID != "operation-1" || string(call.Key) != "key" || call.URL != "https://alloc.example.net/pick?code=1" || !strings.Contains(string(call.Body), hub) {
					t.Errorf("it was called with %+v", call)
				}
			}
			if test.fails == "" {
				if err != nil || answer.Hub != hub || string(answer.Payload) != `{"p":1}` {
					t.Errorf("it chose %+v, %v", answer, err)
				}
				return
			}
			failed, ok := errors.AsType[*unallocated](err)
			if !ok || failed.code != dps.CodeAllocationFailed || !strings.Contains(failed.message, test.fails) {
				t.Errorf("the failure is %v, want %q", err, test.fails)
			}
		})
	}
}

// A service that stops, or a node that loses the database, must not fail the device for it.
func TestAQuestionThatIsCutOffStaysOpen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hook := stopping{cancel}
	c := &Core{webhooks: hook, log: slog.New(slog.DiscardHandler), sealer: plainSealer{}}
	_, err := c.askWebhook(ctx, &scope{Scope: Scope{ID: "s"}}, "1", "https://a.b", dps.AllocationRequest{})
	if _, failed := errors.AsType[*unallocated](err); err == nil || failed {
		t.Errorf("it ended with %v", err)
	}
	// A key that cannot be opened is the service's trouble too.
	c.webhooks = &hearing{turns: []turn{{status: 200}}}
	_, err = c.askWebhook(t.Context(), &scope{Scope: Scope{ID: "s", Allocation: AllocationSettings{SealedWebhookKey: []byte("?")}}}, "1", "https://a.b", dps.AllocationRequest{})
	if _, failed := errors.AsType[*unallocated](err); err == nil || failed {
		t.Errorf("it ended with %v", err)
	}
}

type stopping struct{ stop func() }

func (s stopping) Post(ctx context.Context, _ WebhookCall) (int, []byte, error) {
	s.stop()
	return 0, nil, ctx.Err()
}
