package registration_test

import (
	"fmt"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// refused plays a refused first contact and records it as a transport does.
func (w *world) refused(d *device, code dps.Code, reason registration.Reason) *registration.Fault {
	w.Helper()
	_, err := w.core.Register(w.ctx, d.request(""))
	fault := w.wantFault(err, code, reason)
	w.core.Record(registration.Decision{At: w.clock.Now(), Scope: d.scope, ID: d.id, Address: "192.0.2.7:1", Reason: fault.Reason, TrackingID: fault.TrackingID, Note: "seen"})
	return fault
}

func TestWhyNamesTheReasonEvenAfterAFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	d.chip = softtpm.New(softtpm.ECC, 1)
	fault := w.refused(d, dps.CodeNotEnrolled, registration.ReasonOtherEK)
	asked := w.clock.Now()
	w.clock.advance(time.Hour)

	x, err := w.core.Why(w.ctx, operator, fault.TrackingID)
	w.must(err)
	if x.Reason != registration.ReasonOtherEK || !x.At.Equal(asked) || x.Recent == nil || x.Recent.ID != "pump" || x.Recent.Address == "" || len(x.Audit) != 0 {
		t.Errorf("before the flood: %+v", x)
	}
	for i := range registration.DecisionEntries {
		w.core.Record(registration.Decision{Scope: scopeOne, ID: fmt.Sprint("stranger", i), Reason: registration.ReasonUnknownID, TrackingID: fmt.Sprint(i)})
	}
	x, err = w.core.Why(w.ctx, operator, fault.TrackingID)
	w.must(err)
	if x.Reason != registration.ReasonOtherEK || !x.At.Equal(asked) || x.Recent != nil {
		t.Errorf("after the flood: %+v", x)
	}
	x, err = w.newCore().Why(w.ctx, operator, fault.TrackingID) // another node, or this one started again
	w.must(err)
	if x.Reason != registration.ReasonOtherEK {
		t.Errorf("after a restart: %+v", x)
	}
}

func TestWhyIsForTheScopesOwnOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("pump", softtpm.ECC, 0)
	fault := w.refused(d, dps.CodeNotEnrolled, registration.ReasonUnknownID)
	neighbour := operator
	neighbour.Scope = scopeTwo
	_, err := w.core.Why(w.ctx, neighbour, fault.TrackingID)
	w.wantFault(err, dps.CodeNotFound, registration.ReasonNotFound)
	for _, id := range []string{"", "no id", "00000000-0000-0000-0000-000000000000"} {
		_, err := w.core.Why(w.ctx, operator, id)
		w.wantFault(err, dps.CodeNotFound, registration.ReasonNotFound)
	}
}

func TestWhyExplainsAnUnknownScopeToEveryOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("pump", softtpm.ECC, 0)
	d.scope = "0neMISTYPED"
	fault := w.refused(d, dps.CodeNotEnrolled, registration.ReasonUnknownScope)
	for _, scope := range []string{scopeOne, scopeTwo} {
		by := operator
		by.Scope = scope
		x, err := w.core.Why(w.ctx, by, fault.TrackingID)
		w.must(err)
		if x.Reason != registration.ReasonUnknownScope || x.Recent == nil || x.Recent.Scope != "0neMISTYPED" {
			t.Errorf("to the operator of %s: %+v", scope, x)
		}
		x, err = w.newCore().Why(w.ctx, by, fault.TrackingID) // another node, or this one started again
		w.must(err)
		if x.Reason != registration.ReasonUnknownScope {
			t.Errorf("after a restart, to the operator of %s: %+v", scope, x)
		}
	}
}

func TestWhyShowsTheAuditOfWhatWasProved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	answer, err := d.prove(d.token(d.challenge(), time.Hour))
	w.must(err)
	x, err := w.core.Why(w.ctx, operator, answer.TrackingID)
	w.must(err)
	if x.Reason != registration.ReasonRegistered || len(x.Audit) != 2 || x.Audit[0].Action != registration.ActionRegister || x.Audit[1].Action != registration.ActionAssign {
		t.Errorf("explained as %+v", x)
	}
	d.enroll("*", disabled)
	_, err = d.prove(d.token(d.challenge(), time.Hour))
	fault := w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
	x, err = w.core.Why(w.ctx, operator, fault.TrackingID)
	w.must(err)
	if x.Reason != registration.ReasonDisabled || len(x.Audit) != 1 {
		t.Errorf("explained as %+v", x)
	}
}
