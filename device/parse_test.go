package device

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// sized joins fields with a 2-byte size before each.
func sized(fields ...[]byte) []byte {
	var b []byte
	for _, field := range fields {
		b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
		b = append(b, field...)
	}
	return b
}

// goodPublic is the public area of reference/1.4.
func goodPublic() []byte {
	return append([]byte{0, 8, 0, 0x0b, 0, 4, 4, 0x40, 0, 0, 0, 5, 0, 0x0b, 0, 32}, bytes.Repeat([]byte{7}, 32)...)
}

func TestBlobIsTakenApart(t *testing.T) {
	for name, rest := range map[string][]byte{"empty": {}, "filled": []byte("uri")} {
		b, err := parseBlob(sized([]byte("a"), []byte("bb"), []byte("ccc"), []byte("dddd"), goodPublic(), rest))
		if err != nil {
			t.Fatalf("last field %s: %v", name, err)
		}
		if string(b.credential) != "a" || string(b.credentialSecret) != "bb" || string(b.duplicate) != "ccc" ||
			string(b.duplicateSecret) != "dddd" || !bytes.Equal(tpm2.Marshal(b.public), sized(goodPublic())) {
			t.Errorf("last field %s: got %+v", name, b)
		}
	}
}

func TestBlobIsReadStrictly(t *testing.T) {
	blobWith := func(public []byte) []byte { return sized([]byte("a"), nil, nil, nil, public, nil) }
	changed := func(at int, value byte) []byte {
		public := goodPublic()
		public[at] = value
		return blobWith(public)
	}
	good := blobWith(goodPublic())
	if _, err := parseBlob(good); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty":                   {},
		"one byte":                {0},
		"last field missing":      good[:len(good)-2],
		"last size cut":           good[:len(good)-1],
		"a byte too many":         append(bytes.Clone(good), 0),
		"field past the end":      {0xff, 0xff, 0},
		"huge":                    make([]byte, maxBlob+1),
		"public empty":            blobWith(nil),
		"public too long":         blobWith(append(goodPublic(), 0)),
		"RSA key":                 changed(1, 1),
		"SHA-1 name":              changed(3, 4),
		"not for signing":         changed(5, 0),
		"for decrypting":          changed(5, 6),
		"with a policy":           changed(9, 32),
		"no HMAC":                 changed(11, 0x0a),
		"HMAC with SHA-1":         changed(13, 4),
		"unique of another size":  changed(15, 31),
		"unique of a huge size":   changed(14, 0xff),
		"sizes that only overlap": bytes.Repeat([]byte{0, 1}, 9),
	} {
		if _, err := parseBlob(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzBlob(f *testing.F) {
	f.Add(sized([]byte("a"), []byte("b"), []byte("c"), []byte("d"), goodPublic(), nil))
	f.Add([]byte{0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := parseBlob(in)
		if err != nil {
			return
		}
		public := tpm2.Marshal(b.public)
		again := sized(b.credential, b.credentialSecret, b.duplicate, b.duplicateSecret, public[2:])
		if !bytes.HasPrefix(in, again) {
			t.Errorf("%x read as %x", in, again)
		}
	})
}

func FuzzSavedKey(f *testing.F) {
	f.Add(sized(goodPublic(), []byte("private")))
	f.Fuzz(func(t *testing.T, in []byte) {
		public, private, err := parseSaved(in)
		if err == nil && !bytes.Equal(append(tpm2.Marshal(public), tpm2.Marshal(private)...), in) {
			t.Errorf("%x does not come back", in)
		}
	})
}

// The seeds are answers in the forms of the reference, good and bad.
func FuzzAnswer(f *testing.F) {
	blob := base64.StdEncoding.EncodeToString(sized(nil, nil, nil, nil, goodPublic(), nil))
	f.Add(401, "2", `{"message":"m","authenticationKey":"`+blob+`","keyName":"registration","trackingId":"t","errorCode":401002}`)
	f.Add(202, "3", `{"operationId":"4.d0a671905ea5b2c8.4b1f","status":"assigning"}`)
	f.Add(200, "", `{"operationId":"o","status":"assigned","registrationState":{"registrationId":"r","assignedHub":"h",
		"deviceId":"d","status":"assigned","substatus":"initialAssignment","tpm":{"authenticationKey":"`+blob+`"},"payload":{}}}`)
	f.Add(200, "", `{"operationId":"o","status":"failed","registrationState":{"errorCode":400207,"errorMessage":"x"}}`)
	f.Add(404, "", `{"errorCode":"x","message":3}`)
	f.Add(500, "9999999999", "<html>")
	f.Add(404, "Wed, 21 Oct 2026 07:28:00 GMT", `{"errorCode":404201}`)
	f.Add(200, "Wed, 21 Oct 9999 07:28:00 GMT", `{"OPERATIONID":"o","operationId":"p","Status":"Thinking","registrationState":null}`)
	f.Fuzz(func(t *testing.T, status int, retryAfter, body string) {
		header := http.Header{"Retry-After": {retryAfter}, "Date": {"Wed, 21 Oct 2026 07:27:00 GMT"}}
		for _, step := range []string{StepChallenge, StepProve, StepPoll, StepLookup} {
			response := &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}
			a, err := readAnswer(step, response)
			if err != nil {
				mustBeShort(t, err)
				continue
			}
			if a.retryAfter < 0 || a.retryAfter > maxRetryAfter {
				t.Errorf("Retry-After %q gives %v", retryAfter, a.retryAfter)
			}
			mustBeShort(t, judge(t, a))
		}
	})
}

// judge reads an answer as the step does. There is no Identity: nothing may get
// as far as the TPM without a key blob.
func judge(t *testing.T, a *answer) error {
	switch a.step {
	case StepChallenge:
		challenge, err := a.challenge()
		if err == nil && len(challenge.Blob) == 0 {
			t.Error("a challenge without a blob")
		}
		return err
	case StepLookup:
		_, err := a.lookup()
		return err
	}
	op, err := a.operation()
	if err != nil {
		return err
	}
	_ = op.describe()
	if op.State != nil && len(op.State.HubKey) > 0 && op.Status == "assigned" {
		return nil
	}
	if _, err = openAssignment(nil, "r", op); err == nil {
		t.Error("assigned without a key")
	}
	return err
}

// mustBeShort: an error must not repeat megabytes or control characters of an
// answer, and there is always something to be done about it.
func mustBeShort(t *testing.T, err error) {
	if err == nil {
		return
	}
	if len(err.Error()) > 3*maxShown+200 || strings.ContainsAny(err.Error(), "\x00\x1b\n") {
		t.Errorf("error text %q", err)
	}
	if RemedyFor(err) == "" || RetryAfter(err) > maxRetryAfter {
		t.Errorf("remedy %q after %v", RemedyFor(err), RetryAfter(err))
	}
}

// FuzzRetryAfter: whatever a service asks for neither freezes the device nor
// makes it spin.
func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"", "0", "3", " 7 ", "-1", "1e3", "315360000", "99999999999999999999999", "soon",
		"Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", "Wednesday, 21-Oct-26 07:28:00 GMT"} {
		f.Add(value, "Wed, 21 Oct 2026 07:27:00 GMT")
	}
	f.Add("Wed, 21 Oct 2026 07:28:00 GMT", "yesterday")
	f.Fuzz(func(t *testing.T, value, date string) {
		asked := parseRetryAfter(http.Header{"Retry-After": {value}, "Date": {date}})
		if asked < 0 || asked > maxRetryAfter {
			t.Errorf("%q at %q gives %v", value, date, asked)
		}
		if pause := pollPause(asked, 0); pause < minPollPause || pause > maxRetryAfter {
			t.Errorf("%q at %q: polls are %v apart", value, date, pause)
		}
		if pause := pauseAfter(&APIError{RetryAfter: asked}, firstPause); pause < firstPause/2 || pause > maxRetryAfter+firstPause {
			t.Errorf("%q at %q: tries are %v apart", value, date, pause)
		}
	})
}

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	const date = "Wed, 21 Oct 2026 07:27:00 GMT"
	for _, c := range []struct {
		value, date string
		want        time.Duration
	}{
		{"3", "", 3 * time.Second}, {" 3 ", "", 3 * time.Second}, {"0", "", 0}, {"-3", "", 0}, {"3.5", "", 0}, {"soon", "", 0},
		{"315360000", "", maxRetryAfter}, {strings.Repeat("9", 40), "", maxRetryAfter},
		{"Wed, 21 Oct 2026 07:28:00 GMT", date, time.Minute},
		{"Wed, 21 Oct 2026 07:26:00 GMT", date, 0},
		{"Wed, 21 Oct 2036 07:26:00 GMT", date, maxRetryAfter},
		{"Wed, 21 Oct 2026 07:28:00 GMT", "", 0},
		{"Wednesday, 21-Oct-26 07:28:00 GMT", date, time.Minute},
	} {
		if got := parseRetryAfter(http.Header{"Retry-After": {c.value}, "Date": {c.date}}); got != c.want {
			t.Errorf("%q at %q: got %v, want %v", c.value, c.date, got, c.want)
		}
	}
}
