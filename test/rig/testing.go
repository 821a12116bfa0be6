package rig

import (
	"fmt"
	"os"
	"testing"
)

// logShown bounds what a failed test shows of the service's log.
const logShown = 300

// Main is a TestMain for packages that use the rig: it builds the programs,
// runs the tests and cleans up. Its result is for os.Exit.
func Main(m *testing.M) int {
	if _, err := Build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := Cleanup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// New starts a service for tb. When the test ends the service must stop in an
// orderly way, unless the test stopped or killed it; a failed test shows the
// service's log.
func New(tb testing.TB, config Config) *Service {
	tb.Helper()
	if config.Dir == "" {
		config.Dir = tb.TempDir()
	}
	s, err := Start(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			tb.Logf("the service's log, its last %d lines:\n%s", logShown, lastLines(s.Log(), logShown))
		}
	})
	return s
}
