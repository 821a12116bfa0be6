package postgres

import (
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

const scope = "0ne00000001"

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testAudit(trackingID string) registration.Audit {
	return registration.Audit{At: epoch, Actor: "device", Action: "test", Object: "object", Outcome: "ok", TrackingID: trackingID}
}

func enroll(t *testing.T, s *Store, id string) registration.Enrollment {
	t.Helper()
	e, verdict, err := s.PutEnrollment(t.Context(), scope, registration.Enrollment{ID: id, Created: epoch, Updated: epoch}, nil, testAudit("enroll "+id), "")
	applied(t, verdict, err)
	return e
}

// redemption redeems what the device's snapshot allows, as the device of its own name.
func redemption(t *testing.T, s *Store, id, operation string) registration.Redemption {
	t.Helper()
	d, err := s.Device(t.Context(), scope, id)
	if err != nil {
		t.Fatal(err)
	}
	r := registration.Redemption{
		ID: id, Generation: d.Generation, GroupsRevision: d.GroupsRevision,
		Operation: registration.Operation{ID: operation, RegistrationID: id, Status: registration.Assigning, Generation: d.Generation + 1, Created: epoch, Updated: epoch},
		Registration: registration.Registration{ID: id, Status: registration.Assigning, Hub: "hub", DeviceID: id, OperationID: operation,
			Created: epoch, Updated: epoch},
		Audit: testAudit("redeem " + operation),
	}
	if d.Enrollment != nil {
		r.EnrollmentRevision = d.Enrollment.Revision
	}
	if d.Registration != nil {
		r.RegistrationBefore = d.Registration.Revision
	}
	return r
}

func redeemed(t *testing.T, s *Store, id, operation string) {
	t.Helper()
	_, verdict, err := s.Redeem(t.Context(), scope, redemption(t, s, id, operation))
	applied(t, verdict, err)
}

// ordered redeems with an outbox row.
func ordered(t *testing.T, s *Store, id, operation string) {
	t.Helper()
	enroll(t, s, id)
	r := redemption(t, s, id, operation)
	r.Outbox = &registration.Outbox{Kind: registration.OutboxAdvance, Object: operation}
	_, verdict, err := s.Redeem(t.Context(), scope, r)
	applied(t, verdict, err)
}

func finishOf(id, operation, device string) registration.Finish {
	return registration.Finish{OperationID: operation, RegistrationID: id, Status: registration.Assigned, Hub: "hub", DeviceID: device, At: epoch,
		Audit: testAudit("finish " + operation)}
}

func applied(t *testing.T, verdict registration.Verdict, err error) {
	t.Helper()
	if err != nil || verdict != registration.Applied {
		t.Fatalf("verdict %d, %v, want it applied", verdict, err)
	}
}

func audited(t *testing.T, s *Store, trackingID string, want int) {
	t.Helper()
	rows, err := s.AuditByTrackingID(t.Context(), scope, trackingID)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != want {
		t.Fatalf("%d audit rows for %s, want %d", len(rows), trackingID, want)
	}
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
