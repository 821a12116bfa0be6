package iothub_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"latchkey.example/latchkey/internal/iothub"
)

func TestAMethodIsReadAsItIsWritten(t *testing.T) {
	m := iothub.Method{Name: "reboot", Payload: json.RawMessage(`{"in":[1,null]}`), Connect: 7 * time.Second, Respond: 300 * time.Second}
	got, err := iothub.DecodeMethod(m.Encode())
	if err != nil || got.Name != m.Name || string(got.Payload) != string(m.Payload) || got.Connect != m.Connect || got.Respond != m.Respond {
		t.Errorf("read %+v, %v", got, err)
	}
	plain, err := iothub.DecodeMethod([]byte(` {"methodName":"m","payload":null,"responseTimeoutInSeconds":null,"more":1} `))
	if err != nil || string(plain.Payload) != "null" || plain.Respond != iothub.DefaultRespond || plain.Connect != 0 {
		t.Errorf("read %+v, %v", plain, err)
	}
	if a := string(iothub.MethodAnswer(200, nil)); a != `{"status":200,"payload":null}` {
		t.Errorf("answered %s", a)
	}
}

func TestExpiriesInTheSpellingsOfClients(t *testing.T) {
	want := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, text := range []string{"2030-01-02T03:04:05Z", "2030-01-02T04:04:05+01:00", "2030-01-02T03:04:05", "2030-01-02T03:04:05.000", "1893553445000"} {
		if got, err := iothub.ParseExpiry(text); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-5", "soon", "99999999999999999999", "2030-01-02", "2030-13-02T03:04:05Z"} {
		if got, err := iothub.ParseExpiry(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestABulkIsReadLineByLine(t *testing.T) {
	lines, err := iothub.DecodeBulk([]byte(` [{"id":"a","importMode":"create","eTag":"\"x\"","status":"disabled"} , {"id":"b","etag":"y","twinETag":"z","moduleId":"m","tags":{"a":1},"more":[{}]},{"id":"c","tags":null}] `), 3)
	if err != nil || len(lines) != 3 {
		t.Fatalf("%+v, %v", lines, err)
	}
	if a := lines[0]; a.Device.DeviceID != "a" || a.Mode != "create" || a.ETag != "x" || a.Device.Status != iothub.Disabled || a.Twin.Tags != nil || a.Device.Authentication.Type != iothub.SAS {
		t.Errorf("first %+v", a)
	}
	if b := lines[1]; b.ETag != "y" || b.Module != "m" || string(b.Twin.Tags) != `{"a":1}` || b.TwinETag != "z" || b.Device.Status != iothub.Enabled {
		t.Errorf("second %+v", b)
	}
	if lines[2].Twin.Tags != nil {
		t.Error("null is not absent")
	}
	if _, err := iothub.DecodeBulk([]byte(`[{"id":"a"},{"id":"b"}]`), 1); err == nil || !strings.Contains(err.Error(), "more than 1") {
		t.Errorf("too many: %v", err)
	}
}

// What applications send to be read as one of these is read or refused; what is read is within its bounds.
func FuzzApplicationMessages(f *testing.F) {
	for _, text := range []string{`[{"id":"a","importMode":"create"}]`, `[]`, `{"methodName":"m","payload":{"a":1}}`, `{"query":"SELECT * FROM devices"}`, `[{"id":"a","authentication":{"symmetricKey":{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA=="}}}]`, `"]"`, `],"devices":[`,
		"SELECT * FROM devices WHERE NOT a.b.[[c]] IN ['x', 1.5e3] AND startswith(deviceId, 'd')", "SELECT * FROM devices WHERE (((a = -1 OR b != null)))", "SELECT * FROM devices WHERE a = 'it''s' AND is_defined(tags.[[ ]])"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if lines, err := iothub.DecodeBulk(body, 5); err == nil {
			if len(lines) < 1 || len(lines) > 5 || !json.Valid(body) {
				t.Fatalf("%d lines of %q", len(lines), body)
			}
			for _, l := range lines {
				if l.Device.DeviceID == "" || len(l.Device.StatusReason) > iothub.MaxStatusReason {
					t.Fatalf("line %+v", l)
				}
			}
		}
		if m, err := iothub.DecodeMethod(body); err == nil {
			again, err := iothub.DecodeMethod(m.Encode())
			if err != nil || again.Name != m.Name || again.Respond != m.Respond || again.Connect != m.Connect || !json.Valid(m.Payload) {
				t.Fatalf("%+v is read again as %+v, %v", m, again, err)
			}
		}
		if text, err := iothub.DecodeQuery(body); err == nil && text == "" {
			t.Fatal("a query without text")
		}
		askedOf(t, string(body))
	})
}

// askedOf reads a query: it ends, at once, in a question that is the same each time, or in a refusal that is fit to be shown.
func askedOf(t *testing.T, text string) {
	q, err := iothub.ParseQuery(text)
	if err != nil {
		if s := err.Error(); len(s) > 300 || !utf8.ValidString(s) {
			t.Fatalf("%q is refused with %q", text, s)
		}
		return
	}
	again, err := iothub.ParseQuery(q.Text())
	twin := map[string]any{"deviceId": "d", "a": map[string]any{"b": map[string]any{"c": "x"}}, "b": nil}
	if err != nil || again.Matches(twin) != q.Matches(twin) {
		t.Fatalf("%q, read again: %v", text, err)
	}
}
