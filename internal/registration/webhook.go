package registration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"latchkey.example/latchkey/dps"
)

// Webhooks calls the URLs that operators name. It bounds time, answer and where a URL may lead, and tells nothing of the URL in its errors.
type Webhooks interface {
	// Post gives the status and body of an answer, whatever the status. An error that wraps ErrWebhookRefused means that nothing was called, and nothing
	// ever will be, one that wraps ErrWebhookAnswer that the answer has more than MaxWebhookAnswer bytes; any other that no whole answer came.
	Post(ctx context.Context, call WebhookCall) (status int, answer []byte, err error)
}

// MaxWebhookAnswer bounds an answer, in bytes.
const MaxWebhookAnswer = dps.MaxAllocationAnswer

// WebhookCall is a question in JSON.
type WebhookCall struct {
	URL  string
	ID   string // the same when the question is asked again
	Body []byte
	Key  []byte // to sign it; nil: it is not signed
}

// ErrWebhookRefused says that a webhook may not be called where its URL leads.
var ErrWebhookRefused = errors.New("the webhook may not be called")

// ErrWebhookAnswer says that a webhook has answered more than MaxWebhookAnswer.
var ErrWebhookAnswer = errors.New("the webhook's answer is too long")

// unallocated says in public words why no hub was chosen, for good: the registration has failed with the code.
type unallocated struct {
	code    dps.Code
	message string
}

func (u *unallocated) Error() string { return u.message }

// webhookTries is how often a webhook is asked that cannot be reached or has trouble of its own; what it says otherwise it has said.
const webhookTries = 2

// askWebhook has the webhook of an entry choose among request.LinkedHubs. The hub of the answer is one of them, as spelled there. An error that is no
// *unallocated leaves the question open, to be asked again with the same id.
func (c *Core) askWebhook(ctx context.Context, s *scope, id string, url string, request dps.AllocationRequest) (dps.AllocationAnswer, error) {
	if c.webhooks == nil {
		return dps.AllocationAnswer{}, failedWebhook("this service calls no webhooks")
	}
	call := WebhookCall{URL: url, ID: id, Body: request.Encode()}
	if sealed := s.Allocation.SealedWebhookKey; len(sealed) > 0 {
		var err error
		if call.Key, err = c.sealer.Open(ContextWebhookKey(s.ID), sealed); err != nil {
			return dps.AllocationAnswer{}, fmt.Errorf("opening the webhook key: %w", err)
		}
	}
	status, body, err := c.postWebhook(ctx, call)
	switch {
	case ctx.Err() != nil:
		return dps.AllocationAnswer{}, fmt.Errorf("the allocation webhook was not heard out: %w", ctx.Err())
	case errors.Is(err, ErrWebhookAnswer):
		return dps.AllocationAnswer{}, failedWebhook(fmt.Sprintf("the webhook's answer is longer than %d bytes", MaxWebhookAnswer))
	case errors.Is(err, ErrWebhookRefused):
		return dps.AllocationAnswer{}, failedWebhook("its URL leads where this service does not call")
	case err != nil:
		return dps.AllocationAnswer{}, failedWebhook("the webhook does not answer")
	case status != http.StatusOK:
		return dps.AllocationAnswer{}, &unallocated{dps.CodeAllocationFailed, fmt.Sprintf("Custom allocation failed with status code: %d", status)}
	}
	return chosenBy(body, request.LinkedHubs)
}

// postWebhook asks again where that may help.
func (c *Core) postWebhook(ctx context.Context, call WebhookCall) (status int, body []byte, err error) {
	for try := range webhookTries {
		status, body, err = c.webhooks.Post(ctx, call)
		switch {
		case ctx.Err() != nil, errors.Is(err, ErrWebhookRefused), errors.Is(err, ErrWebhookAnswer), err == nil && status < 500:
			return status, body, err
		case err != nil:
			c.log.Warn("an allocation webhook does not answer", "id", call.ID, "try", try+1, "err", err)
		default:
			c.log.Warn("an allocation webhook has trouble", "id", call.ID, "try", try+1, "status", status)
		}
	}
	return status, body, err
}

// chosenBy reads an answer and holds it to what was asked.
func chosenBy(body []byte, linked []string) (dps.AllocationAnswer, error) {
	answer, err := dps.DecodeAllocationAnswer(body)
	if err != nil {
		return dps.AllocationAnswer{}, failedWebhook("the webhook's answer cannot be used: " + err.Error())
	}
	for _, hub := range linked {
		if strings.EqualFold(hub, answer.Hub) {
			answer.Hub = hub
			return answer, nil
		}
	}
	return dps.AllocationAnswer{}, failedWebhook("the webhook chose a hub that it was not offered")
}

func failedWebhook(why string) *unallocated {
	return &unallocated{dps.CodeAllocationFailed, "Custom allocation failed: " + why + "."}
}
