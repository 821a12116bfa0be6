package registration_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// told is an object of an export as "kind id".
func told(x registration.Exported) string {
	switch {
	case x.CA != nil:
		return "ca " + x.CA.Name
	case x.Group != nil:
		return "group " + x.Group.GroupID
	case x.Enrollment != nil:
		return "enrollment " + x.Enrollment.RegistrationID
	}
	return "registration " + x.Registration.RegistrationID
}

// exported is all of an export.
func (w *world) exported(secrets bool) (objects []registration.Exported, ids []string) {
	w.Helper()
	w.must(w.core.ExportAll(w.ctx, operator, secrets, func(x registration.Exported) error {
		objects, ids = append(objects, x), append(ids, told(x))
		return nil
	}))
	return objects, ids
}

// mixedFleet has something of every kind, ids in both letter cases.
func (w *world) mixedFleet(t *testing.T) {
	w.Helper()
	ca := newCA(t, "Plant CA", nil)
	_, err := w.core.PutCA(w.ctx, operator, "Plant", ca.certificate.Raw)
	w.must(err)
	_, err = w.putGroup("valves", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	_, err = w.putGroup("Plant", signingBody(ca, ""), "")
	w.must(err)
	w.enrolled("Press").register()
	_, err = w.put("pump", keysBody(secondKey, thirdKey, ""), "")
	w.must(err)
	w.keyed("Valve-1", dps.DeriveKey(firstKey, "Valve-1")).assigned()
	w.certified("gauge", ca.issue(t, "gauge")).assigned()
	_, err = w.core.PutGroup(w.ctx, registration.Caller{Scope: scopeTwo, Policy: "owner"}, mustGroup(t, "foreign"), "")
	w.must(err)
}

func mustGroup(t *testing.T, id string) dps.EnrollmentGroup {
	t.Helper()
	group, err := dps.DecodeGroup(id, []byte(keysBody(firstKey, firstKey, "")))
	if err != nil {
		t.Fatal(err)
	}
	return group
}

func TestAnExportHoldsAllThatOperatorsSeeAndNoKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mixedFleet(t)
	objects, ids := w.exported(false)
	want := []string{"ca Plant", "group Plant", "group valves", "enrollment Press", "enrollment pump", "registration gauge", "registration Press", "registration Valve-1"}
	if !slices.Equal(ids, want) {
		t.Fatalf("exported %q", ids)
	}
	if signing := objects[1].Group.Attestation.X509.Signing.Primary; len(signing.DER) == 0 {
		t.Error("a group's certificate is not in it")
	}
	if keys := objects[2].Group.Attestation.SymmetricKey; keys != nil {
		t.Errorf("a group's keys are in it: %v", keys)
	}
	if keys := objects[4].Enrollment.Attestation.SymmetricKey; keys != nil {
		t.Errorf("an enrollment's keys are in it: %v", keys)
	}
	press, err := w.core.Enrollment(w.ctx, operator, "press")
	w.must(err)
	if !bytes.Equal(objects[3].Enrollment.Encode(), press.Encode()) || press.RegistrationState.Status != dps.StatusAssigned {
		t.Errorf("%s is not %s", objects[3].Enrollment.Encode(), press.Encode())
	}
	state, err := w.core.Registration(w.ctx, operator, "Press")
	w.must(err)
	if !bytes.Equal(objects[6].Registration.Encode(), state.Encode()) {
		t.Errorf("%s is not %s", objects[6].Registration.Encode(), state.Encode())
	}
	if by := objects[5].Registration.X509; by == nil || by.EnrollmentGroupID != "Plant" {
		t.Errorf("the group that let gauge in: %+v", by)
	}
	if by := objects[7].Registration.SymmetricKey; by == nil || by.EnrollmentGroupID != "valves" {
		t.Errorf("the group that let Valve-1 in: %+v", by)
	}
	lines, _ := w.log(operator, registration.AuditFilter{Action: registration.ActionExportReveal}, 10, "")
	if len(lines) != 0 {
		t.Errorf("an export without keys is told as one with keys: %+v", lines)
	}
}

func TestKeysAreExportedOnceTheAuditTellsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mixedFleet(t)
	revealed := func() int {
		lines, _ := w.log(operator, registration.AuditFilter{Action: registration.ActionExportReveal}, 10, "")
		for _, line := range lines {
			if line.Object != scopeOne || line.Actor != "policy:owner" || line.Address != operator.Address || line.TrackingID != operator.TrackingID {
				t.Errorf("audited as %+v", line)
			}
		}
		return len(lines)
	}
	seen := 0
	w.must(w.core.ExportAll(w.ctx, operator, true, func(x registration.Exported) error {
		if seen++; seen == 1 && revealed() != 1 {
			t.Error("the first object comes before the audit row")
		}
		switch {
		case x.Group != nil && x.Group.GroupID == "valves":
			if k := x.Group.Attestation.SymmetricKey; k == nil || !bytes.Equal(k.Primary, firstKey) || !bytes.Equal(k.Secondary, secondKey) {
				t.Errorf("the group's keys are %+v", k)
			}
		case x.Enrollment != nil && x.Enrollment.RegistrationID == "pump":
			if k := x.Enrollment.Attestation.SymmetricKey; k == nil || !bytes.Equal(k.Primary, secondKey) || !bytes.Equal(k.Secondary, thirdKey) {
				t.Errorf("the enrollment's keys are %+v", k)
			}
		}
		return nil
	}))
	if seen != 8 || revealed() != 1 {
		t.Errorf("%d objects, %d audit rows", seen, revealed())
	}
	for _, when := range []moment{before, after} {
		w.store.failNext("AppendAudit", 1, when)
		err := w.core.ExportAll(w.ctx, operator, true, func(registration.Exported) error { t.Error("keys leave without an audit row"); return nil })
		w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
	}
}

func TestAnExportOfManyPagesHasEachOnceWhateverChangesMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := make([]string, 350)
	for i := range ids {
		ids[i] = fmt.Sprintf("dev-%03d", i)
	}
	_, err := w.core.Import(w.ctx, operator, registration.RefuseExisting, w.importLines(ids...))
	w.must(err)
	for i := range 205 {
		_, err := w.putGroup(fmt.Sprintf("group-%03d", i), keysBody(firstKey, secondKey, ""), "")
		w.must(err)
	}
	_, before := w.exported(false)
	if len(before) != 555 || !slices.IsSorted(before[:205]) || !slices.IsSorted(before[205:]) {
		t.Fatalf("%d objects: %q", len(before), before)
	}

	// While dev-150 leaves, others before and behind it come, go and change.
	var during []string
	w.must(w.core.ExportAll(w.ctx, operator, false, func(x registration.Exported) error {
		during = append(during, told(x))
		if told(x) != "enrollment dev-150" {
			return nil
		}
		for _, id := range []string{"dev-010", "dev-150", "dev-199", "dev-300"} {
			w.must(w.core.DeleteEnrollment(w.ctx, operator, id, ""))
		}
		_, err := w.core.Import(w.ctx, operator, registration.RefuseExisting, w.importLines("dev-0101", "dev-1501", "dev-3001"))
		w.must(err)
		_, err = w.core.Import(w.ctx, operator, registration.ReplaceExisting, w.importLines("dev-301"))
		w.must(err)
		return nil
	}))
	// dev-199 and dev-1501 are on the page that was read already; dev-300 and dev-3001 are not.
	want := slices.DeleteFunc(append(slices.Clone(before), "enrollment dev-3001"), func(s string) bool { return s == "enrollment dev-300" })
	slices.Sort(want[205:])
	if !slices.Equal(during, want) {
		t.Errorf("exported %d: %q", len(during), during)
	}
}

// An export that cannot be finished is not signed, so that nobody takes it for the whole.
func TestAnExportThatBreaksEndsWithItsError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mixedFleet(t)
	w.store.failNext("Enrollments", 1, before)
	var seen int
	err := w.core.ExportAll(w.ctx, operator, false, func(registration.Exported) error { seen++; return nil })
	w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
	if seen != 3 {
		t.Errorf("%d objects before the break", seen)
	}
	own := errors.New("own")
	if err := w.core.ExportAll(w.ctx, operator, false, func(registration.Exported) error { return own }); !errors.Is(err, own) {
		t.Errorf("the reader's error is %v", err)
	}
	gone, cancel := context.WithCancel(w.ctx)
	cancel()
	if err := w.core.ExportAll(gone, operator, false, func(registration.Exported) error { return nil }); err == nil {
		t.Error("a walk that was given up ends well")
	}
}

func TestEachScopeSignsWithAKeyOfItsOwnThatStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	digest := [32]byte{1, 2, 3}
	header, err := w.core.ExportHeader(operator, true)
	w.must(err)
	signature, err := w.core.SignExport(operator, digest)
	w.must(err)
	if !ed25519.Verify(header.PublicKey, dps.ExportMessage(digest), signature) || ed25519.Verify(header.PublicKey, digest[:], signature) {
		t.Error("the signature is not over the message")
	}
	if header.IDScope != scopeOne || !slices.Equal(header.Hosts, []string{hubOne, "alias.one.example"}) || !header.Secrets || header.LatchkeyExport != 1 || header.Created != dps.FormatTime(w.clock.Now()) {
		t.Errorf("header %+v", header)
	}
	w.clock.advance(time.Hour)
	node := w.newCore()
	again, err := node.ExportHeader(operator, false)
	w.must(err)
	if !bytes.Equal(again.PublicKey, header.PublicKey) {
		t.Error("another node has another key")
	}
	other, err := w.core.ExportHeader(registration.Caller{Scope: scopeTwo}, false)
	w.must(err)
	if bytes.Equal(other.PublicKey, header.PublicKey) {
		t.Error("two scopes have one key")
	}
	if strings.Contains(string(header.Encode()), string(secret("root "+scopeOne))) {
		t.Error("the root is in the header")
	}
}

// What a deleted scope leaves is removed bit by bit, so an export of it could lack some.
func TestAScopeThatIsGoneSignsNoExport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := registration.Caller{Scope: scopeTwo, Policy: "owner"}
	verdict, err := w.inner.DeleteScope(w.ctx, scopeTwo, registration.Audit{At: epoch, Actor: registration.ActorLocal, Action: registration.ActionScopeDelete, Object: scopeTwo, Outcome: registration.OutcomeOK})
	w.must(err)
	if verdict != registration.Applied {
		t.Fatalf("verdict %d", verdict)
	}
	w.must(w.core.ReloadScopes(w.ctx))
	_, err = w.core.SignExport(second, [32]byte{})
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonAdminToken)
	_, err = w.core.ExportHeader(second, false)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonAdminToken)
	err = w.core.ExportAll(w.ctx, second, true, func(registration.Exported) error { return nil })
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonAdminToken)
}
