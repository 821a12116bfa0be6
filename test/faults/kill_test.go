package faults

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// feed is a load whose registrations are acknowledged as fast as they are counted, until stop.
func feed() (load *Load, stop func()) {
	load = Start(Plan{})
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
				load.acknowledged()
				runtime.Gosched()
			}
		}
	}()
	return load, func() { close(end); <-done }
}

// play runs a loop over three victims that only note what is done to them: + started, - killed.
func play(t *testing.T, seed uint64) (log []string, report Report) {
	t.Helper()
	victim := func(name string, times int, base bool) Victim {
		note := func(what string) func() error {
			return func() error { log = append(log, what+name); return nil }
		}
		return Victim{Name: name, Times: times, Base: base, Kill: note("-"), Run: note("+")}
	}
	load, stop := feed()
	defer stop()
	report, err := Killing{Load: load, Seed: seed, Least: 1, Most: 3, Floor: 1, Grace: time.Minute,
		Victims: []Victim{victim("a", 30, false), victim("b", 30, false), victim("db", 20, true)}}.Run()
	if err != nil {
		t.Fatal(err)
	}
	return log, report
}

func TestASeedDrawsTheSameKillsAgain(t *testing.T) {
	first, report := play(t, 1)
	again, _ := play(t, 1)
	other, _ := play(t, 2)
	if !slices.Equal(first, again) {
		t.Error("the same seed kills otherwise the second time")
	}
	if slices.Equal(first, other) {
		t.Error("another seed kills the same")
	}
	if k := report.Kills; k["a"] != 30 || k["b"] != 30 || k["db"] != 20 || len(report.Restarts) != 80 {
		t.Errorf("kills %v, %d restarts", k, len(report.Restarts))
	}
}

// Whoever was killed is back before the next is killed, unless both are at once, and then the database is back first.
func TestWhatOthersNeedIsStartedFirst(t *testing.T) {
	log, _ := play(t, 3)
	down := map[string]bool{}
	pairs := 0
	for _, entry := range log {
		name := entry[1:]
		if entry[0] == '-' {
			down[name] = true
			if len(down) == 2 {
				pairs++
			}
			continue
		}
		if name != "db" && down["db"] {
			t.Errorf("%s was started while the database was down", name)
		}
		delete(down, name)
	}
	if len(down) > 0 || pairs == 0 {
		t.Errorf("%v are down at the end; %d pairs were killed at once", down, pairs)
	}
}

func TestAVictimThatDoesNotDieOrComeBackEndsTheLoop(t *testing.T) {
	fine, fails := func() error { return nil }, func() error { return errors.New("the reason") }
	for name, v := range map[string]Victim{
		"it had died by itself": {Kill: fails, Run: fine},
		"it does not come back": {Kill: fine, Run: fails},
	} {
		v.Name, v.Times = "node", 1
		load, stop := feed()
		_, err := Killing{Load: load, Victims: []Victim{v}, Least: 1, Most: 1, Floor: 1, Grace: time.Minute}.Run()
		stop()
		if err == nil || !strings.Contains(err.Error(), "node") || !strings.Contains(err.Error(), "the reason") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// Each interval may begin slowly, since devices come back from an outage, but not all of them may stay so.
func TestALoadThatOnlyTricklesIsInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := Start(Plan{})
		trickle := time.NewTicker(time.Second)
		end := make(chan struct{})
		go func() {
			for {
				select {
				case <-end:
					return
				case <-trickle.C:
					load.acknowledged()
				}
			}
		}()
		none := func() error { return nil }
		_, err := Killing{Load: load, Victims: []Victim{{Name: "node", Times: 5, Kill: none, Run: none}}, Least: 1, Most: 3, Floor: 5, Grace: 30 * time.Second}.Run()
		close(end)
		if err == nil || !strings.Contains(err.Error(), "invalid") {
			t.Errorf("error %v", err)
		}
	})
}
