package registration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

var bulkModes = []dps.BulkMode{dps.BulkCreate, dps.BulkUpdate, dps.BulkUpdateIfMatchETag, dps.BulkDelete}

// bulk does a bulk request as a client spells it; each item is the members of an enrollment.
func (w *world) bulk(mode dps.BulkMode, items ...map[string]any) dps.BulkResult {
	w.Helper()
	body, err := json.Marshal(map[string]any{"enrollments": items, "mode": mode})
	w.must(err)
	bulk, err := dps.DecodeBulkEnrollments(body)
	w.must(err)
	return w.core.Bulk(w.ctx, operator, bulk)
}

// item is an enrollment of an id in a bulk request; etag empty: it has none.
func (w *world) item(id, etag string, change map[string]any) map[string]any {
	w.Helper()
	enrollment := w.device(id, softtpm.ECC, 0).wire(change)
	var item map[string]any
	w.must(json.Unmarshal(enrollment.Encode(), &item))
	if etag != "" {
		item["etag"] = etag
	}
	return item
}

// Every mode × there or absent × the item's etag. The code is what the item failed with; 0: it did not.
func TestBulkByModeAndEtag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const exists, missing, mismatch = dps.CodeEnrollmentExists, dps.CodeNotEnrolled, dps.CodePreconditionFailed
	etags := []string{"none", "its own", "stale", "any"}
	table := map[dps.BulkMode]map[bool][4]dps.Code{
		dps.BulkCreate:            {true: {exists, exists, exists, exists}, false: {0, 0, 0, 0}},
		dps.BulkUpdate:            {true: {exists, 0, mismatch, 0}, false: {0, mismatch, mismatch, mismatch}},
		dps.BulkUpdateIfMatchETag: {true: {mismatch, 0, mismatch, 0}, false: {mismatch, mismatch, mismatch, mismatch}},
		dps.BulkDelete:            {true: {0, 0, mismatch, 0}, false: {missing, missing, missing, missing}},
	}
	for _, mode := range bulkModes {
		for _, there := range []bool{true, false} {
			for i, kind := range etags {
				name := fmt.Sprintf("%s, %s, etag %s", mode, map[bool]string{true: "there", false: "absent"}[there], kind)
				t.Run(name, func(t *testing.T) { w.in(t).bulkCase(mode, there, kind, table[mode][there][i]) })
			}
		}
	}
}

func (w *world) bulkCase(mode dps.BulkMode, there bool, kind string, code dps.Code) {
	w.Helper()
	d := w.device("Pump-"+strings.ReplaceAll(fmt.Sprint(mode, there, kind), " ", "-"), softtpm.ECC, 0)
	first := d.enroll("", nil) // an absent one had an etag too
	if !there {
		w.must(w.core.DeleteEnrollment(w.ctx, operator, d.id, ""))
	}
	etag := map[string]string{"none": "", "its own": first.ETag, "stale": "AAAAAAAA", "any": "*"}[kind]
	result := w.bulk(mode, w.item(strings.ToUpper(d.id), etag, map[string]any{"deviceId": "changed"}))
	now := w.snapshot(d.id).Enrollment
	if code != 0 {
		if len(result.Errors) != 1 || result.Errors[0].Code != code || result.Errors[0].RegistrationID != strings.ToUpper(d.id) {
			w.Errorf("got %+v, want %d", result, code)
		}
		if (now != nil) != there || there && dps.ETag(int64(now.Revision)) != first.ETag {
			w.Errorf("an item that failed left %+v", now)
		}
		return
	}
	switch gone := mode == dps.BulkDelete; {
	case len(result.Errors) != 0:
		w.Errorf("failed with %+v", result)
	case (now == nil) != gone, !gone && now.DeviceID != "changed":
		w.Errorf("left %+v", now)
	}
}

// badKey is the member of an enrollment that only the core can refuse.
var badKey = map[string]any{"attestation": map[string]any{"type": "tpm", "tpm": map[string]any{"endorsementKey": "AAAA"}}}

// A bulk request is not atomic: what can be done is done, before and after what cannot, and each failure says which item and why.
func TestItemsOfABulkRequestFailAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("there")
	without := w.item("No-Attestation", "", nil)
	delete(without, "attestation")
	numbered := w.item("numbered-etag", "", nil)
	numbered["etag"] = 5
	result := w.bulk(dps.BulkCreate,
		w.item("first", "", nil), w.item("THERE", "", nil), w.item("bad-key", "", badKey), without, w.item("middle", "", nil), numbered,
		w.item("other-hub", "", map[string]any{"iotHubs": []string{hubTwo}, "allocationPolicy": "static"}), w.item("last", "", nil))
	for i, want := range []struct {
		id   string
		code dps.Code
		says string
	}{
		{"THERE", dps.CodeEnrollmentExists, ""},
		{"bad-key", dps.CodeBadRequest, "Endorsement key is invalid"},
		{"No-Attestation", dps.CodeBadRequest, "attestation: is missing"},
		{"numbered-etag", dps.CodeBadRequest, "etag: must be a string"},
		{"other-hub", dps.CodeBadRequest, hubOne},
	} {
		if i >= len(result.Errors) {
			t.Fatalf("%d errors: %+v", len(result.Errors), result)
		}
		if e := result.Errors[i]; e.RegistrationID != want.id || e.Code != want.code || !strings.Contains(e.Status, want.says) {
			t.Errorf("error %d is %+v, want %+v", i, e, want)
		}
	}
	if len(result.Errors) != 5 || fmt.Sprint(w.walk(w.core, everything, 0)) != "[[first last middle there]]" {
		t.Errorf("%+v, left %q", result, w.walk(w.core, everything, 0))
	}
	// What is deleted need not be a sound enrollment, only named.
	if result := w.bulk(dps.BulkDelete, map[string]any{"registrationId": "FIRST"}, w.item("absent", "", nil), map[string]any{"registrationId": "last", "attestation": 7}); len(result.Errors) != 1 ||
		result.Errors[0] != (dps.BulkError{RegistrationID: "absent", Code: dps.CodeNotEnrolled}) || fmt.Sprint(w.walk(w.core, everything, 0)) != "[[middle there]]" {
		t.Errorf("%+v, left %q", result, w.walk(w.core, everything, 0))
	}
}

func TestEachItemThatWasDoneHasAnAuditRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("there")
	w.bulk(dps.BulkCreate, w.item("One", "", nil), w.item("there", "", nil), w.item("two", "", nil))
	w.bulk(dps.BulkUpdate, w.item("two", "*", nil), w.item("absent", "*", nil))
	w.bulk(dps.BulkDelete, w.item("absent", "", nil), w.item("ONE", "", nil))
	rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, operator.TrackingID)
	w.must(err)
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprint(r.Action, " ", r.Object, " ", r.Outcome, " ", r.Reason))
		if r.Actor != "policy:owner" || r.Address != operator.Address || !r.At.Equal(w.clock.Now()) {
			t.Errorf("audit row %+v", r)
		}
	}
	want := []string{"enrollment.put there ok changed", "enrollment.put one ok changed", "enrollment.put two ok changed", "enrollment.put two ok changed", "enrollment.delete one ok deleted"}
	if !slices.Equal(got, want) {
		t.Errorf("audit rows\n%q\nwant\n%q", got, want)
	}
}

// An item that met a failing store is reported, also if it took effect; what went wrong inside stays inside.
func TestItemsThatMeetAFailingStoreAreReported(t *testing.T) {
	t.Parallel()
	for when, left := range map[moment]string{before: "[[one three]]", after: "[[one three two]]"} {
		w := newWorld(t)
		w.store.plan("PutEnrollment", 1, 1, when)
		result := w.bulk(dps.BulkCreate, w.item("one", "", nil), w.item("two", "", nil), w.item("three", "", nil))
		if len(result.Errors) != 1 || result.Errors[0].RegistrationID != "two" || result.Errors[0].Code != dps.CodeUnavailable {
			t.Errorf("%s: %+v", when, result)
		}
		if text := string(result.Encode()); strings.Contains(text, "injected") || strings.Contains(text, "Retry-After") {
			t.Errorf("%s: told %s", when, text)
		}
		if got := fmt.Sprint(w.walk(w.core, everything, 0)); got != left {
			t.Errorf("%s: left %s, want %s", when, got, left)
		}
	}
}

// Random changes, one by one and in bulk, held against a map, and read back by queries in pages.
func TestListsFollowTheModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rapid.Check(t, func(rt *rapid.T) {
		l := &listModel{world: w.in(rt), t: rt, rows: map[string]*modelRow{}, old: []string{"AAAAAAAA"}}
		steps := []func(){l.put, l.remove, l.bulkOf, l.register, l.query}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			steps[rapid.IntRange(0, len(steps)-1).Draw(rt, "step")]()
		}
		l.query()
		for id := range l.rows {
			l.must(l.core.DeleteEnrollment(l.ctx, operator, id, ""))
		}
	})
}

type listModel struct {
	*world
	t    *rapid.T
	rows map[string]*modelRow // by folded id
	old  []string             // etags that were
}

type modelRow struct {
	etag                 string
	disabled, registered bool
}

func (l *listModel) id() string {
	return rapid.SampledFrom([]string{"a", "A", "a-1", "b", "B-1", "b-2", "c"}).Draw(l.t, "id")
}

// etag draws what an item or a header says, and judges whether it matches the row.
func (l *listModel) etag(row *modelRow) (etag string, matches bool) {
	switch rapid.SampledFrom([]string{"none", "own", "old", "any"}).Draw(l.t, "etag") {
	case "own":
		if row != nil {
			return row.etag, true
		}
	case "old":
		return rapid.SampledFrom(l.old).Draw(l.t, "old"), false
	case "any":
		return "*", row != nil
	}
	return "", false
}

// expectWrite is the code of a write, by the rules of a PUT with If-Match or of a DELETE.
func expectWrite(mode dps.BulkMode, row *modelRow, etag string, matches bool) dps.Code {
	switch {
	case mode == dps.BulkDelete && row == nil:
		return dps.CodeNotEnrolled
	case mode == dps.BulkDelete && etag == "":
		return 0
	case mode == dps.BulkUpdateIfMatchETag && !matches, etag != "" && !matches && mode != dps.BulkCreate:
		return dps.CodePreconditionFailed
	case row != nil && (etag == "" || mode == dps.BulkCreate):
		return dps.CodeEnrollmentExists
	}
	return 0
}

// wrote follows a write that must have taken effect.
func (l *listModel) wrote(id string, disabled, gone bool) {
	l.Helper()
	id = dps.FoldID(id)
	row, now := l.rows[id], l.snapshot(id).Enrollment
	if row != nil {
		l.old = append(l.old, row.etag)
	}
	if (now == nil) != gone {
		l.Fatalf("%s: gone is to be %t", id, gone)
	}
	if gone {
		delete(l.rows, id)
		return
	}
	if row == nil {
		row = &modelRow{}
		l.rows[id] = row
	}
	row.etag, row.disabled = dps.ETag(int64(now.Revision)), disabled
	if slices.Contains(l.old, row.etag) {
		l.Errorf("%s: an etag came back", id)
	}
}

func (l *listModel) change(disable bool) map[string]any {
	if disable {
		return disabled
	}
	return nil
}

func (l *listModel) put() {
	id, disable := l.id(), rapid.Bool().Draw(l.t, "disabled")
	row := l.rows[dps.FoldID(id)]
	etag, matches := l.etag(row)
	_, err := l.core.PutEnrollment(l.ctx, operator, l.device(id, softtpm.ECC, 0).wire(l.change(disable)), etag)
	if l.follow(err, expectWrite(dps.BulkUpdate, row, etag, matches)) {
		l.wrote(id, disable, false)
	}
}

func (l *listModel) remove() {
	id := l.id()
	row := l.rows[dps.FoldID(id)]
	etag, matches := l.etag(row)
	if l.follow(l.core.DeleteEnrollment(l.ctx, operator, id, etag), expectWrite(dps.BulkDelete, row, etag, matches)) {
		l.wrote(id, false, true)
	}
}

// follow holds an error against a code, and reports whether the write is to have taken effect.
func (l *listModel) follow(err error, want dps.Code) bool {
	l.Helper()
	var fault *registration.Fault
	switch {
	case want == 0:
		l.must(err)
	case !errors.As(err, &fault) || fault.Code != want:
		l.Fatalf("got %v, want %d", err, want)
	}
	return want == 0
}

func (l *listModel) bulkOf() {
	mode := rapid.SampledFrom(bulkModes).Draw(l.t, "mode")
	ids := rapid.SliceOfNDistinct(rapid.Custom(func(*rapid.T) string { return l.id() }), 1, 5, dps.FoldID).Draw(l.t, "ids")
	disable := rapid.Bool().Draw(l.t, "disabled")
	var items []map[string]any
	var want, got []string
	var done []string
	for _, id := range ids {
		row := l.rows[dps.FoldID(id)]
		etag, matches := l.etag(row)
		items = append(items, l.item(id, etag, l.change(disable)))
		if code := expectWrite(mode, row, etag, matches); code != 0 {
			want = append(want, fmt.Sprint(id, code))
		} else {
			done = append(done, id)
		}
	}
	for _, e := range l.bulk(mode, items...).Errors {
		got = append(got, fmt.Sprint(e.RegistrationID, e.Code))
	}
	if !slices.Equal(got, want) {
		l.Fatalf("%s: got %q, want %q", mode, got, want)
	}
	for _, id := range done {
		l.wrote(id, disable, mode == dps.BulkDelete)
	}
}

func (l *listModel) register() {
	id := dps.FoldID(l.id())
	if row := l.rows[id]; row != nil && !row.disabled {
		l.device(id, softtpm.ECC, 0).register()
		row.registered = true
	}
}

func (l *listModel) query() {
	conditions := map[string]func(id string, row *modelRow) bool{
		"":                                    func(string, *modelRow) bool { return true },
		" WHERE provisioningStatus='enabled'": func(_ string, row *modelRow) bool { return !row.disabled },
		" WHERE NOT STARTSWITH(registrationId, 'B') OR registrationState.status = 'assigned'": func(id string, row *modelRow) bool { return id[0] != 'b' || row.registered },
		" WHERE registrationState.status = 'unassigned' AND provisioningStatus = 'disabled'":  func(_ string, row *modelRow) bool { return row.disabled && !row.registered },
		" WHERE registrationState.assignedHub = '" + hubOne + "'":                             func(_ string, row *modelRow) bool { return row.registered },
	}
	text := rapid.SampledFrom(slices.Sorted(maps.Keys(conditions))).Draw(l.t, "condition")
	size := rapid.IntRange(1, 4).Draw(l.t, "size")
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(l.rows)) {
		if conditions[text](id, l.rows[id]) {
			ids = append(ids, id)
		}
	}
	want := slices.Collect(slices.Chunk(ids, size))
	if ids == nil {
		want = [][]string{nil}
	}
	if got := l.walk(l.core, everything+text, size); fmt.Sprint(got) != fmt.Sprint(want) {
		l.Errorf("%q in pages of %d: %q, want %q", text, size, got, want)
	}
}
