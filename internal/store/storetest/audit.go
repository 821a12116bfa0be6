package storetest

import (
	"math"
	"slices"
	"sync"
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

// auditPaged walks two scopes' logs, written in turn with times that run backwards, in pages of every size.
func auditPaged(w *world) {
	var want []registration.Audit
	for i := range 7 {
		a := audit(numbered("tracking", i), epoch.Add(-time.Duration(i)*time.Second))
		a.Detail = numbered("detail", i)
		w.ok(w.store.AppendAudit(w.ctx, otherScope, audit("foreign", epoch)))
		w.ok(w.store.AppendAudit(w.ctx, scope, a))
		want = append(want, a)
	}
	for limit := 1; limit <= len(want)+1; limit++ {
		var got []registration.Audit
		for after := uint64(0); ; {
			page, err := w.store.AuditPage(w.ctx, scope, after, limit)
			w.ok(err)
			if len(page) > limit {
				w.Fatalf("%d rows for limit %d", len(page), limit)
			}
			for _, line := range page {
				if line.Seq <= after {
					w.Fatalf("sequence %d follows %d", line.Seq, after)
				}
				got, after = append(got, line.Audit), line.Seq
			}
			if len(page) < limit {
				break
			}
		}
		w.same("audit", got, want)
	}
	for _, beyond := range []uint64{math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		page, err := w.store.AuditPage(w.ctx, scope, beyond, 10)
		w.ok(err)
		w.same("audit beyond the end", page, []registration.AuditLine{})
	}
}

// auditFollowed reads on from the last sequence it met while writers run: in the end it has met every row once.
func auditFollowed(w *world) {
	const writers, each = 8, 25
	var running sync.WaitGroup
	failures := make(chan error, writers)
	for n := range writers {
		running.Go(func() {
			for i := range each {
				if err := w.store.AppendAudit(w.ctx, scope, audit(numbered("row", n*each+i), epoch)); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	var met, want []string
	after := uint64(0)
	for last := false; ; {
		page, err := w.store.AuditPage(w.ctx, scope, after, 10)
		w.ok(err)
		for _, line := range page {
			met, after = append(met, line.TrackingID), line.Seq
		}
		if len(page) == 0 && last {
			break
		}
		select {
		case <-done:
			last = true // all are written; what comes from here on is the rest
		default:
		}
	}
	select {
	case err := <-failures:
		w.Fatal(err)
	default:
	}
	for i := range writers * each {
		want = append(want, numbered("row", i))
	}
	slices.Sort(met)
	slices.Sort(want)
	w.same("rows met", met, want)
}
