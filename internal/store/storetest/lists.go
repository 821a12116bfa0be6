package storetest

import (
	"slices"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// enrollmentsListed walks the list in pages of every size: each enrollment of the scope comes once, in order of its folded id, with its
// registration.
func enrollmentsListed(w *world) {
	ids := []string{"b-2", "A.1", "a.10", "a-1", "_x", "C:3", "b-1"} // in order of bytes once folded: _x comes before letters
	want := map[string]registration.Device{}
	for i, id := range ids {
		w.enroll(scope, id)
		w.enroll(otherScope, id+"-other")
		if i%2 == 0 {
			w.redeem(scope, id, "op-"+id, epoch)
		}
		want[dps.FoldID(id)] = w.device(scope, id)
	}
	order := []string{"_x", "a-1", "a.1", "a.10", "b-1", "b-2", "c:3"}
	for limit := 1; limit <= len(ids)+1; limit++ {
		var got []string
		for after := ""; ; {
			page, err := w.store.Enrollments(w.ctx, scope, after, limit)
			w.ok(err)
			if len(page) > limit {
				w.Fatalf("%d lines for limit %d", len(page), limit)
			}
			for _, line := range page {
				id := dps.FoldID(line.Enrollment.ID)
				w.same("enrollment", line.Enrollment, *want[id].Enrollment)
				w.same("registration", line.Registration, want[id].Registration)
				got = append(got, id)
			}
			if len(page) < limit {
				break
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, order) {
			w.Fatalf("limit %d: %q, want %q", limit, got, order)
		}
	}
}
