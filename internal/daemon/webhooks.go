package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/outbound"
	"latchkey.example/latchkey/internal/registration"
)

// webhooks calls allocation webhooks for the core.
type webhooks struct{ client *outbound.Client }

func openWebhooks(cfg config.Config) (webhooks, error) {
	open, err := webhookConfig(cfg)
	open.Answer = registration.MaxWebhookAnswer
	return webhooks{outbound.New(open)}, err
}

// webhookConfig says where webhooks of any kind may lead.
func webhookConfig(cfg config.Config) (outbound.Config, error) {
	private, err := cfg.PrivateWebhooks()
	if err != nil {
		return outbound.Config{}, err
	}
	roots, err := webhookRoots(cfg.Webhooks.CA)
	if err != nil {
		return outbound.Config{}, fmt.Errorf("webhooks.ca: %w", err)
	}
	return outbound.Config{Private: private, Roots: roots}, nil
}

// webhookRoots are the system's certificate authorities and those of a file; nil: the system's alone.
func webhookRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, errors.New(file + " holds no certificate: it must be PEM, as between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----")
	}
	return roots, nil
}

// Post implements registration.Webhooks.
func (w webhooks) Post(ctx context.Context, call registration.WebhookCall) (status int, body []byte, err error) {
	answer, err := w.client.Post(ctx, outbound.Call{URL: call.URL, ContentType: "application/json; charset=utf-8", ID: call.ID, Body: call.Body, Key: call.Key})
	if refused, ok := errors.AsType[outbound.Refused](err); ok {
		return 0, nil, fmt.Errorf("%w: %w", registration.ErrWebhookRefused, refused)
	}
	if errors.Is(err, outbound.ErrAnswerTooLarge) {
		return 0, nil, registration.ErrWebhookAnswer
	}
	return answer.Status, answer.Body, err
}
