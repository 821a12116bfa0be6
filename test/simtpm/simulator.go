package simtpm

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2/transport"
)

// ErrSimulatorBusy says that this process already has the reference simulator
// open. Its state lives in C globals, so there is one per process.
var ErrSimulatorBusy = errors.New("simtpm: the reference simulator is already open in this process")

// simulatorSlot holds one entry while the simulator is open. The library would
// block for ever on a second open; a slot lets us refuse or wait with a limit.
var simulatorSlot = make(chan struct{}, 1)

// Simulator is the TPM 2.0 reference code, compiled into this process.
//
// It has 3 slots for transient objects and no resource manager. Its methods
// may be called from several goroutines; commands run one after another.
type Simulator struct {
	mu        sync.Mutex
	sim       *simulator.Simulator // nil once closed
	commands  transport.TPM
	fixedSeed bool
}

// OpenSimulator manufactures a new TPM with seeds of its own and starts it. It
// answers ErrSimulatorBusy if the last one was not closed.
func OpenSimulator() (*Simulator, error) {
	return openSimulator(simulator.Get, false)
}

// OpenSimulatorSeed is OpenSimulator with hierarchy seeds that follow from
// seed: the same seed gives the same EK in every run. The seeds do not survive
// a reset, so PowerCycle refuses.
func OpenSimulatorSeed(seed int64) (*Simulator, error) {
	get := func() (*simulator.Simulator, error) { return simulator.GetWithFixedSeedInsecure(seed) }
	return openSimulator(get, true)
}

func openSimulator(get func() (*simulator.Simulator, error), fixedSeed bool) (*Simulator, error) {
	select {
	case simulatorSlot <- struct{}{}:
		return startSimulator(get, fixedSeed)
	default:
		return nil, ErrSimulatorBusy
	}
}

// startSimulator is for callers that hold the slot; it goes over to the
// Simulator, or is given back on failure.
func startSimulator(get func() (*simulator.Simulator, error), fixedSeed bool) (*Simulator, error) {
	sim, err := get()
	if err != nil {
		<-simulatorSlot
		return nil, fmt.Errorf("simtpm: start the reference simulator: %w", err)
	}
	return &Simulator{sim: sim, commands: transport.FromReadWriter(sim), fixedSeed: fixedSeed}, nil
}

// Send runs one TPM command (transport.TPM).
func (s *Simulator) Send(command []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sim == nil {
		return nil, simulator.ErrUsingClosedSimulator
	}
	return s.commands.Send(command)
}

// PowerCycle restarts the TPM, as TPM says.
func (s *Simulator) PowerCycle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sim == nil {
		return simulator.ErrUsingClosedSimulator
	}
	if s.fixedSeed {
		return errors.New("simtpm: a simulator with fixed seeds forgets them when it restarts")
	}
	return s.sim.Reset()
}

// ManufactureReset makes it another TPM: new seeds, so a new EK, and nothing
// of what the old one held.
func (s *Simulator) ManufactureReset() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sim == nil {
		return simulator.ErrUsingClosedSimulator
	}
	s.fixedSeed = false
	return s.sim.ManufactureReset()
}

// Close stops the TPM and lets the process open another. A second call does
// nothing.
func (s *Simulator) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sim == nil {
		return nil
	}
	err := s.sim.Close()
	s.sim = nil
	<-simulatorSlot
	return err
}
