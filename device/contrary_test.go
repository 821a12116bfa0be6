package device_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/device"
)

// An operation that the service has forgotten is begun anew: three times, each
// after a longer pause.
func TestAnOperationThatIsGoneIsBegunAnew(t *testing.T) {
	id := openECC(t)
	for _, status := range []int{401, 404, 410} {
		for _, times := range []int{1, 2, 9} {
			t.Run(fmt.Sprintf("%d, %d times", status, times), func(t *testing.T) {
				s := newService(t, id)
				for range times {
					s.answers(poll, answer(status, "", `{"errorCode":404203,"message":"Operation not found."}`))
				}
				client, clock := s.client(s.config())
				got, err := client.Register(t.Context(), id, device.RegisterOptions{})
				if times < 3 {
					if err != nil {
						t.Fatal(err)
					}
					closeAll(t, got.Key)
					return
				}
				var refusal *device.APIError
				if !errors.As(err, &refusal) || refusal.Status != status || refusal.Step != device.StepPoll || len(clock.waits) != 2 {
					t.Errorf("after %v: %v", clock.waits, err)
				}
				if want := strings.TrimSpace(strings.Repeat("challenge prove poll ", 3)); s.sequence() != want {
					t.Errorf("requests %s, want %s", s.sequence(), want)
				}
			})
		}
	}
}

// A service that is "assigning" for ever is asked less and less, until ctx ends.
func TestAssigningForEverIsAskedMoreAndMoreSeldom(t *testing.T) {
	id := openECC(t)
	for _, retryAfter := range []string{"", "0", "1", "3"} {
		t.Run("Retry-After "+retryAfter, func(t *testing.T) {
			s := newService(t, id)
			s.polls = 1 << 30
			client, clock := s.client(s.config())
			for range 2000 {
				s.answers(poll, answer(202, retryAfter, `{"operationId":"o","status":"Assigning"}`))
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun := clock.time
			client.SetClock(clock.now, func(ctx context.Context, d time.Duration) error {
				if clock.time.Sub(begun) > 24*time.Hour {
					cancel()
				}
				return clock.wait(ctx, d)
			})
			_, err := client.Register(ctx, id, device.RegisterOptions{})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			if n := len(clock.waits); n > 1600 || clock.waits[n-1] != time.Minute {
				t.Errorf("%d polls in a day, the last after %v", n, clock.waits[n-1])
			}
			for i, d := range clock.waits {
				if d < time.Second || i > 0 && d < clock.waits[i-1] {
					t.Fatalf("pause %d is %v after %v", i, d, clock.waits[max(0, i-1)])
				}
			}
		})
	}
}

// The forms in which the same good answers may come.
func TestGoodAnswersInOtherForms(t *testing.T) {
	id := openECC(t)
	good := func(s *service, change func(string) string) http.HandlerFunc {
		return answer(200, "", change(s.assigned(seal(s.t, id.EK(), id.SRK(), s.hubKey))))
	}
	same := func(body string) string { return body }
	for name, c := range map[string]struct {
		step   string
		answer func(s *service) http.HandlerFunc
	}{
		"200 instead of 202": {prove, func(*service) http.HandlerFunc {
			return answer(200, "", `{"operationId":"`+operationID+`","status":"assigning"}`)
		}},
		"assigned at once": {prove, func(s *service) http.HandlerFunc { return good(s, same) }},
		"assigned at once, no operation id": {prove, func(s *service) http.HandlerFunc {
			return good(s, func(body string) string {
				return strings.Replace(body, `"operationId":"`+operationID+`",`, "", 1)
			})
		}},
		"202 with the end": {poll, func(s *service) http.HandlerFunc {
			return answer(202, "3", s.assigned(seal(s.t, id.EK(), id.SRK(), s.hubKey)))
		}},
		"other casing": {poll, func(s *service) http.HandlerFunc {
			return good(s, strings.NewReplacer(`"status"`, `"Status"`, `"assigned"`, `"ASSIGNED"`, `"assignedHub"`, `"AssignedHub"`,
				`"deviceId"`, `"DEVICEID"`, `"authenticationKey"`, `"AuthenticationKey"`).Replace)
		}},
		"members that nobody knows": {poll, func(s *service) http.HandlerFunc {
			return good(s, func(body string) string {
				return `{"next":{"deep":[[[{"status":"failed"}]]]},"retry":1e999,` + body[1:]
			})
		}},
		"members twice, the last one counts": {poll, func(s *service) http.HandlerFunc {
			return good(s, func(body string) string { return `{"status":"failed","operationId":"x",` + body[1:] })
		}},
		"a status that nobody knows": {poll, func(*service) http.HandlerFunc {
			return answer(200, "", `{"operationId":"o","status":"evaluating","registrationState":{"status":"evaluating"}}`)
		}},
		"no status": {poll, func(*service) http.HandlerFunc { return answer(200, "", `{"operationId":"o"}`) }},
		"another content type": {poll, func(s *service) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				io.WriteString(w, s.assigned(seal(s.t, id.EK(), id.SRK(), s.hubKey)))
			}
		}},
		"gzip that nobody asked for": {poll, func(s *service) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Accept-Encoding") != "" {
					s.t.Error("this test needs a client that does not ask for it")
				}
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				io.WriteString(z, s.assigned(seal(s.t, id.EK(), id.SRK(), s.hubKey)))
				z.Close()
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, id)
			s.answers(c.step, c.answer(s))
			config := s.config()
			if strings.HasPrefix(name, "gzip") {
				own := s.server.Client()
				own.Transport.(*http.Transport).DisableCompression = true
				config.HTTPClient = own
			}
			client, _ := s.client(config)
			got, err := client.Register(t.Context(), id, device.RegisterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(t, got.Key)
			if got.Hub != hubName || got.DeviceID != "device-1" || got.Status != "assigned" {
				t.Errorf("got %+v", got)
			}
			mustLogIn(t, got, s.hubKey)
		})
	}
}

// A bomb: a megabyte is where reading ends, packed or not.
func TestAPackedAnswerIsBoundedUnpacked(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	for range 5 {
		s.answers(first, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.CopyN(z, zeros{}, 64<<20)
			z.Close()
		})
	}
	client, _ := s.client(s.config())
	_, err := client.Register(t.Context(), id, device.RegisterOptions{})
	if !errors.Is(err, device.ErrAnswer) || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// What may be done about an error is part of it.
func TestEachErrorHasARemedy(t *testing.T) {
	id := openECC(t)
	storm := answer(429, "3", `{"errorCode":429001}`)
	failed := func(code int64) http.HandlerFunc {
		return answer(200, "", fmt.Sprintf(`{"operationId":"o","status":"failed","registrationState":{"status":"failed","errorCode":%d}}`, code))
	}
	for name, c := range map[string]struct {
		step      string
		answer    http.HandlerFunc
		want      device.Remedy
		temporary bool
	}{
		"429 storm":              {first, storm, device.RemedyWait, true},
		"503":                    {poll, answer(503, "", ""), device.RemedyWait, true},
		"connection cut":         {prove, cutConnection, device.RemedyWait, true},
		"answer cut":             {prove, cutAnswer, device.RemedyWait, true},
		"not enrolled":           {first, answer(404, "", `{"errorCode":404201}`), device.RemedyOperator, false},
		"disabled":               {prove, answer(403, "", `{"errorCode":403001}`), device.RemedyOperator, false},
		"no challenge":           {first, answer(401, "", `{"errorCode":401002}`), device.RemedyOperator, false},
		"proof always refused":   {prove, answer(401, "", `{"errorCode":401002}`), device.RemedyWait, true},
		"bad request":            {prove, answer(400, "", `{"errorCode":400004}`), device.RemedyCaller, false},
		"portal, a page":         {first, answer(200, "", "<html>"), device.RemedyNetwork, true},
		"portal, a redirect":     {first, answer(302, "", "<html>"), device.RemedyNetwork, true},
		"portal, 511":            {first, answer(511, "", "<html>"), device.RemedyNetwork, true},
		"404 of a balancer":      {first, answer(404, "", ""), device.RemedyNetwork, true},
		"JSON of somebody":       {first, answer(404, "", `{"error":"not found"}`), device.RemedyNetwork, true},
		"no proof wanted":        {first, answer(200, "", `{}`), device.RemedyOperator, false},
		"failed, no hub":         {poll, failed(400208), device.RemedyOperator, false},
		"failed, newer one":      {poll, failed(409203), device.RemedyWait, true},
		"failed, hub is away":    {poll, failed(503001), device.RemedyWait, true},
		"failed, code of 32 bit": {poll, failed(1 << 31), device.RemedyOperator, false},
		"disabled at the end":    {poll, answer(200, "", `{"operationId":"o","status":"disabled"}`), device.RemedyOperator, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, id)
			for range 20 {
				s.answers(c.step, c.answer)
			}
			client, _ := s.client(s.config())
			_, err := client.Register(t.Context(), id, device.RegisterOptions{})
			if got := device.RemedyFor(err); got != c.want || device.Temporary(err) != c.temporary {
				t.Errorf("remedy %q, temporary %v, of %v", got, device.Temporary(err), err)
			}
			if want := map[bool]time.Duration{true: 3 * time.Second}[name == "429 storm"]; device.RetryAfter(err) != want {
				t.Errorf("to be tried after %v", device.RetryAfter(err))
			}
		})
	}
}

func TestRemediesOfTheDeviceItself(t *testing.T) {
	for want, errs := range map[device.Remedy][]error{
		"":                    {nil},
		device.RemedyRegister: {device.ErrOtherOwner, fmt.Errorf("x: %w", device.ErrNotForThisTPM)},
		device.RemedyWait: {device.ErrBusy, device.ErrStalled, context.DeadlineExceeded,
			&device.TPMError{Command: "TPM2_Load", Err: tpm2.TPMRCObjectMemory}},
		device.RemedyTPM:    {&device.TPMError{Command: "TPM2_Load", Err: errors.New("unplugged")}},
		device.RemedyCaller: {context.Canceled, errors.New("else"), device.ErrClosed},
	} {
		for _, err := range errs {
			if got := device.RemedyFor(err); got != want || device.Temporary(err) != (want == device.RemedyWait) {
				t.Errorf("%v: remedy %q, temporary %v", err, got, device.Temporary(err))
			}
		}
	}
}
