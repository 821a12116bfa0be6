package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// Victim is a process that is killed and started again.
type Victim struct {
	Name  string
	Times int  // how often it is killed
	Base  bool // nothing is acknowledged while it is gone, and the others need it to start
	Kill  func() error
	Begin func() error // starts it and does not wait; nil: it is not killed before it serves
	Run   func() error // returns when it serves again
}

// NodeVictim is a node. A door of its own follows it to its new address; nil if it keeps its address.
func NodeVictim(name string, times int, s *rig.Service, door *Door) Victim {
	return Victim{Name: name, Times: times, Kill: s.Kill, Begin: s.Begin, Run: func() error {
		err := s.Run()
		if err == nil && door != nil {
			door.Move(s.HTTPS)
		}
		return err
	}}
}

// Killing is a kill loop over a load.
type Killing struct {
	Load    *Load
	Victims []Victim
	Seed    uint64
	// Least and Most bound how many registrations are acknowledged between two strikes: each time a number between them is drawn.
	Least, Most int64
	// Floor is how many registrations a second must be acknowledged between a victim's return and the next strike, with Grace for the devices to
	// come back, and on the whole without. Less is no load, and a run without load shows nothing.
	Floor float64
	Grace time.Duration
	// Look is called now and then, while devices register: to tell how far it is, to check what must hold at any time. May be nil.
	Look func(Report)
}

// lookEvery is so many strikes.
const lookEvery = 25

// Report says what a kill loop did.
type Report struct {
	Kills    map[string]int
	Told     int64         // registrations acknowledged from the first strike's wait to the last return
	Took     time.Duration // of all that
	Flowing  time.Duration // of it, while a node served
	Slowest  float64       // registrations a second between a return and the next strike, where they were fewest
	Restarts []time.Duration
	Stumbles int // kills of nodes that did not serve yet, besides Kills
}

// Run strikes until every victim was killed as often as it must be. An error says that the load did not flow, or that a victim did not come back or
// had died by itself.
func (k Killing) Run() (Report, error) {
	random := rand.New(rand.NewPCG(k.Seed, 0))
	report := Report{Kills: map[string]int{}}
	began, before := time.Now(), k.Load.Told()
	for n, rest := 1, k.order(random); len(rest) > 0; n++ {
		strike := rest[:1]
		if len(rest) > 1 && rest[0].Name != rest[1].Name && random.IntN(5) == 0 {
			strike = rest[:2] // at once
		}
		rest = rest[len(strike):]
		if err := k.strike(random, strike, &report); err != nil {
			return report, err
		}
		report.Took, report.Told = time.Since(began), k.Load.Told()-before
		if k.Look != nil && n%lookEvery == 0 {
			k.Look(report)
		}
	}
	return report, k.flowed(report)
}

// flowed judges all intervals together, so that grace is for few of them.
func (k Killing) flowed(r Report) error {
	if rate := float64(r.Told) / r.Flowing.Seconds(); rate < k.Floor {
		return fmt.Errorf("invalid, the load did not flow: %.1f registrations a second were acknowledged between kills, %g are the least", rate, k.Floor)
	}
	return nil
}

// order is every victim as often as it is killed, shuffled.
func (k Killing) order(random *rand.Rand) (order []Victim) {
	for _, v := range k.Victims {
		order = append(order, slices.Repeat([]Victim{v}, v.Times)...)
	}
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// strike waits for its moment, kills, lets those that are left serve for a while, and starts again what it killed.
func (k Killing) strike(random *rand.Rand, victims []Victim, report *Report) error {
	if err := k.flow(k.Least+random.Int64N(k.Most-k.Least+1), report); err != nil {
		return err
	}
	for _, v := range victims {
		if err := v.Kill(); err != nil {
			return fmt.Errorf("killing %s: %w", v.Name, err)
		}
		report.Kills[v.Name]++
	}
	if more := random.Int64N(k.Least + 1); k.othersServe(victims) && random.IntN(2) == 0 {
		if err := k.flow(more, report); err != nil {
			return fmt.Errorf("without %s: %w", victims[0].Name, err)
		}
	}
	return revive(random, victims, report)
}

// revive starts again what was killed, what others need first, and kills some of it once more before it serves.
func revive(random *rand.Rand, victims []Victim, report *Report) error {
	slices.SortStableFunc(victims, func(a, b Victim) int { return rank(a) - rank(b) })
	for _, v := range victims {
		if v.Begin != nil && random.IntN(4) == 0 {
			if err := stumble(v, time.Duration(random.Int64N(int64(startTime)))); err != nil {
				return fmt.Errorf("killing %s while it starts: %w", v.Name, err)
			}
			report.Stumbles++
		}
		began := time.Now()
		if err := v.Run(); err != nil {
			return fmt.Errorf("starting %s again: %w", v.Name, err)
		}
		report.Restarts = append(report.Restarts, time.Since(began))
	}
	return nil
}

// startTime is about how long a node takes to serve.
const startTime = 60 * time.Millisecond

// stumble starts a victim and kills it before it serves. Nothing can be counted meanwhile, so this moment alone is timed.
func stumble(v Victim, after time.Duration) error {
	if err := v.Begin(); err != nil {
		return err
	}
	<-time.After(after)
	return v.Kill()
}

func rank(v Victim) int {
	if v.Base {
		return 0
	}
	return 1
}

// othersServe: a node is left, and all that it needs.
func (k Killing) othersServe(victims []Victim) bool {
	nodes := 0
	for _, v := range k.Victims {
		if !v.Base {
			nodes++
		}
	}
	return len(victims) < nodes && !slices.ContainsFunc(victims, func(v Victim) bool { return v.Base })
}

// flow waits for so many registrations more.
func (k Killing) flow(more int64, report *Report) error {
	began := time.Now()
	if err := k.Load.Await(more, k.Grace+time.Duration(float64(more)/k.Floor*float64(time.Second))); err != nil {
		return fmt.Errorf("invalid, the load did not flow: %w", err)
	}
	took := time.Since(began)
	report.Flowing += took
	if rate := float64(more) / took.Seconds(); more >= k.Least && (report.Slowest == 0 || rate < report.Slowest) {
		report.Slowest = rate
	}
	return nil
}

func (r Report) String() string {
	kills := 0
	var names []string
	for name, n := range r.Kills {
		kills += n
		names = append(names, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(names)
	slices.Sort(r.Restarts)
	at := func(hundredths int) time.Duration {
		if len(r.Restarts) == 0 {
			return 0
		}
		return r.Restarts[(len(r.Restarts)-1)*hundredths/100].Round(time.Millisecond)
	}
	return fmt.Sprintf("%d kills (%s) and %d during a start in %v; %d registrations, %.0f a second, %.0f between kills, %.0f in the slowest interval; a restart took %v, at most %v",
		kills, strings.Join(names, ", "), r.Stumbles, r.Took.Round(100*time.Millisecond), r.Told, float64(r.Told)/r.Took.Seconds(), float64(r.Told)/r.Flowing.Seconds(), r.Slowest, at(50), at(100))
}
