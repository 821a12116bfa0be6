package iothub_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
)

// FuzzDecode gives the same bytes to every decoder: identities, error answers, marks and connection strings. Seeds are what hubs were seen to answer.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no recorded answers: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("latchkey generation 42 new"))
	f.Add([]byte("HostName=hub-a.example.net;SharedAccessKeyName=latchkey;SharedAccessKey=" + b64A))
	f.Fuzz(func(t *testing.T, body []byte) {
		identitiesComeBack(t, body)
		twinsArePlain(t, body)
		errorsAreShort(t, body)
		if m, ok := iothub.ParseMark(string(body)); ok && m.String() != string(body) {
			t.Errorf("%q is read as %v", body, m)
		}
		connectionsSign(t, string(body))
	})
}

func identitiesComeBack(t *testing.T, body []byte) {
	if d, err := iothub.DecodeDevice(body); err == nil {
		answer := d.Answer()
		again, err := iothub.DecodeDevice(answer)
		if err != nil {
			t.Fatalf("its own answer is refused: %v\n%s", err, answer)
		}
		if !reflect.DeepEqual(d, again) && !fine(d) {
			t.Fatalf("an answer does not come back: %+v, %+v", d, again)
		}
		if _, err := iothub.DecodeDevice(d.Request()); err != nil {
			t.Fatalf("its own request is refused: %v", err)
		}
	}
}

// fine: it has times that are not written as they were read: finer than seven digits.
func fine(d iothub.Device) bool {
	for _, at := range []time.Time{d.StatusUpdated, d.ConnectionStateUpdated, d.LastActivity} {
		if at.Nanosecond()%100 != 0 {
			return true
		}
	}
	return false
}

func twinsArePlain(t *testing.T, body []byte) {
	twin, err := iothub.DecodeTwinAnswer(body)
	if err != nil {
		return
	}
	for _, part := range []json.RawMessage{twin.Tags, twin.Desired, twin.Reported} {
		var object map[string]json.RawMessage
		if part != nil && json.Unmarshal(part, &object) != nil {
			t.Fatalf("a part is no object: %s", part)
		}
		for name := range object {
			if strings.HasPrefix(name, "$") {
				t.Fatalf("a part has what is the hub's: %s", part)
			}
		}
	}
}

func errorsAreShort(t *testing.T, body []byte) {
	e := iothub.DecodeError(429, string(body[:min(len(body), 20)]), body)
	if len(e.Error()) > 1000 || e.RetryAfter < 0 || e.RetryAfter > time.Hour {
		t.Errorf("%d bytes of text, advice %v", len(e.Error()), e.RetryAfter)
	}
	for _, r := range e.Error() {
		if r < ' ' || r > '~' {
			t.Fatalf("%q is in a text for logs and terminals", r)
		}
	}
}

func connectionsSign(t *testing.T, s string) {
	c, err := iothub.ParseConnection(s)
	if err != nil {
		return
	}
	text, err := iothub.ServiceToken(c, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	if token, err := dps.ParseToken(text); err != nil || !token.Verify(c.SharedAccessKey) {
		t.Fatalf("its own SAS token is refused: %v", err)
	}
}
