package postgres

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"latchkey.example/latchkey/internal/registration"
)

// outcome is what a call answered.
type outcome struct {
	verdict registration.Verdict
	err     error
}

// pair is two stores on one database, as two nodes are: the first stops before each commit until it is released.
type pair struct {
	*testing.T
	held, free *Store
	stopped    chan struct{}
	release    func()
}

func newPair(t *testing.T) *pair {
	t.Helper()
	address := server.Address(newDatabase(t))
	stopped, released := make(chan struct{}, 8), make(chan struct{})
	p := &pair{T: t, stopped: stopped, release: sync.OnceFunc(func() { close(released) })}
	p.free = reopen(t, address, Options{})
	p.held = reopen(t, address, Options{hooks: hooks{beforeCommit: func(context.Context, *pgx.Conn) { stopped <- struct{}{}; <-released }}})
	t.Cleanup(func() { p.release(); closeStore(t, p.held); closeStore(t, p.free) })
	return p
}

func start(call func() (registration.Verdict, error)) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		verdict, err := call()
		done <- outcome{verdict, err}
	}()
	return done
}

// waits returns once a call waits for a lock; it fails if the call answers instead.
func (p *pair) waits(done <-chan outcome) {
	p.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		waiting := false
		err := p.free.read(p.Context(), func(c *conn) (err error) {
			waiting, err = c.one(func(*row) {}, `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
			return err
		})
		if err != nil {
			p.Fatal(err)
		}
		if waiting {
			return
		}
		select {
		case o := <-done:
			p.Fatalf("did not wait: verdict %d, %v", o.verdict, o.err)
		default:
		}
	}
	p.Fatal("neither waits nor answers")
}

// What a redemption has looked at stays as it was until its commit: whoever wants to change it comes after, and sees it. Otherwise an
// operator could be told that a device is shut out, look, see no registration, and find one a moment later.
func TestWhoeverChangesWhatARedemptionRestsOnComesAfterIt(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	put := func(id string, disabled bool, expect *uint64) func(*Store) (registration.Verdict, error) {
		return func(s *Store) (registration.Verdict, error) {
			_, verdict, err := s.PutEnrollment(ctx, scope, registration.Enrollment{ID: id, Disabled: disabled, Created: epoch, Updated: epoch}, expect, testAudit("put"), "")
			return verdict, err
		}
	}
	anyRevision := registration.AnyRevision
	for name, test := range map[string]struct {
		group  string // the redemption is of its device
		change func(s *Store) (registration.Verdict, error)
		want   registration.Verdict
	}{
		"its enrollment is replaced": {"", put("dev", true, &anyRevision), registration.Applied},
		"its enrollment is deleted": {"", func(s *Store) (registration.Verdict, error) {
			return s.DeleteEnrollment(ctx, scope, "DEV", nil, testAudit("d"), "")
		}, registration.Applied},
		"its registration is deleted": {"", func(s *Store) (registration.Verdict, error) {
			return s.DeleteRegistration(ctx, scope, "dev", nil, testAudit("d"), "")
		}, registration.Applied},
		"a group's device gets its own": {"line", put("dev", true, nil), registration.Applied},
		"the group is replaced": {"line", func(s *Store) (registration.Verdict, error) {
			_, verdict, err := s.PutGroup(ctx, scope, registration.Group{ID: "line", Disabled: true, Created: epoch, Updated: epoch}, &anyRevision, testAudit("g"), "")
			return verdict, err
		}, registration.Applied},
		"another wants its device id": {"", func(s *Store) (registration.Verdict, error) {
			r := registration.Redemption{ID: "rival", Operation: registration.Operation{ID: "rival", RegistrationID: "rival", Generation: 1, Created: epoch, Updated: epoch},
				Registration: registration.Registration{ID: "rival", Hub: "hub", DeviceID: "dev", OperationID: "rival", Created: epoch, Updated: epoch},
				Audit:        testAudit("rival")}
			d, err := s.Device(ctx, scope, "rival")
			if err != nil {
				return 0, err
			}
			r.EnrollmentRevision = d.Enrollment.Revision
			_, verdict, err := s.Redeem(ctx, scope, r)
			return verdict, err
		}, registration.Taken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			enroll(t, p.free, "rival")
			_, verdict, err := p.free.PutGroup(ctx, scope, registration.Group{ID: "line", Created: epoch, Updated: epoch}, nil, testAudit("g"), "")
			applied(t, verdict, err)
			if test.group == "" {
				enroll(t, p.free, "dev")
			}
			r := redemption(t, p.free, "dev", "op")
			r.Registration.Group = test.group
			first := start(func() (registration.Verdict, error) {
				_, verdict, err := p.held.Redeem(ctx, scope, r)
				return verdict, err
			})
			<-p.stopped
			second := start(func() (registration.Verdict, error) { return test.change(p.free) })
			p.waits(second)
			p.release()
			if o := <-first; o.err != nil || o.verdict != registration.Applied {
				t.Fatalf("redemption: verdict %d, %v", o.verdict, o.err)
			}
			if o := <-second; o.err != nil || o.verdict != test.want {
				t.Fatalf("change: verdict %d, %v", o.verdict, o.err)
			}
		})
	}
}

// And the other way: a redemption that comes while its ground is being changed waits, and then meets the change.
func TestARedemptionMeetsAChangeThatCameBefore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p := newPair(t)
	enroll(t, p.free, "dev")
	r := redemption(t, p.free, "dev", "op")
	deleted := start(func() (registration.Verdict, error) {
		return p.held.DeleteEnrollment(ctx, scope, "dev", nil, testAudit("d"), "")
	})
	<-p.stopped
	late := start(func() (registration.Verdict, error) {
		_, verdict, err := p.free.Redeem(ctx, scope, r)
		return verdict, err
	})
	p.waits(late)
	p.release()
	if o := <-deleted; o.err != nil || o.verdict != registration.Applied {
		t.Fatalf("verdict %d, %v", o.verdict, o.err)
	}
	if o := <-late; o.err != nil || o.verdict != registration.Conflict {
		t.Fatalf("verdict %d, %v", o.verdict, o.err)
	}
	audited(t, p.free, "redeem op", 0)
}

// Devices of one scope, and of one group, do not wait for each other: while one is about to commit, others register whole.
func TestDevicesDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, group := range []string{"", "line"} {
		t.Run("group "+group, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			_, verdict, err := p.free.PutGroup(ctx, scope, registration.Group{ID: "line", Created: epoch, Updated: epoch}, nil, testAudit("g"), "")
			applied(t, verdict, err)
			for i := range 5 {
				if group == "" {
					enroll(t, p.free, fmt.Sprint("dev-", i))
				}
			}
			r := redemption(t, p.free, "dev-0", "op-0")
			r.Registration.Group = group
			first := start(func() (registration.Verdict, error) {
				_, verdict, err := p.held.Redeem(ctx, scope, r)
				return verdict, err
			})
			<-p.stopped
			var last uint64
			for i := 1; i < 5; i++ {
				id, op := fmt.Sprint("dev-", i), fmt.Sprint("op-", i)
				r := redemption(t, p.free, id, op)
				r.Registration.Group = group
				revision, verdict, err := p.free.Redeem(ctx, scope, r)
				applied(t, verdict, err)
				if revision <= last {
					t.Fatalf("revision %d after %d", revision, last)
				}
				last = revision
				verdict, err = p.free.Finish(ctx, scope, finishOf(id, op, id))
				applied(t, verdict, err)
			}
			p.release()
			if o := <-first; o.err != nil || o.verdict != registration.Applied {
				t.Fatalf("verdict %d, %v", o.verdict, o.err)
			}
		})
	}
}
