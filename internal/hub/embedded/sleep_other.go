//go:build !linux

package embedded

import "time"

// sleepClock counts nothing: whether the monotonic clock stands still in a suspended machine, each system decides for itself.
func sleepClock() func() time.Duration { return func() time.Duration { return 0 } }
