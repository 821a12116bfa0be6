package registration_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

const staleETag = `"AAAAAAAA"`

func TestPutEnrollmentByIfMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		name    string
		exists  bool
		ifMatch func(etag string) string
		code    dps.Code // 0: written
		reason  registration.Reason
	}{
		{"absent, no If-Match", false, func(string) string { return "" }, 0, 0},
		{"absent, an etag", false, func(string) string { return staleETag }, dps.CodePreconditionFailed, registration.ReasonEtag},
		{"absent, any", false, func(string) string { return "*" }, dps.CodePreconditionFailed, registration.ReasonEtag},
		{"there, no If-Match", true, func(string) string { return "" }, dps.CodeEnrollmentExists, registration.ReasonEnrollmentExists},
		{"there, its etag", true, func(etag string) string { return etag }, 0, 0},
		{"there, its etag in quotes", true, func(etag string) string { return `"` + etag + `"` }, 0, 0},
		{"there, another etag", true, func(string) string { return staleETag }, dps.CodePreconditionFailed, registration.ReasonEtag},
		{"there, any", true, func(string) string { return "*" }, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			d := w.device("id-"+strings.NewReplacer(" ", "-", ",", "").Replace(c.name), softtpm.ECC, 0)
			var first dps.IndividualEnrollment
			if c.exists {
				first = d.enroll("", nil)
				w.clock.advance(time.Second)
			}
			got, err := w.core.PutEnrollment(w.ctx, operator, d.wire(map[string]any{"deviceId": "changed"}), c.ifMatch(first.ETag))
			if c.code != 0 {
				w.wantFault(err, c.code, c.reason)
				if e := w.snapshot(d.id).Enrollment; (e != nil) != c.exists || e != nil && e.DeviceID == "changed" {
					t.Errorf("a refused write left %+v", e)
				}
				return
			}
			w.must(err)
			read, err := w.core.Enrollment(w.ctx, operator, strings.ToUpper(d.id))
			w.must(err)
			if got.ETag == "" || got.ETag == first.ETag || read.ETag != got.ETag || read.DeviceID != "changed" || !got.LastUpdated.Equal(w.clock.Now()) {
				t.Errorf("wrote %+v, read %+v", got, read)
			}
			if c.exists && !got.Created.Equal(first.Created) {
				t.Errorf("created at %s, then %s", first.Created, got.Created)
			}
		})
	}
	rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, operator.TrackingID)
	w.must(err)
	for _, row := range rows {
		if row.Actor != "policy:owner" || row.Address != operator.Address || row.Action != registration.ActionEnrollmentPut || row.Reason != registration.ReasonChanged {
			t.Errorf("audit: %+v", row)
		}
	}
	if len(rows) != 9 { // five that are there to begin with, one created, three replaced
		t.Errorf("%d audit rows", len(rows))
	}
}

func TestEnrollmentsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("pump", softtpm.RSA, 0)
	encode := base64.StdEncoding.EncodeToString
	tpm := func(ek, srk []byte) map[string]any {
		keys := map[string]any{"endorsementKey": encode(ek)}
		if srk != nil {
			keys["storageRootKey"] = encode(srk)
		}
		return map[string]any{"attestation": map[string]any{"type": "tpm", "tpm": keys}}
	}
	signing := softtpm.New(softtpm.RSA, 0).EK
	signing.Public.ObjectAttributes.SignEncrypt = true
	for _, c := range []struct {
		name   string
		change map[string]any
		says   string
	}{
		{"EK is not a key", tpm([]byte("no key"), nil), "Endorsement key"},
		{"EK can sign", tpm(signing.Bytes(), nil), "sign"},
		{"pinned SRK is not a key", tpm(d.chip.EK.Bytes(), []byte("no key")), "storageRootKey"},
		{"pinned SRK is the EK", tpm(d.chip.EK.Bytes(), d.chip.EK.Bytes()), "attestation.tpm"},
		{"custom allocation", map[string]any{"allocationPolicy": "custom", "customAllocationDefinition": map[string]any{"webhookUrl": "https://f.example/", "apiVersion": "2019-03-31"}}, "custom"},
		{"a hub that is not linked", map[string]any{"allocationPolicy": "hashed", "iotHubs": []string{"other.hub.example"}}, hubOne},
		{"one hub of two is not linked", map[string]any{"allocationPolicy": "hashed", "iotHubs": []string{hubOne, hubTwo}}, hubOne},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			d := &device{world: w, scope: scopeOne, id: "pump", chip: d.chip}
			_, err := w.core.PutEnrollment(w.ctx, operator, d.wire(c.change), "")
			fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadEnrollment)
			if !strings.Contains(fault.Detail, c.says) {
				t.Errorf("the refusal says %q", fault.Detail)
			}
			if w.snapshot("pump").Enrollment != nil {
				t.Error("a refused enrollment was stored")
			}
		})
	}
	d.enroll("", map[string]any{"iotHubs": []string{strings.ToUpper(hubOne)}, "allocationPolicy": "hashed"})
}

// What the operator sent comes back, but for what only the service may say.
func TestAnEnrollmentComesBackAsItWasSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("Pump", softtpm.ECC, 0)
	change := d.pinning(d.chip.SRK.Bytes())
	for name, value := range map[string]any{
		"deviceId": "line-4", "provisioningStatus": "disabled", "optionalDeviceInformation": map[string]any{"bay": 4},
		"initialTwin":       map[string]any{"tags": map[string]any{"hall": "b"}},
		"reprovisionPolicy": map[string]any{"updateHubAssignment": true, "migrateDeviceData": false},
		"registrationState": map[string]any{"status": "assigned", "assignedHub": "evil.example"}, "etag": "mine", "createdDateTimeUtc": "1999-01-01T00:00:00Z",
	} {
		change[name] = value
	}
	sent := d.wire(change)
	d.enroll("", change)
	got, err := w.core.Enrollment(w.ctx, operator, "pump")
	w.must(err)
	if got.RegistrationState.Status != dps.StatusUnassigned || !got.Created.Equal(epoch) || got.ETag == "mine" || got.RegistrationID != "Pump" {
		t.Errorf("read %+v, state %+v", got, got.RegistrationState)
	}
	for _, e := range []*dps.IndividualEnrollment{&got, &sent} {
		e.RegistrationState, e.ETag, e.Created, e.LastUpdated = nil, "", time.Time{}, time.Time{}
	}
	if string(got.Encode()) != string(sent.Encode()) {
		t.Errorf("sent %s\nread %s", sent.Encode(), got.Encode())
	}
}

func TestDeletesByIfMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, kind := range []string{"enrollment", "registration"} {
		for _, there := range []bool{true, false} {
			for _, match := range []string{"", "*", "its etag", staleETag} {
				t.Run(kind+map[bool]string{true: " there, ", false: " absent, "}[there]+match, func(t *testing.T) {
					w.in(t).deleteCase(kind, there, match)
				})
			}
		}
	}
}

func (w *world) deleteCase(kind string, there bool, match string) {
	w.Helper()
	d := w.device("pump", softtpm.ECC, 0)
	remove, missing, reason := w.core.DeleteEnrollment, dps.CodeNotEnrolled, registration.ReasonEnrollmentMissing
	etag := ""
	if kind == "enrollment" {
		if there {
			etag = d.enroll("", nil).ETag
		}
	} else {
		remove, missing, reason = w.core.DeleteRegistration, dps.CodeRegistrationNotFound, registration.ReasonRegistrationMissing
		d.enroll("", nil)
		if there {
			d.register()
			state, err := w.core.Registration(w.ctx, operator, "pump")
			w.must(err)
			etag = state.ETag
		}
		defer func() { w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", "")) }()
	}
	if match == "its etag" {
		if match = etag; !there {
			match = staleETag
		}
	}
	err := remove(w.ctx, operator, "PUMP", match)
	switch {
	case !there:
		w.wantFault(err, missing, reason)
	case match == staleETag:
		w.wantFault(err, dps.CodePreconditionFailed, registration.ReasonEtag)
		w.must(remove(w.ctx, operator, "pump", "*"))
	default:
		w.must(err)
	}
	snapshot := w.snapshot("pump")
	if snapshot.Registration != nil || (snapshot.Enrollment != nil) != (kind == "registration") {
		w.Errorf("left behind: %+v", snapshot)
	}
}

func TestADeletedDeviceStaysAtItsHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	got := d.register()
	calls := w.hub.take()["EnsureDevice"]
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	if at := w.hub.device("pump"); string(at.key) != string(got.hubKey) || w.hub.take()["EnsureDevice"] != 0 || calls != 1 {
		t.Errorf("at the hub: %+v", at)
	}
	for name, err := range map[string]error{
		"enrollment":   second(w.core.Enrollment(w.ctx, operator, "pump")),
		"registration": second(w.core.Registration(w.ctx, operator, "pump")),
	} {
		if err == nil {
			t.Errorf("the %s is still shown", name)
		}
	}
}

func TestTheStateOfADeviceIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	_, err := w.core.Registration(w.ctx, operator, "pump")
	w.wantFault(err, dps.CodeRegistrationNotFound, registration.ReasonRegistrationMissing)
	w.hub.failNext("EnsureDevice", 1, before)
	token := d.token(d.challenge(), time.Hour)
	answer, err := d.prove(token)
	w.must(err)
	for _, want := range []string{dps.StatusAssigning, dps.StatusAssigned} {
		state, err := w.core.Registration(w.ctx, operator, "pump")
		w.must(err)
		enrollment, err := w.core.Enrollment(w.ctx, operator, "pump")
		w.must(err)
		for _, s := range []*dps.RegistrationState{state, enrollment.RegistrationState} {
			if s.Status != want || s.TPM != nil || s.ETag == "" || (s.AssignedHub == hubOne) != (want == dps.StatusAssigned) {
				t.Errorf("state %+v, want %s", s, want)
			}
		}
		w.must(second(d.poll(answer.Status.OperationID, token)))
	}
	other := operator
	other.Scope = scopeTwo
	_, err = w.core.Enrollment(w.ctx, other, "pump")
	w.wantFault(err, dps.CodeNotEnrolled, registration.ReasonEnrollmentMissing)
}

// A write that meets another is judged again, and a write that always meets one ends.
func TestManagementWritesThatCollide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	touch := func() {
		_, verdict, err := w.inner.PutEnrollment(w.ctx, scopeOne, *w.snapshot("pump").Enrollment, pointer(registration.AnyRevision), registration.Audit{At: epoch}, "")
		w.must(err)
		if verdict != registration.Applied {
			t.Errorf("verdict %d", verdict)
		}
	}
	w.store.beforeNext("PutEnrollment", touch)
	d.enroll("*", nil)
	etag := d.enroll("*", nil).ETag
	w.store.beforeNext("PutEnrollment", touch)
	_, err := w.core.PutEnrollment(w.ctx, operator, d.wire(nil), etag)
	w.wantFault(err, dps.CodePreconditionFailed, registration.ReasonEtag)
	var always func()
	always = func() { touch(); w.store.beforeNext("PutEnrollment", always) }
	w.store.beforeNext("PutEnrollment", always)
	_, err = w.core.PutEnrollment(w.ctx, operator, d.wire(nil), "*")
	w.wantFault(err, dps.CodeConflict, registration.ReasonConflict)
	w.store.beforeNext("DeleteEnrollment", touch)
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", "*"))
}

func pointer(revision uint64) *uint64 { return &revision }

func TestManagementWithTheStoreDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	for call, do := range map[string]func() error{
		"PutEnrollment":      func() error { return second(w.core.PutEnrollment(w.ctx, operator, d.wire(nil), "")) },
		"DeleteEnrollment":   func() error { return w.core.DeleteEnrollment(w.ctx, operator, "pump", "") },
		"DeleteRegistration": func() error { return w.core.DeleteRegistration(w.ctx, operator, "pump", "") },
		"AuditByTrackingID": func() error {
			return second(w.core.Why(w.ctx, operator, registration.Mint(w.core, scopeOne, registration.ReasonOtherEK, epoch)))
		},
	} {
		w.store.failNext(call, 1, before)
		if err := do(); !d.retryable(err) {
			t.Errorf("%s: %v", call, err)
		}
	}
	for name, do := range map[string]func() error{
		"put with If-Match":    func() error { return second(w.core.PutEnrollment(w.ctx, operator, d.wire(nil), "*")) },
		"delete with If-Match": func() error { return w.core.DeleteEnrollment(w.ctx, operator, "pump", "*") },
		"get":                  func() error { return second(w.core.Enrollment(w.ctx, operator, "pump")) },
		"get registration":     func() error { return second(w.core.Registration(w.ctx, operator, "pump")) },
	} {
		w.store.failNext("Device", 1, before)
		if err := do(); !d.retryable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The stored object is exactly what dps reads back, so an enrollment never becomes unreadable.
func TestTheStoredDocumentIsJSONOfTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("pump")
	var members map[string]any
	w.must(json.Unmarshal(w.snapshot("pump").Enrollment.Document, &members))
	for _, readOnly := range []string{"etag", "registrationState", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"} {
		if _, there := members[readOnly]; there {
			t.Errorf("the document holds %s", readOnly)
		}
	}
}
