//go:build race

package embedded

// The race detector makes all that is alive larger.
const idleLimit = 64 << 10
