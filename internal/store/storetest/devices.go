package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func unknownDevice(w *world) {
	w.same("device", w.device(scope, "nobody"), registration.Device{})
	w.noOperation(scope, "nothing")
}

func redemptionRoundTrip(w *world) {
	e := w.enroll(scope, "dev")
	r := redemption("dev", w.device(scope, "dev"), "op-1", epoch)
	r.Operation.Revision = w.redeemed(w.store.Redeem(w.ctx, scope, r))

	d := w.device(scope, "dev")
	if d.Registration == nil || d.Registration.Revision <= e.Revision {
		w.Fatalf("registration %+v after enrollment revision %d", d.Registration, e.Revision)
	}
	r.Registration.Revision = d.Registration.Revision
	if r.Operation.Revision != r.Registration.Revision {
		w.Fatalf("Redeem said revision %d, the registration has %d", r.Operation.Revision, r.Registration.Revision)
	}
	w.same("device", d, registration.Device{
		Enrollment: &e, Registration: &r.Registration, Operation: &r.Operation, Generation: 1,
	})
	op, err := w.store.Operation(w.ctx, scope, "op-1")
	w.ok(err)
	w.same("operation", op, r.Operation)
	rows, err := w.store.AuditByTrackingID(w.ctx, scope, r.Audit.TrackingID)
	w.ok(err)
	w.same("audit", rows, []registration.Audit{r.Audit})
}

func secondRedemption(w *world) {
	w.enroll(scope, "dev")
	first := w.redeem(scope, "dev", "op-1", epoch)
	second := w.redeem(scope, "dev", "op-2", epoch.Add(time.Hour))

	d := w.device(scope, "dev")
	second.Registration.Created = first.Registration.Created
	second.Registration.Revision = d.Registration.Revision
	w.same("registration", *d.Registration, second.Registration)
	w.same("current operation", *d.Operation, second.Operation)
	if d.Generation != 2 {
		w.Fatalf("generation %d, want 2", d.Generation)
	}
	old, err := w.store.Operation(w.ctx, scope, "op-1")
	w.ok(err)
	w.same("superseded operation", old, first.Operation)

	f := finish("dev", "op-1", registration.Assigned, epoch)
	w.verdict(registration.Superseded)(w.store.Finish(w.ctx, scope, f))
	w.audited(scope, f.Audit.TrackingID, 0)
	w.same("after a late finish", w.device(scope, "dev"), d)
	w.finish(scope, "dev", "op-2", registration.Assigned)
}

func contradictoryRedemption(w *world) {
	w.enroll(scope, "dev")
	w.enroll(scope, "other")
	before := w.device(scope, "dev")
	for name, bend := range map[string]func(*registration.Redemption){
		"generation skipped":                 func(r *registration.Redemption) { r.Operation.Generation++ },
		"operation of another":               func(r *registration.Redemption) { r.Operation.RegistrationID = "other" },
		"registration of another":            func(r *registration.Redemption) { r.Registration.ID = "other" },
		"registration without the operation": func(r *registration.Redemption) { r.Registration.OperationID = "op-2" },
	} {
		r := redemption("dev", before, "op-1", epoch)
		bend(&r)
		if _, verdict, err := w.store.Redeem(w.ctx, scope, r); err == nil {
			w.Errorf("%s: verdict %d, want an error", name, verdict)
		}
		w.same(name, w.device(scope, "dev"), before)
		w.audited(scope, r.Audit.TrackingID, 0)
	}
}

func finishRoundTrip(w *world) {
	for _, status := range []registration.Status{registration.Assigned, registration.Failed} {
		id, op := "dev-"+string(status), "op-"+string(status)
		w.enroll(scope, id)
		r := w.redeem(scope, id, op, epoch)
		before := w.device(scope, id)
		f := finish(id, op, status, epoch.Add(time.Minute))
		w.applied(w.store.Finish(w.ctx, scope, f))

		d := w.device(scope, id)
		want := finishedRegistration(*before.Registration, f)
		want.Revision = d.Registration.Revision
		if want.Revision <= before.Registration.Revision {
			w.Fatalf("revision %d after %d", want.Revision, before.Registration.Revision)
		}
		w.same("registration", *d.Registration, want)
		w.same("operation", *d.Operation, finished(r.Operation, f))
		w.audited(scope, f.Audit.TrackingID, 1)
	}
	f := finish("dev-assigned", "op-assigned", registration.Assigning, epoch)
	if _, err := w.store.Finish(w.ctx, scope, f); err == nil {
		w.Fatal("finish with a status that is not final was not refused")
	}
}

func operationIDTaken(w *world) {
	w.enroll(scope, "one")
	w.enroll(scope, "two")
	first := w.redeem(scope, "one", "op-1", epoch)
	before := w.device(scope, "two")
	r := redemption("two", before, "op-1", epoch)
	r.Audit.TrackingID, r.Registration.DeviceID = "taken", "its own device id"
	if _, verdict, err := w.store.Redeem(w.ctx, scope, r); err == nil {
		w.Fatalf("verdict %d, want an error", verdict)
	}
	w.same("device", w.device(scope, "two"), before)
	w.audited(scope, "taken", 0)
	op, err := w.store.Operation(w.ctx, scope, "op-1")
	w.ok(err)
	w.same("operation", op, first.Operation)
}

// deviceIDTaken: one device id at a hub belongs to one registration, until that is deleted; then revisions go on rising, so that a
// hub sees the newcomer as newer.
func deviceIDTaken(w *world) {
	w.enroll(scope, "one")
	w.enroll(scope, "two")
	w.enroll(otherScope, "three")
	first := w.redeem(scope, "one", "op-1", epoch)
	rival := func(scope, id, op string) registration.Redemption {
		r := redemption(id, w.device(scope, id), op, epoch)
		r.Registration.Hub, r.Registration.DeviceID = first.Registration.Hub, first.Registration.DeviceID
		return r
	}
	before := w.device(scope, "two")
	r := rival(scope, "two", "op-2")
	_, verdict, err := w.store.Redeem(w.ctx, scope, r)
	w.verdict(registration.Taken)(verdict, err)
	w.same("device", w.device(scope, "two"), before)
	w.audited(scope, r.Audit.TrackingID, 0)
	w.redeemed(w.store.Redeem(w.ctx, otherScope, rival(otherScope, "three", "op-3")))

	w.redeem(scope, "two", "op-4", epoch)
	f := finish("two", "op-4", registration.Assigned, epoch)
	f.Hub, f.DeviceID = first.Registration.Hub, first.Registration.DeviceID
	w.verdict(registration.Taken)(w.store.Finish(w.ctx, scope, f))
	w.audited(scope, f.Audit.TrackingID, 0)

	w.applied(w.store.DeleteRegistration(w.ctx, scope, "one", nil, audit("retire", epoch), ""))
	if revision := w.redeemed(w.store.Redeem(w.ctx, scope, rival(scope, "two", "op-5"))); revision <= first.Operation.Revision {
		w.Fatalf("revision %d after %d", revision, first.Operation.Revision)
	}
}

// idsFold addresses one id in three spellings. Ids that differ in more than ASCII case stay apart.
func idsFold(w *world) {
	w.enroll(scope, "Dev-K")
	_, verdict, err := w.store.PutEnrollment(w.ctx, scope, enrollment("DEV-k", "x"), nil, audit("again", epoch), "")
	w.verdict(registration.Exists)(verdict, err)
	w.same("Kelvin sign", w.device(scope, "dev-\u212a"), registration.Device{})

	r := redemption("dev-k", w.device(scope, "DEV-K"), "Op-1", epoch)
	w.redeemed(w.store.Redeem(w.ctx, scope, r))
	w.noOperation(scope, "op-1") // operation ids are opaque
	w.applied(w.store.Finish(w.ctx, scope, finish("DEV-K", "Op-1", registration.Assigned, epoch)))
	d := w.device(scope, "dev-K")
	if d.Enrollment.ID != "Dev-K" || d.Registration.ID != "dev-k" || d.Operation.ID != "Op-1" {
		w.Fatalf("spellings were not kept: %+v", d)
	}
	w.applied(w.store.Refuse(w.ctx, scope, registration.Refused{ID: "dEV-k", Generation: 1, Audit: audit("refuse", epoch)}))
	w.ok(w.store.RememberOwner(w.ctx, scope, "DEV-K", []byte("srk"), epoch))
	srks, err := w.store.Owners(w.ctx, scope, "dev-k", epoch)
	w.ok(err)
	w.same("owners", srks, [][]byte{[]byte("srk")})
	w.applied(w.store.DeleteRegistration(w.ctx, scope, "DEV-k", nil, audit("dr", epoch), ""))
	w.applied(w.store.DeleteEnrollment(w.ctx, scope, "dev-K", nil, audit("de", epoch), ""))
	w.same("device", w.device(scope, "Dev-K"), registration.Device{Generation: 2})
}
