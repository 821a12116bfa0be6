package dps_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/dps"
)

func bulkBody(mode string, items ...string) string {
	return `{"enrollments":[` + strings.Join(items, ",") + `],"mode":"` + mode + `"}`
}

const goodItem = `{"registrationId":"press-07",` + tpmOnly + `}`

func TestBulkModesAreReadInAnyLetterCase(t *testing.T) {
	for word, want := range map[string]dps.BulkMode{
		"create": dps.BulkCreate, "CREATE": dps.BulkCreate, "Update": dps.BulkUpdate,
		"updateIfMatchETag": dps.BulkUpdateIfMatchETag, "updateIfMatchEtag": dps.BulkUpdateIfMatchETag, "delete": dps.BulkDelete,
	} {
		got, err := dps.DecodeBulkEnrollments([]byte(bulkBody(word, goodItem)))
		if err != nil || got.Mode != want || len(got.Items) != 1 {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
	}
}

// TestBrokenBulkItemFailsAlone: its neighbours are whole, and the etag that a
// PUT ignores is there.
func TestBrokenBulkItemFailsAlone(t *testing.T) {
	full := fullest()
	got, err := dps.DecodeBulkEnrollments([]byte(`{"mode":"update","later":0,"enrollments":[` + string(full.Encode()) + `,
		{"registrationId":"b","attestation":{"type":"tpm"}} , {"registrationId":"c"},{"registrationId":"d","etag":7,` + tpmOnly + `},
		{"registrationId":"e","ETag":"x",` + tpmOnly + `},{"registrationId":"f","DeviceId":"x",` + tpmOnly + `},
		{"registrationId":"press-07","etag":" \"x\" ",` + tpmOnly + `},{"registrationId":"h","etag":null,"attestation":7}]}`))
	if err != nil {
		t.Fatal(err)
	}
	wantFull := fullest()
	wantFull.RegistrationState, wantFull.ETag = nil, ""
	wantFull.Created, wantFull.LastUpdated = dps.IndividualEnrollment{}.Created, dps.IndividualEnrollment{}.LastUpdated
	want := []struct {
		id, etag, member, problem string
		enrollment                dps.IndividualEnrollment
	}{
		{"Line4-Press-07", "IjAw", "", "", wantFull},
		{"b", "", "attestation", "must hold the member", dps.IndividualEnrollment{}},
		{"c", "", "attestation", "is missing", dps.IndividualEnrollment{}},
		{"d", "", "etag", "must be a string", dps.IndividualEnrollment{}},
		{"e", "", "etag", "spelled", dps.IndividualEnrollment{}},
		{"f", "", "deviceId", "spelled", dps.IndividualEnrollment{}},
		{"press-07", `"x"`, "", "", smallest()},
		{"h", "", "attestation", "must be an object", dps.IndividualEnrollment{}},
	}
	if got.Mode != dps.BulkUpdate || len(got.Items) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		item := got.Items[i]
		if item.RegistrationID != w.id || item.ETag != w.etag {
			t.Errorf("item %d: %q, etag %q", i, item.RegistrationID, item.ETag)
		}
		if diff := cmp.Diff(w.enrollment, item.Enrollment); diff != "" {
			t.Errorf("item %d: %s", i, diff)
		}
		if w.problem != "" {
			checkRefusal(t, item.Err, w.member, w.problem)
		} else if item.Err != nil {
			t.Errorf("item %d: %v", i, item.Err)
		}
	}
}

// TestFaultyETagIsNotForgottenForALaterMember, in either order.
func TestFaultyETagIsNotForgottenForALaterMember(t *testing.T) {
	for _, members := range []string{`"etag":7,"ETag":"x"`, `"ETag":"x","etag":"x"`, `"etag":7,"deviceId":"d"`} {
		got, err := dps.DecodeBulkEnrollments([]byte(bulkBody("delete", `{"registrationId":"a",`+members+`}`)))
		if err != nil {
			t.Fatal(err)
		}
		if got.Items[0].Err == nil {
			t.Errorf("%s was accepted", members)
		}
	}
}

// TestDeleteNeedsNoMoreThanAnId: what is to go need not be sound.
func TestDeleteNeedsNoMoreThanAnId(t *testing.T) {
	got, err := dps.DecodeBulkEnrollments([]byte(bulkBody("delete", `{"registrationId":"a"}`, `{"registrationId":"b","etag":"x","attestation":{"type":7}}`, goodItem)))
	if err != nil {
		t.Fatal(err)
	}
	want := dps.BulkEnrollments{Mode: dps.BulkDelete, Items: []dps.BulkItem{{RegistrationID: "a"}, {RegistrationID: "b", ETag: "x"}, {RegistrationID: "press-07"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBulkRequestsThatAreRefusedWhole(t *testing.T) {
	var many []string
	for i := range dps.MaxBulk {
		many = append(many, fmt.Sprintf(`{"registrationId":"a%d"}`, i))
	}
	if got, err := dps.DecodeBulkEnrollments([]byte(bulkBody("delete", many...))); err != nil || len(got.Items) != 10 {
		t.Fatalf("%d items, %v", len(got.Items), err)
	}
	for body, want := range map[string][2]string{
		``:                                     {"", "not valid JSON"},
		`[]`:                                   {"", "must be a JSON object"},
		`{}`:                                   {"mode", "is missing"},
		`{"mode":"create"}`:                    {"enrollments", "is missing"},
		`{"mode":"create","enrollments":null}`: {"enrollments", "is missing"},
		`{"mode":"create","enrollmentGroups":[]}`:        {"enrollments", "is missing"},
		`{"mode":"create","Enrollments":[]}`:             {"enrollments", "spelled"},
		`{"Mode":"create","enrollments":[]}`:             {"mode", "spelled"},
		`{"mode":null,"enrollments":[` + goodItem + `]}`: {"mode", "is missing"},
		`{"mode":7,"enrollments":[` + goodItem + `]}`:    {"mode", "must be a string"},
		`{"mode":"create","enrollments":{}}`:             {"enrollments", "must be an array"},
		bulkBody("create"):                               {"enrollments", "empty"},
		bulkBody("", goodItem):                           {"mode", "must be one of"},
		bulkBody("replace", goodItem):                    {"mode", "must be one of"},
		bulkBody("delete", append(many, goodItem)...):    {"enrollments", "more than 10"},
		bulkBody("create", goodItem, `7`):                {"enrollments[1]", "must be an object"},
		bulkBody("create", `null`):                       {"enrollments[0]", "must be an object"},
		bulkBody("create", goodItem, `{`+tpmOnly+`}`):    {"enrollments[1].registrationId", "is missing"},
		bulkBody("create", `{"registrationId":null}`):    {"enrollments[0].registrationId", "is missing"},
		bulkBody("create", `{"registrationId":""}`):      {"enrollments[0].registrationId", "must be 1 to 128"},
		bulkBody("delete", `{"registrationId":"a/b"}`):   {"enrollments[0].registrationId", "must be 1 to 128"},
		bulkBody("create", `{"registrationId":7}`):       {"enrollments[0].registrationId", "must be a string"},
		bulkBody("create", `{"RegistrationId":"a"}`):     {"enrollments[0].registrationId", "spelled"},
		bulkBody("create", goodItem, goodItem):           {"enrollments[1].registrationId", "earlier item"},
		bulkBody("delete", `{"registrationId":"a"}`, `{"registrationId":"b"}`, `{"registrationId":"A"}`): {"enrollments[2].registrationId", "earlier item"},
		bulkBody("create", `{"registrationId":"a","registrationId":"b"}`):                                {"", "twice"},
		bulkBody("create", goodItem) + strings.Repeat(" ", dps.MaxMessage):                               {"", "longer than"},
	} {
		got, err := dps.DecodeBulkEnrollments([]byte(body))
		checkRefusal(t, err, want[0], want[1])
		if diff := cmp.Diff(dps.BulkEnrollments{}, got); diff != "" {
			t.Errorf("%.60s: a refused request is not the zero one: %s", body, diff)
		}
	}
}

func TestBulkDoesNotHoldOnToTheBody(t *testing.T) {
	full := fullest()
	body := []byte(bulkBody("update", string(full.Encode())))
	got, err := dps.DecodeBulkEnrollments(body)
	if err != nil {
		t.Fatal(err)
	}
	before := got.Items[0].RegistrationID + got.Items[0].ETag + string(got.Items[0].Enrollment.Encode())
	clear(body) // a transport uses its buffer again
	if after := got.Items[0].RegistrationID + got.Items[0].ETag + string(got.Items[0].Enrollment.Encode()); after != before {
		t.Errorf("became %q", after)
	}
}

func TestBulkAnswersAreByteExact(t *testing.T) {
	for want, r := range map[string]dps.BulkResult{
		`{"errors":[],"isSuccessful":true}`: {},
		`{"errors":[{"registrationId":"Press-07","errorCode":409201,"errorStatus":"Enrollment already exists."}],"isSuccessful":false}`: {
			Errors: []dps.BulkError{{RegistrationID: "Press-07", Code: dps.CodeEnrollmentExists}}},
		`{"errors":[{"registrationId":"a","errorCode":400004,"errorStatus":"attestation: is missing"},` +
			`{"registrationId":"b","errorCode":412001,"errorStatus":"Precondition failed. The etag is not the current one; read the resource again."}],"isSuccessful":false}`: {
			Errors: []dps.BulkError{{"a", dps.CodeBadRequest, "attestation: is missing"}, {"b", dps.CodePreconditionFailed, ""}}},
	} {
		if got := string(r.Encode()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestListsAreBareArraysWithoutSecrets(t *testing.T) {
	if got := string(dps.EncodeEnrollments(nil)) + string(dps.EncodeRegistrations(nil)); got != "[][]" {
		t.Errorf("nothing is %s", got)
	}
	small, full, keyed := smallest(), fullest(), smallest()
	keyed.Attestation = dps.Attestation{Type: "symmetricKey", SymmetricKey: &dps.SymmetricKeys{Primary: []byte("secret of sixteen")}}
	list := []dps.IndividualEnrollment{small, full, keyed}
	got := string(dps.EncodeEnrollments(list))
	bare := fullest()
	bare.RegistrationState = nil
	want := `[` + string(small.Encode()) + `,` + string(bare.Encode()) +
		`,{"registrationId":"press-07","attestation":{"type":"symmetricKey"},"provisioningStatus":"enabled"}]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if list[1].RegistrationState == nil || list[2].Attestation.SymmetricKey == nil {
		t.Error("the caller's list lost members")
	}

	states := []dps.RegistrationState{{RegistrationID: "a", Status: "assigned", TPM: &dps.TPMResult{AuthenticationKey: []byte("blob")}}, {RegistrationID: "b", Status: "failed", ErrorCode: 400208}}
	want = `[{"registrationId":"a","status":"assigned"},{"registrationId":"b","status":"failed","errorCode":400208}]`
	if got := string(dps.EncodeRegistrations(states)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if states[0].TPM == nil {
		t.Error("the caller's list lost members")
	}
}

func FuzzDecodeBulk(f *testing.F) {
	full := fullest()
	f.Add([]byte(bulkBody("create", goodItem, string(full.Encode()))))
	f.Add([]byte(bulkBody("DELETE", `{"registrationId":"a","etag":"x"}`, `{"registrationId":"b","attestation":7}`)))
	f.Add([]byte(bulkBody("updateIfMatchEtag", `{"registrationId":"a","etag":7}`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		bulk, err := dps.DecodeBulkEnrollments(body)
		if err != nil {
			if field := (*dps.FieldError)(nil); !errors.As(err, &field) || !cmp.Equal(bulk, dps.BulkEnrollments{}) {
				t.Fatalf("error %v, request %+v", err, bulk)
			}
			return
		}
		if n := len(bulk.Items); n < 1 || n > dps.MaxBulk {
			t.Fatalf("%d items", n)
		}
		seen := map[string]bool{}
		for _, item := range bulk.Items {
			if !dps.ValidRegistrationID(item.RegistrationID) || seen[dps.FoldID(item.RegistrationID)] {
				t.Fatalf("id %q", item.RegistrationID)
			}
			seen[dps.FoldID(item.RegistrationID)] = true
			if empty := cmp.Equal(item.Enrollment, dps.IndividualEnrollment{}); empty != (item.Err != nil || bulk.Mode == dps.BulkDelete) {
				t.Fatalf("error %v, enrollment %+v", item.Err, item.Enrollment)
			}
		}
	})
}
