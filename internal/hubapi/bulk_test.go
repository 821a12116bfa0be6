package hubapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

type bulkAnswer struct {
	IsSuccessful bool
	Errors       []struct{ DeviceID, ErrorCode, ErrorStatus string }
}

func (h *house) bulk(status int, lines ...string) bulkAnswer {
	h.t.Helper()
	a := h.owner("POST", "/devices", "["+strings.Join(lines, ",")+"]").want(status)
	var got bulkAnswer
	must(h.t, json.Unmarshal([]byte(a.body), &got))
	if got.IsSuccessful != (status == 200) || got.IsSuccessful != (len(got.Errors) == 0) {
		h.t.Errorf("status %d: %s", status, a.body)
	}
	return got
}

func (h *house) etagOf(id string) string {
	h.t.Helper()
	return h.owner("GET", "/devices/"+id, "").want(200).get("etag")
}

// Every mode × a device that is there, one that is not, and an etag that is right, wrong or missing.
func TestEveryModeOfABulk(t *testing.T) {
	h := newHouse(t)
	for i, row := range []struct {
		mode, etag    string // NOW: the current one
		there, absent string // name of the error, empty if it works
	}{
		{"create", "", "DeviceAlreadyExists", ""},
		{"Create", "NOW", "DeviceAlreadyExists", ""},
		{"update", "", "", "DeviceNotFound"},
		{"update", "b2xk", "", "DeviceNotFound"}, // the mode does not ask for it
		{"updateIfMatchETag", "NOW", "", "DeviceNotFound"},
		{"UpdateIfMatchETag", "b2xk", "PreconditionFailed", "DeviceNotFound"},
		{"updateIfMatchETag", "", "PreconditionFailed", "PreconditionFailed"},
		{"createOrUpdate", "", "", ""},
		{"", "", "", ""},
		{"createOrUpdateIfMatchETag", "NOW", "", ""},
		{"createOrUpdateIfMatchETag", "b2xk", "PreconditionFailed", ""},
		{"createOrUpdateIfMatchETag", "", "PreconditionFailed", ""},
		{"delete", "", "", "DeviceNotFound"},
		{"deleteIfMatchETag", "NOW", "", "DeviceNotFound"},
		{"deleteIfMatchETag", "b2xk", "PreconditionFailed", "DeviceNotFound"},
		{"deleteIfMatchETag", "", "PreconditionFailed", "PreconditionFailed"},
		{"drop", "", "NotImplemented", "NotImplemented"},
	} {
		there, absent := fmt.Sprintf("there-%d", i), fmt.Sprintf("absent-%d", i)
		h.create(there)
		before := h.etagOf(there)
		line := func(id string) string {
			mode, tag := "", ""
			if row.mode != "" {
				mode = `,"importMode":"` + row.mode + `"`
			}
			if row.etag != "" {
				tag = `,"eTag":"` + strings.ReplaceAll(row.etag, "NOW", before) + `"`
			}
			return fmt.Sprintf(`{"id":%q,"status":"disabled"%s%s}`, id, mode, tag)
		}
		for id, want := range map[string]string{there: row.there, absent: row.absent} {
			status := 200
			if want != "" {
				status = 400
			}
			got := h.bulk(status, line(id))
			if want != "" && (got.Errors[0].DeviceID != id || got.Errors[0].ErrorCode != want || !strings.Contains(got.Errors[0].ErrorStatus, "Tracking id")) {
				t.Errorf("%s %q of %s: %+v, want %s", row.mode, row.etag, id, got, want)
			}
			a := h.owner("GET", "/devices/"+id, "")
			deletes := strings.HasPrefix(strings.ToLower(row.mode), "delete")
			switch {
			case want == "" && deletes || want != "" && id == absent:
				a.want(404)
			case want == "":
				if a.want(200).get("status") != "disabled" {
					t.Errorf("%s of %s left %s", row.mode, id, a.body)
				}
			case a.want(200).get("etag") != before:
				t.Errorf("%s was refused and changed %s", row.mode, id)
			}
		}
	}
}

func TestALineThatFailsStopsNoOther(t *testing.T) {
	h := newHouse(t)
	h.create("b")
	got := h.bulk(400, `{"id":"a","importMode":"create"}`, `{"id":"b","importMode":"create"}`, `{"id":"c","importMode":"create","moduleId":"m"}`,
		`{"id":"d","importMode":"create","tags":{"a.b":1}}`, `{"id":"e","importMode":"create","authentication":{"type":"certificateAuthority"}}`, `{"id":"f","importMode":"create"}`)
	var failed []string
	for _, e := range got.Errors {
		failed = append(failed, e.DeviceID+" "+e.ErrorCode)
	}
	if want := "b DeviceAlreadyExists, c NotImplemented, d ArgumentInvalid, e ArgumentInvalid"; strings.Join(failed, ", ") != want {
		t.Errorf("failed %q, want %q", failed, want)
	}
	for _, id := range []string{"a", "f"} {
		h.owner("GET", "/devices/"+id, "").want(200)
	}
	h.bulk(200, `{"id":"a","importMode":"delete"}`, `{"id":"b","importMode":"delete","tags":{"a":1}}`, `{"id":"f","importMode":"delete"}`)
	h.owner("GET", "/devices", "").is("[]")
}

func TestABulkThatIsNoneIsRefusedWhole(t *testing.T) {
	h := newHouse(t)
	many := strings.Repeat(`{"id":"x"},`, 101)
	for body, says := range map[string]string{
		"": "JSON", "{}": "array", "[]": "empty", `[1]`: "not a device", `[{}]`: "id", `[{"id":"a"},{"id":"a"}]`: "twice", `[{"id":"a","id":"b"}]`: "twice",
		`[` + many[:len(many)-1] + `]`: "100", `[{"id":"a/b"}]`: "letters", `[{"id":"a"}]]`: "JSON", `[{"id":"a"}],"devices":[]`: "",
		`null`: "array",
	} {
		a := h.owner("POST", "/devices", body).want(400)
		if !strings.Contains(a.body, says) || !strings.Contains(a.body, "ErrorCode:") {
			t.Errorf("%.40s: %s", body, a.body)
		}
	}
	h.owner("GET", "/devices", "").is("[]")
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf(`{"id":"d-%d","importMode":"create"}`, i))
	}
	h.bulk(200, lines...)
}

// A line may bring the twin of a device along, or be about a twin alone.
func TestLinesMayHoldTwins(t *testing.T) {
	h := newHouse(t)
	h.bulk(200, `{"id":"a","importMode":"create","tags":{"place":"hall 3"},"properties":{"desired":{"x":1},"reported":{"not":"mine"}}}`, `{"id":"b","importMode":"create","tags":{},"properties":{"desired":{},"reported":{}}}`)
	a := h.owner("GET", "/twins/a", "")
	if plain(t, a, "tags") != `{"place":"hall 3"}` || plain(t, a, "properties", "desired") != `{"x":1}` || plain(t, a, "properties", "reported") != "{}" {
		t.Errorf("made with %s", a.body)
	}
	if b := h.owner("GET", "/twins/b", ""); b.get("version") != "1" {
		t.Errorf("a twin of nothing was written: %s", b.body)
	}
	h.bulk(200, `{"id":"a","importMode":"updateTwin","tags":{"floor":2}}`)
	now := h.owner("GET", "/twins/a", "")
	if plain(t, now, "tags") != `{"floor":2,"place":"hall 3"}` {
		t.Errorf("merged into %s", now.body)
	}
	h.bulk(200, `{"id":"a","importMode":"updateTwinIfMatchETag","twinETag":"`+now.get("etag")+`","tags":{"floor":3}}`)
	for line, want := range map[string]string{
		`{"id":"a","importMode":"updateTwinIfMatchETag","twinETag":"` + now.get("etag") + `","tags":{"floor":4}}`: "PreconditionFailed",
		`{"id":"a","importMode":"updateTwinIfMatchETag","tags":{"floor":4}}`:                                      "PreconditionFailed",
		`{"id":"nobody","importMode":"updateTwin","tags":{"floor":4}}`:                                            "DeviceNotFound",
		`{"id":"a","importMode":"update","properties":{"desired":{"$x":1}}}`:                                      "ArgumentInvalid",
	} {
		before := h.etagOf("a")
		if got := h.bulk(400, line); got.Errors[0].ErrorCode != want {
			t.Errorf("%s: %+v", line, got)
		}
		if h.etagOf("a") != before {
			t.Errorf("%s changed the device", line)
		}
	}
	h.bulk(200, `{"id":"a","importMode":"update","tags":{"only":true}}`)
	if now := h.owner("GET", "/twins/a", ""); plain(t, now, "tags") != `{"only":true}` || plain(t, now, "properties", "desired") != `{"x":1}` {
		t.Errorf("replaced with %s", now.body)
	}
}
