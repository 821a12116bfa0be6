package spool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// logLife is a log over several losses of the power. Receivers are other machines: what they were given stays.
type logLife struct {
	rng           *rand.Rand
	disk          *power
	neverSync     bool
	passesTooSoon bool // the fault of a reader: it passes before the receiver has it

	mu    sync.Mutex
	next  map[string]int      // by client: what it sends next
	told  map[string][]string // by client: what was acknowledged to it, in order
	got   map[string][]string // by reader: what its receiver was given
	wrong []string
}

var logReaders = []string{"quick", "slow"}

// live opens the log on what the disk holds, has clients write and readers read, and cuts the power.
func (x *logLife) live(last bool) {
	x.disk.neverSync = x.neverSync
	if x.disk.cutAt = 30 + x.rng.IntN(600); last {
		x.disk.cutAt = 0
	}
	log, err := OpenLog("/d", LogOptions{FS: x.disk, Limit: 64 << 10, Segment: 2 << 10, Readers: logReaders})
	if err != nil {
		if !strings.Contains(err.Error(), errPower.Error()) {
			x.wrong = append(x.wrong, err.Error())
		}
		x.disk = x.disk.after(x.rng)
		return
	}
	log.group.linger, log.group.patience = 0, 30*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	var clients, readers sync.WaitGroup
	for c := range 3 {
		clients.Go(func() { x.client(log, fmt.Sprintf("client%d", c), last) })
	}
	for _, name := range logReaders {
		pace := rand.New(rand.NewPCG(x.rng.Uint64(), 1))
		readers.Go(func() { x.reader(ctx, log, name, pace, last) })
	}
	clients.Wait()
	if last {
		readers.Wait() // to the end
	}
	cancel()
	readers.Wait()
	log.Close()
	x.disk = x.disk.after(x.rng)
}

func (x *logLife) client(log *Log, name string, last bool) {
	if last {
		return
	}
	for range 60 {
		x.mu.Lock()
		record := fmt.Sprintf("%s %d %s", name, x.next[name], strings.Repeat("x", x.next[name]*31%400))
		x.next[name]++
		x.mu.Unlock()
		if _, err := log.Write([]byte(record)); err != nil {
			return
		}
		x.mu.Lock()
		x.told[name] = append(x.told[name], record)
		x.mu.Unlock()
	}
}

func (x *logLife) reader(ctx context.Context, log *Log, name string, pace *rand.Rand, last bool) {
	c := log.Cursor(name)
	for {
		if records, _ := c.Lag(); last && records == 0 {
			return
		}
		all, err := c.Next(ctx, 1+pace.IntN(8), 1<<20)
		if err != nil {
			if last {
				x.mu.Lock()
				x.wrong = append(x.wrong, err.Error())
				x.mu.Unlock()
			}
			return
		}
		pass := func() bool {
			c.Pass(all[len(all)-1].Seq + 1)
			return name == "slow" && pace.IntN(3) > 0 || c.Save() == nil
		}
		if x.passesTooSoon && !pass() {
			return
		}
		if _, err := x.disk.Names("/d"); err != nil {
			return // without power nothing is sent either
		}
		x.mu.Lock()
		for _, r := range all {
			x.got[name] = append(x.got[name], string(r.Content))
		}
		x.mu.Unlock()
		if !x.passesTooSoon && !pass() {
			return
		}
	}
}

func (x *logLife) judge() (acknowledged int) {
	for _, reader := range logReaders {
		first := map[string]int{} // where each record came first
		for i, r := range x.got[reader] {
			if _, seen := first[r]; !seen {
				first[r] = i
			}
		}
		for client, told := range x.told {
			acknowledged += len(told)
			at := -1
			for _, r := range told {
				place, there := first[r]
				if !there {
					x.wrong = append(x.wrong, fmt.Sprintf("%s never got %.20q, which was acknowledged to %s", reader, r, client))
				} else if place < at {
					x.wrong = append(x.wrong, fmt.Sprintf("%s got %.20q too late", reader, r))
				}
				at = max(at, place)
			}
		}
	}
	return acknowledged / len(logReaders)
}

func loseLog(seed uint64, neverSync, passesTooSoon bool) (acknowledged int, wrong []string) {
	x := &logLife{rng: rand.New(rand.NewPCG(seed, 2)), disk: newPower(), neverSync: neverSync, passesTooSoon: passesTooSoon,
		next: map[string]int{}, told: map[string][]string{}, got: map[string][]string{}}
	for range 4 {
		x.live(false)
	}
	x.live(true)
	return x.judge(), x.wrong
}

func TestARecordThatWasAcknowledgedReachesEveryReaderOverThePowersLoss(t *testing.T) {
	first, total := firstSeed(t), 0
	for i := range runs(60, 5000) {
		n, wrong := loseLog(first+uint64(i), false, false)
		if len(wrong) > 0 {
			t.Fatalf("seed %d: %v", first+uint64(i), wrong)
		}
		total += n
	}
	if total < 3000 {
		t.Errorf("only %d records were acknowledged: the test tests little", total)
	}
	t.Logf("%d records", total)
}

func TestThePowerLossOfALogCatchesItsFaults(t *testing.T) {
	for name, faults := range map[string][2]bool{"no sync": {true, false}, "passed before the receiver has it": {false, true}} {
		t.Run(name, func(t *testing.T) {
			first, caught, n := firstSeed(t), 0, 40
			for i := range n {
				if _, wrong := loseLog(first+uint64(i), faults[0], faults[1]); len(wrong) > 0 {
					caught++
				}
			}
			if caught < n/10 {
				t.Errorf("%d of %d were noticed", caught, n)
			}
			t.Logf("%d of %d were noticed", caught, n)
		})
	}
}
