package registration_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// jsonLines are lines of an import as they are sent.
func (w *world) jsonLines(bodies ...string) []registration.ImportLine {
	w.Helper()
	lines := make([]registration.ImportLine, len(bodies))
	for i, body := range bodies {
		entry, err := dps.DecodeImport([]byte(body))
		w.must(err)
		lines[i] = registration.ImportLine{Enrollment: entry.IndividualEnrollment, KeysWithheld: entry.KeysWithheld}
	}
	return lines
}

// named puts a registration id into a body.
func named(id, body string) string { return `{"registrationId":"` + id + `",` + body[1:] }

func (w *world) auditRows(id string) int {
	w.Helper()
	page, err := w.core.AuditLog(w.ctx, operator, registration.AuditFilter{Object: id}, 0, "")
	w.must(err)
	return len(page.Lines)
}

// A store that fails on either side of its effect leaves all lines unknown; the same again with SkipExisting has each written once.
func TestAnAllOrNothingImportThatTheStoreBrokeIsAllOrNothing(t *testing.T) {
	t.Parallel()
	for _, when := range []moment{before, after} {
		w := newWorld(t)
		d := w.device("d", softtpm.ECC, 0)
		lines := w.importLines("a", "b", "c")
		w.store.failNext("PutAllEnrollments", 1, when)
		results, err := w.core.ImportAll(w.ctx, operator, registration.RefuseExisting, false, lines)
		if !d.retryable(err) || outcomes(results) != "???" {
			t.Errorf("%s: %s, %v", when, outcomes(results), err)
		}
		there := 0
		for _, id := range []string{"a", "b", "c"} {
			if w.snapshot(id).Enrollment != nil {
				there++
			}
		}
		if want := map[moment]int{before: 0, after: 3}[when]; there != want {
			t.Errorf("%s: %d are there, want %d", when, there, want)
		}
		results, err = w.core.ImportAll(w.ctx, operator, registration.SkipExisting, false, lines)
		w.must(err)
		if got, want := outcomes(results), map[moment]string{before: "ccc", after: "sss"}[when]; got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
		for _, id := range []string{"a", "b", "c"} {
			if n := w.auditRows(id); n != 1 || w.snapshot(id).Enrollment == nil {
				t.Errorf("%s: %s has %d audit rows", when, id, n)
			}
		}
	}
}

// A read that fails is no verdict: nothing was asked of the store.
func TestAnAllOrNothingImportThatCannotReadWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.store.plan("Device", 1, 1, before)
	results, err := w.core.ImportAll(w.ctx, operator, registration.RefuseExisting, false, w.importLines("a", "b"))
	if !w.device("a", softtpm.ECC, 0).retryable(err) || outcomes(results) != "??" || w.store.take()["PutAllEnrollments"] != 0 {
		t.Errorf("%s, %v", outcomes(results), err)
	}
}

// Whoever changes an enrollment between its read and the write makes all lines be judged again; after some tries it is that line's failure.
func TestAnAllOrNothingImportThatLosesRacesTriesAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode  registration.IfExists
		moves int
		want  string
	}{
		{registration.ReplaceExisting, 1, "cr"}, {registration.ReplaceExisting, 100, "wf"},
	} {
		w := newWorld(t)
		d := w.enrolled("pump")
		moves := c.moves
		var move func()
		move = func() {
			if moves > 0 {
				moves--
				w.must(second(w.core.PutEnrollment(w.ctx, operator, d.wire(map[string]any{"deviceId": fmt.Sprint("moved-", moves)}), "*")))
				w.store.beforeNext("PutAllEnrollments", move)
			}
		}
		w.store.beforeNext("PutAllEnrollments", move)
		results, err := w.core.ImportAll(w.ctx, operator, c.mode, false, w.importLines("fresh", "pump"))
		w.must(err)
		if got := outcomes(results); got != c.want {
			t.Errorf("%d moves: %s, want %s", c.moves, got, c.want)
		}
		if c.want == "wf" {
			if results[1].Code != dps.CodeConflict || w.snapshot("fresh").Enrollment != nil || w.auditRows("fresh") != 0 {
				t.Errorf("failed with %d; fresh is %+v", results[1].Code, w.snapshot("fresh").Enrollment)
			}
		} else if got := w.snapshot("pump").Enrollment.DeviceID; got != "line-1" {
			t.Errorf("%q holds", got)
		}
	}
}

// An id that another makes first is as if it had been there, in each mode.
func TestAnIDMadeDuringAnAllOrNothingImportCounts(t *testing.T) {
	t.Parallel()
	for mode, want := range map[registration.IfExists]string{registration.RefuseExisting: "wf", registration.SkipExisting: "cs", registration.ReplaceExisting: "cr"} {
		w := newWorld(t)
		w.store.beforeNext("PutAllEnrollments", func() { w.enrolled("pump") })
		results, err := w.core.ImportAll(w.ctx, operator, mode, false, w.importLines("fresh", "pump"))
		w.must(err)
		if got := outcomes(results); got != want || (w.snapshot("fresh").Enrollment != nil) != (want != "wf") {
			t.Errorf("mode %d: %s, want %s", mode, got, want)
		}
	}
}

// One certificate belongs to one entry, also of lines that are written together.
func TestACertificateOfAnotherFailsAllLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "plant", nil)
	one, two := ca.issue(t, "one"), ca.issue(t, "two")
	w.must(second(w.put("holder", clientBody(one, nil, ""), "")))
	lines := w.jsonLines(named("a", clientBody(two, nil, "")), named("b", clientBody(one, nil, "")), named("c", clientBody(two, nil, "")))
	results, err := w.core.ImportAll(w.ctx, operator, registration.RefuseExisting, false, lines)
	w.must(err)
	if got := outcomes(results); got != "wff" || !strings.Contains(results[1].Message, "another enrollment") || results[1].Code != dps.CodeBadRequest {
		t.Errorf("%s, %+v", got, results[1])
	}
	results, err = w.core.Import(w.ctx, operator, registration.RefuseExisting, lines)
	w.must(err)
	if got := outcomes(results); got != "cff" {
		t.Errorf("line by line: %s", got)
	}
}

func TestTooManyLinesAreNoAllOrNothingImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.core.ImportAll(w.ctx, operator, registration.RefuseExisting, false, make([]registration.ImportLine, registration.MaxAtomic+1))
	w.wantFault(err, dps.CodeTooLarge, registration.ReasonBadRequest)
}

// What an export does not hold is kept from the entry that a line replaces: certificates, of which it has thumbprints, and keys.
func TestALineThatLacksWhatOnlyTheEntryHolds(t *testing.T) {
	t.Parallel()
	type imports func(mode registration.IfExists, lines []registration.ImportLine) ([]registration.Imported, error)
	for name, bring := range map[string]func(w *world) imports{
		"each": func(w *world) imports {
			return func(mode registration.IfExists, lines []registration.ImportLine) ([]registration.Imported, error) {
				return w.core.Import(w.ctx, operator, mode, lines)
			}
		},
		"all": func(w *world) imports {
			return func(mode registration.IfExists, lines []registration.ImportLine) ([]registration.Imported, error) {
				return w.core.ImportAll(w.ctx, operator, mode, false, lines)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			bring := bring(w)
			leaf := newCA(t, "plant", nil).issue(t, "press")
			w.must(second(w.put("press", clientBody(leaf, nil, ""), "")))
			w.must(second(w.put("valve", keysBody(firstKey, secondKey, ""), "")))
			w.must(second(w.put("pump", w.tpmBody(), "")))

			exported := w.exportLines()
			if !strings.Contains(exported["valve"], `"symmetricKeys":"withheld"`) || strings.Contains(exported["pump"], "symmetricKeys") {
				t.Fatalf("exported %v", exported)
			}
			lines := w.jsonLines(exported["press"], exported["valve"], `{"registrationId":"VALVE","deviceId":"valve-9","attestation":{"type":"symmetricKey"}}`)
			results, err := bring(registration.ReplaceExisting, lines)
			w.must(err)
			if got := outcomes(results); got != "rrr" {
				t.Fatalf("%s: %+v", got, results)
			}
			if w.keyed("VALVE", firstKey).assigned().DeviceID != "valve-9" {
				t.Error("the key does not hold")
			}
			document := string(w.snapshot("press").Enrollment.Document)
			if !strings.Contains(document, encoded(leaf)) {
				t.Errorf("the certificate is lost: %s", document)
			}
			w.certified("press", leaf).assigned()

			// Where there is no such entry, nothing is made that no device has.
			for _, elsewhere := range []string{"absent", "pump", "press"} {
				results, err = bring(registration.ReplaceExisting, w.jsonLines(strings.Replace(exported["valve"], "valve", elsewhere, 1)))
				w.must(err)
				if got := outcomes(results); got != "f" || !strings.Contains(results[0].Message, "withheld") {
					t.Errorf("%s: %s, %+v", elsewhere, got, results)
				}
			}
			if w.snapshot("absent").Enrollment != nil || w.snapshot("pump").Enrollment.Mechanism != registration.TPM {
				t.Error("a line without its keys was written")
			}
			results, err = bring(registration.RefuseExisting, w.jsonLines(exported["valve"]))
			w.must(err)
			if results[0].Code != dps.CodeEnrollmentExists {
				t.Errorf("one that is there is told as %+v", results[0])
			}
			// A thumbprint is all that devices are judged by, so a certificate may come without itself.
			results, err = bring(registration.RefuseExisting, w.jsonLines(strings.Replace(exported["press"], "press", "other", 1)))
			w.must(err)
			if got := outcomes(results); got != "f" || !strings.Contains(results[0].Message, "another enrollment") {
				t.Errorf("a certificate of another entry: %s, %+v", got, results)
			}
		})
	}
}

func (w *world) tpmBody() string {
	wire := w.device("pump", softtpm.ECC, 0).wire(nil)
	return string(wire.Encode())
}

// exportLines are the lines of an export by their ids.
func (w *world) exportLines() map[string]string {
	w.Helper()
	lines := map[string]string{}
	w.must(w.core.Export(w.ctx, operator, func(e dps.IndividualEnrollment) error {
		line, err := e.EncodeExported()
		lines[e.RegistrationID] = string(line)
		return err
	}))
	return lines
}

// A dry run says of such lines what the import does.
func TestADryRunForeseesLinesThatLackTheirKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(second(w.put("valve", keysBody(firstKey, secondKey, ""), "")))
	line := w.exportLines()["valve"]
	lines := w.jsonLines(line, strings.Replace(line, "valve", "absent", 1))
	for _, mode := range []registration.IfExists{registration.RefuseExisting, registration.SkipExisting, registration.ReplaceExisting} {
		try, err := w.core.TryImport(w.ctx, operator, mode, registration.NewTrial(), lines)
		w.must(err)
		all, err := w.core.ImportAll(w.ctx, operator, mode, true, lines)
		w.must(err)
		done, err := w.core.Import(w.ctx, operator, mode, lines)
		w.must(err)
		if outcomes(try) != outcomes(done) || !slices.Contains([]string{outcomes(done), strings.Replace(outcomes(done), "r", "w", 1)}, outcomes(all)) {
			t.Errorf("mode %d: a dry run says %s and %s, the import %s", mode, outcomes(try), outcomes(all), outcomes(done))
		}
	}
}

// Two lines of one id are seen to be that within the window of a dry run, and its memory is bounded whatever comes.
func TestADryRunForgetsWhatIsFarBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	trial := registration.NewTrial()
	try := func(id string) string {
		results, err := w.core.TryImport(w.ctx, operator, registration.SkipExisting, trial, w.importLines(id))
		w.must(err)
		return outcomes(results)
	}
	if first, again := try("Pump"), try("pump"); first != "c" || again != "s" {
		t.Fatalf("%s, then %s", first, again)
	}
	for i := range registration.TrialWindow - 1 {
		registration.TrialWrite(trial, fmt.Sprint("dev-", i))
	}
	if got := try("PUMP"); got != "s" {
		t.Errorf("a window later: %s", got)
	}
	for i := range 2 * registration.TrialWindow {
		registration.TrialWrite(trial, fmt.Sprint("more-", i))
		if kept := registration.TrialKept(trial); kept > 2*registration.TrialWindow {
			t.Fatalf("%d ids are kept", kept)
		}
	}
	if got := try("pump"); got != "c" {
		t.Errorf("beyond it, as is said: %s", got)
	}
	if got := try("more-" + fmt.Sprint(2*registration.TrialWindow-1)); got != "s" {
		t.Errorf("the one before: %s", got)
	}
}
