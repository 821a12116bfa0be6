package device

import (
	"context"
	"time"
)

// SetClock replaces the clock of a Client, so that tests need not wait.
func (c *Client) SetClock(now func() time.Time, wait func(context.Context, time.Duration) error) {
	c.now, c.wait = now, wait
}
