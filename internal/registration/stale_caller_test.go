package registration_test

import (
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// A request was let in, and while it waited its turn its key was regenerated, its policy removed or its right taken. It must not use the
// dead key to make itself a living one, or to be shown another's.
func TestAKeyThatDiesWhileItsRequestWaitsChangesNoPolicy(t *testing.T) {
	t.Parallel()
	kill := map[string]func(w *world){
		"removed":     func(w *world) { w.must(w.core.DeletePolicy(w.ctx, operator, "thief")) },
		"regenerated": func(w *world) { w.regenerate("thief", registration.PrimaryKey) },
		"right taken": func(w *world) { w.putPolicy("thief", registration.EnrollmentRead) },
	}
	for how, dies := range kill {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			thief := w.putPolicy("thief", registration.AllRights)
			w.putPolicy("victim", registration.EnrollmentRead)
			by, err := w.core.Authorize(w.ctx, hubOne, "/latchkey/v1/accessPolicies", w.serviceToken(thief.Primary, hubOne, "thief", time.Hour), "", registration.ServiceConfig, w.clock.Now())
			w.must(err)
			dies(w)
			for what, try := range map[string]func() error{
				"put": func() error {
					return second(w.core.PutPolicy(w.ctx, by, "backdoor", registration.AllRights, registration.PresentOrAbsent))
				},
				"show":       func() error { return second(w.core.Policy(w.ctx, by, "victim")) },
				"regenerate": func() error { return second(w.core.RegeneratePolicy(w.ctx, by, "victim", registration.PrimaryKey)) },
				"delete":     func() error { return w.core.DeletePolicy(w.ctx, by, "victim") },
			} {
				t.Run(what, func(t *testing.T) { w.in(t).wantFault(try(), dps.CodeUnauthorized, registration.ReasonAdminToken) })
			}
		})
	}
}

func (w *world) regenerate(name string, slot registration.KeySlot) {
	w.Helper()
	_, err := w.core.RegeneratePolicy(w.ctx, operator, name, slot)
	w.must(err)
}

// Who regenerates its own key, takes its own right or removes its own policy is told that it was done.
func TestACallerMayEndItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for what, end := range map[string]func(by registration.Caller) error{
		"regenerate": func(by registration.Caller) error {
			return second(w.core.RegeneratePolicy(w.ctx, by, "self", registration.PrimaryKey))
		},
		"remove": func(by registration.Caller) error { return w.core.DeletePolicy(w.ctx, by, "self") },
		"take": func(by registration.Caller) error {
			return second(w.core.PutPolicy(w.ctx, by, "self", registration.EnrollmentRead, registration.Present))
		},
	} {
		self := w.putPolicy("self", registration.AllRights)
		by, err := w.core.Authorize(w.ctx, hubOne, "/latchkey/v1/accessPolicies", w.serviceToken(self.Primary, hubOne, "self", time.Hour), "", registration.ServiceConfig, w.clock.Now())
		w.must(err)
		if err := end(by); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
