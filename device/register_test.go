package device_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/simtpm"
)

func TestDeviceRegistersAndSignsForItsHub(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		var steps []string
		note := func(e device.Event) { steps = append(steps, e.Step) }
		id := openIdentity(t, tpm, device.WithAlgorithm(a), device.WithProgress(note))
		defer closeAll(t, id)
		s := newService(t, id)
		config := s.config()
		config.Progress = note
		client, clock := s.client(config)
		steps = nil
		got, err := client.Register(t.Context(), id, device.RegisterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(t, got.Key)
		if got.Hub != hubName || got.DeviceID != "device-1" || got.RegistrationID != id.RegistrationID() ||
			got.OperationID != operationID || got.Status != "assigned" || got.Substatus != "initialAssignment" || string(got.Payload) != `{"tier":7}` {
			t.Errorf("got %+v", got)
		}
		if want := "challenge prove poll poll"; s.sequence() != want {
			t.Errorf("requests %s, want %s", s.sequence(), want)
		}
		// At once after the 202, although it said 3 s; then as asked.
		if want := []time.Duration{3 * time.Second}; !slices.Equal(clock.waits, want) {
			t.Errorf("waited %v, want %v", clock.waits, want)
		}
		if open := openHandles(t, tpm); len(open) != 1 {
			t.Errorf("open handles %x, want the hub key alone", open)
		}
		wantSteps := []string{device.StepChallenge, device.StepActivateCredential, device.StepImport, device.StepLoad,
			device.StepSign, device.StepProve, device.StepPoll, device.StepWait, device.StepPoll,
			device.StepActivateCredential, device.StepImport, device.StepLoad}
		if !slices.Equal(steps, wantSteps) {
			t.Errorf("steps %v", steps)
		}
		mustLogIn(t, got, s.hubKey)
	})
}

// mustLogIn checks the SAS token as a hub does.
func mustLogIn(t *testing.T, a *device.Assignment, hubKey []byte) {
	t.Helper()
	text, err := device.HubToken(a.Key, a.Hub, a.DeviceID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, "SharedAccessSignature sr=hub.example%2Fdevices%2Fdevice-1&sig=") || strings.Contains(text, "skn") {
		t.Errorf("SAS token %s", text)
	}
	token, err := dps.ParseToken(text)
	if err != nil || !token.Verify(hubKey) || !token.ResourceIs("hub.example/devices/device-1") {
		t.Errorf("the hub refuses %s: %v", text, err)
	}
	if left := time.Until(token.Expiry); left < 59*time.Minute || left > time.Hour {
		t.Errorf("valid for %v", left)
	}
	if got, want := device.HubUsername(a.Hub, a.DeviceID), "hub.example/device-1/?api-version=2021-04-12"; got != want {
		t.Errorf("user name %q, want %q", got, want)
	}
}

func TestRequestsHaveTheFormOfTheProtocol(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	client, _ := s.client(s.config())
	got, err := client.Register(t.Context(), id, device.RegisterOptions{Payload: json.RawMessage(`{"a":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, got.Key)
	ek, _ := json.Marshal(id.EK())
	srk, _ := json.Marshal(id.SRK())
	body := fmt.Sprintf(`{"registrationId":%q,"tpm":{"endorsementKey":%s,"storageRootKey":%s},"payload":{"a":1}}`, id.RegistrationID(), ek, srk)
	base := "/" + scope + "/registrations/" + id.RegistrationID()
	for i, want := range []request{
		{first, "PUT", base + "/register?api-version=2021-06-01", nil, body},
		{prove, "PUT", base + "/register?api-version=2021-06-01", nil, body},
		{poll, "GET", base + "/operations/" + operationID + "?api-version=2021-06-01", nil, ""},
	} {
		got := s.requests[i]
		if got.method != want.method || got.target != want.target || got.body != want.body {
			t.Errorf("request %d: %s %s %s\nwant %s %s %s", i, got.method, got.target, got.body, want.method, want.target, want.body)
		}
		if got.header.Get("Accept") != "application/json" || got.header.Get("User-Agent") == "" {
			t.Errorf("request %d: header %v", i, got.header)
		}
		if want.body != "" && got.header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("request %d: Content-Type %q", i, got.header.Get("Content-Type"))
		}
	}
	if s.requests[1].header.Get("Authorization") != s.requests[2].header.Get("Authorization") {
		t.Error("the poll has another SAS token than the proof")
	}
}

// Whatever goes wrong for a while, the device gets there.
func TestFailuresThatPassAreTriedAgain(t *testing.T) {
	id := openECC(t)
	throttled := answer(429, "7", string(dps.EncodeError(dps.CodeTooManyRequests, "", "t", time.Now())))
	for _, step := range []string{first, prove, poll} {
		for name, c := range map[string]struct {
			answer http.HandlerFunc
			atMost time.Duration // of the first wait
			atWait time.Duration
		}{
			"429 with Retry-After":    {throttled, 8 * time.Second, 7 * time.Second},
			"429 without":             {answer(429, "", ""), time.Second, time.Second / 2},
			"500 of a proxy":          {answer(500, "", "<html>oops"), time.Second, time.Second / 2},
			"503 with Retry-After":    {answer(503, "20", ""), 21 * time.Second, 20 * time.Second},
			"503 with silly waits":    {answer(503, "soon", ""), time.Second, time.Second / 2},
			"connection cut":          {cutConnection, time.Second, time.Second / 2},
			"connection cut midway":   {cutAnswer, time.Second, time.Second / 2},
			"503 with an absurd wait": {answer(503, "315360000", ""), 15*time.Minute + time.Second, 15 * time.Minute},
			"409 of a rival":          {answer(409, "", `{"errorCode":409203}`), time.Second, time.Second / 2},
			"412":                     {answer(412, "", `{"errorCode":412001}`), time.Second, time.Second / 2},
			"408":                     {answer(408, "", ""), time.Second, time.Second / 2},
			"a page of a portal":      {answer(200, "", "<!DOCTYPE html><title>Welcome"), time.Second, time.Second / 2},
			"redirect of a portal":    {answer(302, "", ""), time.Second, time.Second / 2},
			"404 of a load balancer":  {answer(404, "", "default backend"), time.Second, time.Second / 2},
			"empty answer":            {answer(200, "", ""), time.Second, time.Second / 2},
		} {
			t.Run(step+"/"+name, func(t *testing.T) {
				s := newService(t, id)
				s.answers(step, c.answer)
				client, clock := s.client(s.config())
				got, err := client.Register(t.Context(), id, device.RegisterOptions{})
				if err != nil {
					t.Fatal(err)
				}
				closeAll(t, got.Key)
				if step == poll && name == "connection cut" {
					return // net/http repeats a GET by itself
				}
				if len(clock.waits) != 2 || clock.waits[0] < c.atWait || clock.waits[0] > c.atMost {
					t.Errorf("waited %v, want %v to %v first", clock.waits, c.atWait, c.atMost)
				}
			})
		}
	}
}

func TestTriesHaveAnEndAndGrowApart(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	for range 20 {
		s.answers(first, answer(503, "", ""))
	}
	client, clock := s.client(s.config())
	_, err := client.Register(t.Context(), id, device.RegisterOptions{})
	var refusal *device.APIError
	if !errors.As(err, &refusal) || refusal.Status != 503 || !strings.Contains(err.Error(), "8 tries") {
		t.Errorf("got %v", err)
	}
	if len(clock.waits) != 7 {
		t.Fatalf("waited %v", clock.waits)
	}
	for i, d := range clock.waits {
		full := min(time.Second<<i, 30*time.Second)
		if d < full/2 || d > full {
			t.Errorf("wait %d: %v, want %v to %v", i, d, full/2, full)
		}
	}
}

func TestRefusalsAreFinalAndSayWhy(t *testing.T) {
	id := openECC(t)
	notEnrolled := answer(404, "", `{"errorCode":404201,"trackingId":"t-9","message":"not \u001b[31menrolled","timestampUtc":"x","info":{"a":"b"},"new":1}`)
	for name, c := range map[string]struct {
		step   string
		answer http.HandlerFunc
		want   device.APIError
	}{
		"unknown id":             {first, notEnrolled, device.APIError{Step: device.StepChallenge, Status: 404, Code: 404201, TrackingID: "t-9", Message: "not  [31menrolled"}},
		"disabled":               {prove, answer(403, "", `{"errorCode":403001,"message":"m"}`), device.APIError{Step: device.StepProve, Status: 403, Code: 403001, Message: "m"}},
		"bad request of a poll":  {poll, answer(400, "", `{"errorCode":400004}`), device.APIError{Step: device.StepPoll, Status: 400, Code: 400004}},
		"401 without a key":      {first, answer(401, "", `{"errorCode":401002,"message":"no"}`), device.APIError{Step: device.StepChallenge, Status: 401, Code: 401002, Message: "no"}},
		"401 with a broken key":  {first, answer(401, "", `{"authenticationKey":"%%%","message":"m"}`), device.APIError{Step: device.StepChallenge, Status: 401, Message: "m"}},
		"members of other types": {first, answer(400, "", `{"errorCode":"x","trackingId":5,"message":{}}`), device.APIError{Step: device.StepChallenge, Status: 400}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, id)
			s.answers(c.step, c.answer)
			client, clock := s.client(s.config())
			_, err := client.Register(t.Context(), id, device.RegisterOptions{})
			var refusal *device.APIError
			if !errors.As(err, &refusal) || *refusal != c.want {
				t.Errorf("got  %#v\nwant %#v", err, c.want)
			}
			if len(clock.waits) != 0 || strings.Contains(fmt.Sprint(err), "sig=") {
				t.Errorf("waited %v, error %v", clock.waits, err)
			}
		})
	}
}

func TestAnswersThatMakeNoSenseAreToldAsSuch(t *testing.T) {
	id := openECC(t)
	other := seal(t, id.EK(), id.SRK(), newKey())
	other[len(other)-30] ^= 1
	state := func(inner string) http.HandlerFunc {
		return answer(200, "", `{"operationId":"o","status":"assigned","registrationState":{"status":"assigned"`+inner+`}}`)
	}
	for name, c := range map[string]struct {
		step   string
		answer http.HandlerFunc
	}{
		"no proof wanted":  {first, answer(200, "", `{"operationId":"o","status":"assigning"}`)},
		"no operation id":  {prove, answer(202, "", `{"status":"assigning"}`)},
		"garbage":          {prove, answer(202, "", "\x00\xff{")},
		"garbage poll":     {poll, answer(200, "", "[]")},
		"empty poll":       {poll, answer(200, "", "")},
		"huge":             {poll, answer(200, "", `{"operationId":"`+strings.Repeat("x", 2<<20)+`"}`)},
		"huge challenge":   {first, answer(401, "", `{"authenticationKey":"`+strings.Repeat("A", 2<<20)+`"}`)},
		"unknown status":   {poll, answer(200, "", `{"operationId":"o","status":"considering"}`)},
		"assigned nowhere": {poll, state(`,"deviceId":"d","tpm":{"authenticationKey":"AAAA"}`)},
		"assigned nameless": {poll,
			state(`,"assignedHub":"h","tpm":{"authenticationKey":"AAAA"}`)},
		"hub is no name":        {poll, state(`,"assignedHub":"h/../x","deviceId":"d","tpm":{"authenticationKey":"AAAA"}`)},
		"device id is no id":    {poll, state(`,"assignedHub":"h","deviceId":"d\u001b[2J","tpm":{"authenticationKey":"AAAA"}`)},
		"assigned without key":  {poll, state(`,"assignedHub":"h","deviceId":"d"`)},
		"assigned without more": {poll, answer(200, "", `{"operationId":"o","status":"assigned"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, id)
			for range 20 {
				s.answers(c.step, c.answer)
			}
			client, clock := s.client(s.config())
			got, err := client.Register(t.Context(), id, device.RegisterOptions{})
			var wrong *device.AnswerError
			if got != nil || !errors.Is(err, device.ErrAnswer) || !errors.As(err, &wrong) || len(err.Error()) > 300 {
				t.Fatalf("got %v after %v, %.400v", got, clock.waits, err)
			}
			// What is no answer of this protocol is asked for thrice, a status that
			// is not known is waited out for a while, the rest is final.
			want := 0
			switch {
			case wrong.Foreign:
				want = 2
			case name == "unknown status":
				want = 10
			}
			if len(clock.waits) != want {
				t.Errorf("waited %v, want %d times: %v", clock.waits, want, err)
			}
		})
	}
}

func TestBlobsThatDoNotOpenEndTheRegistration(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	stranger := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
	foreign := seal(t, stranger.EK(), stranger.SRK(), newKey())
	closeAll(t, stranger)
	if err := tpm.ManufactureReset(); err != nil {
		t.Fatal(err)
	}
	id := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
	defer closeAll(t, id)
	key, _ := json.Marshal(foreign)
	for step, contrary := range map[string]func(s *service) http.HandlerFunc{
		first: func(*service) http.HandlerFunc {
			return answer(401, "", `{"authenticationKey":`+string(key)+`,"keyName":"registration"}`)
		},
		poll: func(s *service) http.HandlerFunc { return answer(200, "", s.assigned(foreign)) },
	} {
		t.Run(step, func(t *testing.T) {
			s := newService(t, id)
			s.answers(step, contrary(s))
			client, _ := s.client(s.config())
			if _, err := client.Register(t.Context(), id, device.RegisterOptions{}); !errors.Is(err, device.ErrNotForThisTPM) {
				t.Errorf("got %v", err)
			}
			mustBeEmpty(t, tpm)
		})
	}
}

func TestStaleChallengeIsReplaced(t *testing.T) {
	id := openECC(t)
	stale := answer(401, "", string(dps.EncodeError(dps.CodeUnauthorized, "", "t", time.Now())))
	for refusals, want := range map[int]string{
		1: "challenge prove challenge prove poll poll",
		9: strings.TrimSpace(strings.Repeat("challenge prove ", 5)),
	} {
		t.Run(fmt.Sprint(refusals), func(t *testing.T) {
			s := newService(t, id)
			for range refusals {
				s.answers(prove, stale)
			}
			client, clock := s.client(s.config())
			got, err := client.Register(t.Context(), id, device.RegisterOptions{})
			if s.sequence() != want {
				t.Errorf("requests %s, want %s", s.sequence(), want)
			}
			if refusals == 9 && len(clock.waits) != 3 {
				t.Errorf("waited %v between five challenges, want all but the first to be waited for", clock.waits)
			}
			if err == nil {
				closeAll(t, got.Key)
			}
			if (err == nil) != (refusals == 1) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestOperationThatFails(t *testing.T) {
	id := openECC(t)
	for status, body := range map[string]string{
		"failed":   `{"operationId":"o","status":"failed","registrationState":{"status":"failed","errorCode":400207,"errorMessage":"no hub"}}`,
		"disabled": `{"operationId":"o","status":"Disabled"}`,
	} {
		t.Run(status, func(t *testing.T) {
			s := newService(t, id)
			s.answers(poll, answer(200, "", body))
			client, _ := s.client(s.config())
			_, err := client.Register(t.Context(), id, device.RegisterOptions{})
			var failure *device.RegistrationError
			if !errors.As(err, &failure) || failure.Status != status || failure.OperationID != operationID {
				t.Fatalf("got %v", err)
			}
			if status == "failed" && (failure.Code != 400207 || failure.Message != "no hub") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRetryAfterOfPollsIsObeyedWithinReason(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	s.polls = 0
	pending := `{"operationId":"x","status":"assigning","registrationState":{"registrationId":"r","status":"assigning"},"later":[1]}`
	s.answers(poll, answer(202, "5", pending), answer(200, "", pending), answer(202, "0", pending),
		answer(202, "-4", pending), answer(202, "1", pending), answer(202, "999999999", pending))
	client, clock := s.client(s.config())
	got, err := client.Register(t.Context(), id, device.RegisterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, got.Key)
	want := []time.Duration{5 * time.Second, 2 * time.Second, 2 * time.Second, 2 * time.Second, time.Second, 15 * time.Minute}
	if !slices.Equal(clock.waits, want) {
		t.Errorf("waited %v, want %v", clock.waits, want)
	}
}

// A hold by the operator can take hours; the proof lives one.
func TestLongWaitSignsTheProofAnew(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	pending := `{"operationId":"x","status":"assigning"}`
	for range 6 {
		s.answers(poll, answer(202, "1200", pending))
	}
	client, clock := s.client(s.config())
	got, err := client.Register(t.Context(), id, device.RegisterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, got.Key)
	tokens := make(map[string]bool)
	for _, r := range s.requests[1:] {
		tokens[r.header.Get("Authorization")] = true
	}
	if len(tokens) < 2 {
		t.Errorf("%d SAS tokens over %v", len(tokens), clock.waits)
	}
}

func TestExpiryFollowsTheServicesClock(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	client, clock := s.client(s.config())
	clock.time = time.Date(1970, 1, 1, 0, 5, 0, 0, time.UTC) // a board without a battery
	got, err := client.Register(t.Context(), id, device.RegisterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, got.Key)
	token, err := dps.ParseToken(s.requests[1].header.Get("Authorization"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Clock.IsZero() {
		t.Error("the assignment does not tell the service's clock")
	}
	if left := time.Until(token.Expiry); left < 59*time.Minute || left > 61*time.Minute {
		t.Errorf("the service sees a SAS token that is valid for %v", left)
	}
}

func TestContextEndsTheWaiting(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	id := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
	defer closeAll(t, id)
	s := newService(t, id)
	client, _ := s.client(s.config())
	ctx, cancel := context.WithCancel(t.Context())
	client.SetClock(time.Now, func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() })
	if _, err := client.Register(ctx, id, device.RegisterOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if want := "challenge prove poll"; s.sequence() != want {
		t.Errorf("requests %s, want %s", s.sequence(), want)
	}
	mustBeEmpty(t, tpm)
}

func TestCertificateThatDoesNotConvinceIsNotTriedAgain(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	config := s.config()
	config.RootCAs = x509.NewCertPool()
	client, clock := s.client(config)
	_, err := client.Register(t.Context(), id, device.RegisterOptions{})
	if err == nil || len(clock.waits) != 0 || s.sequence() != "" {
		t.Errorf("waited %v, requests %q: %v", clock.waits, s.sequence(), err)
	}
}

// The proof must not travel to where a redirect points.
func TestProofIsNotRedirected(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	visited := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visited = true }))
	defer elsewhere.Close()
	for range 3 {
		s.answers(prove, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		})
	}
	client, _ := s.client(s.config())
	if _, err := client.Register(t.Context(), id, device.RegisterOptions{}); err == nil || visited {
		t.Errorf("followed %v: %v", visited, err)
	}
}

func TestConnectAddressReplacesOnlyTheAddress(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	config := s.config()
	u, err := url.Parse(s.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnectAddress = u.Host
	config.Endpoint = "example.com" // in the test server's certificate
	client, _ := s.client(config)
	got, err := client.Register(t.Context(), id, device.RegisterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, got.Key)
	config.Endpoint = "example.net"
	client, _ = s.client(config)
	if _, err := client.Register(t.Context(), id, device.RegisterOptions{}); err == nil {
		t.Error("a certificate for another host was good enough")
	}
}

func TestCallersHTTPClientAndAPIVersionAreUsed(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	own := s.server.Client()
	client, _ := s.client(device.ClientConfig{Endpoint: s.server.URL, IDScope: scope, HTTPClient: own, APIVersion: "2019-03-31"})
	if _, err := client.RequestChallenge(t.Context(), device.Registration{ID: id.RegistrationID(), EK: id.EK(), SRK: id.SRK()}); err != nil {
		t.Fatal(err)
	}
	if target := s.requests[0].target; !strings.HasSuffix(target, "/register?api-version=2019-03-31") {
		t.Errorf("requested %s", target)
	}
	if own.CheckRedirect != nil {
		t.Error("the caller's client was changed")
	}
}

func TestStatusIsLookedUpWithoutRegistering(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	client, _ := s.client(s.config())
	state, err := client.Status(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	if state.Status != "assigned" || state.AssignedHub != hubName || state.HubKey != nil {
		t.Errorf("got %+v", state)
	}
	last := s.requests[len(s.requests)-1]
	if s.sequence() != "challenge lookup" || last.method != "POST" ||
		last.target != "/"+scope+"/registrations/"+id.RegistrationID()+"?api-version=2021-06-01" || strings.Contains(last.body, "payload") {
		t.Errorf("requests %s; %+v", s.sequence(), last)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for name, c := range map[string]device.ClientConfig{
		"no endpoint":       {IDScope: "s"},
		"no scope":          {Endpoint: "h"},
		"plain http":        {Endpoint: "http://h", IDScope: "s"},
		"MQTT":              {Endpoint: "mqtts://h", IDScope: "s"},
		"with a path":       {Endpoint: "https://h/p", IDScope: "s"},
		"with a password":   {Endpoint: "https://u:p@h", IDScope: "s"},
		"something else":    {Endpoint: "https://h:port", IDScope: "s"},
		"nothing but https": {Endpoint: "https://", IDScope: "s"},
	} {
		if _, err := device.NewClient(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func openECC(t *testing.T) *device.Identity {
	t.Helper()
	tpm := simtpm.NewSimulator(t)
	id := openIdentity(t, tpm, device.WithAlgorithm(device.ECCP256))
	t.Cleanup(func() {
		closeAll(t, id)
		mustBeEmpty(t, tpm)
	})
	return id
}
