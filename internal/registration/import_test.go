package registration_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// importLines are lines of ids, all of one chip.
func (w *world) importLines(ids ...string) []registration.ImportLine {
	w.Helper()
	lines := make([]registration.ImportLine, len(ids))
	for i, id := range ids {
		lines[i].Enrollment = w.device(id, softtpm.ECC, 0).wire(map[string]any{"deviceId": fmt.Sprint("line-", i)})
	}
	return lines
}

// outcomes are the outcomes of an import as letters: created, replaced, skipped, failed, withheld, unknown.
func outcomes(results []registration.Imported) string {
	var text strings.Builder
	for _, r := range results {
		text.WriteByte("?crsfw"[r.Outcome])
	}
	return text.String()
}

func TestLinesOfOneIDMeetEachOtherInTheirOrder(t *testing.T) {
	t.Parallel()
	for mode, want := range map[registration.IfExists][2]string{ // outcomes, and the device id that holds
		registration.RefuseExisting:  {"ccff", "line-0"},
		registration.SkipExisting:    {"ccss", "line-0"},
		registration.ReplaceExisting: {"ccrr", "line-3"},
	} {
		w := newWorld(t)
		results, err := w.core.Import(w.ctx, operator, mode, w.importLines("pump", "valve", "PUMP", "Pump"))
		w.must(err)
		if got := outcomes(results); got != want[0] {
			t.Errorf("mode %d: %s, want %s", mode, got, want[0])
		}
		if got := w.snapshot("pump").Enrollment.DeviceID; got != want[1] {
			t.Errorf("mode %d: %q holds, want %q", mode, got, want[1])
		}
	}
}

func TestManyLinesAreFewTransitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := make([]string, 2*registration.MaxPuts+1)
	for i := range ids {
		ids[i] = fmt.Sprint("dev-", i)
	}
	lines := w.importLines(ids...)
	w.store.take()
	results, err := w.core.Import(w.ctx, operator, registration.RefuseExisting, lines)
	w.must(err)
	if got := outcomes(results); got != strings.Repeat("c", len(ids)) {
		t.Error(got)
	}
	if calls := w.store.take(); calls["PutEnrollments"] != 3 || len(calls) != 1 {
		t.Errorf("calls %v", calls)
	}
	results, err = w.core.TryImport(w.ctx, operator, registration.ReplaceExisting, registration.NewTrial(), lines[:3])
	w.must(err)
	if calls := w.store.take(); outcomes(results) != "rrr" || calls["PutEnrollments"] != 0 {
		t.Errorf("a dry run: %s, %v", outcomes(results), calls)
	}
}

func TestAnIDThatIsLeftOutIsThatOfTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("ignored", softtpm.RSA, 1)
	lines := []registration.ImportLine{{Enrollment: d.wire(nil)}, {Err: errors.New("inside")}}
	lines[0].Enrollment.RegistrationID = ""
	results, err := w.core.Import(w.ctx, operator, registration.RefuseExisting, lines)
	w.must(err)
	id := attest.RegistrationID(lines[0].Enrollment.Attestation.TPM.EndorsementKey)
	if results[0].RegistrationID != id || w.snapshot(id).Enrollment == nil {
		t.Errorf("%+v", results[0])
	}
	if results[1].Outcome != registration.ImportFailed || results[1].Code != dps.CodeInternal || strings.Contains(results[1].Message, "inside") {
		t.Errorf("an error from inside is told as %+v", results[1])
	}
}

// A store that fails on either side of its effect ends the import; the same lines again with SkipExisting are all there once.
func TestAnImportThatTheStoreBrokeIsCompletedByAnother(t *testing.T) {
	t.Parallel()
	for _, when := range []moment{before, after} {
		w := newWorld(t)
		lines := w.importLines("a", "b", "c")
		d := w.device("d", softtpm.ECC, 0)
		w.store.failNext("PutEnrollments", 1, when)
		results, err := w.core.Import(w.ctx, operator, registration.RefuseExisting, lines)
		if !d.retryable(err) || outcomes(results) != "???" {
			t.Errorf("%s: %s, %v", when, outcomes(results), err)
		}
		results, err = w.core.Import(w.ctx, operator, registration.SkipExisting, lines)
		w.must(err)
		if got, want := outcomes(results), map[moment]string{before: "ccc", after: "sss"}[when]; got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
		for _, id := range []string{"a", "b", "c"} {
			page, err := w.core.AuditLog(w.ctx, operator, registration.AuditFilter{Object: id}, 0, "")
			w.must(err)
			if len(page.Lines) != 1 || w.snapshot(id).Enrollment == nil {
				t.Errorf("%s: %s has %d audit rows", when, id, len(page.Lines))
			}
		}
	}
}

// What is replaced is compared as it was told in the audit; who changes it meanwhile makes the line try again.
func TestALineWhoseEnrollmentMovesIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	moves := 0
	var move func()
	move = func() { // at each read, up to a number
		if moves > 0 {
			moves--
			w.must(second(w.core.PutEnrollment(w.ctx, operator, d.wire(map[string]any{"deviceId": fmt.Sprint("moved-", moves)}), "*")))
			w.store.beforeNext("PutEnrollments", move)
		}
	}
	for tries, want := range map[int]string{2: "r", 100: "f"} {
		moves = tries
		w.store.beforeNext("PutEnrollments", move)
		results, err := w.core.Import(w.ctx, operator, registration.ReplaceExisting, w.importLines("pump"))
		w.must(err)
		if got := outcomes(results); got != want {
			t.Errorf("%d moves: %s, want %s", tries, got, want)
		}
		if want == "f" && results[0].Code != dps.CodeConflict {
			t.Errorf("failed with %d", results[0].Code)
		}
		w.store.beforeNext("PutEnrollments", func() {})
		moves = 0
	}
}

func TestAnExportHasEveryEnrollmentOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := make([]string, 1203)
	for i := range ids {
		ids[i] = fmt.Sprintf("Dev-%04d", i)
	}
	_, err := w.core.Import(w.ctx, operator, registration.RefuseExisting, w.importLines(ids...))
	w.must(err)
	var got []string
	w.must(w.core.Export(w.ctx, operator, func(e dps.IndividualEnrollment) error {
		if e.RegistrationState != nil || e.ETag == "" {
			t.Errorf("exported %s", e.Encode())
		}
		got = append(got, e.RegistrationID)
		return nil
	}))
	if strings.Join(got, " ") != strings.Join(ids, " ") {
		t.Errorf("%d exported of %d", len(got), len(ids))
	}
	enough := errors.New("enough")
	if err := w.core.Export(w.ctx, operator, func(dps.IndividualEnrollment) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("ended with %v", err)
	}
	cancelled, cancel := context.WithCancel(w.ctx)
	cancel()
	if err := w.core.Export(cancelled, operator, func(dps.IndividualEnrollment) error { return nil }); err == nil {
		t.Error("an export went on after its end")
	}
}
