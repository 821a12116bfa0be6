package adminapi_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/softtpm"
)

func TestTheAnswersAboutAnEnrollmentAreWhole(t *testing.T) {
	h := newHouse(t)
	put := h.owner(http.MethodPut, "/enrollments/Line4-Press", enrollment("")).want(200)
	created, etag := put.json("createdDateTimeUtc"), put.json("etag")
	if at, err := time.Parse("2006-01-02T15:04:05.9999999Z", created); err != nil || time.Since(at) > time.Minute || time.Since(at) < 0 {
		t.Errorf("created %q: %v", created, err)
	}
	form := `{"registrationId":"Line4-Press",%s"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + b64(chip.EK.Bytes()) + `"}},"etag":"` + etag +
		`","provisioningStatus":"enabled","createdDateTimeUtc":"` + created + `","lastUpdatedDateTimeUtc":"` + created + `"}`
	if want := fmt.Sprintf(form, ""); put.body != want {
		t.Errorf("PUT\n%s\nwant\n%s", put.body, want)
	}
	got := h.owner(http.MethodGet, "/enrollments/line4-PRESS", "").want(200)
	if want := fmt.Sprintf(form, `"registrationState":{"registrationId":"Line4-Press","status":"unassigned"},`); got.body != want {
		t.Errorf("GET\n%s\nwant\n%s", got.body, want)
	}
	for _, a := range []answer{put, got} {
		if a.header.Get("Content-Type") != "application/json; charset=utf-8" || a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) || a.header.Get("x-ms-request-id") == "" || a.header.Get("Etag") != "" {
			t.Errorf("headers %v", a.header)
		}
	}
	gone := h.owner(http.MethodDelete, "/enrollments/Line4-Press", "").want(204)
	if gone.body != "" || gone.header.Get("Content-Type") != "" || gone.header.Get("Content-Length") != "" {
		t.Errorf("DELETE: %q, headers %v", gone.body, gone.header)
	}
	h.because(h.owner(http.MethodGet, "/enrollments/Line4-Press", "").refused(dps.CodeNotEnrolled), "enrollment-missing")
}

func TestEverythingAnOperatorMayWriteComesBack(t *testing.T) {
	h := newHouse(t)
	more := `,"registrationId":"full","deviceId":"Press","optionalDeviceInformation":{"b":[1,2.50],"a":null},"capabilities":{"iotEdge":true},"initialTwin":{"tags":{"site":"north"},"properties":{"desired":{"rate":5}}},` +
		`"provisioningStatus":"disabled","reprovisionPolicy":{"updateHubAssignment":false,"migrateDeviceData":true},"allocationPolicy":"static","iotHubs":["ONE.example.net"]`
	for _, a := range []answer{h.owner(http.MethodPut, "/enrollments/full", enrollment(more)).want(200), h.owner(http.MethodGet, "/enrollments/full", "").want(200)} {
		for _, part := range strings.SplitAfter(strings.TrimPrefix(more, ","), "},") {
			if !strings.Contains(a.body, strings.TrimSuffix(part, ",")) && !strings.Contains(part, "registrationId") && !strings.Contains(part, "provisioningStatus") {
				t.Errorf("%s is not in %s", part, a.body)
			}
		}
		for member, want := range map[string]string{"registrationId": "full", "deviceId": "Press", "provisioningStatus": "disabled", "allocationPolicy": "static", "iotHubs": `["ONE.example.net"]`} {
			if got := a.json(member); got != want {
				t.Errorf("%s: %q, want %q", member, got, want)
			}
		}
	}
	// A replacement is whole: what it leaves out goes back to its default.
	plain := h.owner(http.MethodPut, "/enrollments/full", enrollment(""), "If-Match", "*").want(200)
	if strings.Contains(plain.body, "Press") || strings.Contains(plain.body, "static") || plain.json("provisioningStatus") != "enabled" {
		t.Errorf("after a replacement: %s", plain.body)
	}
}

// Clients echo what they read; some write null for what they leave out.
func TestReadOnlyMembersAndNullsAreIgnored(t *testing.T) {
	h := newHouse(t)
	more := `,"registrationState":{"status":"assigned","registrationId":"echo","tpm":{"authenticationKey":"Zm9yZ2Vk"}},"etag":"forged","createdDateTimeUtc":"1999-01-01T00:00:00Z","lastUpdatedDateTimeUtc":12,` +
		`"deviceId":null,"optionalDeviceInformation":null,"capabilities":null,"iotHubHostName":null,"initialTwin":null,"provisioningStatus":null,"reprovisionPolicy":null,"allocationPolicy":null,"iotHubs":null,"customAllocationDefinition":null,"unknown":{"x":1}`
	put := h.owner(http.MethodPut, "/enrollments/echo", enrollment(more)).want(200)
	for _, forged := range []string{"forged", "1999", "assigned", "null", "unknown", "Zm9yZ2Vk"} {
		if strings.Contains(put.body, forged) {
			t.Errorf("%q is in %s", forged, put.body)
		}
	}
	if put.json("provisioningStatus") != "enabled" {
		t.Errorf("provisioningStatus %q", put.json("provisioningStatus"))
	}
	// The whole answer of a GET may be sent back as it is, with its etag in the header.
	got := h.owner(http.MethodGet, "/enrollments/echo", "").want(200)
	h.owner(http.MethodPut, "/enrollments/echo", got.body, "If-Match", got.json("etag")).want(200)
	if again := h.owner(http.MethodGet, "/enrollments/echo", "").want(200); again.json("etag") == got.json("etag") || again.json("createdDateTimeUtc") != got.json("createdDateTimeUtc") {
		t.Errorf("after the echo: %s", again.body)
	}
}

// spellings of an If-Match header that mean the given etag.
func spellings(etag string) []string {
	return []string{etag, `"` + etag + `"`, `W/"` + etag + `"`, "W/" + etag, "  " + etag + " ", "*", `"*"`}
}

func TestAnEnrollmentIsReplacedOnlyUnderItsEtag(t *testing.T) {
	h := newHouse(t)
	put := func(ifMatch ...string) answer {
		return h.owner(http.MethodPut, "/enrollments/e", enrollment(""), ifMatch...)
	}
	for _, any := range []string{"*", `"*"`, "AAAA", `"AAAA"`, `""`, "W/"} {
		h.because(put("If-Match", any).refused(dps.CodePreconditionFailed), "etag") // nothing is there yet
	}
	etag := put().want(200).json("etag")
	shape := regexp.MustCompile(`^"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"$`)
	if text, err := base64.StdEncoding.DecodeString(etag); err != nil || !shape.Match(text) {
		t.Errorf("etag %q holds %q", etag, text)
	}
	h.because(put().refused(dps.CodeEnrollmentExists), "enrollment-exists")
	for i := range spellings("") {
		next := put("If-Match", spellings(etag)[i]).want(200).json("etag")
		if next == etag {
			t.Errorf("the etag stayed %q", etag)
		}
		for j, stale := range spellings(etag)[:5] {
			if a := put("If-Match", stale); a.status != 412 {
				t.Errorf("stale etag, spelling %d: %s", j, a.body)
			}
		}
		etag = next
	}
	for _, wrong := range []string{strings.ToLower(etag), etag + "A", `"` + etag, `""` + etag + `""`, "**", `""`} {
		h.because(put("If-Match", wrong).refused(dps.CodePreconditionFailed), "etag")
	}
	if now := h.owner(http.MethodGet, "/enrollments/e", "").json("etag"); now != etag {
		t.Errorf("refused requests changed the etag from %q to %q", etag, now)
	}
}

func TestAnEnrollmentIsDeletedUnderItsEtagOrNone(t *testing.T) {
	h := newHouse(t)
	remove := func(ifMatch ...string) answer { return h.owner(http.MethodDelete, "/enrollments/e", "", ifMatch...) }
	make := func() string { return h.owner(http.MethodPut, "/enrollments/e", enrollment("")).want(200).json("etag") }
	for _, header := range [][]string{nil, {"If-Match", "*"}, {"If-Match", "AAAA"}} {
		h.because(remove(header...).refused(dps.CodeNotEnrolled), "enrollment-missing")
	}
	stale := make()
	remove().want(204)
	current := make()
	if stale == current {
		t.Fatal("an etag came back after a delete")
	}
	for _, wrong := range append(spellings(stale)[:5], "AAAA", `""`) {
		h.because(remove("If-Match", wrong).refused(dps.CodePreconditionFailed), "etag")
	}
	for i := range spellings("") {
		remove("If-Match", spellings(current)[i]).want(204)
		current = make()
	}
}

func TestAnEnrollmentThatCannotWorkIsRefused(t *testing.T) {
	h := newHouse(t)
	ek := b64(chip.EK.Bytes())
	tpm := func(keys string) string { return `{"attestation":{"type":"tpm","tpm":{` + keys + `}}}` }
	off := append([]byte{}, chip.EK.Bytes()...)
	off[len(off)-1] ^= 1
	for name, row := range map[string]struct{ body, says string }{
		"no body":                        {"", ""},
		"not an object":                  {"[]", "object"},
		"another id in the body":         {enrollment(`,"registrationId":"other"`), "registrationId"},
		"a bad id in the body":           {enrollment(`,"registrationId":"a b"`), "registrationId"},
		"no attestation":                 {"{}", "attestation"},
		"attestation null":               {`{"attestation":null}`, "attestation"},
		"no attestation type":            {`{"attestation":{"tpm":{"endorsementKey":"` + ek + `"}}}`, "attestation.type"},
		"x509 attestation":               {`{"attestation":{"type":"x509","x509":{}}}`, "clientCertificates"},
		"x509 without its member":        {`{"attestation":{"type":"x509"}}`, "attestation"},
		"short symmetric key":            {`{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"MTIzNDU2Nzg5MDEyMzQ1"}}}`, "16 to 64 bytes"},
		"symmetric key not base64":       {`{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"?"}}}`, "16 to 64 bytes"},
		"attestation type none":          {`{"attestation":{"type":"none"}}`, "attestation.type"},
		"type without its member":        {`{"attestation":{"type":"tpm"}}`, "attestation"},
		"no endorsementKey":              {tpm(``), "endorsementKey"},
		"EK of 2017's samples":           {tpm(`"endorsementKey":"a"`), "endorsementKey"},
		"EK not base64":                  {tpm(`"endorsementKey":"-----BEGIN"`), "endorsementKey"},
		"EK off the curve":               {tpm(`"endorsementKey":"` + b64(off) + `"`), "Endorsement key is invalid, or does not match the Enrollment. EK refused: point-off-curve"},
		"EK without size prefix":         {tpm(`"endorsementKey":"` + b64(chip.EK.Bytes()[2:]) + `"`), "size-prefix"},
		"EK misspelt":                    {tpm(`"EndorsementKey":"` + ek + `"`), "endorsementKey"},
		"further EKs of the chip":        {`{"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + ek + `"}},"latchkey":{"endorsementKeys":[{"endorsementKey":"` + b64(softtpm.New(softtpm.ECC, 77).EK.Bytes()) + `","hierarchy":"endorsement"}]}}`, "latchkey.endorsementKeys is not taken"},
		"pinned SRK broken":              {tpm(`"endorsementKey":"` + ek + `","storageRootKey":"AAAA"`), "attestation.tpm.storageRootKey"},
		"pinned SRK is the EK":           {tpm(`"endorsementKey":"` + ek + `","storageRootKey":"` + ek + `"`), "srk-is-ek"},
		"unknown provisioningStatus":     {enrollment(`,"provisioningStatus":"paused"`), "provisioningStatus"},
		"provisioningStatus capitalised": {enrollment(`,"ProvisioningStatus":"disabled"`), "provisioningStatus"},
		"custom allocation":              {enrollment(`,"allocationPolicy":"custom","customAllocationDefinition":{"webhookUrl":"https://h.example/x","apiVersion":"2019-03-31"}`), "custom needs webhooks"},
		"custom without definition":      {enrollment(`,"allocationPolicy":"custom"`), "A CustomAllocationDefinition is required when the allocation policy is set to 'Custom'"},
		"hubs without policy":            {enrollment(`,"iotHubs":["one.example.net"]`), "Enrollment allocationPolicy must be specified when iotHubs are specified."},
		"a hub that is not linked":       {enrollment(`,"allocationPolicy":"static","iotHubs":["two.example.net"]`), "iotHubs"},
		"a bad device id":                {enrollment(`,"deviceId":"a/b"`), "deviceId"},
		"a member twice":                 {enrollment(`,"deviceId":"a","deviceId":"b"`), "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			h.because(h.owner(http.MethodPut, "/enrollments/bad", row.body).refused(dps.CodeBadRequest).says(row.says), "bad-enrollment")
			h.owner(http.MethodGet, "/enrollments/bad", "").refused(dps.CodeNotEnrolled)
		})
	}
}

func TestIDsAreJudgedTheSameEverywhere(t *testing.T) {
	h := newHouse(t)
	for _, id := range []string{"a%20b", "a%2Fb", "%C3%A4", "a.", "a_", "%2E%2E", strings.Repeat("a", 129), "a%00", "a%253A"} {
		for _, request := range [][2]string{{"GET", "enrollments"}, {"PUT", "enrollments"}, {"DELETE", "enrollments"}, {"GET", "registrations"}, {"DELETE", "registrations"}} {
			h.because(h.owner(request[0], "/"+request[1]+"/"+id, enrollment("")).refused(dps.CodeBadRequest).says("1 to 128"), "bad-id")
		}
	}
	for _, path := range []string{"/enrollments/A:b-1", "/enrollments/a%3AB-1", "/Enrollments/a%3ab%2D1", "/ENROLLMENTS/a:b-1/"} {
		h.owner(http.MethodPut, path, enrollment("")).want(200)
		h.owner(http.MethodDelete, "/enrollments/A:B-1", "").want(204)
	}
	longest := strings.Repeat("a", 128)
	h.owner(http.MethodPut, "/enrollments/"+longest, enrollment(`,"registrationId":"`+strings.ToUpper(longest)+`"`)).want(200)
	if id := h.owner(http.MethodGet, "/enrollments/"+longest, "").want(200).json("registrationId"); id != strings.ToUpper(longest) {
		t.Errorf("the spelling of the body was not kept: %s", id)
	}
}

func TestOneEKMayBeEnrolledUnderManyIDsAndPinAnOwner(t *testing.T) {
	h := newHouse(t)
	for i := range 3 {
		h.owner(http.MethodPut, fmt.Sprintf("/enrollments/many-%d", i), enrollment("")).want(200)
	}
	rsa := softtpm.New(softtpm.RSA, 0)
	body := `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + b64(rsa.EK.Bytes()) + `","storageRootKey":"` + b64(rsa.SRK.Bytes()) + `"}}}`
	h.owner(http.MethodPut, "/enrollments/pins", body).want(200)
	if got := h.owner(http.MethodGet, "/enrollments/pins", "").want(200).json("attestation", "tpm", "storageRootKey"); got != b64(rsa.SRK.Bytes()) {
		t.Errorf("the pinned SRK came back as %q", got)
	}
}

func TestScopesDoNotSeeEachOthersEnrollments(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/mine", enrollment("")).want(200)
	other := spelled(key(otherScope, owner, "primary"), otherHost, owner, time.Now().Add(time.Hour))
	h.ask(http.MethodGet, "/enrollments/mine"+version, "", other, "Host", otherHost).refused(dps.CodeNotEnrolled)
	h.ask(http.MethodDelete, "/enrollments/mine"+version, "", other, "Host", otherHost).refused(dps.CodeNotEnrolled)
	h.ask(http.MethodPut, "/enrollments/mine"+version, enrollment(""), other, "Host", otherHost).want(200)
	h.owner(http.MethodGet, "/enrollments/mine", "", "Host", alias).refused(dps.CodeUnauthorized) // the token names another host
}

func TestANewEnrollmentWasLastUpdatedWhenItWasCreated(t *testing.T) {
	h := newHouse(t)
	for i := range 50 { // two readings of the clock would differ in some of them
		put := h.owner(http.MethodPut, fmt.Sprintf("/enrollments/new-%d", i), enrollment("")).want(200)
		if put.json("createdDateTimeUtc") != put.json("lastUpdatedDateTimeUtc") {
			t.Fatalf("created and last updated differ: %s", put.body)
		}
	}
}
