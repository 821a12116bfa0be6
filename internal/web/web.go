// Package web is what the two HTTP rooms share: reading a request within limits, the one form of an answer, and what is written
// about it afterwards. It knows no route; the device API and the management API bring theirs.
//
// It guarantees that every request ends in exactly one answer, one log line, one count and one remembered decision, in that order, and
// that nothing inside an error reaches the answer.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Limits bound what one request may cost. All are positive.
type Limits struct {
	Body       time.Duration // from the end of the header to the last byte of the body
	Handler    time.Duration // for the work after admission
	Concurrent int           // requests at work
	Parked     int           // requests waiting for a place
	Wait       time.Duration // how long one waits before it is refused
}

// DefaultLimits suit a small machine.
var DefaultLimits = Limits{Body: 10 * time.Second, Handler: 20 * time.Second, Concurrent: 128, Parked: 256, Wait: 5 * time.Second}

// Server answers requests for one API.
type Server struct {
	core    *registration.Core
	log     *slog.Logger
	metrics *Metrics
	name    string // of the API, in logs and metrics
	limits  *atomic.Pointer[gated]
	bodies  *semaphore.Weighted
	streams chan struct{}
	shared  *Shared // for its drain
	candid  bool
	refusal func(fault *registration.Fault, sentence string, at time.Time) (header map[string]string, body []byte)
}

// gated is a set of limits with the gate made for it.
type gated struct {
	Limits
	gate *Gate
}

// Shared holds the limits that all APIs of a process share: one machine, one gate.
type Shared struct {
	current atomic.Pointer[gated]
	bodies  *semaphore.Weighted // bytes of bodies above the usual size that may be in memory: they are read before the gate
	streams chan struct{}       // holds one for each stream under way
	lives   chan struct{}       // holds one for each live stream under way
	ending  context.Context     // ends with the drain
	end     context.CancelFunc

	mu       sync.Mutex
	draining bool
	reading  map[*Stream]struct{} // those under way whose body is read
	waiting  int                  // answers that are waited for
	waits    map[string]int       // of these, by scope
}

// NewShared makes the shared limits.
func NewShared(l Limits) *Shared {
	ending, end := context.WithCancel(context.Background())
	s := &Shared{ending: ending, end: end, bodies: semaphore.NewWeighted(BodyBudget), streams: make(chan struct{}, StreamPlaces), lives: make(chan struct{}, LivePlaces), waits: map[string]int{}, reading: map[*Stream]struct{}{}}
	s.Set(l)
	return s
}

// Set changes the limits; requests at work finish under the old ones.
func (s *Shared) Set(l Limits) {
	s.current.Store(&gated{l, NewGate(l.Concurrent, l.Parked, l.Wait)})
}

// Drain tells the streams of all APIs to come to an end: Stream.Draining. What is waited for is waited for no more.
func (s *Shared) Drain() {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for stream := range s.reading {
		stream.endReading()
	}
}

// watch has a stream's reading end with the drain, until stop is called.
func (s *Shared) watch(stream *Stream) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading[stream] = struct{}{}
	if s.draining {
		stream.endReading()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.reading, stream)
	}
}

// NewServer makes the server of the API called name.
func NewServer(name string, core *registration.Core, log *slog.Logger, metrics *Metrics, shared *Shared) *Server {
	return &Server{core: core, log: log, metrics: metrics, name: name, limits: &shared.current, bodies: shared.bodies, streams: shared.streams, shared: shared,
		refusal: provisioning}
}

// provisioning is the form of refusals of the provisioning service.
func provisioning(fault *registration.Fault, sentence string, at time.Time) (map[string]string, []byte) {
	return map[string]string{"x-ms-error-code": strconv.Itoa(int(fault.Code))}, dps.EncodeError(fault.Code, sentence, fault.TrackingID, at)
}

// Refusing has the server's refusals take another form than the provisioning service's. A sentence is what there is to say besides the code, or empty.
// It is called before the first request.
func (s *Server) Refusing(form func(fault *registration.Fault, sentence string, at time.Time) (header map[string]string, body []byte)) {
	s.refusal = form
}

// Candid has the server tell its callers, who are operators, what troubles the store. It is called before the first request.
func (s *Server) Candid() { s.candid = true }

// Call is one request as a handler sees it.
type Call struct {
	*http.Request
	Arrived time.Time
	Address string
	Body    []byte
}

// Reply is a handler's answer that is not an error.
type Reply struct {
	Status     int
	Body       []byte            // JSON, or empty
	Header     map[string]string // further headers, in the letter case of the wire
	RetryAfter time.Duration
	TrackingID string
	Reason     registration.Reason
	ID         string // what the request was about, where only its body says so: in place of Route.ID
	// Stream, if there is one, makes the answer in place of Body, after the handler's time and outside the gate. If it fails before anything is
	// sent, its error is the answer; after that the connection is cut, so that nobody takes what there is for the whole.
	Stream func(context.Context, *Stream) error
	// Live says that the stream goes on until its context ends: when the client hangs up, or the service drains. It has a place of its own kind.
	Live bool
	// Wait, if there is one, makes the reply that is sent, once what it waits for has come.
	Wait *Wait
}

// Route is what the router found out before the body is read.
type Route struct {
	Operation   string // closed set, for logs and metrics
	Scope       string // as the caller spelled it; may be unknown
	ID          string // registration id, if the path has one
	WantsBody   bool   // the method carries a message
	StreamsBody bool   // the method carries a body of any length and type, for Reply.Stream alone
	AnyType     bool   // the message may be of any media type
	MaxBody     int64  // bytes of the message; 0: dps.MaxMessage
	Handle      func(context.Context, Call) (Reply, error)
	// Refuse, if there is one, makes the answer of a refusal in place of the imitated service's error body, for callers who read another. Reason and
	// tracking id are set after it.
	Refuse func(*registration.Fault) Reply
}

// Serve answers one request. A Route without Handle is a wrong path or method: Refuse says which.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, route Route) {
	arrived := time.Now()
	call := Call{Request: r, Arrived: arrived, Address: peer(r)}
	reply, err := s.run(w, call, route)
	if err == nil && reply.Wait != nil {
		reply, err = s.wait(w, call, route, *reply.Wait)
	}
	sent := false
	if err == nil && reply.Stream != nil {
		sent, err = s.stream(w, call, route, reply)
	}
	cut := sent && err != nil
	if cut && errors.Is(err, ErrGone) { // nothing failed on this side
		err = nil
	}
	var fault *registration.Fault
	if err != nil {
		if !errors.As(err, &fault) {
			fault = s.core.Fault(route.Scope, dps.CodeInternal, registration.ReasonInternal, "", err)
		}
		reply = s.refuse(route, fault, arrived)
	}
	if !sent {
		write(w, reply)
	}
	s.after(call, route, reply, fault)
	if cut {
		panic(http.ErrAbortHandler)
	}
}

// refuse is the answer that a fault gets.
func (s *Server) refuse(route Route, fault *registration.Fault, arrived time.Time) Reply {
	if route.Refuse != nil {
		reply := route.Refuse(fault)
		reply.TrackingID, reply.Reason = fault.TrackingID, fault.Reason
		return reply
	}
	reply := Reply{Status: fault.Code.Status(), RetryAfter: fault.RetryAfter, TrackingID: fault.TrackingID, Reason: fault.Reason}
	reply.Header, reply.Body = s.refusal(fault, s.sentence(fault), arrived)
	return reply
}

// sentence is what the answer says besides its code. Whoever manages the service is told what troubles its store; devices get by with the catalogue's.
func (s *Server) sentence(fault *registration.Fault) string {
	if t := registration.Trouble(fault); t != nil && fault.Detail == "" && s.candid {
		return t.Public + " Wait as long as Retry-After says; the log of the service says what to do."
	}
	return fault.Detail
}

func (s *Server) run(w http.ResponseWriter, call Call, route Route) (Reply, error) {
	limits := s.limits.Load()
	if route.StreamsBody {
		// Whoever is refused before the stream begins is not read to the end: the deadline is for net/http, which looks for it.
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(limits.Body + limits.Wait + limits.Handler))
		return s.admitted(call, route, limits)
	}
	size := weigh(call.Request, route.maxBody())
	if !s.bodies.TryAcquire(size) {
		w.Header().Set("Connection", "close")
		// net/http reads on for the body after the answer; without a deadline a stalled one would keep its connection for ever.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(limits.Body))
		return Reply{}, s.overloaded(route)
	}
	defer s.bodies.Release(size)
	body, err := s.body(w, call.Request, route, limits.Body)
	if err != nil {
		return Reply{}, err
	}
	call.Body = body
	return s.admitted(call, route, limits)
}

// admitted runs the handler behind the gate.
func (s *Server) admitted(call Call, route Route, limits *gated) (Reply, error) {
	leave, ok := limits.gate.Enter(call.Context())
	if !ok {
		return Reply{}, s.overloaded(route)
	}
	defer leave()
	// A client that hangs up does not end the work: its proof may be redeemed already, and must reach the hub all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(call.Context()), limits.Handler)
	defer cancel()
	return s.handle(ctx, call, route)
}

// overloaded refuses with the advice to come back, spread out.
func (s *Server) overloaded(route Route) *registration.Fault {
	fault := s.core.Fault(route.Scope, dps.CodeTooManyRequests, registration.ReasonOverload, "", nil)
	fault.RetryAfter = spread()
	return fault
}

// handle runs the handler. A panic is an error like others to the client, and its place and stack go to the log: left to net/http the
// request would have no answer and no line.
func (s *Server) handle(ctx context.Context, call Call, route Route) (reply Reply, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.log.Error("panic", "operation", route.Operation, "cause", cause, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	return route.Handle(ctx, call)
}

// body reads the message within the limits. A route that wants none ignores what some clients send with a GET, but it is read all the
// same: net/http looks for its end before it sends the answer, and would wait for ever for a body that was announced and never sent. If
// reading fails the deadline stays, since net/http reads on after the answer too, so that a client still sending finds its refusal.
func (s *Server) body(w http.ResponseWriter, r *http.Request, route Route, limit time.Duration) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(limit)) // unsupported only by test recorders
	body, err := readMessage(w, r, route.maxBody())
	if err != nil {
		w.Header().Set("Connection", "close")
	} else {
		_ = control.SetReadDeadline(time.Time{})
	}
	switch {
	case !route.WantsBody:
		return nil, nil
	case err != nil:
		code, reason := bodyRefusal(err)
		return nil, s.core.Fault(route.Scope, code, reason, "", err)
	case len(body) > 0 && !route.AnyType && !isJSON(r.Header.Get("Content-Type")):
		return nil, s.core.Fault(route.Scope, dps.CodeUnsupportedMediaType, registration.ReasonContentType, "", nil)
	}
	return body, nil
}

func readMessage(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return readAll(http.MaxBytesReader(w, r.Body, limit), r.ContentLength)
}

func (r Route) maxBody() int64 {
	if r.MaxBody == 0 {
		return dps.MaxMessage
	}
	return r.MaxBody
}

func bodyRefusal(err error) (dps.Code, registration.Reason) {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &tooLarge):
		return dps.CodeTooLarge, registration.ReasonTooLarge
	case errors.As(err, &timeout) && timeout.Timeout():
		return dps.CodeTimeout, registration.ReasonSlowBody
	}
	return dps.CodeBadRequest, registration.ReasonBadRequest
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/json"
}

// write sends the reply. Content-Length is always set: chunked answers trouble some embedded clients.
func write(w http.ResponseWriter, reply Reply) {
	if reply.Status != http.StatusNoContent {
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(reply.Body))}
	}
	writeHead(w, reply)
	_, _ = w.Write(reply.Body)                // the peer may be gone; there is nobody to tell
	_ = http.NewResponseController(w).Flush() // now: what is written down afterwards must not delay it
}

// writeHead sends the status and headers of a reply.
func writeHead(w http.ResponseWriter, reply Reply) {
	h := w.Header()
	h["Strict-Transport-Security"] = transportSecurity
	if len(reply.Body) > 0 {
		h["Content-Type"] = contentType
	}
	for name, value := range reply.Header {
		h[name] = []string{value}
	}
	if reply.TrackingID != "" {
		h["x-ms-request-id"] = []string{reply.TrackingID}
	}
	if reply.RetryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(int((reply.RetryAfter + time.Second - 1) / time.Second))}
	}
	w.WriteHeader(reply.Status)
}

// transportSecurity is what the imitated service sends: browsers are to come over TLS only.
var transportSecurity = []string{"max-age=31536000; includeSubDomains"}

var contentType = []string{"application/json; charset=utf-8"}

// after writes the log line, the count and the decision, once the answer is out.
func (s *Server) after(call Call, route Route, reply Reply, fault *registration.Fault) {
	took := time.Since(call.Arrived)
	if reply.ID != "" {
		route.ID = reply.ID
	}
	s.metrics.observe(s.name, route.Operation, reply.Reason, took)
	attrs := []slog.Attr{
		slog.String("api", s.name), slog.String("operation", route.Operation), slog.String("scope", clip(route.Scope)), slog.String("id", clip(route.ID)),
		slog.Int("status", reply.Status), slog.String("reason", reply.Reason.String()), slog.String("trackingId", reply.TrackingID),
		slog.String("from", call.Address), slog.Duration("took", took),
	}
	note := ""
	if fault != nil {
		note = fault.Detail
		if inside := fault.Unwrap(); inside != nil {
			attrs = append(attrs, slog.String("err", clip(inside.Error())))
			note = inside.Error()
		}
	}
	s.log.LogAttrs(context.WithoutCancel(call.Context()), slog.LevelInfo, "request", attrs...)
	if fault != nil {
		s.core.Record(registration.Decision{At: call.Arrived, Scope: route.Scope, ID: route.ID, Address: call.Address,
			Reason: reply.Reason, TrackingID: reply.TrackingID, Note: note})
	}
}

// NotFound and MethodNotAllowed are routes that refuse.
func (s *Server) NotFound(scope, detail string) Route {
	return s.refusing(scope, dps.CodeNotFound, registration.ReasonNotFound, detail)
}

// MethodNotAllowed refuses a known path.
func (s *Server) MethodNotAllowed(scope string) Route {
	return s.refusing(scope, dps.CodeMethodNotAllowed, registration.ReasonMethod, "")
}

func (s *Server) refusing(scope string, code dps.Code, reason registration.Reason, detail string) Route {
	return Route{Operation: "none", Scope: scope, Handle: func(context.Context, Call) (Reply, error) {
		return Reply{}, s.core.Fault(scope, code, reason, detail, nil)
	}}
}

// APIVersion judges the query parameter that every operation of the imitated service needs.
func (s *Server) APIVersion(scope string, r *http.Request) error {
	values := r.URL.Query()["api-version"]
	if len(values) == 1 && dps.KnownAPIVersion(values[0]) {
		return nil
	}
	return s.core.Fault(scope, dps.CodeBadRequest, registration.ReasonAPIVersion,
		"The query needs one api-version, such as api-version=2021-10-01.", nil)
}

// Segments splits the path as it was sent and decodes each segment once, so that an encoded slash stays inside its segment. One
// trailing slash is forgiven. ok is false if an escape is broken.
func Segments(u *url.URL) (segments []string, ok bool) {
	path := strings.TrimSuffix(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	if path == "" {
		return nil, true
	}
	if strings.Count(path, "/") > 8 {
		return nil, true // no route is that deep
	}
	segments = strings.Split(path, "/")
	for i, segment := range segments {
		decoded, err := url.PathUnescape(segment)
		if err != nil {
			return nil, false
		}
		segments[i] = decoded
	}
	return segments, true
}

func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func clip(s string) string {
	if len(s) > 160 {
		return s[:160] + "…"
	}
	return s
}
