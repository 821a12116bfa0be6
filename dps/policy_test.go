package dps_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
)

func TestRightsOfAnAccessPolicyAreReadExactly(t *testing.T) {
	got, err := dps.DecodePolicyRights([]byte(` {"rights" : [ "EnrollmentRead" , "Service\u0043onfig" ] } `))
	if err != nil || !slices.Equal(got, []string{"EnrollmentRead", "ServiceConfig"}) {
		t.Errorf("read %q, %v", got, err)
	}
	for body, problem := range map[string]string{
		``: "not valid JSON", `[]`: "must be a JSON object", `{}`: "at least one", `{"rights":[]}`: "at least one", `{"rights":null}`: "must be an array",
		`{"rights":"EnrollmentRead"}`: "must be an array", `{"rights":[1]}`: "must be an array", `{"rights":[null]}`: "must be an array", `{"rights":[["a"]]}`: "must be an array",
		`{"rights":["a","a"]}`: "twice", `{"rights":["a"],"rights":["b"]}`: "twice", `{"Rights":["a"]}`: `member "rights" only`,
		`{"rights":["a"],"primaryKey":"x"}`: `member "rights" only`, "{\"rights\":[\"\xff\"]}": "UTF-8", `{"rights":["a"]}x`: "not valid JSON",
		`{"rights":[` + strings.Repeat(`"a",`, 20) + `"b"]}`:                                       "twice",
		`{"rights":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]}`: "at most 16",
		`{"rights":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`:                 "deeper",
		`{"rights":["` + strings.Repeat("x", dps.MaxMessage) + `"]}`:                               "longer",
	} {
		got, err := dps.DecodePolicyRights([]byte(body))
		var field *dps.FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), problem) || got != nil {
			t.Errorf("%.60s: read %q, %v; want %q", body, got, err, problem)
		}
	}
}

func TestTheKeyToRegenerateIsReadExactly(t *testing.T) {
	for _, key := range []string{"primary", "secondary"} {
		if got, err := dps.DecodePolicyKey([]byte(`{"key":"` + key + `"}`)); got != key || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	}
	for _, body := range []string{``, `{}`, `{"key":null}`, `{"key":"Primary"}`, `{"key":"both"}`, `{"key":1}`, `{"key":["primary"]}`, `{"Key":"primary"}`, `{"key":"primary","x":1}`, `{"key":"primary","key":"secondary"}`} {
		var field *dps.FieldError
		if got, err := dps.DecodePolicyKey([]byte(body)); got != "" || !errors.As(err, &field) {
			t.Errorf("%s: read %q, %v", body, got, err)
		}
	}
}

func FuzzDecodePolicy(f *testing.F) {
	for _, seed := range []string{`{"rights":["EnrollmentRead"]}`, `{"key":"primary"}`, `{"rights":[null,[{}]]}`, `{"key":{"key":"primary"}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		rights, err := dps.DecodePolicyRights(body)
		if (err == nil) != (len(rights) > 0) || len(rights) > 16 || len(slices.Compact(slices.Sorted(slices.Values(rights)))) != len(rights) {
			t.Errorf("rights %q, %v", rights, err)
		}
		key, err := dps.DecodePolicyKey(body)
		if (err == nil) != (key == "primary" || key == "secondary") {
			t.Errorf("key %q, %v", key, err)
		}
	})
}
