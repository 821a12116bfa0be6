package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/dps"
)

// sourceAnswering is a source of one enrollment, whose own request is answered as told.
func sourceAnswering(t *testing.T, one http.HandlerFunc) serviceSource {
	return serviceSource{from: &patientClient{client: clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/enrollments/query":
			_, _ = io.WriteString(w, `[{"registrationId":"a","attestation":{"type":"tpm","tpm":{"endorsementKey":"AAAA"}}}]`)
		case "/enrollments/a":
			one(w, r)
		default:
			_, _ = io.WriteString(w, `[]`)
		}
	})}}
}

func refuseWith(status int, code dps.Code) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(dps.ErrorBody{ErrorCode: int(code), Message: "No."}) // the client may be gone
	}
}

// An entry whose registration cannot be read would move without its device id: only one that is gone may go without.
func TestRefusedRegistrationEndsTheMove(t *testing.T) {
	for _, c := range []struct {
		status  int
		code    dps.Code
		entries int
		failure string
	}{
		{http.StatusNotFound, dps.CodeNotEnrolled, 1, ""},
		{http.StatusUnauthorized, dps.CodeUnauthorized, 0, "reading the source: the service refused: No."},
		{http.StatusBadRequest, dps.CodeBadRequest, 0, "reading the source: the service refused: No."},
	} {
		entries, failure := 0, ""
		err := sourceAnswering(t, refuseWith(c.status, c.code)).each(t.Context(), newMoveReport(false), func(sourceEntry) error { entries++; return nil })
		if err != nil {
			failure = err.Error()
		}
		if entries != c.entries || !strings.HasPrefix(failure, c.failure) || c.failure == "" && failure != "" {
			t.Errorf("%d: %d entries, %q", c.status, entries, failure)
		}
	}
}

// answering is a network in which every request has one answer.
type answering func(*http.Request) *http.Response

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }

// A service that has too much to do says when to come again, and is asked then and not before.
func TestBusyServiceIsAskedAgainWhenItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := newClient(someString, "", "")
		if err != nil {
			t.Fatal(err)
		}
		busy := []string{"7", "", "3600", "0"} // then it answers
		c.http.Transport = answering(func(*http.Request) *http.Response {
			if len(busy) == 0 {
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(`[]`))}
			}
			header := http.Header{}
			if busy[0] != "" {
				header.Set("Retry-After", busy[0])
			}
			busy = busy[1:]
			return &http.Response{StatusCode: http.StatusTooManyRequests, Status: "429 Too Many Requests", Header: header, Body: http.NoBody}
		})
		began := time.Now()
		_, _, err = (&patientClient{client: c}).call(t.Context(), http.MethodGet, "/enrollments/a", versioned(), nil, nil)
		const want = 7*time.Second + time.Second + patientWait // without advice twice the wait of the first time, half a second
		if took := time.Since(began); err != nil || took != want {
			t.Errorf("%v after %v, want %v", err, took, want)
		}
	})
}
