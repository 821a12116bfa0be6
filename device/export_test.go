package device

import (
	"context"
	"time"
)

// SetClock replaces the clock of a Client, so that tests need not wait.
func (c *Client) SetClock(now func() time.Time, wait func(context.Context, time.Duration) error) {
	c.now, c.wait = now, wait
}

// WithBareParameters leaves parameter encryption off, to see that tests notice.
func WithBareParameters() Option { return func(o *options) { o.exposed.parameters = true } }

// WithBarePasswords sends authorisation values as passwords, likewise.
func WithBarePasswords() Option { return func(o *options) { o.exposed.passwords = true } }

// ActivateToSign opens a challenge as Client.Register does.
func (id *Identity) ActivateToSign(challenge []byte) (*Key, error) {
	return id.activateToSign(challenge)
}
