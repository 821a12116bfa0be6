package device

import (
	"context"
	"time"
)

// SetClock replaces the clock of a Client, so that tests need not wait.
func (c *Client) SetClock(now func() time.Time, wait func(context.Context, time.Duration) error) {
	c.own, c.steady, c.wait = now, now, wait
}

// WithBareParameters leaves parameter encryption off, to see that tests notice.
func WithBareParameters() Option { return func(o *options) { o.exposed.parameters = true } }

// WithBarePasswords sends authorisation values as passwords, likewise.
func WithBarePasswords() Option { return func(o *options) { o.exposed.passwords = true } }

// ActivateToSign opens a challenge as Client.Register does.
func (id *Identity) ActivateToSign(challenge []byte) (*Key, error) {
	return id.activateToSign(challenge)
}

// SetTokenClocks replaces the device's own clock and the one that never jumps.
func (s *TokenSource) SetTokenClocks(own, steady func() time.Time) { s.own, s.steady = own, steady }

// ClockShowing is the clock of a service that showed this time when steady time
// was seen.
func ClockShowing(shown, seen time.Time) Clock { return Clock{shown: shown, seen: seen} }

// SteadyNow is the clock that never jumps.
func SteadyNow() time.Time { return steadyNow() }
