package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func enrollmentRoundTrip(w *world) {
	for _, e := range []registration.Enrollment{enrollment("Full", "odd"), {ID: "bare", Created: epoch, Updated: epoch}} {
		stored, verdict, err := w.store.PutEnrollment(w.ctx, scope, e, nil, audit("put "+e.ID, epoch), "")
		w.applied(verdict, err)
		if stored.Revision == 0 {
			w.Fatal("no revision was given")
		}
		e.Revision = stored.Revision
		w.same("returned", stored, e)
		d := w.device(scope, e.ID)
		w.same("read", d, registration.Device{Enrollment: &e})
		if d.Enrollment.PinnedSRK == nil != (e.PinnedSRK == nil) {
			w.Fatal("absent and present pinned SRK were confused")
		}
		w.audited(scope, "put "+e.ID, 1)
	}
}

func enrollmentReplaced(w *world) {
	first := w.enroll(scope, "dev")
	next := enrollment("DEV", "another")
	next.Created, next.Updated = epoch.Add(time.Hour), epoch.Add(time.Hour)
	stored, verdict, err := w.store.PutEnrollment(w.ctx, scope, next, pointer(first.Revision), audit("replace", epoch), "")
	w.applied(verdict, err)
	next.Created = first.Created
	next.Revision = stored.Revision
	w.same("returned", stored, next)
	w.same("read", *w.device(scope, "dev").Enrollment, next)
}

// revisionsNeverRepeat walks an id through creation, redemption and deletion twice: an etag of the first life must not fit the second.
func revisionsNeverRepeat(w *world) {
	seen, last := map[uint64]bool{}, uint64(0)
	note := func(revision uint64) {
		w.Helper()
		if seen[revision] || revision <= last {
			w.Fatalf("revision %d after %d", revision, last)
		}
		seen[revision], last = true, revision
	}
	for _, life := range []string{"a", "b", "c"} {
		note(w.enroll(scope, "dev").Revision)
		stored, verdict, err := w.store.PutEnrollment(w.ctx, scope, enrollment("dev", life), anyRevision, audit("r", epoch), "")
		w.applied(verdict, err)
		note(stored.Revision)
		w.redeem(scope, "dev", "op-"+life, epoch)
		note(w.device(scope, "dev").Registration.Revision)
		w.finish(scope, "dev", "op-"+life, registration.Assigned)
		note(w.device(scope, "dev").Registration.Revision)
		w.redeem(scope, "dev", "op2-"+life, epoch)
		note(w.device(scope, "dev").Registration.Revision)
		w.applied(w.store.DeleteRegistration(w.ctx, scope, "dev", nil, audit("d", epoch), ""))
		w.redeem(scope, "dev", "op3-"+life, epoch)
		note(w.device(scope, "dev").Registration.Revision)
		w.applied(w.store.DeleteEnrollment(w.ctx, scope, "dev", nil, audit("d", epoch), ""))
	}
}

func deleteEnrollmentEndsAll(w *world) {
	w.enroll(scope, "dev")
	w.redeem(scope, "dev", "op-1", epoch)
	w.redeem(scope, "dev", "op-2", epoch)
	w.enroll(scope, "dev2")
	w.redeem(scope, "dev2", "op-3", epoch)
	neighbour := w.device(scope, "dev2")

	w.applied(w.store.DeleteEnrollment(w.ctx, scope, "DEV", nil, audit("delete", epoch), ""))
	w.audited(scope, "delete", 1)
	w.same("device", w.device(scope, "dev"), registration.Device{Generation: 2})
	w.noOperation(scope, "op-1")
	w.noOperation(scope, "op-2")
	w.same("neighbour", w.device(scope, "dev2"), neighbour)
}

func deleteRegistrationLeavesEnrollment(w *world) {
	e := w.enroll(scope, "dev")
	w.redeem(scope, "dev", "op-1", epoch)
	w.redeem(scope, "dev", "op-2", epoch)
	w.applied(w.store.DeleteRegistration(w.ctx, scope, "Dev", nil, audit("delete", epoch), ""))
	w.audited(scope, "delete", 1)
	w.same("device", w.device(scope, "dev"), registration.Device{Generation: 2, Enrollment: &e})
	w.noOperation(scope, "op-1")
	w.noOperation(scope, "op-2")
}

func (w *world) noOperation(scope, operationID string) {
	w.Helper()
	if _, err := w.store.Operation(w.ctx, scope, operationID); !isNotFound(err) {
		w.Fatalf("operation %s: %v, want not found", operationID, err)
	}
}
