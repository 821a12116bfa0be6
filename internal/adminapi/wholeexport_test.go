package adminapi_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/registration"
)

const wholePath = "/latchkey/v1/export"

// whole judges an export as its format says, and gives its header and the lines of its objects.
func (h *house) whole(a answer) (dps.ExportHeader, []string) {
	h.t.Helper()
	a.want(200)
	if a.header.Get("Content-Type") != ndjson || a.header.Get("Cache-Control") != "no-store" || a.header.Get("x-ms-request-id") == "" {
		h.t.Errorf("headers %v", a.header)
	}
	lines := strings.SplitAfter(a.body, "\n")
	lines = lines[:len(lines)-1] // behind the last there is nothing
	header, err := dps.ParseExportHeader([]byte(lines[0]))
	must(h.t, err)
	last := len(lines) - 1
	end, ok, err := dps.ParseExportEnd([]byte(lines[last]))
	must(h.t, err)
	digest := sha256.Sum256([]byte(strings.Join(lines[:last], "")))
	if !ok || end.Lines != uint64(last) || end.SHA256 != hex.EncodeToString(digest[:]) || !ed25519.Verify(header.PublicKey, dps.ExportMessage(digest), end.Signature) {
		h.t.Fatalf("the end is %s", lines[last])
	}
	var shown struct {
		IDScope, Algorithm string
		PublicKey          []byte
	}
	unmarshal(h.t, h.ask(http.MethodGet, "/latchkey/v1/exportKey", "", as("enrollment-read")).want(200).body, &shown)
	if !bytes.Equal(shown.PublicKey, header.PublicKey) || shown.Algorithm != "Ed25519" || shown.IDScope != scope {
		h.t.Errorf("the key is shown as %+v", shown)
	}
	return header, lines[1:last]
}

func TestTheWholeScopeIsExportedSigned(t *testing.T) {
	h := newHouse(t)
	h.owner("PUT", "/enrollments/Press", enrollment(`,"deviceId":"press","optionalDeviceInformation":{`+"\n\t"+`"note": "a <b> &"`+"\n}")).want(200)
	h.owner("PUT", "/enrollments/pump", symmetric).want(200)
	h.owner("PUT", "/enrollmentGroups/valves", symmetric).want(200)
	h.register("Press")
	header, objects := h.whole(h.ask(http.MethodGet, wholePath, "", as("reader")))
	if header.IDScope != scope || strings.Join(header.Hosts, " ") != host+" "+alias || header.Secrets {
		t.Errorf("header %+v", header)
	}
	want := []string{
		`{"kind":"enrollmentGroup","value":` + h.owner("GET", "/enrollmentGroups/valves", "").want(200).body,
		`{"kind":"enrollment","value":` + strings.NewReplacer("\n\t", "", "\n", "", `: "a`, `:"a`).Replace(h.owner("GET", "/enrollments/press", "").want(200).body),
		`{"kind":"enrollment","value":` + h.owner("GET", "/enrollments/pump", "").want(200).body,
		`{"kind":"registration","value":` + h.owner("GET", "/registrations/Press", "").want(200).body,
	}
	for i, object := range objects {
		if object != want[i]+"}\n" {
			t.Errorf("line %d: %s\nwant %s", i+2, object, want[i])
		}
	}
	if len(objects) != len(want) || strings.Contains(strings.Join(objects, ""), "primaryKey") {
		t.Errorf("%d objects", len(objects))
	}
	if shown := h.ask(http.MethodGet, wholePath+"?secrets=false&api-version=2021-10-01", "", as("reader")); shown.status != 200 {
		t.Errorf("%d %s", shown.status, shown.body)
	}
}

// Keys need the right that shows them one by one. What is refused is not audited as shown.
func TestKeysAreExportedToThoseOnlyWhoMayReadThem(t *testing.T) {
	h := newHouse(t)
	h.owner("PUT", "/enrollments/pump", symmetric).want(200)
	h.owner("PUT", "/enrollmentGroups/valves", symmetric).want(200)
	for policy := range rights {
		if policy != owner {
			h.because(h.ask(http.MethodGet, wholePath+"?secrets=true", "", as(policy)).refused(dps.CodeUnauthorized), "admin-right")
		}
	}
	for query, says := range map[string]string{"?secrets=yes": "true or false", "?secrets=": "", "?secret=true": "The query may hold", "?secrets=true&secrets=true": "once each"} {
		a := h.ask(http.MethodGet, wholePath+query, "", as(owner))
		if says == "" {
			h.whole(a)
			continue
		}
		a.refused(dps.CodeBadRequest).says(says)
	}
	audited := func() int {
		log := h.ask("GET", "/latchkey/v1/audit?action=export.reveal", "", as(owner)).want(200).body
		return strings.Count(log, `"object":"`+scope+`"`)
	}
	if n := audited(); n != 0 {
		t.Errorf("%d audit rows of what was refused", n)
	}
	header, objects := h.whole(h.ask(http.MethodGet, wholePath+"?secrets=true", "", as(owner)))
	if !header.Secrets || len(objects) != 2 || audited() != 1 {
		t.Errorf("header %+v, %d objects, %d audit rows", header, len(objects), audited())
	}
	for i, path := range []string{"/enrollmentGroups/valves", "/enrollments/pump"} {
		keys := h.owner("POST", path+"/attestationmechanism", "").want(200)
		if !strings.Contains(objects[i], `"attestation":`+keys.body) {
			t.Errorf("%s has not %s", objects[i], keys.body)
		}
	}
}

// A caller whose key dies while an export leaves gets no end of it, and no more keys: no end line, or, where the export of enrollments has none, the
// last line and the end of the framing.
func TestAnExportEndsWithTheRightsOfItsCaller(t *testing.T) {
	for path, end := range map[string]string{wholePath: `"kind":"end"`, exportPath: "dev-0319", exportPath + "?format=csv": "dev-0319"} {
		t.Run(path, func(t *testing.T) { endsWithRights(t, path, end) })
	}
}

func endsWithRights(t *testing.T, path, end string) {
	h := newHouse(t)
	var body strings.Builder
	padding := strings.Repeat("x", 50<<10)
	const lines = 320 // 16 MB: more than what waits on the way
	for i := range lines {
		fmt.Fprintf(&body, `{"registrationId":"dev-%04d","optionalDeviceInformation":{"x":%q},"attestation":{"type":"tpm","tpm":{"endorsementKey":%q}}}`+"\n", i, padding, b64(chip.EK.Bytes()))
	}
	h.ask(http.MethodPost, importPath, body.String(), as(owner), "Content-Type", ndjson).want(200)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+path, nil)
	must(t, err)
	request.Host = host
	request.Header.Set("Authorization", as("reader"))
	response, err := http.DefaultTransport.RoundTrip(request)
	must(t, err)
	defer response.Body.Close()
	_, err = io.ReadFull(response.Body, make([]byte, 1000))
	must(t, err)
	must(t, h.core.DeletePolicy(t.Context(), registration.Caller{Scope: scope, Policy: owner}, "reader"))
	rest, err := io.ReadAll(response.Body)
	if err == nil || bytes.Contains(rest, []byte(end)) {
		t.Errorf("the export goes on to its end after %d bytes: %v", len(rest), err)
	}
}

// Lines of the other export are one object each too, whatever white space an enrollment was written with.
func TestAnExportOfEnrollmentsHasOneOnEachLine(t *testing.T) {
	h := newHouse(t)
	h.owner("PUT", "/enrollments/press", enrollment(`,"optionalDeviceInformation":{`+"\n\t"+`"note": 1`+"\r\n}")).want(200)
	if text := h.export(""); strings.Count(text, "\n") != 1 {
		t.Errorf("exported %q", text)
	}
	h.bring("?ifExists=replace", ndjson, h.export(""), adminapi.ImportSummary{Read: 1, Replaced: 1})
}
