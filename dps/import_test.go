package dps

import (
	"errors"
	"strings"
	"testing"
)

const importEK = "AToAAQ=="

func TestAnImportTakesBothForms(t *testing.T) {
	for line, want := range map[string]ImportFields{
		`{"endorsementKey":"AToAAQ==","algorithm":"rsa2048"}`: {EndorsementKey: importEK, ProvisioningStatus: EnrollmentEnabled},
		`{"endorsementKey":"AToAAQ=="}`:                       {EndorsementKey: importEK, ProvisioningStatus: EnrollmentEnabled},
		`{"registrationId":"Dev-1","endorsementKey":"AToAAQ","deviceId":"press","provisioningStatus":"disabled","storageRootKey":"AAE="}`:                                        {"Dev-1", importEK, "press", EnrollmentDisabled, "AAE="},
		`{"registrationId":null,"endorsementKey":"AToAAQ==","deviceId":null,"storageRootKey":""}`:                                                                                {EndorsementKey: importEK, ProvisioningStatus: EnrollmentEnabled},
		`{"attestation":{"type":"tpm","tpm":{"endorsementKey":"AToAAQ=="}}}`:                                                                                                     {EndorsementKey: importEK, ProvisioningStatus: EnrollmentEnabled},
		`{"registrationId":"d","etag":"x","unknown":1,"provisioningStatus":"disabled","attestation":{"type":"tpm","tpm":{"endorsementKey":"AToAAQ==","storageRootKey":"AAE="}}}`: {"d", importEK, "", EnrollmentDisabled, "AAE="},
	} {
		e, err := DecodeImport([]byte(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if got := ImportFieldsOf(e); got != want {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
		again, err := want.Enrollment()
		if err != nil || string(again.Encode()) != string(e.Encode()) {
			t.Errorf("%s: by its fields %s, %v; want %s", line, again.Encode(), err, e.Encode())
		}
	}
}

func TestABadImportLineIsRefusedAtItsPlace(t *testing.T) {
	for line, want := range map[string]string{
		``:                              "not valid JSON",
		`[]`:                            "must be a JSON object",
		`{}`:                            "attestation",
		`{"endorsementKey":1}`:          "endorsementKey",
		`{"endorsementKey":null}`:       "endorsementKey",
		`{"endorsementKey":"!"}`:        "endorsementKey",
		`{"EndorsementKey":"AToAAQ=="}`: "attestation",
		`{"endorsementKey":"AToAAQ==","DeviceId":"x"}`:                          "deviceId",
		`{"endorsementKey":"AToAAQ==","attestation":{}}`:                        "endorsementKey",
		`{"endorsementKey":"AToAAQ==","endorsementKey":"AToAAQ=="}`:             "twice",
		`{"endorsementKey":"AToAAQ==","registrationId":"../etc"}`:               "registrationId",
		`{"endorsementKey":"AToAAQ==","registrationId":"a\u0000"}`:              "registrationId",
		`{"endorsementKey":"AToAAQ==","deviceId":"a b"}`:                        "deviceId",
		`{"endorsementKey":"AToAAQ==","provisioningStatus":"Enabled"}`:          "provisioningStatus",
		`{"endorsementKey":"AToAAQ==","storageRootKey":"%"}`:                    "storageRootKey",
		"{\"endorsementKey\":\"AToAAQ==\",\"deviceId\":\"\xff\"}":               "UTF-8",
		"{\"endorsementKey\":\"AToAAQ==\",\"deviceId\":\"\x00\"}":               "not valid JSON",
		strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000):               "nested deeper",
		`{"a":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`: "nested",
		strings.Repeat(`{"a":`, 10_001) + "1" + strings.Repeat("}", 10_001):     "nested deeper",
	} {
		_, err := DecodeImport([]byte(line))
		var field *FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %q in it", line, err, want)
		}
	}
}

func TestARefusedImportLineKeepsItsID(t *testing.T) {
	for _, line := range []string{`{"registrationId":"d","endorsementKey":"!"}`, `{"registrationId":"d","attestation":{}}`, `{"registrationId":"d"}`} {
		if e, err := DecodeImport([]byte(line)); err == nil || e.RegistrationID != "d" {
			t.Errorf("%s: %q, %v", line, e.RegistrationID, err)
		}
	}
}

func FuzzDecodeImport(f *testing.F) {
	f.Add([]byte(`{"registrationId":"d","endorsementKey":"AToAAQ==","deviceId":"press","provisioningStatus":"disabled","storageRootKey":"AAE="}`))
	f.Add([]byte(`{"attestation":{"type":"tpm","tpm":{"endorsementKey":"AToAAQ=="}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := DecodeImport(line)
		if err != nil {
			return
		}
		again, err := DecodeImport(e.Encode())
		if err != nil || string(again.Encode()) != string(e.Encode()) {
			t.Errorf("%q: %s, then %s, %v", line, e.Encode(), again.Encode(), err)
		}
	})
}
