//go:build !race

package embedded

const (
	idleLimit   = 44 << 10
	idleDevices = 1000
)
