package adminapi_test

import (
	"encoding/csv"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/test/softtpm"
)

// spreadsheet opens and saves a table as a spreadsheet does that takes each cell for what it looks like: BOM, CRLF, quotes around all, its own
// spelling of numbers, dates and truths, and the value of formulas.
func spreadsheet(t testing.TB, text, comma string) string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	must(t, err)
	var out strings.Builder
	out.WriteString("\ufeff")
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				out.WriteString(comma)
			}
			if cell = retyped(cell); cell != "" {
				out.WriteString(`"` + strings.ReplaceAll(cell, `"`, `""`) + `"`)
			}
		}
		out.WriteString("\r\n")
	}
	return out.String()
}

// retyped is how a spreadsheet would save a cell.
func retyped(cell string) string {
	if cell != "" && strings.IndexByte("=+-@\t\r", cell[0]) >= 0 {
		return "#NAME?"
	}
	if number, _, err := big.ParseFloat(strings.ReplaceAll(cell, ",", ""), 10, 60, big.ToNearestEven); err == nil && !strings.ContainsAny(cell, "xXpPnNiI_") {
		value, _ := number.Float64()
		return strconv.FormatFloat(value, 'G', 15, 64)
	}
	if upper := strings.ToUpper(cell); upper == "TRUE" || upper == "FALSE" {
		return upper
	}
	title := cell // months in any case
	if len(cell) > 0 {
		title = strings.ToUpper(cell[:1]) + strings.ToLower(cell[1:])
	}
	for _, layout := range []string{"2006-1-2", "2006-01", "1-2", "1-2-2006", "Jan-2", "January-2", "2-Jan", "Jan2", "2Jan", "2.1.2006", "2.1", "15:04", "15:04:05", "3pm", "3:04pm"} {
		if at, err := time.Parse(layout, title); err == nil {
			return at.Format("02/01/2006 15:04")
		}
	}
	return cell
}

func TestTheSpreadsheetOfTheseTestsSpoilsWhatRealOnesDo(t *testing.T) {
	for cell, want := range map[string]string{"007": "7", "1e5": "100000", "12345678901234567890": "1.23456789012346E+19", "true": "TRUE", "=1+1": "#NAME?", "-x": "#NAME?",
		"mar-1": "01/03/0000 00:00", "2-3": "03/02/0000 00:00", "2026-01-02": "02/01/2026 00:00", "10:30": "01/01/0000 10:30", "press": "press", "'007": "'007", "": ""} {
		if got := retyped(cell); got != want {
			t.Errorf("%q is saved as %q, want %q", cell, got, want)
		}
	}
}

// tricky are texts that a spreadsheet would spoil, all of them good ids.
var tricky = []string{"007", "0", "1e5", "1E5", "12345678901234567890", "1.50", "2-3", "1-1-2026", "2026-01-02", "mar-1", "MAR1", "1-mar", "december-7", "10:30", "true", "FALSE", "-1", "-x",
	"3e5123", "1.2.2026", "00", "sep2", "3pm", "may5"}

// drawnID draws a registration id that none has yet.
func drawnID(t *rapid.T, taken map[string]bool) string {
	id := rapid.OneOf(rapid.SampledFrom(tricky), rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._:-]{0,20}[a-zA-Z0-9]`)).Filter(func(id string) bool {
		return dps.ValidRegistrationID(id) && !taken[dps.FoldID(id)]
	}).Draw(t, "id")
	taken[dps.FoldID(id)] = true
	return id
}

// drawnObject draws a JSON object for an operator's own use.
func drawnObject(t *rapid.T, name string) string {
	return fmt.Sprintf(`{ %q : [1.0e3, null, %q] ,"n":%q}`, rapid.SampledFrom([]string{"a", "=x", "ü"}).Draw(t, name),
		rapid.SampledFrom([]string{"\n", `"`, `""'`, ",;", "=1+1", "\u2028", "<&>"}).Draw(t, name+" text"), rapid.StringMatching(`[ -~]{0,12}`).Draw(t, name+" more"))
}

var chips = []*softtpm.TPM{softtpm.New(softtpm.ECC, 0), softtpm.New(softtpm.ECC, 1), softtpm.New(softtpm.RSA, 0)}

// drawnProof draws how the device proves itself.
func drawnProof(t *rapid.T, mechanism string, serial *uint64) string {
	switch mechanism {
	case "tpm":
		chip := rapid.SampledFrom(chips).Draw(t, "chip")
		srk := ""
		if rapid.Bool().Draw(t, "pinned") {
			srk = `,"storageRootKey":"` + b64(chip.SRK.Bytes()) + `"`
		}
		return `{"type":"tpm","tpm":{"endorsementKey":"` + b64(chip.EK.Bytes()) + `"` + srk + `}}`
	case "x509":
		pair := ""
		for i, member := range []string{"primary", "secondary"}[:rapid.IntRange(1, 2).Draw(t, "certificates")] {
			*serial++ // digits alone, which a spreadsheet would make a number of
			pair += fmt.Sprintf(`%.*s%q:{"info":{"subjectName":"CN=x","sha256Thumbprint":"%064d"}}`, i, ",", member, *serial)
		}
		return `{"type":"x509","x509":{"clientCertificates":{` + pair + `}}}`
	}
	return `{"type":"symmetricKey"}`
}

// drawnEnrollment draws the body of a PUT with any of what an enrollment may hold.
func drawnEnrollment(t *rapid.T, mechanism string, serial *uint64) string {
	body := `{"attestation":` + drawnProof(t, mechanism, serial)
	add := func(name string, value func() string) {
		if rapid.Bool().Draw(t, "has "+name) {
			body += `,"` + name + `":` + value()
		}
	}
	truth := func(name string) string { return fmt.Sprint(rapid.Bool().Draw(t, name)) }
	add("deviceId", func() string {
		return strconv.Quote(rapid.OneOf(rapid.SampledFrom(append([]string{"=cmd", "@SUM(1)", "'=x", "''", "'007", "$5", "(1)"}, tricky...)), rapid.StringMatching(`[-a-zA-Z0-9._*?!(),:=@$']{1,20}`)).
			Filter(dps.ValidDeviceID).Draw(t, "device"))
	})
	add("provisioningStatus", func() string { return `"disabled"` })
	add("capabilities", func() string { return `{"iotEdge":` + truth("edge") + `}` })
	add("optionalDeviceInformation", func() string { return drawnObject(t, "information") })
	add("initialTwin", func() string {
		return `{"tags":` + drawnObject(t, "tags") + `,"properties":{"desired":` + drawnObject(t, "desired") + `}}`
	})
	add("reprovisionPolicy", func() string {
		return `{"updateHubAssignment":` + truth("update") + `,"migrateDeviceData":` + truth("migrate") + `}`
	})
	add("iotHubHostName", func() string { return strconv.Quote(host) })
	add("allocationPolicy", func() string {
		return `"` + rapid.SampledFrom([]string{"hashed", "geoLatency", "static"}).Draw(t, "policy") + `","iotHubs":["` + host + `","` + strings.ToUpper(host) + `"]`
	})
	add("customAllocationDefinition", func() string { return `{"webhookUrl":"https://f.example/?code=a;b,c","apiVersion":"2021-10-01"}` })
	return body + "}"
}

// What an export has, an import brings back: to the byte, as it is and after a spreadsheet has saved it, of every mechanism whose proof is public.
func TestATableOfAnyEnrollmentsComesBackWhole(t *testing.T) {
	h, empty := newHouse(t), newHouse(t)
	var serial uint64
	rapid.Check(t, func(rt *rapid.T) {
		taken := map[string]bool{}
		n := rapid.IntRange(1, 6).Draw(rt, "enrollments")
		var ids []string
		for range n {
			id := drawnID(rt, taken)
			h.owner(http.MethodPut, "/enrollments/"+id, drawnEnrollment(rt, rapid.SampledFrom([]string{"tpm", "x509"}).Draw(rt, "mechanism"), &serial)).want(200)
			ids = append(ids, id)
		}
		text, lines := h.export("?format=csv"), withoutTimes(t, h.export(""))
		for form, saved := range map[string]string{"as it is": text, "saved by a spreadsheet": spreadsheet(t, text, ","), "of another country": spreadsheet(t, text, ";")} {
			empty.bring("", table, saved, adminapi.ImportSummary{Read: uint64(n), Created: uint64(n)})
			if again := empty.export("?format=csv"); again != text {
				rt.Errorf("%s it came back as\n%s\nand was\n%s", form, again, text)
			}
			if again := withoutTimes(t, empty.export("")); again != lines {
				rt.Errorf("%s its enrollments came back as\n%s\nand were\n%s", form, again, lines)
			}
			empty.removeAll(ids)
		}
		h.removeAll(ids)
	})
}

func (h *house) removeAll(ids []string) {
	h.t.Helper()
	for _, id := range ids {
		h.owner(http.MethodDelete, "/enrollments/"+id, "").want(204)
	}
}

// withoutTimes takes out of exported lines what is another in each service, and of certificates what a table has not.
func withoutTimes(t testing.TB, text string) string {
	t.Helper()
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		entry, err := dps.DecodeImport([]byte(line))
		must(t, err)
		entry.ETag, entry.Created, entry.LastUpdated = "", time.Time{}, time.Time{}
		if x := entry.Attestation.X509; x != nil {
			for _, c := range x.Client.List() {
				c.Info.SubjectName = ""
			}
		}
		clean, err := entry.EncodeExported()
		must(t, err)
		out.Write(append(clean, '\n'))
	}
	return out.String()
}

// The keys are in no export of this endpoint. A line says so, keeps the keys that are there, and makes none where there are none.
func TestATableOfSymmetricKeysIsRefusedWhereTheKeysAreNot(t *testing.T) {
	h, empty := newHouse(t), newHouse(t)
	const secret = "c2VjcmV0IGtleSBvZiB0aGUgdmFsdmUh"
	h.owner(http.MethodPut, "/enrollments/valve", `{"deviceId":"valve-9","attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"`+secret+`","secondaryKey":"`+secret+`"}}}`).want(200)
	text, lines := h.export("?format=csv"), h.export("")
	if strings.Contains(text+lines, secret) || !strings.Contains(text, ",symmetricKey,,,withheld,") || !strings.Contains(lines, `"symmetricKeys":"withheld"`) {
		t.Fatalf("exported\n%s%s", text, lines)
	}
	for media, body := range map[string]string{table: text, ndjson: lines} {
		for _, query := range []string{"", "?ifExists=replace", "?ifExists=replace&dryRun=true", "?atomic=true"} {
			want := adminapi.ImportSummary{Read: 1, Failed: 1, DryRun: strings.Contains(query, "dryRun")}
			first := 1
			if media == table {
				first = 2
			}
			if failed := empty.bring(query, media, body, want); failed != fmt.Sprintf("%d valve 400004\n", first) {
				t.Errorf("%s%s: failed %q", media, query, failed)
			}
		}
		h.bring("?ifExists=replace", media, strings.Replace(body, "valve-9", "valve-8", 1), adminapi.ImportSummary{Read: 1, Replaced: 1})
		shown := h.owner(http.MethodPost, "/enrollments/valve/attestationmechanism", "").want(200)
		if shown.json("symmetricKey", "primaryKey") != secret || h.owner("GET", "/enrollments/valve", "").json("deviceId") != "valve-8" {
			t.Errorf("%s: the keys are now %s", media, shown.body)
		}
	}
	if got := empty.export(""); got != "" {
		t.Errorf("keys were made that no device has: %s", got)
	}
	made := strings.Replace(text, ",withheld,", ",,", 1) // whoever wants new keys says so
	empty.bring("", table, made, adminapi.ImportSummary{Read: 1, Created: 1})
	if shown := empty.owner(http.MethodPost, "/enrollments/valve/attestationmechanism", "").want(200); len(shown.json("symmetricKey", "primaryKey")) < 24 {
		t.Errorf("made %s", shown.body)
	}
}

// The longest enrollment is exported in both forms and comes back, also where CSV doubles all of its quotes.
func TestTheLongestEnrollmentComesBack(t *testing.T) {
	h := newHouse(t)
	start, end := `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"`+b64(chip.EK.Bytes())+`"}},"provisioningStatus":"enabled","registrationId":"long","optionalDeviceInformation":{"x":[""`, `]}}`
	body := start + strings.Repeat(`,""`, (dps.MaxMessage-len(start)-len(end))/3) + end
	h.owner(http.MethodPut, "/enrollments/long", body).want(200)
	text, lines := h.export("?format=csv"), h.export("")
	if len(text) < dps.MaxMessage*3/2 || len(lines) < dps.MaxMessage {
		t.Fatalf("exported %d and %d bytes", len(text), len(lines))
	}
	for media, exported := range map[string]string{table: text, ndjson: lines} {
		h.bring("?ifExists=replace", media, exported, adminapi.ImportSummary{Read: 1, Replaced: 1})
		if again := h.export("?format=csv"); again != text {
			t.Errorf("%s: %d bytes came back of %d", media, len(again), len(text))
		}
	}
	over := strings.Replace(lines, `[""`, `["`+strings.Repeat("x", 500)+`"`, 1)
	if failed := h.bring("?ifExists=replace", ndjson, over, adminapi.ImportSummary{Read: 1, Failed: 1}); failed != "1 long 400004\n" {
		t.Errorf("one that could not be read again: %q", failed)
	}
}

// What would be longer in the store than a message may be could never be read again, and would hide all others from exports and queries.
func TestAnEntryThatCouldNotBeReadAgainIsRefused(t *testing.T) {
	h := newHouse(t)
	for path, proof := range map[string]string{"/enrollments/long": `"optionalDeviceInformation":{"x":"%s"},"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + b64(chip.EK.Bytes()) + `"}}`,
		"/enrollmentGroups/long": `"initialTwin":{"tags":{"x":"%s"}},"attestation":{"type":"symmetricKey"}`} {
		body := "{" + proof + "}" // to which the service adds its id and status
		fill := func(n int) string { return fmt.Sprintf(body, strings.Repeat("x", n)) }
		longest := dps.MaxMessage - len(fill(0))
		h.owner(http.MethodPut, path, fill(longest)).refused(dps.CodeBadRequest).says("longer than 98304 bytes")
		h.owner(http.MethodPut, path, fill(longest-100)).want(200)
		h.owner(http.MethodGet, path, "").want(200)
	}
	if failed := h.bring("", ndjson, longLines("fits", 1)+strings.Replace(longLines("over", 1), "xx", strings.Repeat("x", 9000), 1), adminapi.ImportSummary{Read: 2, Created: 1, Failed: 1}); failed != "2 over-0 400004\n" {
		t.Errorf("failed %q", failed)
	}
	if n := strings.Count(h.export(""), "\n"); n != 2 {
		t.Errorf("%d are exported", n)
	}
}
