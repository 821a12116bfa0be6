package device

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// However a value is printed, it does not show.
func TestAuthorisationValuesDoNotPrint(t *testing.T) {
	const canary = "canary-of-the-owner"
	a := Auth{Owner: []byte(canary), Lockout: []byte(canary)}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "auth", a, "pointer", &a)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "auth", a, "inside", struct{ A Auth }{a})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb, a)
		fmt.Fprintf(&out, verb, &a)
		fmt.Fprintf(&out, verb, struct{ A Auth }{a})
	}
	if err := json.NewEncoder(&out).Encode(a); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprint([]byte(canary)), "Y2FuYXJ5"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q shows in\n%s", form, &out)
		}
	}
	if !strings.Contains(out.String(), "owner given, endorsement empty, lockout given") {
		t.Errorf("their presence does not show in\n%s", &out)
	}
}

func TestWipeLeavesNothing(t *testing.T) {
	owner := []byte("secret")
	a := Auth{Owner: owner}
	a.Wipe()
	if !bytes.Equal(owner, make([]byte, 6)) || a.Owner != nil {
		t.Errorf("left: %q", owner)
	}
}

func TestValueIsTooLongForAnyTPM(t *testing.T) {
	a := Auth{Endorsement: bytes.Repeat([]byte("s"), MaxAuth+1)}
	if err := a.valid(); err == nil || !strings.Contains(err.Error(), "endorsement") || strings.Contains(err.Error(), "ss") {
		t.Errorf("got %v", err)
	}
	a.Endorsement = a.Endorsement[:MaxAuth]
	if err := a.valid(); err != nil {
		t.Error(err)
	}
}
