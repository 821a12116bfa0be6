package linked

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// How hubs are looked at.
const (
	lookEvery   = 30 * time.Second // a round begins, on average; one that lasts longer delays the next
	freshEvery  = time.Second      // hubs that nobody has looked at yet are looked for
	lookTime    = 10 * time.Second // for one hub
	lookWorkers = 8
)

// Keep looks at every linked hub twice a minute, at moments that chance spreads, and within seconds at one that was linked or changed, until ctx ends.
func (h *Hub) Keep(ctx context.Context) {
	fresh := time.NewTicker(freshEvery)
	defer fresh.Stop()
	for next := time.Duration(0); ; {
		round := time.NewTimer(next)
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				round.Stop()
				return
			case <-fresh.C:
				h.look(ctx, func(k key, revision uint64) bool { return !h.watch.knows(k, revision) })
			case <-round.C:
				waits = false
			}
		}
		h.look(ctx, func(key, uint64) bool { return true })
		next = lookEvery/2 + time.Duration(rand.Int64N(int64(lookEvery)))
	}
}

// one is a hub to be looked at.
type one struct {
	scope string
	hub   registration.LinkedHub
}

// look looks at every linked hub that is wanted once, some at a time.
func (h *Hub) look(ctx context.Context, wanted func(k key, revision uint64) bool) {
	var all []one
	linked := map[key]bool{}
	for scope, hubs := range h.config.All() {
		for _, hub := range hubs {
			k := key{scope, hub.Name}
			if linked[k] = true; wanted(k, hub.Revision) {
				all = append(all, one{scope, hub})
			}
		}
	}
	h.watch.sweep(linked)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	next := make(chan one)
	var workers sync.WaitGroup
	for range min(lookWorkers, len(all)) {
		workers.Go(func() {
			for o := range next {
				h.lookAt(ctx, o)
			}
		})
	}
	for _, o := range all {
		next <- o
	}
	close(next)
	workers.Wait()
}

// lookAt looks at one hub. What went wrong is logged when it begins, and its end, not in between.
func (h *Hub) lookAt(ctx context.Context, o one) {
	driver := h.config.Drivers[o.hub.Kind]
	if driver == nil || ctx.Err() != nil {
		return
	}
	k := key{o.scope, o.hub.Name}
	before := h.watch.health(k).State
	call, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	secret, err := h.config.Secret(o.scope, o.hub)
	began := time.Now() // not Config.Now: a latency is measured by the clock that runs
	if err == nil {
		err = driver.Probe(call, o.scope, o.hub, secret)
	}
	if took := time.Since(began); ctx.Err() == nil {
		h.watch.looked(k, o.hub.Revision, err, took)
		h.tell(o, before, h.watch.health(k).State, err)
	}
}

func (h *Hub) tell(o one, before, after registration.HubState, err error) {
	bad := func(s registration.HubState) bool {
		return s == registration.HubFailing || s == registration.HubCircuitOpen
	}
	switch {
	case bad(after) && !bad(before):
		h.log.Warn("a linked hub does not do what it should; its devices stay assigning, and it is tried again", "scope", o.scope, "hub", o.hub.Name, "kind", o.hub.Kind, "err", err)
	case bad(before) && after == registration.HubOK:
		h.log.Info("a linked hub does well again", "scope", o.scope, "hub", o.hub.Name)
	}
}
