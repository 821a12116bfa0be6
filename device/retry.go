package device

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// How often and how fast a step is tried that failed for a reason that may
// pass: 8 times over some 90 seconds, if the service does not ask for more. An
// answer that is not the service's is asked for again only a few times: it may
// be a proxy's bad moment, but mostly the address is wrong.
const (
	stepTries    = 8
	foreignTries = 3
	firstPause   = time.Second
	maxPause     = 30 * time.Second
)

// retry runs f until it succeeds, fails for good, or has had its tries. The
// pauses double and are spread, so that a fleet does not come back in step; a
// Retry-After is the least that is waited.
func (c *Client) retry(ctx context.Context, f func() error) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := f()
		if err == nil || ctx.Err() != nil {
			return err
		}
		switch tries := triesFor(err); {
		case tries <= 1:
			return err
		case try >= tries:
			return fmt.Errorf("gave up after %d tries: %w", try, err)
		}
		if err := c.pause(ctx, pauseAfter(err, pause), "trying again after a failure"); err != nil {
			return err
		}
		pause = min(2*pause, maxPause)
	}
}

// pauseAfter is a pause with its spread, and at least what a service asks for.
func pauseAfter(err error, pause time.Duration) time.Duration {
	return max(spread(pause), RetryAfter(err)+spread(pause)/2)
}

// spread is between half of d and d.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

// triesFor is how often a step may be tried that fails like this.
func triesFor(err error) int {
	var network *NetworkError
	var refusal *APIError
	var answer *AnswerError
	switch {
	case errors.As(err, &network):
		if distrusted(err) {
			return 1
		}
		return stepTries
	case errors.As(err, &refusal) && passingStatus(refusal.Status):
		return stepTries
	case errors.As(err, &refusal) && refusal.Foreign, errors.As(err, &answer) && answer.Foreign:
		return foreignTries
	}
	return 1
}

// pause waits and says so.
func (c *Client) pause(ctx context.Context, d time.Duration, why string) error {
	done := c.progress.timed(StepWait)
	err := c.wait(ctx, d)
	done(fmt.Sprintf("%v, %s", d.Round(time.Millisecond), why), err)
	return err
}
