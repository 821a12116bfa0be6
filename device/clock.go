package device

import "time"

// clockTolerance is how far two clocks may differ and still count as one: less
// than what services and hubs put up with (5 minutes).
const clockTolerance = 2 * time.Minute

// Clock reckons what another clock shows: that of a provisioning service and
// its hub, which judge when a SAS token ends. Devices without a battery start
// in 1970, and jump when they have found a time server. A Clock goes on by the
// time that has passed, suspension included (on Linux: CLOCK_BOOTTIME), and is
// not moved by any of that.
//
// The zero Clock is the device's own.
type Clock struct {
	shown time.Time // what the other clock showed
	seen  time.Time // when, by steadyNow
}

// Now is the other clock's time. The device's own clock is taken where the two
// agree within two minutes, since it may be a disciplined one.
func (c Clock) Now() time.Time { return c.at(time.Now(), steadyNow()) }

// IsZero tells whether it is the device's own clock.
func (c Clock) IsZero() bool { return c.shown.IsZero() }

// Ahead is how far the other clock is ahead of the device's own; negative if it
// is behind.
func (c Clock) Ahead() time.Duration {
	own, steady := time.Now(), steadyNow()
	return c.reckon(own, steady).Sub(own).Round(time.Second)
}

func (c Clock) at(own, steady time.Time) time.Time {
	reckoned := c.reckon(own, steady)
	if reckoned.Sub(own).Abs() <= clockTolerance {
		return own
	}
	return reckoned
}

func (c Clock) reckon(own, steady time.Time) time.Time {
	if c.IsZero() {
		return own
	}
	return c.shown.Add(steady.Sub(c.seen))
}

// Where steadyNow begins. It carries no reading of Go's monotonic clock, which
// stands still while the machine is suspended.
var (
	steadyStart = time.Now().Round(0)
	steadyZero  = sinceBoot()
)

// steadyNow never jumps and is good for differences alone: as a time of day it
// is as wrong as the device's clock was when the program began.
func steadyNow() time.Time { return steadyStart.Add(sinceBoot() - steadyZero) }
