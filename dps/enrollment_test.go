package dps_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/dps"
)

const tpmOnly = `"attestation":{"type":"tpm","tpm":{"endorsementKey":"AToA"}}`

func smallest() dps.IndividualEnrollment {
	return dps.IndividualEnrollment{
		RegistrationID:     "press-07",
		Attestation:        dps.Attestation{Type: "tpm", TPM: &dps.TPMKeys{EndorsementKey: []byte{1, 0x3a, 0}}},
		ProvisioningStatus: "enabled",
	}
}

func fullest() dps.IndividualEnrollment {
	return dps.IndividualEnrollment{
		RegistrationID:            "Line4-Press-07",
		DeviceID:                  "press(07)",
		RegistrationState:         &dps.RegistrationState{RegistrationID: "line4-press-07", Status: "unassigned"},
		OptionalDeviceInformation: json.RawMessage(`{"bay": "4","version":3,"null":null}`),
		Attestation:               dps.Attestation{Type: "tpm", TPM: &dps.TPMKeys{EndorsementKey: []byte{1, 0x3a, 0}, StorageRootKey: []byte{1, 0x1a, 0}}},
		Capabilities:              &dps.Capabilities{},
		IotHubHostName:            "hub-a.example.net",
		InitialTwin:               &dps.InitialTwin{Tags: json.RawMessage(`{"site":"north"}`), Desired: json.RawMessage(`{"rate":5.0}`)},
		ETag:                      "IjAw",
		ProvisioningStatus:        "disabled",
		ReprovisionPolicy:         &dps.ReprovisionPolicy{UpdateHubAssignment: true},
		Created:                   moment,
		LastUpdated:               wholeTime,
		AllocationPolicy:          "custom",
		IotHubs:                   []string{"hub-a.example.net", "hub-b.example.net:8883"},
		CustomAllocation:          &dps.CustomAllocation{WebhookURL: "https://alloc.example.net/pick?code=x", APIVersion: "2021-10-01"},
	}
}

func TestEnrollmentsAreByteExact(t *testing.T) {
	small, full := smallest(), fullest()
	if got, want := string(small.Encode()), `{"registrationId":"press-07",`+tpmOnly+`,"provisioningStatus":"enabled"}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want := `{"registrationId":"Line4-Press-07","deviceId":"press(07)",` +
		`"registrationState":{"registrationId":"line4-press-07","status":"unassigned"},` +
		`"optionalDeviceInformation":{"bay": "4","version":3,"null":null},` +
		`"attestation":{"type":"tpm","tpm":{"endorsementKey":"AToA","storageRootKey":"ARoA"}},` +
		`"capabilities":{"iotEdge":false},"iotHubHostName":"hub-a.example.net",` +
		`"initialTwin":{"tags":{"site":"north"},"properties":{"desired":{"rate":5.0}}},"etag":"IjAw",` +
		`"provisioningStatus":"disabled","reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":false},` +
		`"createdDateTimeUtc":"2030-01-02T02:04:05.80811Z","lastUpdatedDateTimeUtc":"2030-01-02T03:04:05Z",` +
		`"allocationPolicy":"custom","iotHubs":["hub-a.example.net","hub-b.example.net:8883"],` +
		`"customAllocationDefinition":{"webhookUrl":"https://alloc.example.net/pick?code=x","apiVersion":"2021-10-01"}}`
	if got := string(full.Encode()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !json.Valid(full.Encode()) {
		t.Error("not JSON")
	}
}

// TestEnrollmentComesBackWithoutWhatOnlyTheServiceMaySet: clients read an
// enrollment, change a member and send all of it back.
func TestEnrollmentComesBackWithoutWhatOnlyTheServiceMaySet(t *testing.T) {
	full := fullest()
	got, err := dps.DecodeEnrollment("line4-PRESS-07", full.Encode())
	if err != nil {
		t.Fatal(err)
	}
	want := fullest()
	want.RegistrationState, want.ETag = nil, ""
	want.Created, want.LastUpdated = dps.IndividualEnrollment{}.Created, dps.IndividualEnrollment{}.LastUpdated
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEnrollmentsOfClients(t *testing.T) {
	with := func(change func(*dps.IndividualEnrollment)) dps.IndividualEnrollment {
		e := smallest()
		change(&e)
		return e
	}
	for name, c := range map[string]struct {
		path, members string
		want          dps.IndividualEnrollment
	}{
		"id from the path": {"press-07", ``, smallest()},
		"nulls of the Python package": {"press-07", `"registrationId":null,"deviceId":null,"registrationState":null,"optionalDeviceInformation":null,` +
			`"capabilities":null,"iotHubHostName":null,"initialTwin":null,"etag":null,"provisioningStatus":null,"reprovisionPolicy":null,` +
			`"createdDateTimeUtc":null,"lastUpdatedDateTimeUtc":null,"allocationPolicy":null,"iotHubs":null,"customAllocationDefinition":null,`, smallest()},
		"read-only members are not even looked at": {"press-07", `"registrationState":7,"etag":{},"createdDateTimeUtc":"yesterday","lastUpdatedDateTimeUtc":[],`, smallest()},
		"members of later versions":                {"press-07", `"credentialPolicyName":"p","deviceTypeRefs":[],`, smallest()},
		"empty texts are absent":                   {"press-07", `"deviceId":"","iotHubHostName":"","iotHubs":[],`, smallest()},
		"bulk item":                                {"", `"registrationId":"press-07",`, smallest()},
		"defaults inside a present policy": {"press-07", `"reprovisionPolicy":{"migrateDeviceData":false},`, with(func(e *dps.IndividualEnrollment) {
			e.ReprovisionPolicy = &dps.ReprovisionPolicy{UpdateHubAssignment: true}
		})},
		"defaults of an empty policy": {"press-07", `"reprovisionPolicy":{"updateHubAssignment":null},`, with(func(e *dps.IndividualEnrollment) { e.ReprovisionPolicy = &dps.ReprovisionPolicy{true, true} })},
		"edge":                        {"press-07", `"capabilities":{"iotEdge":true},`, with(func(e *dps.IndividualEnrollment) { e.Capabilities = &dps.Capabilities{IotEdge: true} })},
		"static without hubs":         {"press-07", `"allocationPolicy":"static",`, with(func(e *dps.IndividualEnrollment) { e.AllocationPolicy = "static" })},
		"twin without properties": {"press-07", `"initialTwin":{"tags":{"version":"x"},"properties":{"desired":null}},`, with(func(e *dps.IndividualEnrollment) {
			e.InitialTwin = &dps.InitialTwin{Tags: json.RawMessage(`{"version":"x"}`)}
		})},
		"custom definition with another policy": {"press-07", `"allocationPolicy":"hashed","customAllocationDefinition":{"webhookUrl":"https://h/","apiVersion":"2018-09-01-preview"},`,
			with(func(e *dps.IndividualEnrollment) {
				e.AllocationPolicy = "hashed"
				e.CustomAllocation = &dps.CustomAllocation{WebhookURL: "https://h/", APIVersion: "2018-09-01-preview"}
			})},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := dps.DecodeEnrollment(c.path, []byte(`{`+c.members+tpmOnly+`}`))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEnrollmentDoesNotHoldOnToTheBody(t *testing.T) {
	full := fullest()
	body := full.Encode()
	e, err := dps.DecodeEnrollment("", body)
	if err != nil {
		t.Fatal(err)
	}
	before := string(e.Encode())
	for i := range body {
		body[i] = 'x' // a transport uses its buffer again
	}
	if after := string(e.Encode()); after != before {
		t.Errorf("changed with the buffer: %s", after)
	}
}

func TestEnrollmentsThatAreRefused(t *testing.T) {
	hubs := strings.Repeat(`"h",`, 50)
	for name, c := range map[string]struct{ path, body, member, problem string }{
		"empty":                      {"a", ``, "", "valid JSON"},
		"array":                      {"a", `[]`, "", "object"},
		"member twice":               {"a", `{"deviceId":"a","deviceId":"b",` + tpmOnly + `}`, "", "twice"},
		"no id at all":               {"", `{` + tpmOnly + `}`, "registrationId", "missing"},
		"ids differ":                 {"a", `{"registrationId":"b",` + tpmOnly + `}`, "registrationId", "path"},
		"id in the path not legal":   {"a.", `{` + tpmOnly + `}`, "registrationId", "path"},
		"id in the body not legal":   {"a", `{"registrationId":"a.",` + tpmOnly + `}`, "registrationId", "ASCII"},
		"id of a wrong type":         {"a", `{"registrationId":1,` + tpmOnly + `}`, "registrationId", "string"},
		"no attestation":             {"a", `{}`, "attestation", "missing"},
		"attestation null":           {"a", `{"attestation":null}`, "attestation", "missing"},
		"attestation not an object":  {"a", `{"attestation":"tpm"}`, "attestation", "object"},
		"no type":                    {"a", `{"attestation":{"tpm":{"endorsementKey":"AToA"}}}`, "attestation.type", "missing"},
		"type none":                  {"a", `{"attestation":{"type":"none"}}`, "attestation.type", "one of"},
		"type in capitals":           {"a", `{"attestation":{"type":"TPM","tpm":{"endorsementKey":"AToA"}}}`, "attestation.type", "one of"},
		"type without its member":    {"a", `{"attestation":{"type":"tpm"}}`, "attestation", "member that its type names"},
		"type with another's member": {"a", `{"attestation":{"type":"x509","tpm":{"endorsementKey":"AToA"}}}`, "attestation", "member that its type names"},
		"two mechanisms":             {"a", `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"AToA"},"x509":{}}}`, "attestation", "no other"},
		"x509 not an object":         {"a", `{"attestation":{"type":"x509","x509":[]}}`, "attestation.x509", "object"},
		"mechanism misspelt":         {"a", `{"attestation":{"type":"tpm","Tpm":{"endorsementKey":"AToA"}}}`, "attestation.tpm", "spelled"},
		"no endorsement key":         {"a", `{"attestation":{"type":"tpm","tpm":{"storageRootKey":"AToA"}}}`, "attestation.tpm.endorsementKey", "missing"},
		"endorsement key as PEM":     {"a", `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"-----BEGIN PUBLIC KEY-----"}}}`, "attestation.tpm.endorsementKey", "base64"},
		"status misspelt":            {"a", `{"ProvisioningStatus":"disabled",` + tpmOnly + `}`, "provisioningStatus", "spelled"},
		"status unknown":             {"a", `{"provisioningStatus":"off",` + tpmOnly + `}`, "provisioningStatus", "enabled, disabled"},
		"device id not legal":        {"a", `{"deviceId":"a/b",` + tpmOnly + `}`, "deviceId", "% _"},
		"information not an object":  {"a", `{"optionalDeviceInformation":[1],` + tpmOnly + `}`, "optionalDeviceInformation", "object"},
		"edge not a boolean":         {"a", `{"capabilities":{"iotEdge":"true"},` + tpmOnly + `}`, "capabilities.iotEdge", "true or false"},
		"edge misspelt":              {"a", `{"capabilities":{"iotedge":true},` + tpmOnly + `}`, "capabilities.iotEdge", "spelled"},
		"capabilities not an object": {"a", `{"capabilities":true,` + tpmOnly + `}`, "capabilities", "object"},
		"policy not a boolean":       {"a", `{"reprovisionPolicy":{"migrateDeviceData":1},` + tpmOnly + `}`, "reprovisionPolicy.migrateDeviceData", "true or false"},
		"twin not an object":         {"a", `{"initialTwin":1,` + tpmOnly + `}`, "initialTwin", "object"},
		"tags not an object":         {"a", `{"initialTwin":{"tags":[]},` + tpmOnly + `}`, "initialTwin.tags", "object"},
		"properties not an object":   {"a", `{"initialTwin":{"properties":1},` + tpmOnly + `}`, "initialTwin.properties", "object"},
		"desired not an object":      {"a", `{"initialTwin":{"properties":{"desired":1}},` + tpmOnly + `}`, "initialTwin.properties.desired", "object"},
		"hub name with a blank":      {"a", `{"iotHubHostName":"a b",` + tpmOnly + `}`, "iotHubHostName", "host name"},
		"hubs not an array":          {"a", `{"iotHubs":"h","allocationPolicy":"static",` + tpmOnly + `}`, "iotHubs", "array"},
		"hubs not texts":             {"a", `{"iotHubs":[1],"allocationPolicy":"static",` + tpmOnly + `}`, "iotHubs", "array"},
		"hub null":                   {"a", `{"iotHubs":[null],"allocationPolicy":"static",` + tpmOnly + `}`, "iotHubs", "host names"},
		"51 hubs":                    {"a", `{"iotHubs":[` + hubs + `"h"],"allocationPolicy":"static",` + tpmOnly + `}`, "iotHubs", "more than 50"},
		"hubs without policy":        {"a", `{"iotHubs":["h"],` + tpmOnly + `}`, "", "Enrollment allocationPolicy must be specified when iotHubs are specified."},
		"policy unknown":             {"a", `{"allocationPolicy":"Static",` + tpmOnly + `}`, "allocationPolicy", "hashed, geoLatency, static, custom"},
		"custom without definition":  {"a", `{"allocationPolicy":"custom",` + tpmOnly + `}`, "", "A CustomAllocationDefinition is required"},
		"definition not an object":   {"a", `{"customAllocationDefinition":1,` + tpmOnly + `}`, "customAllocationDefinition", "object"},
		"webhook missing":            {"a", `{"customAllocationDefinition":{"apiVersion":"2021-10-01"},` + tpmOnly + `}`, "customAllocationDefinition.webhookUrl", "address"},
		"webhook is a file":          {"a", `{"customAllocationDefinition":{"webhookUrl":"file:///etc/passwd","apiVersion":"2021-10-01"},` + tpmOnly + `}`, "customAllocationDefinition.webhookUrl", "address"},
		"webhook address too long":   {"a", `{"customAllocationDefinition":{"webhookUrl":"https://h/` + strings.Repeat("x", 2048) + `","apiVersion":"2021-10-01"},` + tpmOnly + `}`, "customAllocationDefinition.webhookUrl", "at most"},
		"webhook with a line feed":   {"a", `{"customAllocationDefinition":{"webhookUrl":"https://h/\nx","apiVersion":"2021-10-01"},` + tpmOnly + `}`, "customAllocationDefinition.webhookUrl", "address"},
		"webhook version unknown":    {"a", `{"customAllocationDefinition":{"webhookUrl":"https://h/","apiVersion":"2222-10-01"},` + tpmOnly + `}`, "customAllocationDefinition.apiVersion", "api-version"},
		"webhook member misspelt":    {"a", `{"customAllocationDefinition":{"webhookURL":"https://h/","apiVersion":"2021-10-01"},` + tpmOnly + `}`, "customAllocationDefinition.webhookUrl", "spelled"},
		"twin member misspelt":       {"a", `{"initialTwin":{"Tags":{}},` + tpmOnly + `}`, "initialTwin.tags", "spelled"},
		"desired misspelt":           {"a", `{"initialTwin":{"properties":{"Desired":{}}},` + tpmOnly + `}`, "initialTwin.properties.desired", "spelled"},
		"webhook of an old version":  {"a", `{"customAllocationDefinition":{"webhookUrl":"https://h/","apiVersion":"2018-04-01"},` + tpmOnly + `}`, "customAllocationDefinition.apiVersion", "api-version"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := dps.DecodeEnrollment(c.path, []byte(c.body))
			checkRefusal(t, err, c.member, c.problem)
			if diff := cmp.Diff(dps.IndividualEnrollment{}, got); diff != "" {
				t.Error("a refused enrollment is not the zero one:", diff)
			}
		})
	}
}

// TestEveryOtherLetterCaseOfAMemberIsRefused: ignored in silence, a member in
// other letters would leave, say, a device enabled that was meant to be disabled.
func TestEveryOtherLetterCaseOfAMemberIsRefused(t *testing.T) {
	for _, member := range []string{"registrationId", "deviceId", "optionalDeviceInformation", "attestation", "capabilities", "iotHubHostName",
		"initialTwin", "provisioningStatus", "reprovisionPolicy", "allocationPolicy", "iotHubs", "customAllocationDefinition", "latchkey"} {
		body := fmt.Sprintf(`{%q:"x",%s}`, strings.ToUpper(member), tpmOnly)
		_, err := dps.DecodeEnrollment("a", []byte(body))
		checkRefusal(t, err, member, "spelled")
	}
}

func FuzzDecodeEnrollment(f *testing.F) {
	small, full := smallest(), fullest()
	f.Add("press-07", small.Encode())
	f.Add("Line4-Press-07", full.Encode())
	f.Add("a", []byte(`{"attestation":{"type":"symmetricKey","symmetricKey":{}},"iotHubs":[],"reprovisionPolicy":{}}`))
	f.Add("", []byte(`{"registrationId":"a","initialTwin":{"properties":{}},`+tpmOnly+`}`))
	f.Add("a", withExtra(`{"endorsementKeys":[{"endorsementKey":"AAEC","hierarchy":"owner","note":"n"}]}`))
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		e, err := dps.DecodeEnrollment(path, body)
		if err != nil {
			if field := (*dps.FieldError)(nil); !errors.As(err, &field) || !cmp.Equal(e, dps.IndividualEnrollment{}) {
				t.Fatalf("error %v, enrollment %+v", err, e)
			}
			return
		}
		if !dps.ValidRegistrationID(e.RegistrationID) || path != "" && dps.FoldID(path) != dps.FoldID(e.RegistrationID) {
			t.Fatalf("id %q under path %q", e.RegistrationID, path)
		}
		if len(e.Encode()) > dps.MaxMessage {
			return // escapes and defaults can make it longer than it came
		}
		again, err := dps.DecodeEnrollment(path, e.Encode())
		if err != nil {
			t.Fatalf("%q became %q: %v", body, e.Encode(), err)
		}
		if diff := cmp.Diff(e, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
