package steps

import (
	"context"
	"testing"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/storetest"
)

// weak is a store with one mistake: each type below has a method that makes it.
type weak struct{ storetest.Store }

// finishesNothing says that an assignment is written, and has written nothing.
type finishesNothing weak

func (finishesNothing) Finish(context.Context, string, registration.Finish) (registration.Verdict, error) {
	return registration.Applied, nil
}

// keepsNoIdentity says so of what a hub is to hold.
type keepsNoIdentity weak

func (keepsNoIdentity) PutIdentity(context.Context, string, registration.IdentityPut, registration.Audit) (registration.Verdict, error) {
	return registration.Applied, nil
}

// redeemsTwice writes a proof again, as a retry would whose first try took effect.
type redeemsTwice weak

func (w redeemsTwice) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	revision, verdict, err := w.Store.Redeem(ctx, scope, r)
	if verdict != registration.Applied || err != nil {
		return revision, verdict, err
	}
	again := r
	again.Generation, again.Operation.Generation, again.RegistrationBefore = r.Generation+1, r.Operation.Generation+1, revision
	again.Operation.ID += "-again"
	again.Registration.OperationID = again.Operation.ID
	return w.Store.Redeem(ctx, scope, again)
}

// ignoresGeneration redeems a challenge though another was redeemed since it was made.
type ignoresGeneration weak

func (w ignoresGeneration) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	if d, err := w.Device(ctx, scope, r.ID); err == nil {
		r.Generation, r.Operation.Generation, r.RegistrationBefore = d.Generation, d.Generation+1, 0
		if d.Registration != nil {
			r.RegistrationBefore = d.Registration.Revision
		}
	}
	return w.Store.Redeem(ctx, scope, r)
}

// ignoresEnrollment redeems a challenge though the operator has changed the enrollment since it was judged.
type ignoresEnrollment weak

func (w ignoresEnrollment) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	if d, err := w.Device(ctx, scope, r.ID); err == nil && d.Enrollment != nil {
		r.EnrollmentRevision = d.Enrollment.Revision
	}
	return w.Store.Redeem(ctx, scope, r)
}

// sharesDeviceIDs lets two registrations have one device id.
type sharesDeviceIDs weak

func (w sharesDeviceIDs) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	revision, verdict, err := w.Store.Redeem(ctx, scope, r)
	if verdict == registration.Taken {
		r.Registration.DeviceID += "-too"
		return w.Store.Redeem(ctx, scope, r)
	}
	return revision, verdict, err
}

// deafHub takes every call for one of the newest owner.
type deafHub struct{ registration.Hub }

func (h deafHub) EnsureDevice(ctx context.Context, scope, hub string, d registration.HubDevice) error {
	d.Generation = 1 << 50
	return h.Hub.EnsureDevice(ctx, scope, hub, d)
}

// What these tests look for they would find.
func TestWhatIsNotWithstoodIsFound(t *testing.T) {
	t.Parallel()
	store := func(wrap func(storetest.Store) storetest.Store) func(storetest.Store, registration.Hub) (storetest.Store, registration.Hub) {
		return func(s storetest.Store, h registration.Hub) (storetest.Store, registration.Hub) { return wrap(s), h }
	}
	for name, c := range map[string]struct {
		where  string // the story, or what comes between, that shows it
		weaken func(storetest.Store, registration.Hub) (storetest.Store, registration.Hub)
	}{
		"an assignment is not written": {"a TPM's first registration", store(func(s storetest.Store) storetest.Store { return finishesNothing{s} })},
		"an identity is not written":   {"a symmetric key's first registration", store(func(s storetest.Store) storetest.Store { return keepsNoIdentity{s} })},
		"a proof is written twice":     {"a TPM again", store(func(s storetest.Store) storetest.Store { return redeemsTwice{s} })},
		"a proof ignores the one before": {"the same device at another node",
			store(func(s storetest.Store) storetest.Store { return ignoresGeneration{s} })},
		"a proof ignores the enrollment": {"disabled", store(func(s storetest.Store) storetest.Store { return ignoresEnrollment{s} })},
		"two devices have one device id": {"the device id taken", store(func(s storetest.Store) storetest.Store { return sharesDeviceIDs{s} })},
		"the hub takes what is older as new": {"a new owner at another node",
			func(s storetest.Store, h registration.Hub) (storetest.Store, registration.Hub) { return s, deafHub{h} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, openSQLite(t))
			s.found, s.weaken = new([]string), c.weaken
			done := make(chan struct{})
			go func() { // which Fatalf ends
				defer close(done)
				s.search(c.where)
			}()
			<-done
			if len(*s.found) == 0 {
				t.Fatal("nothing was found")
			}
			t.Logf("%d findings, the first: %s", len(*s.found), (*s.found)[0])
		})
	}
}

// search plays one story, or what comes between, in full.
func (s *stage) search(where string) {
	n, other := s.start(), s.start()
	for _, story := range stories {
		if story.name != where {
			continue
		}
		for nth, call := range n.callsOf(story) {
			n.meet(story, nth, call, failsAfter)
		}
	}
	for _, b := range betweens {
		if b.name != where {
			continue
		}
		calls := n.callsBefore(b)
		for nth := range len(calls) + 1 {
			n.meetBetween(b, other, nth, calls)
		}
	}
	s.clean()
}
