//go:build race

package embedded

// The race detector makes all that is alive larger, and handshakes slow.
const (
	idleLimit   = 64 << 10
	idleDevices = 250
)
