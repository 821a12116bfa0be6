package hubapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// ids are the devices of a page.
func ids(t testing.TB, a answer) string {
	t.Helper()
	var page []struct{ DeviceID string }
	must(t, json.Unmarshal([]byte(a.want(200).body), &page))
	var all []string
	for _, d := range page {
		all = append(all, d.DeviceID)
	}
	return strings.Join(all, " ")
}

func query(text string) string {
	body, _ := json.Marshal(map[string]string{"query": text})
	return string(body)
}

func TestQueriesFindDevicesByWhatTheirTwinsSay(t *testing.T) {
	h := newHouse(t)
	for i, place := range []string{"hall 3", "hall 3", "yard", "o'hara"} {
		id := fmt.Sprintf("line4-%d", i)
		h.create(id)
		h.owner("PATCH", "/twins/"+id, fmt.Sprintf(`{"tags":{"place":%q,"floor":{"level":%d}},"properties":{"desired":{"interval":%d,"my name":1}}}`, place, i, i*10)).want(400) // a blank in a name
		h.owner("PATCH", "/twins/"+id, fmt.Sprintf(`{"tags":{"place":%q,"floor":{"level":%d},"spare":%t},"properties":{"desired":{"interval":%d}}}`, place, i, i%2 == 0, i*10)).want(200)
	}
	h.connect("other", h.create("other"))
	h.owner("PUT", "/devices/line4-3", `{"deviceId":"line4-3","status":"disabled"}`, "If-Match", "*").want(200)
	for where, want := range map[string]string{
		"":                                    "line4-0 line4-1 line4-2 line4-3 other",
		"WHERE tags.place = 'hall 3'":         "line4-0 line4-1",
		"where devices.tags.place = \"yard\"": "line4-2",
		"WHERE tags.place = 'o''hara'":        "line4-3",
		"WHERE tags.place != 'hall 3'":        "line4-2 line4-3 other",
		"WHERE tags.floor.level >= 1 AND tags.floor.level < 3":                       "line4-1 line4-2",
		"WHERE tags.spare = true OR status = 'disabled'":                             "line4-0 line4-2 line4-3",
		"WHERE NOT (tags.spare = true OR status = 'disabled')":                       "line4-1 other",
		"WHERE properties.desired.interval IN [10, 20, 99]":                          "line4-1 line4-2",
		"WHERE properties.desired.interval NIN (10, 20)":                             "line4-0 line4-3 other",
		"WHERE is_defined(tags.floor) AND startswith(deviceId, 'line4-')":            "line4-0 line4-1 line4-2 line4-3",
		"WHERE endswith(deviceId, '-2') OR contains(tags.place, 'har')":              "line4-2 line4-3",
		"WHERE connectionState = 'Connected'":                                        "other",
		"WHERE capabilities.iotEdge = false AND tags.[[place]] = 'yard'":             "line4-2",
		"WHERE tags.floor = 1 OR properties.desired.nothing.here > 1":                "",
		"WHERE statusReason = null OR deviceId IN ['other']":                         "other",
		"WHERE properties.desired.$version > 1 AND version > 1 AND tags.place > 'i'": "line4-2 line4-3",
	} {
		a := h.owner("POST", "/devices/query", query("SELECT * FROM devices "+where))
		if got := ids(t, a); got != want {
			t.Errorf("%s: %q, want %q", where, got, want)
		}
		if a.header.Get("x-ms-item-type") != "Twin" || a.header.Get("x-ms-continuation") != "" {
			t.Errorf("headers %v", a.header)
		}
	}
	if body := h.owner("POST", "/devices/query", query("SELECT * FROM devices")).body; strings.Contains(body, "primaryKey") {
		t.Errorf("a query shows keys: %s", body)
	}
}

func TestAQueryComesInPages(t *testing.T) {
	h := newHouse(t)
	var want []string
	for i := range 7 {
		id := fmt.Sprintf("d%d", i)
		want = append(want, id)
		h.create(id)
	}
	for size := 1; size <= 8; size++ {
		var got []string
		header := []string{"x-ms-max-item-count", fmt.Sprint(size)}
		for pages := 0; ; pages++ {
			a := h.owner("POST", "/devices/query", query("SELECT * FROM devices"), header...)
			page := strings.Fields(ids(t, a))
			got = append(got, page...)
			next := a.header.Get("x-ms-continuation")
			if next == "" {
				break
			}
			if len(page) != size || pages > 8 {
				t.Fatalf("page of %d: %q", size, page)
			}
			header = []string{"x-ms-max-item-count", fmt.Sprint(size), "x-ms-continuation", next}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("in pages of %d: %q", size, got)
		}
	}
	next := h.owner("POST", "/devices/query", query("SELECT * FROM devices"), "x-ms-max-item-count", "2").header.Get("x-ms-continuation")
	for what, a := range map[string]answer{
		"changed":          h.owner("POST", "/devices/query", query("SELECT * FROM devices"), "x-ms-continuation", next[:len(next)-1]+"A"),
		"of another query": h.owner("POST", "/devices/query", query("SELECT * FROM devices WHERE status = 'enabled'"), "x-ms-continuation", next),
		"of another scope": h.ask(http.MethodPost, "/devices/query"+version, query("SELECT * FROM devices"), token(t, key(otherScope, owner, "primary"), otherHost, owner, tomorrow()), "Host", otherHost, "x-ms-continuation", next),
	} {
		if a.status != 400 || !strings.Contains(a.body, "x-ms-continuation") {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	h.owner("POST", "/devices/query", query("SELECT * FROM devices"), "x-ms-max-item-count", "0").refused(400, "ArgumentInvalid", "x-ms-max-item-count")
}

func TestAQueryThatIsNotUnderstoodSaysWhere(t *testing.T) {
	h := newHouse(t)
	for text, says := range map[string]string{
		"":                                      "is missing",
		"SELECT deviceId FROM devices":          "position 8",
		"SELECT * FROM devices.modules":         "position 22",
		"SELECT * FROM devices.jobs":            "position 22",
		"SELECT * FROM enrollments":             "position 15",
		"SELECT * FROM devices WHERE":           "position 28",
		"SELECT * FROM devices WHERE a = b":     "position 33",
		"SELECT * FROM devices WHERE a = 'b":    "position 33",
		"SELECT * FROM devices WHERE (a = 'b'":  ") is missing",
		"SELECT * FROM devices WHERE a = 'b' c": "goes on",
		"SELECT * FROM devices WHERE " + strings.Repeat("(", 40) + "a = 1" + strings.Repeat(")", 40): "too deep",
		"SELECT * FROM devices WHERE " + strings.Repeat("a = 1 AND ", 200) + "a = 1":                 "too long",
		"SELECT * FROM devices WHERE a IN [" + strings.Repeat("1,", 200) + "1]":                      "too long",
		"SELECT * FROM devices WHERE a = '" + strings.Repeat("x", 5000) + "'":                        "longer than",
	} {
		a := h.owner("POST", "/devices/query", query(text)).refused(400, "ArgumentInvalid", says)
		h.because(a, "bad-device")
	}
	h.owner("POST", "/devices/query", `"SELECT"`).refused(400, "ArgumentInvalid", "object")
}
