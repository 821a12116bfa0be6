package outflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"latchkey.example/latchkey/internal/outbound"
)

// Format is how a webhook gets several records in one call.
type Format string

// Lines is one JSON object a line, Array a JSON array of them.
const (
	Lines Format = "ndjson"
	Array Format = "array"
)

// ToWebhook posts records in batches. A call is signed as Standard Webhooks 1.0.0 says if there is a key.
type ToWebhook struct {
	URL     string
	Format  Format
	KeyFile string // empty: unsigned
}

func (t ToWebhook) open(c Config) (sender, error) {
	if err := outbound.CheckURL(t.URL); err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	s := &webhookSender{to: t, client: c.Webhooks}
	return s, s.reload()
}

type webhookSender struct {
	to     ToWebhook
	client *outbound.Client
	key    atomic.Pointer[[]byte]
}

func (s *webhookSender) reload() error {
	key, err := readSigningKey(s.to.KeyFile)
	if err != nil {
		return err
	}
	s.key.Store(&key)
	return nil
}

func (s *webhookSender) send(ctx context.Context, messages []message) (int, error) {
	call := outbound.Call{URL: s.to.URL, ContentType: "application/x-ndjson", Body: joinLines(messages), Key: *s.key.Load(),
		ID: fmt.Sprintf("%s-%d", messages[0].ID, len(messages))} // the same again for the same messages
	if s.to.Format == Array {
		call.ContentType, call.Body = "application/json", joinArray(messages)
	}
	answer, err := s.client.Post(ctx, call)
	if err != nil {
		return 0, err
	}
	if err := judge(answer); err != nil {
		return 0, err
	}
	return len(messages), nil
}

// judge: 2xx has the batch. 400, 413 and 422 say that what it holds is wrong, and are the only answers after which a record is given up; everything else
// may come from the receiver's state or the configuration, and passes.
func judge(answer outbound.Answer) error {
	switch {
	case answer.Status >= 200 && answer.Status < 300:
		return nil
	case answer.Status == http.StatusBadRequest, answer.Status == http.StatusRequestEntityTooLarge, answer.Status == http.StatusUnprocessableEntity:
		return &refused{error: fmt.Errorf("the webhook answered %d", answer.Status)}
	case answer.Status >= 300 && answer.Status < 400:
		return errors.New("the webhook answered with a redirect, which is not followed: give the address that it leads to")
	}
	return later{fmt.Errorf("the webhook answered %d", answer.Status), answer.RetryAfter}
}

func joinLines(messages []message) []byte {
	var b bytes.Buffer
	for _, m := range messages {
		b.Write(m.record())
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func joinArray(messages []message) []byte {
	var b bytes.Buffer
	for i, m := range messages {
		b.WriteByte("[,"[min(i, 1)])
		b.Write(m.record())
	}
	b.WriteByte(']')
	return b.Bytes()
}

func (s *webhookSender) close() error { return nil }
