package dps

import (
	"errors"
	"strings"
	"testing"
)

const importEK = "AToAAQ=="

func TestAnImportTakesBothForms(t *testing.T) {
	enabled := ImportRow{"endorsementKey": importEK, "provisioningStatus": "enabled"}
	for line, want := range map[string]ImportRow{
		`{"endorsementKey":"AToAAQ==","algorithm":"rsa2048"}`: enabled,
		`{"endorsementKey":"AToAAQ=="}`:                       enabled,
		`{"registrationId":"Dev-1","endorsementKey":"AToAAQ","deviceId":"press","provisioningStatus":"disabled","storageRootKey":"AAE="}`:                                        {"registrationId": "Dev-1", "endorsementKey": importEK, "deviceId": "press", "provisioningStatus": "disabled", "storageRootKey": "AAE="},
		`{"registrationId":null,"endorsementKey":"AToAAQ==","deviceId":null,"storageRootKey":""}`:                                                                                enabled,
		`{"attestation":{"type":"tpm","tpm":{"endorsementKey":"AToAAQ=="}}}`:                                                                                                     enabled,
		`{"registrationId":"d","etag":"x","unknown":1,"provisioningStatus":"disabled","attestation":{"type":"tpm","tpm":{"endorsementKey":"AToAAQ==","storageRootKey":"AAE="}}}`: {"registrationId": "d", "endorsementKey": importEK, "provisioningStatus": "disabled", "storageRootKey": "AAE="},
	} {
		e, err := DecodeImport([]byte(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got, err := ImportRowOf(e.IndividualEnrollment)
		for _, column := range ImportColumns {
			if err != nil || column != "attestation" && got[column] != want[column] {
				t.Errorf("%s: %s is %q, want %q; %v", line, column, got[column], want[column], err)
			}
		}
		again, err := want.Entry()
		if err != nil || string(again.Encode()) != string(e.Encode()) {
			t.Errorf("%s: by its cells %s, %v; want %s", line, again.Encode(), err, e.Encode())
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

// Of every mechanism a row says all that an export tells of an enrollment.
func TestARowIsTheWholeEnrollment(t *testing.T) {
	rest := `"deviceId":"Press","optionalDeviceInformation":{"a": [1, "\n"]},"capabilities":{"iotEdge":true},"iotHubHostName":"hub.example",` +
		`"initialTwin":{"tags":{"x":"=1"},"properties":{"desired":{"y":null}}},"provisioningStatus":"disabled","reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":false},` +
		`"allocationPolicy":"static","iotHubs":["one.example","two.example:8883"],"customAllocationDefinition":{"webhookUrl":"https://f.example/?a=1","apiVersion":"2021-10-01"}`
	thumb := strings.Repeat("0A", 32)
	for _, attestation := range []string{
		`{"type":"tpm","tpm":{"endorsementKey":"AToAAQ==","storageRootKey":"AAE="}}`,
		`{"type":"x509","x509":{"clientCertificates":{"primary":{"info":{"sha256Thumbprint":"` + thumb + `"}}}}}`,
		`{"type":"x509","x509":{"clientCertificates":{"primary":{"info":{"sha256Thumbprint":"` + thumb + `"}},"secondary":{"info":{"sha256Thumbprint":"` + strings.Repeat("B1", 32) + `"}}}}}`,
		`{"type":"symmetricKey"}`,
	} {
		for _, more := range []string{"", "," + rest} {
			e, err := DecodeImport([]byte(`{"registrationId":"d","attestation":` + attestation + more + `}`))
			if err != nil {
				t.Fatal(err)
			}
			row, err := ImportRowOf(e.IndividualEnrollment)
			if err != nil {
				t.Fatal(err)
			}
			again, err := row.Entry()
			want, _ := e.EncodeExported()
			got, _ := again.EncodeExported()
			if err != nil || string(got) != string(want) {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
			if again.KeysWithheld != (e.Attestation.Type == AttestationSymmetricKey) {
				t.Errorf("%s: keys withheld is %v", attestation, again.KeysWithheld)
			}
			line, err := DecodeImport(want)
			if err != nil || line.KeysWithheld != again.KeysWithheld {
				t.Errorf("%s: %v, %v", want, line.KeysWithheld, err)
			}
		}
	}
}

func TestABadCellIsRefusedAtItsColumn(t *testing.T) {
	thumb := strings.Repeat("0A", 32)
	for _, c := range []struct {
		row  ImportRow
		want string
	}{
		{ImportRow{}, "endorsementKey: is missing"},
		{ImportRow{"attestation": "tpm"}, "endorsementKey: is missing"},
		{ImportRow{"attestation": "TPM", "endorsementKey": importEK}, "attestation: must be one of"},
		{ImportRow{"attestation": "x509"}, "primaryThumbprint: is missing"},
		{ImportRow{"attestation": "x509", "secondaryThumbprint": thumb}, "primaryThumbprint: is missing"},
		{ImportRow{"attestation": "x509", "primaryThumbprint": thumb, "endorsementKey": importEK}, "endorsementKey: must be empty"},
		{ImportRow{"endorsementKey": importEK, "primaryThumbprint": thumb}, "primaryThumbprint: must be empty"},
		{ImportRow{"primaryThumbprint": thumb[2:]}, "primaryThumbprint: must be the SHA-256"},
		{ImportRow{"primaryThumbprint": "xx" + thumb[2:]}, "primaryThumbprint: must be the SHA-256"},
		{ImportRow{"attestation": "symmetricKey", "symmetricKeys": "c2VjcmV0"}, "symmetricKeys: must be withheld"},
		{ImportRow{"endorsementKey": importEK, "symmetricKeys": "withheld"}, "symmetricKeys: must be empty"},
		{ImportRow{"endorsementKey": importEK, "iotEdge": "yes"}, "iotEdge: must be true or false"},
		{ImportRow{"endorsementKey": importEK, "migrateDeviceData": "1"}, "migrateDeviceData: must be true or false"},
		{ImportRow{"endorsementKey": importEK, "tags": "[]"}, "tags: must be a JSON object"},
		{ImportRow{"endorsementKey": importEK, "desired": `{"a":1,"a":2}`}, "desired: must be a JSON object"},
		{ImportRow{"endorsementKey": importEK, "optionalDeviceInformation": strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)}, "optionalDeviceInformation: must be a JSON object"},
		{ImportRow{"endorsementKey": importEK, "tags": `{"a":"` + strings.Repeat("x", MaxMessage) + `"}`}, "tags: must be a JSON object, of at most"},
		{ImportRow{"endorsementKey": importEK, "iotHubs": "a.example;b example", "allocationPolicy": "static"}, "iotHubs: must hold host names"},
		{ImportRow{"endorsementKey": importEK, "iotHubs": "a.example"}, "allocationPolicy must be specified"},
		{ImportRow{"endorsementKey": importEK, "iotHubs": strings.Repeat("a.example;", 51), "allocationPolicy": "static"}, "iotHubs: holds more than"},
		{ImportRow{"endorsementKey": importEK, "allocationPolicy": "random"}, "allocationPolicy: must be one of"},
		{ImportRow{"endorsementKey": importEK, "webhookUrl": "ftp://x", "webhookApiVersion": "2021-10-01"}, "webhookUrl"},
		{ImportRow{"endorsementKey": importEK, "webhookApiVersion": "2021-10-01"}, "webhookUrl"},
	} {
		c.row["registrationId"] = "d"
		e, err := c.row.Entry()
		var field *FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), c.want) || e.RegistrationID != "d" {
			t.Errorf("%.200v: %v, want %q in it; id %q", c.row, err, c.want, e.RegistrationID)
		}
	}
	if e, err := (ImportRow{"primaryThumbprint": strings.ToLower(thumb), "iotEdge": "TRUE", "iotHubs": " a.example ; b.example ", "allocationPolicy": "static"}).Entry(); err != nil ||
		!e.Capabilities.IotEdge || e.Attestation.X509.Client.Primary.Info.SHA256Thumbprint != thumb || strings.Join(e.IotHubs, " ") != "a.example b.example" {
		t.Errorf("as a spreadsheet saves it: %+v, %v", e, err)
	}
	if e, err := DecodeImport([]byte(`{"registrationId":"d","symmetricKeys":"withheld","attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"c2VjcmV0IGtleSBvZiBhIGRldmljZSE="}}}`)); err == nil {
		t.Errorf("keys that are there and withheld: %+v", e)
	}
}
