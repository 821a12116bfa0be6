package storetest

import (
	"errors"
	"fmt"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func isNotFound(err error) bool { return errors.Is(err, registration.ErrNotFound) }

// states of an id, in the order of the columns of events.
var states = []struct {
	name  string
	reach func(w *world, id, op string)
}{
	{"unknown", func(*world, string, string) {}},
	{"enrolled", func(w *world, id, _ string) { w.enroll(scope, id) }},
	{"assigning", func(w *world, id, op string) { w.enroll(scope, id); w.redeem(scope, id, op, epoch) }},
	{"assigned", func(w *world, id, op string) {
		w.enroll(scope, id)
		w.redeem(scope, id, op, epoch)
		w.finish(scope, id, op, registration.Assigned)
	}},
	{"failed", func(w *world, id, op string) {
		w.enroll(scope, id)
		w.redeem(scope, id, op, epoch)
		w.finish(scope, id, op, registration.Failed)
	}},
	{"registration deleted", func(w *world, id, op string) {
		w.enroll(scope, id)
		w.redeem(scope, id, op, epoch)
		w.applied(w.store.DeleteRegistration(w.ctx, scope, id, nil, audit("setup", epoch), ""))
	}},
	{"enrollment deleted", func(w *world, id, op string) {
		w.enroll(scope, id)
		w.redeem(scope, id, op, epoch)
		w.applied(w.store.DeleteEnrollment(w.ctx, scope, id, nil, audit("setup", epoch), ""))
	}},
	{"operation pruned", func(w *world, id, op string) {
		w.enroll(scope, id)
		w.redeem(scope, id, op, epoch.Add(-time.Hour))
		w.finish(scope, id, op, registration.Assigned) // till then it is not pruned
		_, err := w.store.Prune(w.ctx, epoch, time.Time{}, 1000)
		w.ok(err)
	}},
}

// events and their verdict in each state: Applied, Conflict, Exists, Missing, Superseded.
var events = []struct {
	name, verdicts string
	fire           func(e event) (registration.Verdict, error)
}{
	{"create", "AEEEEEAE", func(e event) (registration.Verdict, error) { return e.put(nil) }},
	{"replace any", "MAAAAAMA", func(e event) (registration.Verdict, error) { return e.put(anyRevision) }},
	{"replace current", "MAAAAAMA", func(e event) (registration.Verdict, error) { return e.put(pointer(e.enrollment)) }},
	{"replace changed", "MCCCCCMC", func(e event) (registration.Verdict, error) { return e.put(pointer(e.enrollment + 1)) }},

	{"delete enrollment", "MAAAAAMA", func(e event) (registration.Verdict, error) { return e.deleteEnrollment(nil) }},
	{"delete any enrollment", "MAAAAAMA", func(e event) (registration.Verdict, error) { return e.deleteEnrollment(anyRevision) }},
	{"delete current enrollment", "MAAAAAMA", func(e event) (registration.Verdict, error) { return e.deleteEnrollment(pointer(e.enrollment)) }},
	{"delete changed enrollment", "MCCCCCMC", func(e event) (registration.Verdict, error) { return e.deleteEnrollment(pointer(e.enrollment + 1)) }},

	{"delete registration", "MMAAAMMA", func(e event) (registration.Verdict, error) { return e.deleteRegistration(nil) }},
	{"delete any registration", "MMAAAMMA", func(e event) (registration.Verdict, error) { return e.deleteRegistration(anyRevision) }},
	{"delete current registration", "MMAAAMMA", func(e event) (registration.Verdict, error) { return e.deleteRegistration(pointer(e.registration)) }},
	{"delete changed registration", "MMCCCMMC", func(e event) (registration.Verdict, error) { return e.deleteRegistration(pointer(e.registration + 1)) }},

	{"redeem", "CAAAAACA", func(e event) (registration.Verdict, error) { return e.redeem(func(*registration.Redemption) {}) }},
	{"redeem next generation", "CCCCCCCC", func(e event) (registration.Verdict, error) {
		return e.redeem(func(r *registration.Redemption) { r.Generation++; r.Operation.Generation++ })
	}},
	{"redeem last generation", "CCCCCCCC", func(e event) (registration.Verdict, error) {
		return e.redeem(func(r *registration.Redemption) { r.Generation--; r.Operation.Generation-- })
	}},
	{"redeem under changed enrollment", "CCCCCCCC", func(e event) (registration.Verdict, error) {
		return e.redeem(func(r *registration.Redemption) { r.EnrollmentRevision++ })
	}},
	{"redeem over changed registration", "CCCCCCCC", func(e event) (registration.Verdict, error) {
		return e.redeem(func(r *registration.Redemption) { r.RegistrationBefore++ })
	}},
	{"redeem as if never registered", "CACCCACC", func(e event) (registration.Verdict, error) {
		return e.redeem(func(r *registration.Redemption) { r.RegistrationBefore = 0 })
	}},
	{"redeem as if not enrolled", "CCCCCCCC", func(e event) (registration.Verdict, error) {
		return e.redeem(func(r *registration.Redemption) { r.EnrollmentRevision = 0 })
	}},

	{"refuse", "AAAAAAAA", func(e event) (registration.Verdict, error) { return e.refuse(e.generation) }},
	{"refuse next generation", "CCCCCCCC", func(e event) (registration.Verdict, error) { return e.refuse(e.generation + 1) }},
	{"refuse last generation", "CCCCCCCC", func(e event) (registration.Verdict, error) { return e.refuse(e.generation - 1) }},

	{"finish assigned", "SSACCSSM", func(e event) (registration.Verdict, error) { return e.finish(e.op, registration.Assigned) }},
	{"finish failed", "SSACCSSM", func(e event) (registration.Verdict, error) { return e.finish(e.op, registration.Failed) }},
	{"finish another operation", "SSSSSSSS", func(e event) (registration.Verdict, error) { return e.finish("other", registration.Assigned) }},
}

// event is one cell of the table: an id in its state.
type event struct {
	w                                    *world
	id, op, tracking                     string
	before                               registration.Device
	enrollment, registration, generation uint64
}

// statesMeetEvents fires every event in every state, forbidden ones included. Whatever is not applied changes nothing and writes no audit
// row; whatever is applied writes one.
func statesMeetEvents(w *world) {
	letters := map[byte]registration.Verdict{
		'A': registration.Applied, 'C': registration.Conflict, 'E': registration.Exists, 'M': registration.Missing, 'S': registration.Superseded,
	}
	for i, state := range states {
		for j, ev := range events {
			e := event{w: w, id: fmt.Sprintf("id-%d-%d", i, j), op: fmt.Sprintf("op-%d-%d", i, j), tracking: fmt.Sprintf("event-%d-%d", i, j)}
			state.reach(w, e.id, e.op)
			e.look()
			got, err := ev.fire(e)
			want := letters[ev.verdicts[i]]
			if err != nil || got != want {
				w.Errorf("%s, %s: verdict %d, %v; want %d", state.name, ev.name, got, err, want)
				continue
			}
			after := w.device(scope, e.id)
			if changed := diff(after, e.before) != ""; changed != (want == registration.Applied) {
				w.Errorf("%s, %s: changed is %v:\n%s", state.name, ev.name, changed, diff(after, e.before))
			}
			rows := 0
			if want == registration.Applied {
				rows = 1
			}
			w.audited(scope, e.tracking, rows)
		}
	}
}

func (e *event) look() {
	e.before = e.w.device(scope, e.id)
	e.generation = e.before.Generation
	if e.before.Enrollment != nil {
		e.enrollment = e.before.Enrollment.Revision
	}
	if e.before.Registration != nil {
		e.registration = e.before.Registration.Revision
	}
}

func (e event) audit() registration.Audit { return audit(e.tracking, epoch) }

func (e event) put(expect *uint64) (registration.Verdict, error) {
	stored, verdict, err := e.w.store.PutEnrollment(e.w.ctx, scope, enrollment(e.id, "put"), expect, e.audit(), "")
	if verdict != registration.Applied && diff(stored, registration.Enrollment{}) != "" {
		e.w.Errorf("a refused put returned %+v", stored)
	}
	return verdict, err
}

func (e event) deleteEnrollment(expect *uint64) (registration.Verdict, error) {
	return e.w.store.DeleteEnrollment(e.w.ctx, scope, e.id, expect, e.audit(), "")
}

func (e event) deleteRegistration(expect *uint64) (registration.Verdict, error) {
	return e.w.store.DeleteRegistration(e.w.ctx, scope, e.id, expect, e.audit(), "")
}

func (e event) redeem(bend func(*registration.Redemption)) (registration.Verdict, error) {
	r := redemption(e.id, e.before, e.op+"-again", epoch)
	r.Audit = e.audit()
	bend(&r)
	_, verdict, err := e.w.store.Redeem(e.w.ctx, scope, r)
	if verdict != registration.Applied {
		e.w.noOperation(scope, r.Operation.ID)
	}
	return verdict, err
}

func (e event) refuse(generation uint64) (registration.Verdict, error) {
	return e.w.store.Refuse(e.w.ctx, scope, registration.Refused{ID: e.id, Generation: generation, Audit: e.audit()})
}

func (e event) finish(op string, status registration.Status) (registration.Verdict, error) {
	f := finish(e.id, op, status, epoch)
	f.Audit = e.audit()
	return e.w.store.Finish(e.w.ctx, scope, f)
}
