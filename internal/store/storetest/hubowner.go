package storetest

import (
	"sync"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func hubOwner(id string, beat uint64) registration.HubOwner {
	return registration.HubOwner{ID: id, Host: "host of " + id, Since: epoch.Add(time.Duration(len(id)) * time.Minute), Beat: beat}
}

func (w *world) hubOwner() registration.HubOwner {
	w.Helper()
	owner, err := w.store.HubOwner(w.ctx)
	w.ok(err)
	return owner
}

func hubChangesHands(w *world) {
	nobody := w.hubOwner()
	if nobody.ID != "" || nobody.Host != "" {
		w.Fatalf("a new store's hub is owned by %+v", nobody)
	}
	one, two := hubOwner("one", 7), hubOwner("two", 1)
	w.applied(w.store.MoveHub(w.ctx, nobody, one))
	w.same("owner", w.hubOwner(), one)
	beat := one
	beat.Beat++
	w.applied(w.store.MoveHub(w.ctx, one, beat))
	w.same("owner after a beat", w.hubOwner(), beat)
	for what, from := range map[string]registration.HubOwner{
		"nobody as before": nobody, "the owner before its beat": one, "another id with the same beat": hubOwner("other", beat.Beat), "a beat to come": hubOwner("one", beat.Beat+1),
	} {
		verdict, err := w.store.MoveHub(w.ctx, from, two)
		if verdict != registration.Conflict || err != nil {
			w.Fatalf("taken from %s: verdict %d, %v", what, verdict, err)
		}
		w.same("owner", w.hubOwner(), beat)
	}
	w.verdict(registration.Conflict)(w.store.MoveHub(w.ctx, one, beat)) // the same beat twice
	w.applied(w.store.MoveHub(w.ctx, beat, two))
	w.verdict(registration.Conflict)(w.store.MoveHub(w.ctx, beat, hubOwner("one", beat.Beat+1)))
	gone := registration.HubOwner{Since: epoch, Beat: two.Beat}
	w.applied(w.store.MoveHub(w.ctx, two, gone))
	w.same("owner", w.hubOwner(), gone)
	w.verdict(registration.Conflict)(w.store.MoveHub(w.ctx, two, hubOwner("two", 2)))
}

// hubOneTakes lets many take a hub that all of them saw without an owner, and then in the same state of one.
func hubOneTakes(w *world) {
	for range 3 {
		seen := w.hubOwner()
		var wins atomic.Int32
		var winner atomic.Value
		var done sync.WaitGroup
		for i := range 20 {
			done.Go(func() {
				me := hubOwner(numbered(seen.ID+"heir", i), seen.Beat+1)
				switch verdict, err := w.store.MoveHub(w.ctx, seen, me); {
				case err != nil:
					w.Error(err)
				case verdict == registration.Applied:
					wins.Add(1)
					winner.Store(me)
				case verdict != registration.Conflict:
					w.Errorf("verdict %d", verdict)
				}
			})
		}
		done.Wait()
		if wins.Load() != 1 {
			w.Fatalf("%d of 20 took the hub", wins.Load())
		}
		w.same("owner", w.hubOwner(), winner.Load())
	}
}

func identityByOwner(w *world) {
	puts := func(generation uint64, owner *string, want registration.Verdict) {
		w.Helper()
		p := identityPut(identity("hub", "dev", numbered("key", int(generation)), generation), generation-1)
		p.Owner = owner
		tracking := numbered("put", int(generation))
		w.verdict(want)(w.store.PutIdentity(w.ctx, scope, p, audit(tracking, epoch)))
		if want != registration.Applied {
			w.audited(scope, tracking, 0)
			return
		}
		w.identity(p.Identity)
		w.audited(scope, tracking, 1)
	}
	puts(1, pointer("one"), registration.OtherOwner) // nobody has it
	puts(1, pointer(""), registration.Applied)
	w.applied(w.store.MoveHub(w.ctx, w.hubOwner(), hubOwner("one", 1)))
	puts(2, pointer(""), registration.OtherOwner)
	puts(2, pointer("two"), registration.OtherOwner)
	puts(2, pointer("one"), registration.Applied)
	puts(3, nil, registration.Applied)
	w.applied(w.store.MoveHub(w.ctx, hubOwner("one", 1), hubOwner("one", 2))) // a beat takes nothing away
	puts(4, pointer("one"), registration.Applied)
}

// hubLostWritesNothing lets one owner after the other write an identity as fast as he can while the hub is taken from him: what he wrote
// last is older than what the next one finds.
func hubLostWritesNothing(w *world) {
	w.applied(w.store.MoveHub(w.ctx, w.hubOwner(), hubOwner("owner-000", 0)))
	for round := range 5 {
		me := numbered("owner", round)
		started := make(chan struct{})
		var done sync.WaitGroup
		done.Go(func() {
			for n := 0; ; n++ {
				was, err := w.store.Identity(w.ctx, scope, "hub", "dev")
				if err != nil && !isNotFound(err) {
					w.Error(err)
					return
				}
				p := identityPut(identity("hub", "dev", me, was.Generation+1), was.Generation)
				p.Owner = &me
				verdict, err := w.store.PutIdentity(w.ctx, scope, p, audit("put", epoch))
				switch {
				case verdict == registration.OtherOwner && err == nil && n > 0:
					return
				case verdict != registration.Applied || err != nil:
					w.Errorf("%s: verdict %d, %v", me, verdict, err)
					return
				}
				if n == 0 {
					close(started)
				}
			}
		})
		<-started
		w.applied(w.store.MoveHub(w.ctx, w.hubOwner(), hubOwner(numbered("owner", round+1), 0)))
		taken, err := w.store.Identity(w.ctx, scope, "hub", "dev")
		w.ok(err)
		done.Wait()
		w.identity(taken)
	}
}
