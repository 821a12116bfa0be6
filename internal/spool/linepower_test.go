package spool

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// linesLost lets clients write lines until the power goes, with a rotation in between, and tells what is wrong with the files that come back.
func linesLost(seed uint64, neverSync bool) (acknowledged int, wrong []string) {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := newPower()
	p.neverSync, p.ordered = neverSync, true // who rotates does not sync the folder
	p.cutAt = 5 + rng.IntN(120)
	file, err := OpenLineFile(p, "/d/lines")
	if err != nil {
		return 0, nil
	}
	g := NewGroup(file.Append)
	g.linger = 0
	var clients sync.WaitGroup
	var mu sync.Mutex
	told := map[string]int{} // lines acknowledged to each client
	for c := range 4 {
		name := fmt.Sprintf("client%d", c)
		clients.Go(func() {
			for n := range 40 {
				if _, err := g.Write(fmt.Appendf(nil, "%s %d %s\n", name, n, strings.Repeat("x", 10+n*17%700))); err != nil {
					return
				}
				mu.Lock()
				told[name]++
				mu.Unlock()
			}
		})
	}
	clients.Go(func() {
		for i := range 3 {
			if p.Rename("/d/lines", fmt.Sprintf("/d/lines.%d", i)) != nil || file.Reopen() != nil {
				return
			}
		}
	})
	clients.Wait()
	g.Close()
	after := p.after(rng)
	kept := map[string][]int{}
	for _, name := range []string{"/d/lines.0", "/d/lines.1", "/d/lines.2", "/d/lines"} {
		for line := range bytes.Lines(after.content(name)) {
			var client, tail string
			var n int
			if _, err := fmt.Sscanf(string(line), "%s %d %s\n", &client, &n, &tail); err == nil && len(tail) == 10+n*17%700 && strings.Trim(tail, "x") == "" && line[len(line)-1] == '\n' {
				kept[client] = append(kept[client], n)
			}
		}
	}
	for client, n := range told {
		acknowledged += n
		for i := range n {
			if !slices.Contains(kept[client], i) {
				wrong = append(wrong, fmt.Sprintf("%s: line %d of %d acknowledged ones is gone", client, i, n))
			}
		}
		if !slices.IsSorted(kept[client]) {
			wrong = append(wrong, fmt.Sprintf("%s: order %v", client, kept[client]))
		}
	}
	return acknowledged, wrong
}

func TestALineThatWasAcknowledgedSurvivesThePowersLoss(t *testing.T) {
	first, total := firstSeed(t), 0
	for i := range runs(200, 20000) {
		n, wrong := linesLost(first+uint64(i), false)
		if len(wrong) > 0 {
			t.Fatalf("seed %d: %v", first+uint64(i), wrong)
		}
		total += n
	}
	if total < 2000 {
		t.Errorf("only %d lines were acknowledged: the test tests little", total)
	}
}

func TestThePowerLossOfLinesCatchesAFileThatDoesNotSync(t *testing.T) {
	first, caught, n := firstSeed(t), 0, 40
	for i := range n {
		if _, wrong := linesLost(first+uint64(i), true); len(wrong) > 0 {
			caught++
		}
	}
	if caught < n/4 {
		t.Errorf("%d of %d losses were noticed", caught, n)
	}
}

// Some kernels forget, after a failed sync, that there was something to write; nobody knows then what the disk holds. The next line must not hang on that.
func TestALineAfterAFailedSyncStandsOnItsOwn(t *testing.T) {
	p := newPower()
	f, err := OpenLineFile(p, "/d/lines")
	if err != nil {
		t.Fatal(err)
	}
	writeLine(t, f, "1")
	p.failSync = 1
	if err := f.Append([][]byte{[]byte("2\n")}); err == nil {
		t.Error("acknowledged though it is not synced")
	}
	writeLine(t, f, "3")
	if got := string(p.content("/d/lines")); got != "1\n2\n\n3\n" {
		t.Errorf("%q", got)
	}
}
