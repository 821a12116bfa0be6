//go:build !linux

package device

import "time"

// sinceBoot goes on by Go's monotonic clock. That of Windows counts the time in
// which the machine is suspended.
func sinceBoot() time.Duration { return time.Since(goStart) }

var goStart = time.Now()
