package simtpm

import (
	"testing"
	"time"

	"github.com/google/go-tpm-tools/simulator"
)

// simulatorPatience bounds how long a test waits for the one simulator while
// parallel tests have it.
const simulatorPatience = 2 * time.Minute

// NewSimulator gives tb the reference simulator, new from the factory, until
// the test ends. Tests of one process take turns; a test that asks for a
// second one fails in the end.
func NewSimulator(tb testing.TB) *Simulator {
	tb.Helper()
	limit := time.NewTimer(simulatorPatience)
	defer limit.Stop()
	select {
	case simulatorSlot <- struct{}{}:
	case <-limit.C:
		tb.Fatal("simtpm: another test has kept the simulator all the time")
	}
	sim, err := startSimulator(simulator.Get, false)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := sim.Close(); err != nil {
			tb.Errorf("close simulator: %v", err)
		}
	})
	return sim
}

// NewSwtpm gives tb a swtpm on a unix socket until the test ends.
func NewSwtpm(tb testing.TB) *Swtpm {
	tb.Helper()
	return newSwtpm(tb, SwtpmConfig{})
}

// NewSwtpmTCP gives tb a swtpm on a TCP port until the test ends.
func NewSwtpmTCP(tb testing.TB) *Swtpm {
	tb.Helper()
	return newSwtpm(tb, SwtpmConfig{TCP: true})
}

func newSwtpm(tb testing.TB, config SwtpmConfig) *Swtpm {
	tb.Helper()
	s, err := StartSwtpm(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close swtpm: %v", err)
		}
	})
	return s
}

// NewFront serves tpm in the Microsoft framing on a free pair of ports until
// the test ends.
func NewFront(tb testing.TB, tpm TPM) *Front {
	tb.Helper()
	f, err := ServeFront("127.0.0.1:0", tpm, tpm.PowerCycle)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Close(); err != nil {
			tb.Errorf("close front: %v", err)
		}
	})
	return f
}
