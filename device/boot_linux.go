package device

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot goes on while the machine is suspended.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return time.Since(goStart) // Linux before 2.6.39
	}
	return time.Duration(t.Nano())
}

var goStart = time.Now()
