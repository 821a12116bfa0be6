package device

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"
)

// How often and how fast a step is tried that failed for a reason that may
// pass: 8 times over some 90 seconds, if the service does not ask for more.
const (
	stepTries  = 8
	firstPause = time.Second
	maxPause   = 30 * time.Second
)

// retry runs f until it succeeds, fails for good, or has had its tries. The
// pauses double and are spread, so that a fleet does not come back in step; a
// Retry-After is the least that is waited.
func (c *Client) retry(ctx context.Context, f func() error) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := f()
		if err == nil || !passing(ctx, err) {
			return err
		}
		if try == stepTries {
			return fmt.Errorf("gave up after %d tries: %w", stepTries, err)
		}
		delay := max(spread(pause), retryAfter(err)+spread(pause)/2)
		if err := c.pause(ctx, delay, "trying again after a failure"); err != nil {
			return err
		}
		pause = min(2*pause, maxPause)
	}
}

// spread is between half of d and d.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

func retryAfter(err error) time.Duration {
	var refusal *APIError
	if errors.As(err, &refusal) {
		return refusal.RetryAfter
	}
	return 0
}

// passing tells failures that may pass by themselves: 429, 5xx and a network
// that did not work. A certificate that does not convince is not one of them.
func passing(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	var refusal *APIError
	if errors.As(err, &refusal) {
		return refusal.Status == http.StatusTooManyRequests || refusal.Status >= 500
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return false
	}
	var request *url.Error
	var network net.Error
	return errors.As(err, &request) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF)
}

// pause waits and says so.
func (c *Client) pause(ctx context.Context, d time.Duration, why string) error {
	done := c.progress.timed(StepWait)
	err := c.wait(ctx, d)
	done(fmt.Sprintf("%v, %s", d.Round(time.Millisecond), why), err)
	return err
}
