package device_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
)

const (
	scope       = "0ne00000000"
	hubName     = "hub.example"
	operationID = "4.d0a671905ea5b2c8.4b1f"
)

// service is a provisioning service for one device. It does what the reference
// says, unless a contrary answer is queued for the step.
type service struct {
	t      *testing.T
	server *httptest.Server
	id     *device.Identity
	hubKey []byte

	mu           sync.Mutex
	challengeKey []byte
	polls        int // until assigned
	requests     []request
	contrary     map[string][]http.HandlerFunc
}

type request struct {
	step, method, target string
	header               http.Header
	body                 string
}

// Steps by their requests.
const (
	first  = "challenge"
	prove  = "prove"
	poll   = "poll"
	lookup = "lookup"
)

func newService(t *testing.T, id *device.Identity) *service {
	s := &service{t: t, id: id, hubKey: newKey(), polls: 1, contrary: make(map[string][]http.HandlerFunc)}
	s.server = httptest.NewUnstartedServer(s)
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	return s
}

// answers queues contrary answers.
func (s *service) answers(step string, handlers ...http.HandlerFunc) {
	s.contrary[step] = append(s.contrary[step], handlers...)
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	step := stepOf(r)
	s.requests = append(s.requests, request{step, r.Method, r.URL.RequestURI(), r.Header.Clone(), string(body)})
	if queue := s.contrary[step]; len(queue) > 0 {
		s.contrary[step] = queue[1:]
		queue[0](w, r)
		return
	}
	switch step {
	case first:
		s.challenge(w)
	default:
		if !s.proven(r) {
			answer(http.StatusUnauthorized, "", string(dps.EncodeError(dps.CodeUnauthorized, "", "t-1", time.Now())))(w, r)
			return
		}
		s.serveProven(step, w, r)
	}
}

func stepOf(r *http.Request) string {
	switch {
	case r.Method == http.MethodPut && r.Header.Get("Authorization") == "":
		return first
	case r.Method == http.MethodPut:
		return prove
	case r.Method == http.MethodGet:
		return poll
	}
	return lookup
}

func (s *service) challenge(w http.ResponseWriter) {
	s.challengeKey = newKey()
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusUnauthorized)
	w.Write(dps.EncodeChallenge("t-0", seal(s.t, s.id.EK(), s.id.SRK(), s.challengeKey), time.Now()))
}

func (s *service) proven(r *http.Request) bool {
	token, err := dps.ParseToken(r.Header.Get("Authorization"))
	return err == nil && token.Verify(s.challengeKey) && token.KeyName == "registration" &&
		token.ResourceIs(scope+"/registrations/"+s.id.RegistrationID())
}

func (s *service) serveProven(step string, w http.ResponseWriter, r *http.Request) {
	state := func(status string) string {
		return fmt.Sprintf(`{"operationId":%q,"status":%q,"registrationState":{"registrationId":%q,"status":%q}}`,
			operationID, status, s.id.RegistrationID(), status)
	}
	switch {
	case step == lookup:
		answer(200, "", fmt.Sprintf(`{"registrationId":%q,"status":"assigned","assignedHub":%q}`, s.id.RegistrationID(), hubName))(w, r)
	case step == prove:
		answer(http.StatusAccepted, "3", fmt.Sprintf(`{"operationId":%q,"status":"assigning"}`, operationID))(w, r)
	case s.polls > 0:
		s.polls--
		answer(http.StatusAccepted, "3", state("assigning"))(w, r)
	default:
		answer(200, "", s.assigned(seal(s.t, s.id.EK(), s.id.SRK(), s.hubKey)))(w, r)
	}
}

func (s *service) assigned(blob []byte) string {
	key, _ := json.Marshal(blob)
	return fmt.Sprintf(`{"operationId":%q,"status":"assigned","registrationState":{"registrationId":%q,
		"createdDateTimeUtc":"2026-11-24T06:00:00.1Z","assignedHub":%q,"deviceId":"device-1","status":"assigned",
		"substatus":"initialAssignment","lastUpdatedDateTimeUtc":"2026-11-24T06:00:00.2Z","etag":"IjAi",
		"tpm":{"authenticationKey":%s},"payload":{"tier":7}}}`, operationID, s.id.RegistrationID(), hubName, key)
}

// answer is a handler with a fixed answer.
func answer(status int, retryAfter, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// cutConnection ends the connection without an answer.
func cutConnection(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// cutAnswer announces more than it sends.
func cutAnswer(w http.ResponseWriter, _ *http.Request) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err == nil {
		buf.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"operationId\"")
		buf.Flush()
		conn.Close()
	}
}

func (s *service) sequence() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	steps := make([]string, len(s.requests))
	for i, r := range s.requests {
		steps[i] = r.step
	}
	return strings.Join(steps, " ")
}

func (s *service) config() device.ClientConfig {
	roots := x509.NewCertPool()
	roots.AddCert(s.server.Certificate())
	return device.ClientConfig{Endpoint: s.server.URL, IDScope: scope, RootCAs: roots}
}

// clock is a clock that waiting moves.
type clock struct {
	time  time.Time
	waits []time.Duration
}

func (c *clock) now() time.Time { return c.time }

func (c *clock) wait(ctx context.Context, d time.Duration) error {
	c.waits = append(c.waits, d)
	c.time = c.time.Add(d)
	return ctx.Err()
}

func (s *service) client(config device.ClientConfig) (*device.Client, *clock) {
	s.t.Helper()
	client, err := device.NewClient(config)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &clock{time: time.Now()}
	client.SetClock(c.now, c.wait)
	return client, c
}
