package hubapi_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/registration"
)

func decoded(t testing.TB, text string) []byte {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) == 0 {
		t.Fatalf("%q is no key: %v", text, err)
	}
	return key
}

func sas(t testing.TB, a answer) (primary, secondary []byte) {
	t.Helper()
	return decoded(t, a.get("authentication", "symmetricKey", "primaryKey")), decoded(t, a.get("authentication", "symmetricKey", "secondaryKey"))
}

func TestADeviceWithoutKeysIsGivenTwo(t *testing.T) {
	h := newHouse(t)
	a := h.owner("PUT", "/devices/press-7", `{"deviceId":"press-7","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}`).want(200)
	primary, secondary := sas(t, a)
	if len(primary) != 32 || len(secondary) != 32 || bytes.Equal(primary, secondary) {
		t.Errorf("keys %x, %x", primary, secondary)
	}
	if a.header.Get("ETag") != `"`+a.get("etag")+`"` || a.get("etag") == "" || a.get("generationId") == "" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v, body %s", a.header, a.body)
	}
	for name, want := range map[string]string{"status": "enabled", "connectionState": "Disconnected", "cloudToDeviceMessageCount": "0", "statusReason": "",
		"connectionStateUpdatedTime": "0001-01-01T00:00:00Z", "lastActivityTime": "0001-01-01T00:00:00Z"} {
		if a.get(name) != want {
			t.Errorf("%s is %q, want %q", name, a.get(name), want)
		}
	}
	if got := h.owner("GET", "/devices/press-7", "").want(200); got.body != a.body {
		t.Errorf("read %s\nmade %s", got.body, a.body)
	}
	h.connect("press-7", primary)
	now := h.owner("GET", "/devices/press-7", "").want(200)
	if now.get("connectionState") != "Connected" || strings.HasPrefix(now.get("lastActivityTime"), "0001") || strings.HasPrefix(now.get("connectionStateUpdatedTime"), "0001") {
		t.Errorf("of a connected device: %s", now.body)
	}
}

// Every condition × what is there.
func TestEtagsAreHonouredExactly(t *testing.T) {
	h := newHouse(t)
	body := func(id, reason string) string { return fmt.Sprintf(`{"deviceId":%q,"statusReason":%q}`, id, reason) }
	for i, row := range []struct {
		header, value string
		there, absent int // status
		name          string
	}{
		{"", "", 409, 200, "DeviceAlreadyExists"},
		{"If-None-Match", "*", 409, 200, "DeviceAlreadyExists"},
		{"If-None-Match", `"*"`, 409, 200, "DeviceAlreadyExists"},
		{"If-Match", "*", 200, 404, ""},
		{"If-Match", `"*"`, 200, 404, ""},
		{"If-Match", "ETAG", 200, 404, ""},
		{"If-Match", `"ETAG"`, 200, 404, ""},
		{"If-Match", `W/"ETAG"`, 200, 404, ""},
		{"If-Match", "OLD", 412, 404, "PreconditionFailed"},
		{"If-Match", `"bm90IGl0"`, 412, 404, "PreconditionFailed"},
		{"If-Match", `""`, 400, 400, "ArgumentInvalid"},
		{"If-None-Match", `"x"`, 400, 400, "ArgumentInvalid"},
	} {
		there, absent := fmt.Sprintf("there-%d", i), fmt.Sprintf("absent-%d", i)
		old := h.owner("PUT", "/devices/"+there, body(there, "first")).want(200).get("etag")
		now := h.owner("PUT", "/devices/"+there, body(there, "second"), "If-Match", old).want(200).get("etag")
		var header []string
		if row.header != "" {
			header = []string{row.header, strings.NewReplacer("ETAG", now, "OLD", old).Replace(row.value)}
		}
		a := h.owner("PUT", "/devices/"+there, body(there, "third"), header...)
		if a.status != row.there {
			t.Errorf("%s: %s, there: %d, want %d: %s", row.header, row.value, a.status, row.there, a.body)
			continue
		}
		got := h.owner("GET", "/devices/"+there, "")
		if row.there == 200 {
			if got.get("statusReason") != "third" || got.get("etag") == now || got.get("etag") != a.get("etag") {
				t.Errorf("%s: %s: is %s", row.header, row.value, got.body)
			}
		} else {
			a.refused(row.there, row.name, "")
			if got.get("statusReason") != "second" || got.get("etag") != now {
				t.Errorf("%s: %s: what was refused left %s", row.header, row.value, got.body)
			}
		}
		if a := h.owner("PUT", "/devices/"+absent, body(absent, "made"), header...); a.status != row.absent {
			t.Errorf("%s: %s, absent: %d, want %d: %s", row.header, row.value, a.status, row.absent, a.body)
		}
	}
}

func TestADeviceIsDeletedByItsEtag(t *testing.T) {
	h := newHouse(t)
	first := h.owner("PUT", "/devices/d", `{"deviceId":"d"}`).want(200)
	old := first.get("etag")
	now := h.owner("PUT", "/devices/d", `{"deviceId":"d","status":"disabled"}`, "If-Match", "*").want(200).get("etag")
	h.owner("DELETE", "/devices/d", "", "If-Match", `"`+old+`"`).refused(412, "PreconditionFailed", "etag")
	h.owner("DELETE", "/devices/d", "", "If-Match", `"`+now+`"`).want(204)
	h.owner("DELETE", "/devices/d", "", "If-Match", "*").refused(404, "DeviceNotFound", "no device")
	again := h.owner("PUT", "/devices/d", `{"deviceId":"d"}`).want(200)
	if again.get("etag") == old || again.get("etag") == now || again.get("generationId") == first.get("generationId") {
		t.Errorf("what was made anew is taken for what it was: %s", again.body)
	}
	h.owner("DELETE", "/devices/d", "").want(204) // without a condition
	h.owner("DELETE", "/devices/d", "", "If-None-Match", "*").refused(400, "ArgumentInvalid", "If-Match")
}

// What an update leaves out of the keys stays: who changes a status locks no device out.
func TestAnUpdateKeepsTheKeysThatItDoesNotName(t *testing.T) {
	h := newHouse(t)
	a := h.owner("PUT", "/devices/d", `{"deviceId":"d"}`).want(200)
	primary, secondary := sas(t, a)
	for _, body := range []string{`{"deviceId":"d","status":"enabled"}`, `{"deviceId":"d","authentication":{"type":"sas"}}`,
		`{"deviceId":"d","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":null}}}`} {
		p, s := sas(t, h.owner("PUT", "/devices/d", body, "If-Match", "*").want(200))
		if !bytes.Equal(p, primary) || !bytes.Equal(s, secondary) {
			t.Errorf("%s changed the keys", body)
		}
	}
	one := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef"))
	got := h.owner("PUT", "/devices/d", `{"deviceId":"d","authentication":{"type":"sas","symmetricKey":{"primaryKey":"`+one+`"}}}`, "If-Match", "*").want(200)
	if got.get("authentication", "symmetricKey", "primaryKey") != one || got.get("authentication", "symmetricKey", "secondaryKey") != "" {
		t.Errorf("one key: %s", got.body)
	}
}

func TestKeysOfOtherBytesCutTheSessionBeforeTheAnswer(t *testing.T) {
	h := newHouse(t)
	old := h.create("d")
	d := h.connect("d", old)
	fresh := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	h.owner("PUT", "/devices/d", `{"deviceId":"d","authentication":{"type":"sas","symmetricKey":{"primaryKey":"`+fresh+`"}}}`, "If-Match", "*").want(200)
	if got := h.owner("GET", "/devices/d", "").get("connectionState"); got != "Disconnected" {
		t.Errorf("the device is %s", got)
	}
	d.cut()
	if _, err := h.tryConnect("d", old); err == nil {
		t.Error("the old key lets in")
	}
	h.connect("d", decoded(t, fresh))
}

func TestADisabledDeviceIsCutOffAndKeptOut(t *testing.T) {
	h := newHouse(t)
	key := h.create("d")
	d := h.connect("d", key)
	a := h.owner("PUT", "/devices/d", `{"deviceId":"d","status":"disabled","statusReason":"stolen"}`, "If-Match", "*").want(200)
	if a.get("status") != "disabled" || a.get("statusReason") != "stolen" || strings.HasPrefix(a.get("statusUpdatedTime"), "0001") {
		t.Errorf("disabled: %s", a.body)
	}
	d.cut()
	if _, err := h.tryConnect("d", key); err == nil {
		t.Error("a disabled device is let in")
	}
	h.owner("PUT", "/devices/d", `{"deviceId":"d"}`, "If-Match", a.get("etag")).want(200)
	h.connect("d", key)
	h.owner("DELETE", "/devices/d", "").want(204)
	if _, err := h.tryConnect("d", key); err == nil {
		t.Error("a deleted device is let in")
	}
}

func TestADeviceMayHaveACertificateInPlaceOfKeys(t *testing.T) {
	h := newHouse(t)
	digest := strings.Repeat("AB", 32)
	a := h.owner("PUT", "/devices/d", `{"deviceId":"d","authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"`+strings.ToLower(digest)+`"}}}`).want(200)
	if a.get("authentication", "x509Thumbprint", "primaryThumbprint") != digest || a.get("authentication", "type") != "selfSigned" || a.get("authentication", "symmetricKey", "primaryKey") != "" {
		t.Errorf("made %s", a.body)
	}
	if twin := h.owner("GET", "/twins/d", ""); twin.get("authenticationType") != "selfSigned" || twin.get("x509Thumbprint", "primaryThumbprint") != digest {
		t.Errorf("its twin %s", twin.body)
	}
	kept := h.owner("PUT", "/devices/d", `{"deviceId":"d","authentication":{"type":"selfSigned"},"statusReason":"x"}`, "If-Match", "*").want(200)
	if kept.get("authentication", "x509Thumbprint", "primaryThumbprint") != digest {
		t.Errorf("updated %s", kept.body)
	}
}

func TestBadDevicesAreRefusedAndChangeNothing(t *testing.T) {
	h := newHouse(t)
	before := h.owner("PUT", "/devices/d", `{"deviceId":"d"}`).want(200)
	long := strings.Repeat("x", 129)
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for body, says := range map[string]string{
		"":                                     "not valid JSON",
		"[]":                                   "object",
		`{"deviceId":"d"`:                      "not valid JSON",
		`{"deviceId":"e"}`:                     "another one than the path",
		`{}`:                                   "deviceId",
		`{"deviceId":"d","deviceId":"d"}`:      "twice",
		`{"deviceId":"d","status":"off"}`:      "enabled, disabled",
		`{"deviceId":"d","Status":"disabled"}`: "exactly these letters",
		`{"deviceId":"d","statusReason":"` + long + `"}`:                                                                             "128",
		`{"deviceId":"d","authentication":{"type":"certificateAuthority"}}`:                                                          "sas and selfSigned",
		`{"deviceId":"d","authentication":{"type":"none"}}`:                                                                          "sas and selfSigned",
		`{"deviceId":"d","authentication":{"type":"selfSigned"}}`:                                                                    "SHA-256",
		`{"deviceId":"d","authentication":{"x509Thumbprint":{"primaryThumbprint":"` + strings.Repeat("AB", 20) + `"}}}`:              "SHA-256",
		`{"deviceId":"d","authentication":{"symmetricKey":{"primaryKey":"AAAA"}}}`:                                                   "16 to 64",
		`{"deviceId":"d","authentication":{"symmetricKey":{"secondaryKey":"` + key + `"}}}`:                                          "primaryKey",
		`{"deviceId":"d","authentication":{"type":"selfSigned","symmetricKey":{"primaryKey":"` + key + `"}}}`:                        "no symmetric keys",
		`{"deviceId":"d","authentication":{"type":"sas","x509Thumbprint":{"primaryThumbprint":"` + strings.Repeat("AB", 32) + `"}}}`: "no thumbprints",
		`{"deviceId":"d","x":` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 101):                                       "deep",
		"{\"deviceId\":\"d\xff\"}": "UTF-8",
	} {
		a := h.owner("PUT", "/devices/d", body, "If-Match", "*").refused(400, "ArgumentInvalid", says)
		h.because(a, "bad-device")
	}
	h.owner("PUT", "/devices/d", `{"deviceId":"d","deviceScope":"ms-azure-iot-edge://x"}`, "If-Match", "*").refused(501, "NotImplemented", "deviceScope")
	h.owner("PUT", "/devices/d", `{"deviceId":"d"}`, "If-Match", "*", "Content-Type", "text/xml").refused(415, "UnsupportedMediaType", "application/json")
	h.owner("PUT", "/devices/d", `{"deviceId":"d","statusReason":"`+strings.Repeat("x", 40<<10)+`"}`, "If-Match", "*").refused(413, "MessageTooLarge", "larger")
	for _, id := range []string{strings.Repeat("a", 129), "a%20b", "a%2Fb", "%00", "a%22b", "%C3%A4", "."} {
		h.owner("GET", "/devices/"+id, "").want(400)
		h.owner("GET", "/twins/"+id, "").want(400)
	}
	if now := h.owner("GET", "/devices/d", "").want(200); now.body != before.body {
		t.Errorf("what was refused left %s\nof %s", now.body, before.body)
	}
}

func TestAListHasTheFirstSoMany(t *testing.T) {
	h := newHouse(t)
	for _, id := range []string{"c", "a", "b"} {
		h.create(id)
	}
	for query, want := range map[string]string{"": "abc", "?top=2": "ab", "?top=1000": "abc"} {
		var list []struct{ DeviceID string }
		must(t, json.Unmarshal([]byte(h.owner("GET", "/devices"+query, "").want(200).body), &list))
		got := ""
		for _, d := range list {
			got += d.DeviceID
		}
		if got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, top := range []string{"0", "-1", "1001", "all", "1e3"} {
		h.owner("GET", "/devices?top="+top, "").refused(400, "ArgumentInvalid", "1 to 1000")
	}
	if a := h.owner("GET", "/statistics/devices", ""); a.get("totalDeviceCount") != "3" || a.get("enabledDeviceCount") != "3" || a.get("disabledDeviceCount") != "0" {
		t.Errorf("statistics %s", a.body)
	}
	h.ask("GET", "/devices"+version, "", token(t, key(otherScope, owner, "primary"), otherHost, owner, tomorrow()), "Host", otherHost).want(200).is("[]")
}

// Keys leave after it is durable who asked for them, and nothing is done to a device that the audit does not tell.
func TestWhatIsShownAndDoneIsAudited(t *testing.T) {
	h := newHouse(t)
	rows := func(a answer, action, object string) registration.Audit {
		t.Helper()
		all := h.audited(a)
		if len(all) != 1 || all[0].Action != action || all[0].Object != object || all[0].Actor != "policy:"+owner || all[0].Address != "127.0.0.1" {
			t.Fatalf("audit rows %+v, want one %s of %s", all, action, object)
		}
		return all[0]
	}
	made := h.owner("PUT", "/devices/d", `{"deviceId":"d"}`)
	primary, secondary := sas(t, made)
	told := rows(made, registration.ActionDevicePut, "d").Detail
	told += rows(h.owner("GET", "/devices/d", ""), registration.ActionDeviceReveal, "d").Detail
	told += rows(h.owner("GET", "/devices", ""), registration.ActionDeviceReveal, host).Detail
	told += rows(h.owner("PATCH", "/twins/d", `{"tags":{"secret":"canary"}}`), registration.ActionTwinPut, "d").Detail
	told += rows(h.owner("POST", "/devices/d/messages/deviceBound", "canary", "iothub-messageid", "m-1"), registration.ActionMessageSend, "d").Detail
	told += rows(h.owner("DELETE", "/devices/d/commands", ""), registration.ActionMessagePurge, "d").Detail
	told += rows(h.owner("PUT", "/devices/d", `{"deviceId":"d","status":"disabled"}`, "If-Match", "*"), registration.ActionDevicePut, "d").Detail
	told += rows(h.owner("DELETE", "/devices/d", ""), registration.ActionDeviceDelete, "d").Detail
	for _, part := range []string{`"created":true`, `"messageId":"m-1"`, `"after":true`} {
		if !strings.Contains(told, part) {
			t.Errorf("%s is missing in %s", part, told)
		}
	}
	for _, secret := range []string{"canary", base64.StdEncoding.EncodeToString(primary), base64.StdEncoding.EncodeToString(secondary)} {
		if strings.Contains(told, secret) {
			t.Errorf("the audit tells %q: %s", secret, told)
		}
	}
	h.create("e")
	rows(h.owner("GET", "/devices/e", ""), registration.ActionDeviceReveal, "e")
	if all := h.audited(h.owner("GET", "/devices/e", "")); len(all) != 0 {
		t.Errorf("the same keys shown to the same policy are audited again: %+v", all)
	}
	other, err := h.core.Why(t.Context(), registration.Caller{Scope: scope}, h.ask("GET", "/devices/e"+version, "", as(t, "registry-read")).want(200).header.Get("x-ms-request-id"))
	must(t, err)
	if len(other.Audit) != 1 || other.Audit[0].Actor != "policy:registry-read" {
		t.Errorf("another policy was shown them: %+v", other.Audit)
	}
	h.owner("PUT", "/devices/e", `{"deviceId":"e"}`, "If-Match", "*").want(200)
	rows(h.owner("GET", "/devices/e", ""), registration.ActionDeviceReveal, "e")
	if all := h.audited(h.owner("GET", "/twins/d", "")); len(all) != 0 {
		t.Errorf("a refusal is audited: %+v", all)
	}
}
