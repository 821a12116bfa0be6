package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// pending redeems a proof whose hub is to be chosen later.
func (w *world) pending(id, operation string) registration.Redemption {
	w.Helper()
	r := redemption(id, w.device(scope, id), operation, epoch)
	r.Operation.Hub, r.Outbox = "", &registration.Outbox{Kind: registration.OutboxAdvanceRemote, Object: operation}
	r.Operation.Revision = w.redeemed(w.store.Redeem(w.ctx, scope, r))
	return r
}

func allocatedOnce(w *world) {
	w.enroll(scope, "dev")
	w.pending("dev", "op-1")
	before := w.device(scope, "dev")
	a := allocation("dev", "op-1", epoch.Add(time.Minute))
	a.Outbox = advance("op-1")
	w.verdict(registration.Superseded)(w.store.Allocate(w.ctx, scope, allocation("dev", "another", epoch)))
	w.verdict(registration.Superseded)(w.store.Allocate(w.ctx, otherScope, a))
	w.same("refused", w.device(scope, "dev"), before)

	w.applied(w.store.Allocate(w.ctx, scope, a))
	d := w.device(scope, "dev")
	o, r := allocated(*before.Operation, *before.Registration, a)
	if r.Revision = d.Registration.Revision; r.Revision <= before.Registration.Revision {
		w.Fatalf("revision %d after %d", r.Revision, before.Registration.Revision)
	}
	w.same("operation", *d.Operation, o)
	w.same("registration", *d.Registration, r)
	w.waiting(1) // the row of the other kind is gone
	w.claimed(w.claim("c", longLease, 10), "op-1")

	w.verdict(registration.Conflict)(w.store.Allocate(w.ctx, scope, allocation("dev", "op-1", epoch)))
	w.same("allocated again", w.device(scope, "dev"), d)
	w.enroll(scope, "rival")
	w.pending("rival", "op-2")
	taken := allocation("rival", "op-2", epoch)
	taken.Hub, taken.DeviceID = a.Hub, a.DeviceID
	w.verdict(registration.Taken)(w.store.Allocate(w.ctx, scope, taken))
	w.finish(scope, "dev", "op-1", registration.Failed)
	w.verdict(registration.Conflict)(w.store.Allocate(w.ctx, scope, allocation("dev", "op-1", epoch)))
}

func moveIsSaved(w *world) {
	w.enroll(scope, "dev")
	w.redeem(scope, "dev", "op-1", epoch)
	before := w.device(scope, "dev")
	m := savedMove("dev", "op-1", epoch.Add(time.Minute))
	w.verdict(registration.Superseded)(w.store.SaveMove(w.ctx, scope, savedMove("dev", "another", epoch)))
	w.applied(w.store.SaveMove(w.ctx, scope, m))
	d := w.device(scope, "dev")
	want := *before.Registration
	want.Revision, want.Saved, want.Updated = d.Registration.Revision, m.Data, m.At
	w.same("registration", *d.Registration, want)
	w.same("operation", *d.Operation, *before.Operation)

	// Who has read the registration before writes nothing over what was saved.
	stale := redemption("dev", before, "op-2", epoch)
	_, verdict, err := w.store.Redeem(w.ctx, scope, stale)
	w.verdict(registration.Conflict)(verdict, err)

	w.finish(scope, "dev", "op-1", registration.Assigned)
	if r := w.device(scope, "dev").Registration; len(r.Saved) > 0 || len(r.Leaving) > 0 {
		w.Fatalf("after the move it has saved %q and leaves %q", r.Saved, r.Leaving)
	}
	w.verdict(registration.Conflict)(w.store.SaveMove(w.ctx, scope, m))
}

func failedKeeps(w *world) {
	w.enroll(scope, "dev")
	w.redeem(scope, "dev", "op-1", epoch)
	before := w.device(scope, "dev").Registration
	w.finish(scope, "dev", "op-1", registration.Failed)
	r := w.device(scope, "dev").Registration
	if r.Hub != before.Hub || r.DeviceID != before.DeviceID || r.Substatus != before.Substatus || len(r.Leaving) == 0 || len(r.Saved) == 0 {
		w.Fatalf("of %+v\na failure left %+v", before, r)
	}
	// Its device id at its hub is still its own.
	w.enroll(scope, "rival")
	rival := redemption("rival", w.device(scope, "rival"), "op-2", epoch)
	rival.Registration.Hub, rival.Registration.DeviceID = before.Hub, before.DeviceID
	_, verdict, err := w.store.Redeem(w.ctx, scope, rival)
	w.verdict(registration.Taken)(verdict, err)
}
