package embedded

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepClock tells how long the machine has been suspended since now: CLOCK_BOOTTIME goes on meanwhile, CLOCK_MONOTONIC, by which Go measures, does not. What
// lies between the two readings is counted too, which is far less than clocks may differ by.
func sleepClock() func() time.Duration {
	since := suspended()
	return func() time.Duration { return max(0, suspended()-since) }
}

func suspended() time.Duration {
	var awake, all unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &all) != nil {
		return 0
	}
	return time.Duration(all.Nano() - awake.Nano())
}
