package storetest

import (
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func (w *world) prune(operationsBefore, idleBefore time.Time, limit, want int) {
	w.Helper()
	n, err := w.store.Prune(w.ctx, operationsBefore, idleBefore, limit)
	w.ok(err)
	if n != want {
		w.Fatalf("pruned %d rows, want %d", n, want)
	}
}

func pruneOperations(w *world) {
	w.enroll(scope, "dev")
	for i, age := range []time.Duration{3, 1, 2, 4} { // minutes after epoch, out of order
		w.redeem(scope, "dev", numbered("op", i), epoch.Add(age*time.Minute))
	}
	before := w.device(scope, "dev")
	w.prune(epoch, time.Time{}, 10, 0)
	w.prune(epoch.Add(time.Minute), time.Time{}, 10, 0) // created at the bound: stays
	w.prune(epoch.Add(4*time.Minute), time.Time{}, 2, 2)
	w.noOperation(scope, numbered("op", 1))
	w.noOperation(scope, numbered("op", 2))
	_, err := w.store.Operation(w.ctx, scope, numbered("op", 0))
	w.ok(err)
	w.same("device", w.device(scope, "dev"), before)
	w.prune(epoch.Add(4*time.Minute), time.Time{}, 10, 1)
	w.finish(scope, "dev", numbered("op", 3), registration.Assigned)
	before = w.device(scope, "dev")
	w.prune(epoch.Add(time.Hour), time.Time{}, 10, 1) // even the current one
	before.Operation = nil
	w.same("device without its operation", w.device(scope, "dev"), before)
}

func generationOutlivesDeletion(w *world) {
	deleted := epoch.Add(time.Hour)
	for name, end := range map[string]func(id string){
		"enrollment": func(id string) { w.applied(w.store.DeleteEnrollment(w.ctx, scope, id, nil, audit("d", deleted), "")) },
		"both": func(id string) {
			w.applied(w.store.DeleteRegistration(w.ctx, scope, id, nil, audit("d", epoch), ""))
			w.applied(w.store.DeleteEnrollment(w.ctx, scope, id, nil, audit("d", deleted), ""))
		},
		"refused after": func(id string) {
			w.applied(w.store.DeleteEnrollment(w.ctx, scope, id, nil, audit("d", epoch), ""))
			w.applied(w.store.Refuse(w.ctx, scope, registration.Refused{ID: id, Generation: 1, Audit: audit("d", deleted)}))
		},
	} {
		w.enroll(scope, name)
		w.redeem(scope, name, "op "+name, epoch)
		end(name)
		generation := w.device(scope, name).Generation
		if generation == 0 {
			w.Fatalf("%s: the generation went with the rows", name)
		}
		w.prune(time.Time{}, deleted, 10, 0) // moved at the bound: stays
		w.same(name, w.device(scope, name), registration.Device{Generation: generation})
		w.prune(time.Time{}, deleted.Add(time.Microsecond), 10, 1)
		w.same(name, w.device(scope, name), registration.Device{})
	}
	w.enroll(scope, "again")
	w.redeem(scope, "again", "op again", epoch)
	w.applied(w.store.DeleteEnrollment(w.ctx, scope, "again", nil, audit("d", epoch), ""))
	w.enroll(scope, "again") // in use again: its age does not count
	w.prune(time.Time{}, deleted, 10, 0)
	w.redeem(scope, "again", "op again 2", epoch)
	if g := w.device(scope, "again").Generation; g != 2 {
		w.Fatalf("generation %d after a second life, want 2", g)
	}
}

func pruneSparesUsed(w *world) {
	far := epoch.Add(1000 * time.Hour)
	w.enroll(scope, "enrolled")
	w.applied(w.store.Refuse(w.ctx, scope, registration.Refused{ID: "enrolled", Audit: audit("r", epoch)}))
	w.enroll(scope, "unregistered")
	w.redeem(scope, "unregistered", "op-1", epoch)
	w.applied(w.store.DeleteRegistration(w.ctx, scope, "unregistered", nil, audit("d", epoch), ""))
	w.enroll(scope, "registered")
	w.redeem(scope, "registered", "op-2", epoch)
	for i := range 5 {
		stranger := numbered("stranger", i)
		w.applied(w.store.Refuse(w.ctx, scope, registration.Refused{ID: stranger, Audit: audit("r", epoch)}))
	}
	w.prune(time.Time{}, far, 3, 3)
	w.prune(time.Time{}, far, 3, 2)
	w.prune(time.Time{}, far, 3, 0)
	for _, id := range []string{"enrolled", "unregistered", "registered"} {
		if g := w.device(scope, id).Generation; g != 1 {
			w.Fatalf("generation of %s is %d, want 1", id, g)
		}
	}
}

func pruneForgetsOwners(w *world) {
	for i := range 3 {
		w.ok(w.store.RememberOwner(w.ctx, scope, numbered("dev", i), []byte("srk"), epoch.Add(time.Duration(i)*time.Minute)))
	}
	w.prune(time.Time{}, epoch, 10, 0)
	w.prune(time.Time{}, epoch.Add(2*time.Minute), 1, 1)
	w.prune(time.Time{}, epoch.Add(2*time.Minute), 10, 1)
	for i, want := range []int{0, 0, 1} {
		srks, err := w.store.Owners(w.ctx, scope, numbered("dev", i), time.Time{})
		w.ok(err)
		if len(srks) != want {
			w.Fatalf("owners of id %d: %d, want %d", i, len(srks), want)
		}
	}
}
