package dps_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/dps"
)

func withExtra(latchkey string) []byte {
	return []byte(`{` + tpmOnly + `,"latchkey":` + latchkey + `}`)
}

func TestFurtherEKsOfAChipComeBackAsTheyWere(t *testing.T) {
	e := smallest()
	e.Latchkey = &dps.Extension{ExtraKeys: []dps.ExtraKey{
		{EndorsementKey: []byte{0, 1, 2}, Hierarchy: dps.HierarchyEndorsement, Note: "zero-filled, as <Rust> shows it"},
		{EndorsementKey: []byte{0, 1, 3}, Hierarchy: dps.HierarchyUnknown},
	}}
	got, err := dps.DecodeEnrollment("press-07", e.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, got); diff != "" {
		t.Error(diff)
	}
	want := `,"latchkey":{"endorsementKeys":[{"endorsementKey":"AAEC","hierarchy":"endorsement","note":"zero-filled, as \u003cRust\u003e shows it"},{"endorsementKey":"AAED","hierarchy":"unknown"}]}}`
	if !strings.HasSuffix(string(e.Encode()), want) {
		t.Errorf("got %s", e.Encode())
	}
}

// Clients that do not know the member leave it out, and that must not take EKs away.
func TestFurtherEKsLeftOutAreNotAnEmptyList(t *testing.T) {
	for latchkey, there := range map[string]bool{`null`: false, `{}`: false, `{"endorsementKeys":null}`: false, `{"later":7}`: false, `{"endorsementKeys":[]}`: true} {
		got, err := dps.DecodeEnrollment("press-07", withExtra(latchkey))
		if err != nil || (got.Latchkey != nil) != there {
			t.Errorf("%s: %+v, %v", latchkey, got.Latchkey, err)
		}
	}
}

func TestFurtherEKsThatAreNone(t *testing.T) {
	many := strings.Repeat(`{"endorsementKey":"AAEC"},`, dps.MaxExtraKeys) + `{"endorsementKey":"AAEC"}`
	for latchkey, c := range map[string]struct{ member, problem string }{
		`7`:                            {"latchkey", "must be an object"},
		`{"EndorsementKeys":[]}`:       {"latchkey.endorsementKeys", "spelled"},
		`{"endorsementKeys":{}}`:       {"latchkey.endorsementKeys", "must be an array"},
		`{"endorsementKeys":["AAEC"]}`: {"latchkey.endorsementKeys[0]", "must be an object"},
		`{"endorsementKeys":[{"endorsementKey":"AAEC"},{"hierarchy":"owner"}]}`:                     {"latchkey.endorsementKeys[1].endorsementKey", "is missing"},
		`{"endorsementKeys":[{"endorsementKey":"%"}]}`:                                              {"latchkey.endorsementKeys[0].endorsementKey", "must be base64"},
		`{"endorsementKeys":[{"endorsementKey":"AAEC","hierarchy":"null"}]}`:                        {"latchkey.endorsementKeys[0].hierarchy", "must be one of: endorsement, owner, platform, unknown"},
		`{"endorsementKeys":[{"endorsementKey":"AAEC","Hierarchy":"owner"}]}`:                       {"latchkey.endorsementKeys[0].hierarchy", "spelled"},
		`{"endorsementKeys":[{"endorsementKey":"AAEC","note":7}]}`:                                  {"latchkey.endorsementKeys[0].note", "must be a string"},
		`{"endorsementKeys":[{"endorsementKey":"AAEC","note":"a\nb"}]}`:                             {"latchkey.endorsementKeys[0].note", "control"},
		`{"endorsementKeys":[{"endorsementKey":"AAEC","note":"` + strings.Repeat("x", 257) + `"}]}`: {"latchkey.endorsementKeys[0].note", "at most 256 bytes"},
		`{"endorsementKeys":[` + many + `]}`:                                                        {"latchkey.endorsementKeys", "more than 16"},
	} {
		_, err := dps.DecodeEnrollment("press-07", withExtra(latchkey))
		checkRefusal(t, err, c.member, c.problem)
	}
	symmetric := `{"attestation":{"type":"symmetricKey"},"latchkey":{"endorsementKeys":[%s]}}`
	_, err := dps.DecodeEnrollment("press-07", fmt.Appendf(nil, symmetric, `{"endorsementKey":"AAEC"}`))
	checkRefusal(t, err, "latchkey.endorsementKeys", "not of a TPM")
	if _, err := dps.DecodeEnrollment("press-07", fmt.Appendf(nil, symmetric, ``)); err != nil {
		t.Errorf("an empty list beside symmetric keys: %v", err)
	}
}
