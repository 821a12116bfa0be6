package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// auditAppended writes a row that belongs to no transition; the scope need not have anything else.
func auditAppended(w *world) {
	a := audit("alone", epoch)
	w.ok(w.store.AppendAudit(w.ctx, scope, a))
	rows, err := w.store.AuditByTrackingID(w.ctx, scope, a.TrackingID)
	w.ok(err)
	w.same("audit", rows, []registration.Audit{a})
	w.audited(otherScope, a.TrackingID, 0)
}

// auditOrdered writes rows whose times run backwards: oldest first means first written.
func auditOrdered(w *world) {
	var want []registration.Audit
	for i := range 110 {
		a := audit("tracking", epoch.Add(-time.Duration(i)*time.Second))
		a.Object = numbered("object", i)
		w.applied(w.store.Refuse(w.ctx, scope, registration.Refused{ID: "dev", Generation: uint64(i), Audit: a}))
		want = append(want, a)
	}
	rows, err := w.store.AuditByTrackingID(w.ctx, scope, "tracking")
	w.ok(err)
	w.same("audit", rows, want[:100])
	w.audited(scope, "Tracking", 0)
	w.audited(scope, "track", 0)
}
