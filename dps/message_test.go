package dps_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/dps"
)

var (
	ek        = append([]byte{0x01, 0x3a, 0x00, 0x01}, bytes.Repeat([]byte{0xff, 0xef, 0xbe}, 104)...)
	srk       = append([]byte{0x01, 0x1a, 0x00, 0x01}, bytes.Repeat([]byte{0x11, 0x22}, 140)...)
	ekText    = base64.StdEncoding.EncodeToString(ek)
	srkText   = base64.StdEncoding.EncodeToString(srk)
	moment    = time.Date(2030, 1, 2, 3, 4, 5, 808110000, time.FixedZone("east", 3600))
	wholeTime = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
)

func TestRegisterRequestsOfClients(t *testing.T) {
	keys := &dps.TPMKeys{EndorsementKey: ek, StorageRootKey: srk}
	for name, c := range map[string]struct {
		body string
		want dps.RegisterRequest
	}{
		"node": {`{"registrationId":"press-07","tpm":{"endorsementKey":"` + ekText + `","storageRootKey":"` + srkText + `"}}`,
			dps.RegisterRequest{RegistrationID: "press-07", TPM: keys}},
		"c escapes slashes": {`{"registrationId":"press-07","tpm":{"endorsementKey":"` + strings.ReplaceAll(ekText, "/", `\/`) + `","storageRootKey":"` + srkText + `"}}`,
			dps.RegisterRequest{RegistrationID: "press-07", TPM: keys}},
		"payload stays as it came": {` { "payload" : { "b":1.50, "a":[ ] } , "registrationId":"press-07"} `,
			dps.RegisterRequest{RegistrationID: "press-07", Payload: json.RawMessage(`{ "b":1.50, "a":[ ] }`)}},
		"payload can be a number":       {`{"payload":5}`, dps.RegisterRequest{Payload: json.RawMessage(`5`)}},
		"payload can be an empty text":  {`{"payload":""}`, dps.RegisterRequest{Payload: json.RawMessage(`""`)}},
		"rust's second request":         {`{"registrationId":"Press-07"}`, dps.RegisterRequest{RegistrationID: "Press-07"}},
		"csharp over AMQP":              {``, dps.RegisterRequest{}},
		"blanks":                        {" \r\n\t", dps.RegisterRequest{}},
		"node's poll":                   {`{}`, dps.RegisterRequest{}},
		"nulls are absent":              {`{"registrationId":null,"tpm":null,"payload":null,"csr":null}`, dps.RegisterRequest{}},
		"csr is shown to the caller":    {`{"csr":"MIIB"}`, dps.RegisterRequest{CSR: "MIIB"}},
		"unknown members are ignored":   {`{"x509":{"a":[{"b":null}]},"registrationId":"a","symmetricKey":null}`, dps.RegisterRequest{RegistrationID: "a"}},
		"escapes in a name are letters": {`{"registration\u0049d":"a"}`, dps.RegisterRequest{RegistrationID: "a"}},
		"base64 broken into lines without padding": {`{"tpm":{"endorsementKey":"` + ekText[:76] + `\r\n` + ekText[76:] + `","storageRootKey":"` + strings.TrimRight(srkText, "=") + ` "}}`,
			dps.RegisterRequest{TPM: keys}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := dps.DecodeRegister([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRegisterRequestDoesNotHoldOnToTheBody(t *testing.T) {
	body := []byte(`{"payload":{"model":"P7"},"registrationId":"a"}`)
	got, err := dps.DecodeRegister(body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = 'x' // a transport uses its buffer again
	}
	if string(got.Payload) != `{"model":"P7"}` || got.RegistrationID != "a" {
		t.Errorf("changed with the buffer: %q %q", got.RegistrationID, got.Payload)
	}
}

func TestRegisterRequestsThatAreRefused(t *testing.T) {
	nested := func(n int) string {
		return `{"payload":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	if _, err := dps.DecodeRegister([]byte(nested(63))); err != nil {
		t.Fatal("64 levels are refused:", err)
	}
	large := `{"payload":"` + strings.Repeat("x", dps.MaxMessage-14) + `"}`
	if _, err := dps.DecodeRegister([]byte(large)); err != nil || len(large) != dps.MaxMessage {
		t.Fatal("96 KB are refused:", err, len(large))
	}
	many := func(last string) string {
		var b strings.Builder
		for i := range 100 {
			fmt.Fprintf(&b, `"m%d":0,`, i)
		}
		return `{"payload":{` + b.String() + `"` + last + `":0}}`
	}
	if _, err := dps.DecodeRegister([]byte(many("new"))); err != nil {
		t.Fatal("101 members are refused:", err)
	}
	for name, c := range map[string]struct{ body, member, problem string }{
		"array":                     {`[]`, "", "object"},
		"text":                      {`"a"`, "", "object"},
		"null":                      {`null`, "", "object"},
		"two values":                {`{}{}`, "", "valid JSON"},
		"cut short":                 {`{"registrationId":"a"`, "", "valid JSON"},
		"byte order mark":           {"\ufeff{}", "", "valid JSON"},
		"invalid UTF-8":             {"{\"payload\":\"\xff\"}", "", "UTF-8"},
		"UTF-16":                    {"\xff\xfe{\x00}\x00", "", "UTF-8"},
		"65 levels":                 {nested(64), "", "deeper"},
		"65 levels of objects":      {`{"payload":` + strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 65), "", "deeper"},
		"ten thousand levels":       {nested(10000), "", ""},
		"too large":                 {large + " ", "", "longer"},
		"too large, all blanks":     {strings.Repeat(" ", dps.MaxMessage+1), "", "longer"},
		"member twice":              {`{"registrationId":"a","registrationId":"a"}`, "", "twice"},
		"member twice, escaped":     {`{"tpm":null,"t\u0070m":null}`, "", "twice"},
		"member twice, unknown":     {`{"x":1,"x":1}`, "", "twice"},
		"member twice, deep":        {`{"payload":[{"a":{"x":1,"x":2}}]}`, "", "twice"},
		"member twice among many":   {many("m7"), "", "twice"},
		"last of many twice":        {many("m99"), "", "twice"},
		"other letter case":         {`{"registrationID":"a"}`, "registrationId", "spelled"},
		"TPM in capitals":           {`{"TPM":{}}`, "tpm", "spelled"},
		"id of a wrong type":        {`{"registrationId":7}`, "registrationId", "string"},
		"id not legal":              {`{"registrationId":"a/b"}`, "registrationId", "ASCII"},
		"id empty":                  {`{"registrationId":""}`, "registrationId", "ASCII"},
		"id with half a surrogate":  {`{"registrationId":"\ud800"}`, "registrationId", "ASCII"},
		"tpm not an object":         {`{"tpm":[]}`, "tpm", "object"},
		"tpm empty":                 {`{"tpm":{}}`, "tpm.endorsementKey", "missing"},
		"ek empty":                  {`{"tpm":{"endorsementKey":"","storageRootKey":"AAAA"}}`, "tpm.endorsementKey", "missing"},
		"ek only padding":           {`{"tpm":{"endorsementKey":"==","storageRootKey":"AAAA"}}`, "tpm.endorsementKey", "missing"},
		"ek null":                   {`{"tpm":{"endorsementKey":null,"storageRootKey":"AAAA"}}`, "tpm.endorsementKey", "missing"},
		"srk missing":               {`{"tpm":{"endorsementKey":"AAAA"}}`, "tpm.storageRootKey", "missing"},
		"ek of a wrong type":        {`{"tpm":{"endorsementKey":[1],"storageRootKey":"AAAA"}}`, "tpm.endorsementKey", "string"},
		"ek in the URL's base64":    {`{"tpm":{"endorsementKey":"-_-_","storageRootKey":"AAAA"}}`, "tpm.endorsementKey", "base64"},
		"ek with three pads":        {`{"tpm":{"endorsementKey":"AAAA===","storageRootKey":"AAAA"}}`, "tpm.endorsementKey", "base64"},
		"ek with stray bits":        {`{"tpm":{"endorsementKey":"AB==","storageRootKey":"AAAA"}}`, "tpm.endorsementKey", "base64"},
		"srk longer than a key is":  {`{"tpm":{"endorsementKey":"AAAA","storageRootKey":"` + strings.Repeat("A", 4097) + `"}}`, "tpm.storageRootKey", "longer"},
		"srk in other letter case":  {`{"tpm":{"endorsementKey":"AAAA","StorageRootKey":"AAAA"}}`, "tpm.storageRootKey", "spelled"},
		"csr of a wrong type":       {`{"csr":{}}`, "csr", "string"},
		"payload is not valid JSON": {`{"payload":01}`, "", "valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := dps.DecodeRegister([]byte(c.body))
			checkRefusal(t, err, c.member, c.problem)
			if diff := cmp.Diff(dps.RegisterRequest{}, got); diff != "" {
				t.Error("a refused request is not the zero one:", diff)
			}
		})
	}
}

// checkRefusal wants a FieldError for member whose text is fit for the public.
func checkRefusal(t *testing.T, err error, member, problem string) {
	t.Helper()
	var field *dps.FieldError
	if !errors.As(err, &field) {
		t.Fatalf("error %v is not a FieldError", err)
	}
	if field.Member != member || !strings.Contains(field.Problem, problem) {
		t.Errorf("refused for %q: %q", field.Member, field.Problem)
	}
	if member != "" && !strings.HasPrefix(err.Error(), member+": ") {
		t.Errorf("the text does not name the member: %q", err)
	}
}

func TestAnswersAreByteExact(t *testing.T) {
	blob := []byte{0, 0x20, 0xff, 0xfe}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"challenge": {dps.EncodeChallenge("7e1f", blob, moment),
			`{"message":"Authorization required, resend request using supplied key","authenticationKey":"ACD//g==",` +
				`"keyName":"registration","trackingId":"7e1f","errorCode":401002,"timestampUtc":"2030-01-02T02:04:05.8081100Z"}`},
		"error": {dps.EncodeError(dps.CodeNotEnrolled, "", "7e1f", wholeTime),
			`{"errorCode":404201,"trackingId":"7e1f","message":"Enrollment not found.","timestampUtc":"2030-01-02T03:04:05.0000000Z"}`},
		"error with the place": {dps.EncodeError(dps.CodeBadRequest, "tpm.endorsementKey: is \"missing\"", "7e1f", wholeTime),
			`{"errorCode":400004,"trackingId":"7e1f","message":"tpm.endorsementKey: is \"missing\"","timestampUtc":"2030-01-02T03:04:05.0000000Z"}`},
		"accepted": {dps.OperationStatus{OperationID: "4.d0a671905ea5b2c8.42d78160", Status: dps.StatusAssigning}.Encode(),
			`{"operationId":"4.d0a671905ea5b2c8.42d78160","status":"assigning"}`},
		"still assigning": {dps.OperationStatus{OperationID: "4.d0", Status: dps.StatusAssigning,
			RegistrationState: &dps.RegistrationState{RegistrationID: "press-07", Status: dps.StatusAssigning}}.Encode(),
			`{"operationId":"4.d0","status":"assigning","registrationState":{"registrationId":"press-07","status":"assigning"}}`},
		"assigned": {dps.OperationStatus{OperationID: "4.d0", Status: dps.StatusAssigned, RegistrationState: assignedState(blob)}.Encode(),
			`{"operationId":"4.d0","status":"assigned","registrationState":{"registrationId":"press-07",` +
				`"createdDateTimeUtc":"2030-01-02T02:04:05.80811Z","assignedHub":"hub-a.example.net","deviceId":"Press(07)",` +
				`"status":"assigned","substatus":"initialAssignment","lastUpdatedDateTimeUtc":"2030-01-02T03:04:05Z",` +
				`"etag":"IjAw","tpm":{"authenticationKey":"ACD//g=="},"payload":{"k": [1,2]}}}`},
		"failed": {dps.OperationStatus{OperationID: "4.d0", Status: dps.StatusFailed, RegistrationState: &dps.RegistrationState{
			RegistrationID: "press-07", Status: dps.StatusFailed, ErrorCode: dps.CodeNoHub, ErrorMessage: "<none>", LastUpdated: wholeTime}}.Encode(),
			`{"operationId":"4.d0","status":"failed","registrationState":{"registrationId":"press-07","status":"failed",` +
				`"errorCode":400208,"errorMessage":"\u003cnone\u003e","lastUpdatedDateTimeUtc":"2030-01-02T03:04:05Z"}}`},
		"state before the first registration": {(&dps.RegistrationState{RegistrationID: "press-07", Status: dps.StatusUnassigned}).Encode(),
			`{"registrationId":"press-07","status":"unassigned"}`},
		"state of nobody": {(&dps.RegistrationState{Status: dps.StatusUnassigned}).Encode(), `{"status":"unassigned"}`},
		"register request": {dps.RegisterRequest{RegistrationID: "press-07", TPM: &dps.TPMKeys{EndorsementKey: blob, StorageRootKey: blob},
			Payload: json.RawMessage(`{"k":1}`)}.Encode(),
			`{"registrationId":"press-07","tpm":{"endorsementKey":"ACD//g==","storageRootKey":"ACD//g=="},"payload":{"k":1}}`},
	} {
		if string(c.got) != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, c.got, c.want)
		}
	}
}

func assignedState(blob []byte) *dps.RegistrationState {
	return &dps.RegistrationState{
		RegistrationID: "press-07", Created: moment, AssignedHub: "hub-a.example.net", DeviceID: "Press(07)",
		Status: dps.StatusAssigned, Substatus: dps.SubstatusInitialAssignment, LastUpdated: wholeTime, ETag: "IjAw",
		TPM: &dps.TPMResult{AuthenticationKey: blob}, Payload: json.RawMessage(`{"k": [1,2]}`),
	}
}

// shadow has the members and tags of a RegistrationState and the standard
// encoder's opinion of everything but the times.
type shadow struct {
	RegistrationID string          `json:"registrationId,omitempty"`
	Created        string          `json:"createdDateTimeUtc,omitempty"`
	AssignedHub    string          `json:"assignedHub,omitempty"`
	DeviceID       string          `json:"deviceId,omitempty"`
	Status         string          `json:"status"`
	Substatus      string          `json:"substatus,omitempty"`
	ErrorCode      int             `json:"errorCode,omitempty"`
	ErrorMessage   string          `json:"errorMessage,omitempty"`
	LastUpdated    string          `json:"lastUpdatedDateTimeUtc,omitempty"`
	ETag           string          `json:"etag,omitempty"`
	TPM            *dps.TPMResult  `json:"tpm,omitempty"`
	Payload        json.RawMessage `json:"payload,omitempty"`
}

// TestHandWrittenEncodingIsTheStandardOne compares with encoding/json over texts
// that need every kind of escape and over every combination of absent members.
func TestHandWrittenEncodingIsTheStandardOne(t *testing.T) {
	hard := []string{"plain", "", "\"\\/", "<&>", "\x00\x1f\x7f", "é\u2028\u2029", "\xff", "\U0001F600", "a\tb\nc"}
	for i, text := range hard {
		for absent := range 1 << 10 {
			has := func(bit int) bool { return absent>>bit&1 == 0 }
			s, want := dps.RegistrationState{Status: text}, shadow{Status: text}
			if has(0) {
				s.RegistrationID, want.RegistrationID = text, text
			}
			if has(1) {
				s.Created, want.Created = moment, dps.FormatTime(moment)
			}
			if has(2) {
				s.AssignedHub, want.AssignedHub = text, text
			}
			if has(3) {
				s.DeviceID, want.DeviceID = text, text
			}
			if has(4) {
				s.Substatus, want.Substatus = text, text
			}
			if has(5) {
				s.ErrorCode, want.ErrorCode = dps.CodeNoHub, 400208
				s.ErrorMessage, want.ErrorMessage = text, text
			}
			if has(6) {
				s.LastUpdated, want.LastUpdated = wholeTime, dps.FormatTime(wholeTime)
			}
			if has(7) {
				s.ETag, want.ETag = text, text
			}
			if has(8) {
				s.TPM = &dps.TPMResult{AuthenticationKey: []byte(text + "x")}
				want.TPM = s.TPM
			}
			if has(9) {
				s.Payload = json.RawMessage(`{"a":[1,null]}`)
				want.Payload = s.Payload
			}
			expected, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Encode(); !bytes.Equal(got, expected) {
				t.Fatalf("text %d, absent %010b:\ngot  %s\nwant %s", i, absent, got, expected)
			}
		}
	}
}

func TestStandardEncoderMeetsTheSameTimes(t *testing.T) {
	state, enrollment := assignedState([]byte{1}), fullest()
	for _, c := range []struct {
		value any
		want  []byte
	}{
		{state, state.Encode()},
		{*state, state.Encode()},
		{dps.OperationStatus{OperationID: "a", Status: "assigned", RegistrationState: state}, dps.OperationStatus{OperationID: "a", Status: "assigned", RegistrationState: state}.Encode()},
		{enrollment, enrollment.Encode()},
		{[]dps.IndividualEnrollment{enrollment}, append(append([]byte("["), enrollment.Encode()...), ']')},
	} {
		got, err := json.Marshal(c.value)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := json.Compact(&want, c.want); err != nil {
			t.Fatal(err)
		}
		if string(got) != want.String() {
			t.Errorf("got  %s\nwant %s", got, want.String())
		}
	}
}

func TestDeviceReadsWhatTheServiceWrites(t *testing.T) {
	blob := bytes.Repeat([]byte{7, 0xff}, 383)
	challenge, err := dps.DecodeChallenge(dps.EncodeChallenge("7e1f", blob, moment))
	want := dps.Challenge{Message: "Authorization required, resend request using supplied key", Blob: blob, KeyName: "registration", TrackingID: "7e1f"}
	if err != nil || !cmp.Equal(want, challenge) {
		t.Error(err, cmp.Diff(want, challenge))
	}
	status := dps.OperationStatus{OperationID: "4.d0", Status: dps.StatusAssigned, RegistrationState: assignedState(blob)}
	got, err := dps.DecodeOperationStatus(status.Encode())
	if err != nil || !cmp.Equal(status, got) {
		t.Error(err, cmp.Diff(status, got))
	}
	refusal, err := dps.DecodeError(dps.EncodeError(dps.CodeTooManyRequests, "", "7e1f", moment))
	if err != nil || refusal.ErrorCode != 429001 || refusal.TrackingID != "7e1f" || refusal.Message != dps.CodeTooManyRequests.Message() {
		t.Error(err, refusal)
	}
	if _, err := dps.DecodeChallenge(dps.EncodeError(dps.CodeUnauthorized, "", "7e1f", moment)); err == nil {
		t.Error("a refusal passes for a challenge")
	}
	for _, body := range []string{``, `[]`, `{}`, `{"status":5}`, `{"authenticationKey":"%"}`, `{"errorCode":"x"}`, `{"status":"a","status":"b"}`} {
		_, err1 := dps.DecodeChallenge([]byte(body))
		_, err2 := dps.DecodeOperationStatus([]byte(body))
		_, err3 := dps.DecodeError([]byte(body))
		for _, err := range []error{err1, err2, err3} {
			if field := (*dps.FieldError)(nil); !errors.As(err, &field) {
				t.Errorf("%s: %v", body, err)
			}
		}
	}
}

// TestChallengeSuitsTheClients holds what the C and Rust clients need of a 401
// body that carries a key.
func TestChallengeSuitsTheClients(t *testing.T) {
	var body map[string]any
	if err := json.Unmarshal(dps.EncodeChallenge("7e1f", []byte{1}, moment), &body); err != nil {
		t.Fatal(err)
	}
	if _, there := body["status"]; there {
		t.Error("C takes a body with a status for an operation")
	}
	if body["keyName"] != "registration" {
		t.Error("C needs keyName")
	}
	code, isNumber := body["errorCode"].(float64)
	if _, isText := body["message"].(string); !isText || !isNumber || code != 401002 {
		t.Error("Rust needs an integer code and a text")
	}
	if body["code"] != nil || body["errorMessage"] != nil {
		t.Error("Rust stumbles over two spellings of code or message")
	}
}

func TestTimesAreUTCWithUpToSevenDigits(t *testing.T) {
	for _, c := range []struct {
		at           time.Time
		state, fault string
	}{
		{moment, "2030-01-02T02:04:05.80811Z", "2030-01-02T02:04:05.8081100Z"},
		{wholeTime, "2030-01-02T03:04:05Z", "2030-01-02T03:04:05.0000000Z"},
		{wholeTime.Add(123456789), "2030-01-02T03:04:05.1234567Z", "2030-01-02T03:04:05.1234567Z"},
		{wholeTime.Add(99), "2030-01-02T03:04:05Z", "2030-01-02T03:04:05.0000000Z"},
	} {
		if got := dps.FormatTime(c.at); got != c.state {
			t.Errorf("state: %s, want %s", got, c.state)
		}
		if got := dps.FormatErrorTime(c.at); got != c.fault {
			t.Errorf("error: %s, want %s", got, c.fault)
		}
	}
}

func FuzzDecodeRegister(f *testing.F) {
	f.Add([]byte(`{"registrationId":"press-07","tpm":{"endorsementKey":"` + ekText + `","storageRootKey":"` + srkText + `"}}`))
	f.Add([]byte(`{"registrationId":"a","payload":{"b":[1,2,{"c":"\ud83d\ude00"}]},"csr":"MIIB"}`))
	f.Add([]byte(`{"tpm":{"endorsementKey":"\/\/\/\/","storageRootKey":"AA"},"x":null}`))
	f.Add([]byte(``))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := dps.DecodeRegister(body)
		if err != nil {
			if field := (*dps.FieldError)(nil); !errors.As(err, &field) || !cmp.Equal(req, dps.RegisterRequest{}) {
				t.Fatalf("error %v, request %+v", err, req)
			}
			return
		}
		if len(body) > dps.MaxMessage {
			t.Fatal("too large, yet accepted")
		}
		if len(req.Encode()) > dps.MaxMessage {
			return // escapes can make it longer than it came
		}
		again, err := dps.DecodeRegister(req.Encode())
		if err != nil {
			t.Fatalf("%q became %q: %v", body, req.Encode(), err)
		}
		if diff := cmp.Diff(req, again); diff != "" {
			t.Fatal(diff)
		}
		agreeWithStandard(t, body, req)
	})
}

// agreeWithStandard compares with what encoding/json reads from the same bytes.
func agreeWithStandard(t *testing.T, body []byte, req dps.RegisterRequest) {
	if len(bytes.TrimSpace(body)) == 0 {
		return
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		t.Fatalf("the standard decoder refuses %q: %v", body, err)
	}
	var id, csr string
	json.Unmarshal(members["registrationId"], &id)
	json.Unmarshal(members["csr"], &csr)
	if id != req.RegistrationID || csr != req.CSR {
		t.Fatalf("id %q or csr %q, want %q and %q", req.RegistrationID, req.CSR, id, csr)
	}
	payload := members["payload"]
	if string(payload) == "null" {
		payload = nil
	}
	if !bytes.Equal(payload, req.Payload) {
		t.Fatalf("payload %q, want %q", req.Payload, payload)
	}
}

func BenchmarkDecodeRegister(b *testing.B) {
	body := []byte(`{"registrationId":"press-07","tpm":{"endorsementKey":"` + ekText + `","storageRootKey":"` + srkText + `"},"payload":{"model":"P7","batch":12}}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := dps.DecodeRegister(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeOperationStatus(b *testing.B) {
	status := dps.OperationStatus{OperationID: "4.d0a671905ea5b2c8.42d78160", Status: dps.StatusAssigned, RegistrationState: assignedState(make([]byte, 766))}
	b.ReportAllocs()
	for b.Loop() {
		status.Encode()
	}
}
