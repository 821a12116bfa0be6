package registration_test

import (
	"encoding/json"
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
	var item map[string]any
	w.must(json.Unmarshal(w.device(id, softtpm.ECC, 0).wire(change).Encode(), &item))
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

// A bulk request is not atomic: what can be done is done, before and after what cannot, and each failure says which item and why.
func TestItemsOfABulkRequestFailAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("there")
	badKey := map[string]any{"attestation": map[string]any{"type": "tpm", "tpm": map[string]any{"endorsementKey": "AAAA"}}}
	noAttestation := w.item("no-attestation", "", nil)
	delete(noAttestation, "attestation")
	result := w.bulk(dps.BulkCreate,
		w.item("first", "", nil), w.item("THERE", "", nil), w.item("bad-key", "", nil), noAttestation,
		w.item("middle", "", nil), w.item("other-hub", "", map[string]any{"iotHubs": []string{hubTwo}, "allocationPolicy": "static"}), w.item("last", "", nil))
	if len(result.Errors) != 3 { // bad-key is still a good one
		t.Errorf("%+v", result)
	}
	bad := w.item("bad-again", "", nil)
	maps.Copy(bad, badKey)
	result.Errors = append(result.Errors, w.bulk(dps.BulkCreate, bad)...Errors)
	_ = result
}
