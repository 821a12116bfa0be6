//go:build !race

package embedded

const idleLimit = 44 << 10
