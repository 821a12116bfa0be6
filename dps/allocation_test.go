package dps_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/dps"
)

func TestTheWebhookIsAskedInTheFormOfTheImitatedService(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	entry := dps.IndividualEnrollment{
		RegistrationID: "line4-press-07", ETag: "IjAx", ProvisioningStatus: dps.EnrollmentEnabled, Created: at, LastUpdated: at,
		Attestation:       dps.Attestation{Type: dps.AttestationTPM, TPM: &dps.TPMKeys{EndorsementKey: []byte("secret of the list")}},
		RegistrationState: &dps.RegistrationState{RegistrationID: "line4-press-07", Status: "assigned"},
		ReprovisionPolicy: &dps.ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true},
		AllocationPolicy:  dps.AllocationCustom, IotHubs: []string{"hub-a.example.net", "hub-b.example.net"},
		CustomAllocation: &dps.CustomAllocation{WebhookURL: "https://alloc.example.net/pick", APIVersion: "2021-10-01"},
	}
	const wantEntry = `"attestation":{"type":"tpm"},"etag":"IjAx","provisioningStatus":"enabled","reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true},` +
		`"createdDateTimeUtc":"2030-01-01T00:00:00Z","lastUpdatedDateTimeUtc":"2030-01-01T00:00:00Z","allocationPolicy":"custom",` +
		`"iotHubs":["hub-a.example.net","hub-b.example.net"],"customAllocationDefinition":{"webhookUrl":"https://alloc.example.net/pick","apiVersion":"2021-10-01"}`
	group := dps.EnrollmentGroup{GroupID: "presses", ProvisioningStatus: dps.EnrollmentEnabled,
		Attestation: dps.Attestation{Type: dps.AttestationSymmetricKey, SymmetricKey: &dps.SymmetricKeys{Primary: []byte("secret key of the group, 32 byte")}}}
	hubs := []string{"hub-a.example.net", "hub-b.example.net"}
	for name, test := range map[string]struct {
		ask  dps.AllocationRequest
		want string
	}{
		"a TPM for the first time": {
			dps.AllocationRequest{Enrollment: &entry, LinkedHubs: hubs, Device: dps.DeviceRuntimeContext{RegistrationID: "line4-press-07",
				TPM: &dps.TPMKeys{EndorsementKey: []byte{0, 1}, StorageRootKey: []byte{2, 3}}, Payload: json.RawMessage(`{"model": "P7"}`)}},
			`{"individualEnrollment":{"registrationId":"line4-press-07",` + wantEntry + `},"deviceRuntimeContext":{"registrationId":"line4-press-07",` +
				`"tpm":{"endorsementKey":"AAE=","storageRootKey":"AgM="},"payload":{"model": "P7"}},"linkedHubs":["hub-a.example.net","hub-b.example.net"]}`,
		},
		"a symmetric key of a group, again": {
			dps.AllocationRequest{Group: &group, LinkedHubs: hubs[:1], Device: dps.DeviceRuntimeContext{RegistrationID: "p1", CurrentHub: hubs[0], CurrentDeviceID: "press-1"}},
			`{"enrollmentGroup":{"enrollmentGroupId":"presses","attestation":{"type":"symmetricKey"},"provisioningStatus":"enabled"},` +
				`"deviceRuntimeContext":{"registrationId":"p1","currentIotHubHostName":"hub-a.example.net","currentDeviceId":"press-1","symmetricKey":{}},"linkedHubs":["hub-a.example.net"]}`,
		},
		"a certificate": {
			dps.AllocationRequest{Group: &dps.EnrollmentGroup{GroupID: "g", ProvisioningStatus: "enabled", Attestation: dps.Attestation{Type: dps.AttestationX509}},
				Device: dps.DeviceRuntimeContext{RegistrationID: "p1", Certificate: &dps.CertificateInfo{SubjectName: "CN=p1", SHA1Thumbprint: "AB", NotBefore: at, NotAfter: at, Version: 3}}},
			`{"enrollmentGroup":{"enrollmentGroupId":"g","attestation":{"type":"x509"},"provisioningStatus":"enabled"},"deviceRuntimeContext":{"registrationId":"p1",` +
				`"x509":{"clientCertificates":{"primary":{"info":{"subjectName":"CN=p1","sha1Thumbprint":"AB","notBeforeUtc":"2030-01-01T00:00:00Z","notAfterUtc":"2030-01-01T00:00:00Z","version":3}}}}},"linkedHubs":[]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, string(test.ask.Encode())); diff != "" {
				t.Errorf("the question differs (-want +got):\n%s", diff)
			}
			if !json.Valid(test.ask.Encode()) {
				t.Error("it is not JSON")
			}
		})
	}
	if entry.Attestation.TPM == nil || entry.RegistrationState == nil || group.Attestation.SymmetricKey == nil {
		t.Error("encoding has changed the entry")
	}
}

func TestWhatAWebhookMayAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want dps.AllocationAnswer
	}{
		"a hub":                            {`{"iotHubHostName":"Hub-A.example.net"}`, dps.AllocationAnswer{Hub: "Hub-A.example.net"}},
		"as the documentation also spells": {`{"iotHubHostname":"hub-a.example.net"}`, dps.AllocationAnswer{Hub: "hub-a.example.net"}},
		"nulls, and members of tomorrow":   {`{"iotHubHostName":"a.b","initialTwin":null,"payload":null,"more":[1]}`, dps.AllocationAnswer{Hub: "a.b"}},
		"with a byte order mark":           {"\xef\xbb\xbf" + `{"iotHubHostName":"a.b"}`, dps.AllocationAnswer{Hub: "a.b"}},
		"a payload of any kind":            {`{"iotHubHostName":"a.b","payload": [1, "x"] }`, dps.AllocationAnswer{Hub: "a.b", Payload: json.RawMessage(`[1, "x"]`)}},
		"a twin": {`{"iotHubHostName":"a.b","initialTwin":{"tags":{"t":1},"properties":{"desired":{"d":2}}}}`,
			dps.AllocationAnswer{Hub: "a.b", InitialTwin: &dps.InitialTwin{Tags: json.RawMessage(`{"t":1}`), Desired: json.RawMessage(`{"d":2}`)}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := dps.DecodeAllocationAnswer([]byte(test.body))
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestAnswersOfAWebhookThatAreRefused(t *testing.T) {
	for body, why := range map[string]string{
		"":                              "not valid JSON",
		"hub-a.example.net":             "not valid JSON",
		`["hub"]`:                       "must be a JSON object",
		"{}":                            "is missing",
		`{"iotHubHostName":null}`:       "is missing",
		`{"iotHubHostName":""}`:         "is missing",
		`{"iotHubHostName":7}`:          "iotHubHostName",
		`{"iotHubHostName":"a b"}`:      "host name",
		`{"iotHubHostName":"a.b/../c"}`: "host name",
		`{"iothubhostname":"a.b"}`:      "iotHubHostName",
		`{"iotHubHostName":"a.b","iotHubHostName":"c.d"}`:                                          "twice",
		`{"iotHubHostName":"a.b","initialTwin":[]}`:                                                "initialTwin",
		`{"iotHubHostName":"a.b","initialTwin":{"properties":{"desired":7}}}`:                      "desired",
		`{"iotHubHostName":"a.b","payload":"` + strings.Repeat("x", 16<<10) + `"}`:                 "longer than",
		`{"iotHubHostName":"a.b","x":"` + strings.Repeat("x", dps.MaxAllocationAnswer) + `"}`:      "longer than",
		`{"iotHubHostName":"a.b","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: "deeper",
		"{\"iotHubHostName\":\"a.b\",\"x\":\"\xff\"}":                                              "UTF-8",
	} {
		if got, err := dps.DecodeAllocationAnswer([]byte(body)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.60q gave %+v, %v; want one about %q", body, got, err, why)
		}
	}
}

func FuzzDecodeAllocationAnswer(f *testing.F) {
	f.Add([]byte(`{"iotHubHostName":"hub-a.example.net","initialTwin":{"tags":{"t":1},"properties":{"desired":{"d":2}}},"payload":{"p":[1,2]}}`))
	f.Add([]byte(`{"iotHubHostname":"a"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := dps.DecodeAllocationAnswer(body)
		if err != nil {
			return
		}
		if got.Hub == "" || len(got.Hub) > 255 || len(got.Payload) > dps.MaxReturnedPayload || got.Payload != nil && !json.Valid(got.Payload) {
			t.Errorf("%q was taken as %+v", body, got)
		}
	})
}
