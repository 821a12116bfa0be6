package adminapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/registration"
)

const (
	importPath = "/latchkey/v1/enrollments/import"
	exportPath = "/latchkey/v1/enrollments/export"
	ndjson     = "application/x-ndjson"
	table      = "text/csv"
	header     = "registrationId,endorsementKey,deviceId,provisioningStatus,storageRootKey,attestation,primaryThumbprint,secondaryThumbprint,symmetricKeys,allocationPolicy,iotHubs,iotHubHostName,iotEdge,tags,desired,optionalDeviceInformation,updateHubAssignment,migrateDeviceData,webhookUrl,webhookApiVersion\n"
)

// imported is the answer to an import: its failures and its summary.
func (a answer) imported() (failures []adminapi.ImportFailure, summary adminapi.ImportSummary) {
	a.t.Helper()
	a.want(200)
	if a.header.Get("Content-Type") != ndjson || a.header.Get("x-ms-request-id") == "" {
		a.t.Errorf("headers %v", a.header)
	}
	lines := strings.Split(strings.TrimSuffix(a.body, "\n"), "\n")
	for _, line := range lines[:len(lines)-1] {
		var f adminapi.ImportFailure
		unmarshal(a.t, line, &f)
		failures = append(failures, f)
	}
	decoder := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	decoder.DisallowUnknownFields()
	must(a.t, decoder.Decode(&summary))
	return failures, summary
}

// bring imports lines and wants this summary, and gives the failures as "line id code".
func (h *house) bring(query, media, body string, want adminapi.ImportSummary) (failed string) {
	h.t.Helper()
	failures, got := h.ask(http.MethodPost, importPath+query, body, as(owner), "Content-Type", media).imported()
	if got != want {
		h.t.Fatalf("summary %+v, want %+v; %+v", got, want, failures)
	}
	for _, f := range failures {
		if f.Message == "" {
			h.t.Errorf("line %d has no message", f.Line)
		}
		failed += fmt.Sprintf("%d %s %d\n", f.Line, f.RegistrationID, f.ErrorCode)
	}
	return failed
}

func short(id string) string {
	return fmt.Sprintf(`{"registrationId":%q,"endorsementKey":%q}`, id, b64(chip.EK.Bytes())) + "\n"
}

func (h *house) export(query string) string {
	h.t.Helper()
	return h.ask(http.MethodGet, exportPath+query, "", as(owner)).want(200).body
}

func (h *house) exportedIDs() string {
	h.t.Helper()
	ids := []string{}
	for _, line := range strings.Split(strings.TrimSpace(h.export("?format=csv")), "\n")[1:] {
		id, _, _ := strings.Cut(line, ",")
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}

func TestAnImportTakesLinesAndTables(t *testing.T) {
	h := newHouse(t)
	ek, srk, derived := b64(chip.EK.Bytes()), b64(chip.SRK.Bytes()), attest.RegistrationID(chip.EK.Bytes())
	whole := `{"registrationId":"Whole","initialTwin":{"tags":{"line":7}},"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + ek + `"}}}`
	h.bring("", ndjson, short("one")+"\r\n\n"+whole+"\r\n"+`{"endorsementKey":"`+ek+`"}`, adminapi.ImportSummary{Read: 3, Created: 3})
	if got := h.owner("GET", "/enrollments/whole", "").want(200).json("initialTwin", "tags", "line"); got != "7" {
		t.Errorf("the twin's tag is %q", got)
	}
	h.owner("GET", "/enrollments/"+derived, "").want(200)

	body := "\ufeffendorsementKey,storageRootKey,deviceId,registrationId,provisioningStatus\r\n" + ek + "," + srk + ",press,Three,disabled\r\n" + ek + `,"","'=x",four,`
	h.bring("?api-version=2021-10-01", table+"; charset=utf-8", body, adminapi.ImportSummary{Read: 2, Created: 2})
	three := h.owner("GET", "/enrollments/three", "").want(200)
	if three.json("registrationId") != "Three" || three.json("deviceId") != "press" || three.json("provisioningStatus") != "disabled" || three.json("attestation", "tpm", "storageRootKey") != srk {
		t.Errorf("three is %s", three.body)
	}
	if four := h.owner("GET", "/enrollments/four", "").want(200); four.json("deviceId") != "=x" || four.json("provisioningStatus") != "enabled" {
		t.Errorf("four is %s", four.body)
	}
	entries := h.ask("GET", "/latchkey/v1/audit?object=three", "", as(owner)).want(200)
	for _, part := range []string{`"actor":"policy:` + owner + `"`, `"action":"enrollment.put"`, `"before":null`, `"deviceId":"press"`} {
		if !strings.Contains(entries.body, part) {
			t.Errorf("the audit row lacks %s: %s", part, entries.body)
		}
	}
}

func TestWhatIsThereIsRefusedSkippedOrReplaced(t *testing.T) {
	h := newHouse(t)
	h.create("b")
	disabled := func(id string) string {
		return strings.Replace(short(id), "}", `,"provisioningStatus":"disabled"}`, 1)
	}
	body := disabled("a") + disabled("B")
	status := func(id string) string { return h.owner("GET", "/enrollments/"+id, "").json("provisioningStatus") }
	h.bring("?dryRun=true", ndjson, body, adminapi.ImportSummary{Read: 2, Created: 1, Failed: 1, DryRun: true})
	h.bring("?dryRun=true&ifExists=replace", ndjson, body, adminapi.ImportSummary{Read: 2, Created: 1, Replaced: 1, DryRun: true})
	if got := h.exportedIDs(); got != "b" || status("b") != "enabled" {
		t.Fatalf("a dry run left %q", got)
	}
	if failed := h.bring("", ndjson, body, adminapi.ImportSummary{Read: 2, Created: 1, Failed: 1}); failed != "2 B 409201\n" {
		t.Errorf("failed %q", failed)
	}
	h.bring("?ifExists=skip", ndjson, body, adminapi.ImportSummary{Read: 2, Skipped: 2})
	if status("a") != "disabled" || status("b") != "enabled" {
		t.Error("what was there was changed")
	}
	h.bring("?ifExists=replace&dryRun=false", ndjson, body+short("b"), adminapi.ImportSummary{Read: 3, Replaced: 3})
	if status("b") != "enabled" || h.exportedIDs() != "a B" && h.exportedIDs() != "a b" {
		t.Errorf("the last line does not hold: %s", h.exportedIDs())
	}
	log := h.ask("GET", "/latchkey/v1/audit?object=b", "", as(owner)).want(200).body
	if strings.Count(log, `"before":{`) != 2 {
		t.Errorf("replacements are not told with what was before: %s", log)
	}
}

func TestEachBadLineFailsForItself(t *testing.T) {
	h := newHouse(t)
	ek := b64(chip.EK.Bytes())
	long := func(n int) string { // a line of n bytes
		start, end := `{"registrationId":"long`+fmt.Sprint(n)+`","optionalDeviceInformation":{"x":"`, `"},"attestation":{"type":"tpm","tpm":{"endorsementKey":"`+ek+`"}}}`
		return start + strings.Repeat("x", n-len(start)-len(end)) + end
	}
	longest := dps.MaxMessage - len(`,"provisioningStatus":"enabled"`) // which the service adds
	lines := []string{
		strings.TrimSpace(short("good")),
		`{"registrationId":"bad ek","endorsementKey":"AAAA"}`,
		`{"registrationId":"bad-ek","endorsementKey":"AAAA"}`,
		"{\"registrationId\":\"utf\xff\",\"endorsementKey\":\"" + ek + "\"}",
		"{\"registrationId\":\"nul\x00\",\"endorsementKey\":\"" + ek + "\"}",
		"\x00",
		strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
		strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000),
		long(dps.MaxMessage + 1),
		strings.Repeat("x", 1<<20),
		long(longest),
		`{"registrationId":"x509","attestation":{"type":"x509","x509":{}}}`,
		`{"attestation":{"type":"x509","x509":{}}}`,
		`{"registrationId":"twice","registrationId":"twice","endorsementKey":"` + ek + `"}`,
		`{"registrationId":"'; DROP TABLE enrollments","endorsementKey":"` + ek + `"}`,
		`{"registrationId":"srk","endorsementKey":"` + ek + `","storageRootKey":"` + ek + `"}`,
		strings.TrimSpace(short("last")),
	}
	failed := h.bring("", ndjson, strings.Join(lines, "\n"), adminapi.ImportSummary{Read: 17, Created: 3, Failed: 14})
	want := ""
	for line := 2; line <= 16; line++ {
		if line != 11 {
			want += fmt.Sprintf("%d %s 400004\n", line, map[int]string{3: "bad-ek", 9: fmt.Sprint("long", dps.MaxMessage+1), 12: "x509", 16: "srk"}[line])
		}
	}
	if failed != want {
		t.Errorf("failed\n%s\nwant\n%s", failed, want)
	}
	if got := h.exportedIDs(); got != fmt.Sprint("good last long", longest) {
		t.Errorf("there is %q", got)
	}

	rows := []string{"ok," + ek, "cells," + ek + ",x", "quote,\"" + ek, "bare,a\"b", "utf\xff," + ek, "nul\x00," + ek, "=cmd," + ek, "'=cmd," + ek, ",", strings.Repeat("x", 2*dps.MaxImportLine+1), `"",` + ek}
	failed = h.bring("", table, "registrationId,endorsementKey\n"+strings.Join(rows, "\n"), adminapi.ImportSummary{Read: 11, Created: 2, Failed: 9})
	if !strings.HasPrefix(failed, "3  400004\n4  400004\n") || !strings.HasSuffix(failed, "11  400004\n") {
		t.Errorf("failed %q", failed)
	}
}

func TestAnImportThatCannotBeginIsRefusedWhole(t *testing.T) {
	h := newHouse(t)
	for _, row := range []struct {
		query, media, body string
		code               dps.Code
		says               string
	}{
		{"", "application/json", short("a"), dps.CodeUnsupportedMediaType, "x-ndjson or text/csv"},
		{"", "", short("a"), dps.CodeUnsupportedMediaType, "x-ndjson"},
		{"?ifexists=skip", ndjson, short("a"), dps.CodeBadRequest, "ifExists"},
		{"?ifExists=Skip", ndjson, short("a"), dps.CodeBadRequest, "error, skip or replace"},
		{"?ifExists=skip&ifExists=replace", ndjson, short("a"), dps.CodeBadRequest, "once each"},
		{"?dryRun=1", ndjson, short("a"), dps.CodeBadRequest, "true or false"},
		{"?dryRun=-1", ndjson, short("a"), dps.CodeBadRequest, "true or false"},
		{"?dryRun=%zz", ndjson, short("a"), dps.CodeBadRequest, "well formed"},
		{"", table, "", dps.CodeBadRequest, "missing"},
		{"", table, "registrationId,colour\n", dps.CodeBadRequest, "column 2 is none of: registrationId, endorsementKey, deviceId, "},
		{"", table, "registrationId\nx\n", dps.CodeBadRequest, "endorsementKey"},
		{"", table, "endorsementKey,endorsementKey\n", dps.CodeBadRequest, "twice"},
		{"", table, "EndorsementKey\n", dps.CodeBadRequest, "column 1"},
		{"", table, strings.Repeat("x", 2*dps.MaxImportLine+1), dps.CodeBadRequest, "longer"},
		{"", table, "\xff\xfer\x00e\x00", dps.CodeBadRequest, "save it as CSV in UTF-8"},
		{"", table, "\xfe\xff\x00r", dps.CodeBadRequest, "save it as CSV in UTF-8"},
		{"", table, "\xff", dps.CodeBadRequest, "UTF-8"},
	} {
		h.ask(http.MethodPost, importPath+row.query, row.body, as(owner), "Content-Type", row.media).refused(row.code).says(row.says)
	}
	h.ask(http.MethodGet, exportPath+"?format=xml", "", as(owner)).refused(dps.CodeBadRequest).says("ndjson or csv")
	h.ask(http.MethodGet, exportPath+"?Format=csv", "", as(owner)).refused(dps.CodeBadRequest).says("format")
	if got := h.export(""); got != "" {
		t.Errorf("something was imported: %s", got)
	}
}

// A spreadsheet must not take a cell for a formula, and what it was given must come back as it was.
func TestAnExportedTableHoldsNoFormulaAndComesBackWhole(t *testing.T) {
	h, other := newHouse(t), newHouse(t)
	for id, device := range map[string]string{"-1": "=cmd", "a": "@SUM(1)", "b": "-2", "c": "'=x", "d": "'plain", "e": "''", "f": "plain", "G": ""} {
		h.owner(http.MethodPut, "/enrollments/"+id, enrollment(fmt.Sprintf(`,"deviceId":%q,"provisioningStatus":"disabled"`, device))).want(200)
	}
	text := h.export("?format=csv")
	if !strings.HasPrefix(text, header) {
		t.Errorf("first line of %q", text)
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		for _, cell := range strings.Split(line, ",") {
			if strings.IndexAny(strings.TrimPrefix(cell, `"`), "=+-@\t\r") == 0 {
				t.Errorf("the cell %q is a formula in %q", cell, line)
			}
		}
	}
	other.bring("", table, text, adminapi.ImportSummary{Read: 8, Created: 8})
	if again := other.export("?format=csv"); again != text {
		t.Errorf("it came back as\n%s\nand was\n%s", again, text)
	}
	third := newHouse(t)
	third.bring("", ndjson, h.export("?format=ndjson"), adminapi.ImportSummary{Read: 8, Created: 8})
	if again := third.export("?format=csv"); again != text {
		t.Errorf("by lines it came back as\n%s\nand was\n%s", again, text)
	}
	if device := third.owner("GET", "/enrollments/c", "").json("deviceId"); device != "'=x" {
		t.Errorf("device id of c is %q", device)
	}
}

// begin sends an import whose body comes from a reader.
func (h *house) begin(query string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+importPath+query, body)
	must(h.t, err)
	request.Host = host
	request.Header.Set("Content-Type", ndjson)
	request.Header.Set("Authorization", as(owner))
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
}

func numberedLines(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(short(fmt.Sprintf("dev-%05d", i)))
	}
	return b.String()
}

func (h *house) count(after string) (n int) {
	h.t.Helper()
	return strings.Count(h.export("?format=csv"), after)
}

func TestACutOffImportIsCompletedByAnother(t *testing.T) {
	h := newHouse(t)
	body, feed := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if response, err := h.begin("", body); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	}()
	_, err := io.WriteString(feed, numberedLines(0, 1200)+short("cut")[:40])
	must(t, err)
	feed.CloseWithError(io.ErrUnexpectedEOF) // the client dies in the middle of a line
	<-ended
	for deadline := time.Now().Add(time.Minute); h.count("dev-") < 1200; { // the service writes what came whole
		if time.Now().After(deadline) {
			t.Fatalf("%d of the lines that came whole are there", h.count("dev-"))
		}
	}
	if h.count("cut") != 0 {
		t.Error("half a line was imported")
	}
	h.bring("?ifExists=skip", ndjson, numberedLines(0, 1500)+short("cut"), adminapi.ImportSummary{Read: 1501, Created: 301, Skipped: 1200})
	if h.count("dev-") != 1500 {
		t.Errorf("%d are there", h.count("dev-"))
	}
	log := h.ask("GET", "/latchkey/v1/audit?object=dev-00007", "", as(owner)).want(200).body
	if strings.Count(log, `"seq"`) != 1 {
		t.Errorf("one enrollment has several audit rows: %s", log)
	}
}

func TestTwoImportsAtOnceShareTheWorkAndAThirdIsRefused(t *testing.T) {
	h := newHouse(t)
	var group sync.WaitGroup
	summaries := make([]adminapi.ImportSummary, 2)
	feeds := make([]*io.PipeWriter, 2)
	for i := range feeds {
		var body *io.PipeReader
		body, feeds[i] = io.Pipe()
		group.Go(func() {
			response, err := h.begin("?ifExists=skip", body)
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if err := json.NewDecoder(response.Body).Decode(&summaries[i]); err != nil {
				t.Error(err)
			}
		})
		_, err := io.WriteString(feeds[i], numberedLines(0, 600)) // a batch is written, so it is under way
		must(t, err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		third := h.ask(http.MethodPost, importPath, short("third"), as(owner), "Content-Type", ndjson)
		if third.status == http.StatusTooManyRequests {
			if third.refused(dps.CodeTooManyRequests).header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a third stream was served: %s", third.body)
		}
	}
	h.owner("GET", "/enrollments/nobody", "").refused(dps.CodeNotEnrolled) // who streams holds no place of the others
	for _, feed := range feeds {
		group.Go(func() {
			if _, err := io.WriteString(feed, numberedLines(600, 2000)); err != nil {
				t.Error(err)
			}
			feed.Close()
		})
	}
	group.Wait()
	if got := summaries[0].Created + summaries[1].Created; got != 2000 || summaries[0].Read != 2000 || summaries[1].Read != 2000 || summaries[0].Failed+summaries[1].Failed != 0 {
		t.Errorf("%+v", summaries)
	}
	if h.count("dev-") != 2000 {
		t.Errorf("%d are there", h.count("dev-"))
	}
}

func TestDevicesRegisterDuringAnImport(t *testing.T) {
	h := newHouse(t)
	h.create("device-a", "device-b", "device-c")
	body, feed := io.Pipe()
	done := make(chan adminapi.ImportSummary, 1)
	go func() {
		var summary adminapi.ImportSummary
		response, err := h.begin("", body)
		if err == nil {
			err = json.NewDecoder(response.Body).Decode(&summary)
			response.Body.Close()
		}
		if err != nil {
			t.Error(err)
		}
		done <- summary
	}()
	for part, id := range []string{"device-a", "device-b", "device-c", ""} {
		_, err := io.WriteString(feed, numberedLines(part*5000, (part+1)*5000))
		must(t, err)
		if id != "" {
			h.register(id)
		}
	}
	must(t, feed.Close())
	if got := <-done; got != (adminapi.ImportSummary{Read: 20_000, Created: 20_000}) {
		t.Errorf("%+v", got)
	}
	if h.count("dev-") != 20_000 {
		t.Errorf("%d are there", h.count("dev-"))
	}
}

func TestAnImportOfOneScopeIsNotSeenByAnother(t *testing.T) {
	h := newHouse(t)
	h.bring("", ndjson, short("mine"), adminapi.ImportSummary{Read: 1, Created: 1})
	other := spelled(key(otherScope, owner, "primary"), otherHost, owner, time.Now().Add(time.Hour))
	if got := h.ask("GET", exportPath, "", other, "Host", otherHost).want(200).body; got != "" {
		t.Errorf("the other scope exports %s", got)
	}
	for policy := range rights {
		if rights[policy]&registration.EnrollmentWrite == 0 {
			h.ask("POST", importPath, short("x"), as(policy), "Content-Type", ndjson).refused(dps.CodeUnauthorized)
		}
		if rights[policy]&registration.EnrollmentRead == 0 {
			h.ask("GET", exportPath, "", as(policy)).refused(dps.CodeUnauthorized)
		}
	}
	for _, token := range []string{"", spelled(key(scope, owner, "primary"), host, owner, time.Now().Add(-time.Hour)), other} {
		h.ask("POST", importPath, short("x"), token, "Content-Type", ndjson).refused(dps.CodeUnauthorized)
		h.ask("GET", exportPath, "", token).refused(dps.CodeUnauthorized)
	}
}
