package postgres

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/pgserver"
)

// The server is killed while devices register, three times over, and started again. What was acknowledged is there, whole, with its audit row; what was not is
// there whole or not at all; the store goes on by itself. The memory of owners, which is never flushed, is empty.
func TestAcknowledgedSurvivesAKilledServer(t *testing.T) {
	t.Parallel()
	own, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := Create(t.Context(), own.Address("postgres")); err != nil {
		t.Fatal(err)
	}
	s := reopen(t, own.Address("postgres"), Options{Conns: 6})
	defer closeStore(t, s)
	for round := range 3 {
		if err := s.RememberOwner(t.Context(), scope, "dev", []byte("srk"), epoch); err != nil {
			t.Fatal(err)
		}
		acknowledged := registerUntilKilled(t, s, own, round)
		if err := own.Run(); err != nil {
			t.Fatal(err)
		}
		for writer, n := range acknowledged {
			if n < 2 {
				t.Errorf("round %d: writer %d acknowledged only %d", round, writer, n)
			}
			for i := range n + 1 { // the last one was not acknowledged
				checkWhole(t, s, deviceOf(round, writer, i), i < n)
			}
		}
		if srks, err := s.Owners(t.Context(), scope, "dev", epoch); err != nil || len(srks) > 0 {
			t.Errorf("owners after a crash: %d, %v", len(srks), err)
		}
	}
}

func deviceOf(round, writer, i int) string { return fmt.Sprintf("dev-%d-%d-%d", round, writer, i) }

// registerUntilKilled lets writers enroll and redeem devices, kills the server once all have got going, and returns how many each was told of.
func registerUntilKilled(t *testing.T, s *Store, own *pgserver.Server, round int) [4]int {
	var acknowledged [4]int
	var going, running sync.WaitGroup
	going.Add(len(acknowledged))
	for writer := range acknowledged {
		running.Go(func() {
			for {
				id := deviceOf(round, writer, acknowledged[writer])
				if err := register(s, id); err != nil {
					if acknowledged[writer] < 10+writer {
						t.Errorf("before the kill: %v", err)
						going.Done()
					}
					return
				}
				if acknowledged[writer]++; acknowledged[writer] == 10+writer {
					going.Done()
				}
			}
		})
	}
	going.Wait()
	if err := own.Kill(); err != nil {
		t.Error(err)
	}
	running.Wait()
	return acknowledged
}

func register(s *Store, id string) error {
	ctx := context.Background()
	e, verdict, err := s.PutEnrollment(ctx, scope, registration.Enrollment{ID: id, Created: epoch, Updated: epoch}, nil, testAudit("enroll "+id), "")
	if err != nil || verdict != registration.Applied {
		return fmt.Errorf("enroll: verdict %d, %w", verdict, err)
	}
	r := registration.Redemption{ID: id, EnrollmentRevision: e.Revision,
		Operation: registration.Operation{ID: id, RegistrationID: id, Status: registration.Assigning, Generation: 1, Created: epoch, Updated: epoch},
		Registration: registration.Registration{ID: id, Status: registration.Assigning, Hub: "hub", DeviceID: id, OperationID: id,
			Created: epoch, Updated: epoch},
		Audit: testAudit("redeem " + id)}
	if _, verdict, err = s.Redeem(ctx, scope, r); err != nil || verdict != registration.Applied {
		return fmt.Errorf("redeem: verdict %d, %w", verdict, err)
	}
	return nil
}

// checkWhole looks at all that a registration writes.
func checkWhole(t *testing.T, s *Store, id string, must bool) {
	t.Helper()
	d, err := s.Device(t.Context(), scope, id)
	if err != nil {
		t.Fatal(err)
	}
	if d.Registration == nil {
		if must {
			t.Errorf("%s was acknowledged and is not there", id)
		}
		audited(t, s, "redeem "+id, 0)
		return
	}
	if d.Enrollment == nil || d.Operation == nil || d.Generation != 1 || d.Operation.Revision != d.Registration.Revision {
		t.Errorf("%s is not whole: %+v", id, d)
	}
	audited(t, s, "redeem "+id, 1)
	if taken, err := deviceIDOf(s, id); err != nil || taken != id {
		t.Errorf("%s has the device id of %q, %v", id, taken, err)
	}
}

func deviceIDOf(s *Store, device string) (folded string, err error) {
	err = s.read(context.Background(), func(c *conn) error {
		_, err := c.one(func(r *row) { folded = r.text() }, `SELECT folded FROM device_ids WHERE scope = $1 AND hub = 'hub' AND device_id = $2`, scope, device)
		return err
	})
	return folded, err
}
