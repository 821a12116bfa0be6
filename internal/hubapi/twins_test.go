package hubapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// plain is a part of a twin without what the hub notes of it.
func plain(t testing.TB, a answer, part ...string) string {
	t.Helper()
	var value any = a.object()
	for _, name := range part {
		value = value.(map[string]any)[name]
	}
	object := value.(map[string]any)
	delete(object, "$metadata")
	delete(object, "$version")
	text, err := json.Marshal(object)
	must(t, err)
	return string(text)
}

func TestATwinIsMergedAndReplaced(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	empty := h.owner("GET", "/twins/d", "").want(200)
	if empty.get("version") != "1" || plain(t, empty, "tags") != "{}" || plain(t, empty, "properties", "desired") != "{}" || empty.header.Get("ETag") != `"`+empty.get("etag")+`"` {
		t.Errorf("at first %s", empty.body)
	}
	if empty.get("deviceEtag") != h.etagOf("d") {
		t.Errorf("deviceEtag %s", empty.body)
	}
	a := h.owner("PATCH", "/twins/d", `{"tags":{"a":1,"b":{"c":2}},"properties":{"desired":{"x":1,"y":{"z":2}}}}`).want(200)
	if a.get("version") == "1" || plain(t, a, "tags") != `{"a":1,"b":{"c":2}}` || a.object()["properties"].(map[string]any)["desired"].(map[string]any)["$version"] != 2.0 {
		t.Errorf("patched %s", a.body)
	}
	a = h.owner("PATCH", "/twins/d", `{"tags":{"a":null,"b":{"d":3}},"properties":{"desired":{"y":{"z":null}}}}`).want(200)
	if plain(t, a, "tags") != `{"b":{"c":2,"d":3}}` || plain(t, a, "properties", "desired") != `{"x":1,"y":{}}` {
		t.Errorf("patched again %s", a.body)
	}
	a = h.owner("PUT", "/twins/d", `{"properties":{"desired":{"n":1}}}`).want(200)
	if plain(t, a, "tags") != `{"b":{"c":2,"d":3}}` || plain(t, a, "properties", "desired") != `{"n":1}` {
		t.Errorf("replaced %s", a.body)
	}
	back := h.owner("PUT", "/twins/d", a.body).want(200) // what was read may be sent back
	if plain(t, back, "properties", "desired") != `{"n":1}` {
		t.Errorf("sent back %s", back.body)
	}
}

// A device that moves here brings along what it has reported; nobody else writes that, and whoever sends back what was read does not either.
func TestReportedPropertiesAreTakenUnderTheirExtensionAlone(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	body := `{"properties":{"reported":{"temp":7,"$version":3}}}`
	for _, method := range []string{"PATCH", "PUT"} {
		for _, header := range [][]string{nil, {"latchkey-extensions", "another"}} {
			if a := h.owner(method, "/twins/d", body, header...).want(200); plain(t, a, "properties", "reported") != "{}" || a.header.Get("latchkey-extensions") != "reported" {
				t.Errorf("%s with %q: %s", method, header, a.body)
			}
		}
	}
	a := h.owner("PATCH", "/twins/d", body, "latchkey-extensions", "another, reported").want(200)
	if plain(t, a, "properties", "reported") != `{"temp":7}` || plain(t, a, "properties", "desired") != "{}" {
		t.Errorf("reported %s", a.body)
	}
	a = h.owner("PUT", "/twins/d", `{"properties":{"reported":{"speed":1}}}`, "latchkey-extensions", "reported").want(200)
	if plain(t, a, "properties", "reported") != `{"speed":1}` {
		t.Errorf("replaced %s", a.body)
	}
	h.owner("PUT", "/twins/d", `{"properties":{"reported":[]}}`, "latchkey-extensions", "reported").want(400)
	if a := h.owner("GET", "/devices/nobody", "").want(404); a.header.Get("latchkey-extensions") != "reported" {
		t.Error("who is to create a device there is not told of the extension")
	}
}

func TestATwinsEtagIsHonouredExactly(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	first := h.owner("GET", "/twins/d", "").get("etag")
	second := h.owner("PATCH", "/twins/d", `{"tags":{"a":1}}`, "If-Match", `"`+first+`"`).want(200).get("etag")
	if first == second {
		t.Fatal("a change changes no etag")
	}
	for _, method := range []string{"PATCH", "PUT"} {
		h.because(h.owner(method, "/twins/d", `{"tags":{"a":2}}`, "If-Match", `"`+first+`"`).refused(412, "PreconditionFailed", "twin again"), "etag")
		h.owner(method, "/twins/nobody", `{"tags":{"a":2}}`, "If-Match", "*").refused(404, "DeviceNotFound", "no device")
		h.owner(method, "/twins/nobody", `{"tags":{"a":2}}`, "If-Match", first).refused(404, "DeviceNotFound", "no device")
		h.owner(method, "/twins/d", `{"tags":{"a":2}}`, "If-None-Match", "*").refused(400, "ArgumentInvalid", "If-Match")
	}
	if a := h.owner("GET", "/twins/d", ""); a.get("etag") != second || plain(t, a, "tags") != `{"a":1}` {
		t.Errorf("what was refused left %s", a.body)
	}
	h.owner("PATCH", "/twins/d", `{"tags":{"a":3}}`, "If-Match", "*").want(200)
}

func TestAConnectedDeviceHearsOfDesiredPropertiesAndItsReportsShow(t *testing.T) {
	h := newHouse(t)
	d := h.connect("d", h.create("d"), "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#")
	h.owner("PATCH", "/twins/d", `{"properties":{"desired":{"interval":30}}}`).want(200)
	m := d.next()
	if m.Topic() != "$iothub/twin/PATCH/properties/desired/?$version=2" || string(m.Payload()) != `{"$version":2,"interval":30}` {
		t.Errorf("heard %s %s", m.Topic(), m.Payload())
	}
	d.wait(d.Publish("$iothub/twin/PATCH/properties/reported/?$rid=1", 0, false, `{"interval":30}`))
	if m := d.next(); !strings.HasPrefix(m.Topic(), "$iothub/twin/res/204/") {
		t.Fatalf("heard %s %s", m.Topic(), m.Payload())
	}
	if a := h.owner("GET", "/twins/d", ""); plain(t, a, "properties", "reported") != `{"interval":30}` {
		t.Errorf("reported %s", a.body)
	}
}

func TestBadTwinsAreRefusedAndChangeNothing(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	h.owner("PATCH", "/twins/d", `{"tags":{"a":1}}`).want(200)
	before := h.owner("GET", "/twins/d", "").body
	deep := strings.Repeat(`{"a":`, 12) + "1" + strings.Repeat("}", 12)
	for body, says := range map[string]string{
		"": "JSON", "[]": "object", `{"tags":1}`: "tags", `{"properties":{"desired":[]}}`: "properties.desired", `{"tags":{"a.b":1}}`: "character",
		`{"tags":{"$x":1}}`: "character", `{"tags":` + deep + `}`: "deeper", `{"tags":{"a":"` + strings.Repeat("x", 9<<10) + `"}}`: "bytes",
		`{"properties":{"desired":{"a":"` + strings.Repeat("x", 5000) + `"}}}`: "bytes", `{"tags":{"a":1,"a":2}}`: "twice", `{"tags":{"a":9007199254740993}}`: "integer",
	} {
		for _, method := range []string{"PATCH", "PUT"} {
			a := h.owner(method, "/twins/d", body).want(400)
			if !strings.Contains(a.body, says) || !strings.Contains(a.body, "ErrorCode:ArgumentInvalid;") {
				t.Errorf("%s %.50s: %s", method, body, a.body)
			}
		}
	}
	h.owner("PATCH", "/twins/d", `{"tags":{"a":"`+strings.Repeat("x", 300<<10)+`"}}`).refused(413, "MessageTooLarge", "larger")
	if after := h.owner("GET", "/twins/d", "").body; after != before {
		t.Errorf("what was refused left %s\nof %s", after, before)
	}
}

func TestOfTwoWhoChangeATwinByItsEtagOneWins(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	for range 5 {
		tag := h.owner("GET", "/twins/d", "").get("etag")
		authorization := as(t, owner)
		results := make(chan int, 8)
		for i := range 8 {
			go func() {
				a, err := h.try("PATCH", "/twins/d"+version, fmt.Sprintf(`{"tags":{"by":%d}}`, i), authorization, "If-Match", tag)
				if err != nil {
					t.Error(err)
				}
				results <- a.status
			}()
		}
		won := 0
		for range 8 {
			switch status := <-results; status {
			case 200:
				won++
			case 412:
			default:
				t.Errorf("status %d", status)
			}
		}
		if won != 1 {
			t.Fatalf("%d of 8 won", won)
		}
	}
}
