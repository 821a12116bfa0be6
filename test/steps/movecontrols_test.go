package steps

import (
	"context"
	"slices"
	"testing"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/storetest"
)

// removesNothing is a hub that says that it has removed a device.
type removesNothing struct{ registration.Hub }

func (removesNothing) RemoveDevice(context.Context, string, string, string, uint64) error { return nil }

// savesNothing says that what a device takes along is kept.
type savesNothing weak

func (w savesNothing) SaveMove(ctx context.Context, scope string, m registration.SavedMove) (registration.Verdict, error) {
	m.Data = nil
	return w.Store.SaveMove(ctx, scope, m)
}

// seesNobody says that nobody is at any work.
type seesNobody weak

func (seesNobody) OutboxClaimed(context.Context, string, registration.Outbox) (bool, error) {
	return false, nil
}

// What the tests of moves look for they would find.
func TestAMoveThatGoesWrongIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		weaken func(storetest.Store, registration.Hub) (storetest.Store, registration.Hub)
		comes  string // what comes between; empty: each call is the last of its process
	}{
		"the device stays at the hub it leaves": {func(s storetest.Store, h registration.Hub) (storetest.Store, registration.Hub) {
			return s, removesNothing{h}
		}, ""},
		"what it takes along is not kept": {func(s storetest.Store, h registration.Hub) (storetest.Store, registration.Hub) {
			return savesNothing{s}, h
		}, ""},
		"two are at work for one device": {func(s storetest.Store, h registration.Hub) (storetest.Store, registration.Hub) {
			return seesNobody{s}, h
		}, "it turns back"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, openSQLite(t))
			s.withFarHubs()
			s.found, s.weaken, s.noRest, s.noLease = new([]string), c.weaken, true, c.comes == ""
			s.far.Judge = s.Errorf
			done := make(chan struct{})
			go func() { // which Fatalf ends
				defer close(done)
				s.searchMoves(c.comes)
			}()
			<-done
			if len(*s.found) == 0 {
				t.Fatal("nothing was found")
			}
			t.Logf("%d findings, the first: %s", len(*s.found), (*s.found)[0])
		})
	}
}

// searchMoves plays one journey in full.
func (s *stage) searchMoves(coming string) {
	n, other := s.start(), s.start()
	calls := n.callsOfMove(0, journeys[0])
	if coming == "" {
		for nth := range calls {
			s.start().cutOff(0, journeys[0], nth, calls, diesAfter)
		}
		return
	}
	for _, c := range comings {
		for nth := slices.Index(calls, "Redeem") + 1; c.name == coming && nth < len(calls); nth++ {
			s.start().meetComing(c, other, nth, calls)
		}
	}
}
