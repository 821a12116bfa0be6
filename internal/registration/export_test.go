package registration

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// The stories run on the real store, which imports this package, so they are in registration_test and reach inside through here.

// Work counts the costly steps of a core.
type Work struct{ ParseEK, ParseSRK, Wrap atomic.Int64 }

// Counts is Work at one moment.
type Counts struct{ ParseEK, ParseSRK, Wrap int64 }

// Take reads the counters and starts them again.
func (w *Work) Take() Counts {
	return Counts{w.ParseEK.Swap(0), w.ParseSRK.Swap(0), w.Wrap.Swap(0)}
}

// CountWork puts counters before a core's costly steps. No request may be under way.
func CountWork(c *Core) *Work {
	work := new(Work)
	parseEK, parseSRK, wrap := c.parseEK, c.parseSRK, c.wrap
	c.parseEK = func(b []byte) (*attest.EK, error) { work.ParseEK.Add(1); return parseEK(b) }
	c.parseSRK = func(b []byte) (*attest.SRK, error) { work.ParseSRK.Add(1); return parseSRK(b) }
	c.wrap = func(r io.Reader, ek *attest.EK, srk *attest.SRK, key []byte) ([]byte, error) {
		work.Wrap.Add(1)
		return wrap(r, ek, srk, key)
	}
	return work
}

// ChallengeKey is the HMAC key that a device would find in the blob of a challenge made at a time.
func ChallengeKey(c *Core, scope, id string, ek, srk []byte, generation uint64, at time.Time) []byte {
	parsedEK, err := attest.ParseEK(ek)
	if err != nil {
		panic(err)
	}
	parsedSRK, err := attest.ParseSRK(srk)
	if err != nil {
		panic(err)
	}
	s, _ := c.scope(scope)
	device, err := c.store.Device(context.Background(), scope, dps.FoldID(id))
	if err != nil {
		panic(err)
	}
	var enrolled time.Time
	if device.Enrollment != nil {
		enrolled = device.Enrollment.Created
	}
	return challengeSubject{scope, dps.FoldID(id), parsedEK.Name(), parsedSRK.Name(), generation, enrolled, false}.key(s.root, slotOf(at))
}

// AllReasons is every reason there is.
func AllReasons() []Reason {
	all := make([]Reason, reasonCount)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

const (
	OperationWindow = operationWindow
	SlotLength      = slotLength
	ClockSkew       = clockSkew
	TokenLeeway     = tokenLeeway
	TokenAhead      = tokenAhead
	PollAdvice      = pollAdvice
	DecisionEntries = decisionEntries
	TrialWindow     = trialWindow
	ResumePage      = resumePage
)

// Postponement is how long a row of the outbox rests.
func Postponement(attempts int, chance float64) time.Duration { return postponement(attempts, chance) }

// Mint makes a tracking id as the core of a scope does.
func Mint(c *Core, scope string, reason Reason, at time.Time) string {
	s, _ := c.scope(scope)
	id, err := s.tracking.mint(c.rand, reason, at)
	if err != nil {
		panic(err)
	}
	return id
}

// TrialWrite is a line that a dry run would have written.
func TrialWrite(t *Trial, id string) { t.write(id) }

// TrialKept is how many ids a dry run remembers.
func TrialKept(t *Trial) int { return len(t.newer) + len(t.before) }

// WorkEvery sets how often a core looks for work that it was not told of.
func WorkEvery(c *Core, every time.Duration) { c.workEvery = every }
