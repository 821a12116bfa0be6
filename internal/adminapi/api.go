// Package adminapi is the management API: what operators and their SDKs call, over HTTPS with a SAS token of an access policy.
//
// The host name says which scope is meant. Enrollments, enrollment groups and registration states are served in the imitated service's shape;
// Latchkey's own additions live under /latchkey/v1.
package adminapi

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/sync/semaphore"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// API is the http.Handler of the management API.
type API struct {
	core   *registration.Core
	server *web.Server
	atomic *semaphore.Weighted // bytes that all-or-nothing imports may keep
	alone  bool                // a hub alone: nothing is provisioned
	events Events              // nil: no hub can be watched here
}

// New makes the management API on top of a core.
func New(core *registration.Core, server *web.Server) *API {
	server.Candid()
	return &API{core: core, server: server, atomic: semaphore.NewWeighted(atomicBytes)}
}

// HubAlone has the API refuse all that is about provisioning, and every path that it does not know. It is called before the first request.
func (a *API) HubAlone() { a.alone = true }

// provisioning says whether a path is about enrollments, registrations and what belongs to them.
func provisioning(segments []string) bool {
	if strings.ToLower(segments[0]) != "latchkey" {
		return true
	}
	return len(segments) > 2 && slices.Contains([]string{"enrollments", "registrations", "caCertificates", "transfers", "export", "exportKey", "allocation", "hubs"}, segments[2])
}

// Serves reports whether a first path segment belongs to this API and not to a device's scope.
func Serves(segment string) bool {
	switch strings.ToLower(segment) {
	case "enrollments", "enrollmentgroups", "registrations", "devices", "twins", "latchkey":
		return true
	}
	return false
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.server.Serve(w, r, a.route(r)) }

type handler = func(context.Context, web.Call, registration.Caller) (web.Reply, error)

// body is what a method carries.
type body int

const (
	bodiless body = iota
	message       // JSON, bounded
	streamed      // lines, bounded each, read while they are worked on
)

// endpoint is one method of one path.
type endpoint struct {
	operation string
	right     registration.Right
	body      body
	versioned bool // needs api-version
	handle    handler
}

// served is what a wrong path is told.
const served = "This service has /enrollments, /enrollmentGroups, /registrations and what /latchkey/v1/openapi.json describes."

// servedAlone is what a wrong path is told at a hub alone.
const servedAlone = "This process is a hub alone (provision: false): nothing is provisioned here. It has /devices and /twins, and of /latchkey/v1 what is about access policies, audit, scopes and telemetry."

// route finds the endpoint of a path and method. `query` is a legal registration id, so the method decides: GET /enrollments/query is an
// enrollment of that name.
func (a *API) route(r *http.Request) web.Route {
	scope := a.core.HostScope(host(r)) // whose operator may ask why
	segments, ok := web.Segments(r.URL)
	if !ok || len(segments) == 0 {
		return a.server.NotFound(scope, served)
	}
	if describes(segments) {
		return a.describe(scope, r.Method)
	}
	if a.alone && provisioning(segments) {
		return a.server.NotFound(scope, servedAlone)
	}
	methods, id := a.endpoints(segments)
	if methods == nil {
		return a.server.NotFound(scope, served)
	}
	found, ok := methods[r.Method]
	if !ok {
		return a.server.MethodNotAllowed(scope)
	}
	return web.Route{Operation: found.operation, Scope: scope, ID: id, WantsBody: found.body == message, StreamsBody: found.body == streamed, Handle: a.guarded(found)}
}

// endpoints lists the methods of a path, and the id in it.
func (a *API) endpoints(segments []string) (methods map[string]endpoint, id string) {
	first, n := strings.ToLower(segments[0]), len(segments)
	if n > 1 {
		id = segments[1]
	}
	switch {
	case first == "enrollments" && n == 1:
		return map[string]endpoint{http.MethodPost: {"enrollment-bulk", registration.EnrollmentWrite, message, true, a.bulkEnrollments}}, ""
	case first == "enrollments" && n == 2:
		return a.enrollmentEndpoints(id), id
	case first == "enrollments" && n == 3 && strings.EqualFold(segments[2], "attestationmechanism"):
		return map[string]endpoint{http.MethodPost: {"enrollment-attestation", registration.EnrollmentWrite, bodiless, true, a.attestation(id, a.core.EnrollmentAttestation)}}, id
	case first == "enrollmentgroups" && n == 1:
		return map[string]endpoint{http.MethodPost: {"group-bulk", registration.EnrollmentWrite, message, true, a.bulkGroups}}, ""
	case first == "enrollmentgroups" && n == 2:
		return a.groupEndpoints(id), id
	case first == "enrollmentgroups" && n == 3 && strings.EqualFold(segments[2], "attestationmechanism"):
		return map[string]endpoint{http.MethodPost: {"group-attestation", registration.EnrollmentWrite, bodiless, true, a.attestation(id, a.core.GroupAttestation)}}, id
	case first == "registrations" && n == 3 && strings.EqualFold(segments[2], "query"):
		return map[string]endpoint{http.MethodPost: {"registration-query", registration.RegistrationStatusRead, message, true, a.queryRegistrations(id)}}, id
	case first == "registrations" && n == 2:
		return map[string]endpoint{
			http.MethodGet:    {"registration-get", registration.RegistrationStatusRead, bodiless, true, a.getRegistration(id)},
			http.MethodDelete: {"registration-delete", registration.RegistrationStatusWrite, bodiless, true, a.delete(id, a.core.DeleteRegistration)},
		}, id
	case first == "latchkey" && n > 2 && segments[1] == "v1":
		return a.additionEndpoints(segments[2:])
	}
	return nil, ""
}

func (a *API) enrollmentEndpoints(id string) map[string]endpoint {
	methods := map[string]endpoint{
		http.MethodGet:    {"enrollment-get", registration.EnrollmentRead, bodiless, true, a.getEnrollment(id)},
		http.MethodPut:    {"enrollment-put", registration.EnrollmentWrite, message, true, a.putEnrollment(id)},
		http.MethodDelete: {"enrollment-delete", registration.EnrollmentWrite, bodiless, true, a.delete(id, a.core.DeleteEnrollment)},
	}
	if strings.EqualFold(id, "query") {
		methods[http.MethodPost] = endpoint{"enrollment-query", registration.EnrollmentRead, message, true, a.queryEnrollments}
	}
	return methods
}

// guarded lets a handler run only for a token that may.
func (a *API) guarded(e endpoint) func(context.Context, web.Call) (web.Reply, error) {
	return func(ctx context.Context, call web.Call) (web.Reply, error) {
		caller, err := a.core.Authorize(ctx, host(call.Request), call.URL.Path, call.Header.Get("Authorization"), call.Address, e.right, call.Arrived)
		if err != nil {
			return web.Reply{}, err
		}
		if e.versioned {
			if err := a.server.APIVersion(caller.Scope, call.Request); err != nil {
				return web.Reply{}, err
			}
		}
		reply, err := e.handle(ctx, call, caller)
		reply.TrackingID, reply.Reason = caller.TrackingID, registration.ReasonManaged
		return reply, err
	}
}

// host is the name that the client called, without its port.
func host(r *http.Request) string {
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	return strings.ToLower(name)
}

func (a *API) validID(caller registration.Caller, id string) error {
	if dps.ValidRegistrationID(id) {
		return nil
	}
	return a.core.Fault(caller.Scope, dps.CodeBadRequest, registration.ReasonBadID,
		"The registration id must be 1 to 128 of the characters A-Z a-z 0-9 - . _ : and end in a letter, digit or dash.", nil)
}

func (a *API) getEnrollment(id string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		enrollment, err := a.core.Enrollment(ctx, by, id)
		if err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusOK, Body: enrollment.Encode()}, nil
	}
}

func (a *API) putEnrollment(id string) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		wanted, err := dps.DecodeEnrollment(id, call.Body)
		if err != nil {
			return web.Reply{}, a.refuseEntry(by, registration.ReasonBadEnrollment, err)
		}
		if by, err = a.withHubOrder(call, by); err != nil {
			return web.Reply{}, err
		}
		stored, err := a.core.PutEnrollment(ctx, by, wanted, call.Header.Get("If-Match"))
		if err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusOK, Header: unkept, Body: stored.EncodeShowing(dps.ShowKeys)}, nil
	}
}

func (a *API) delete(id string, remove func(ctx context.Context, by registration.Caller, id, ifMatch string) error) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		by, err := a.withHubOrder(call, by)
		if err != nil {
			return web.Reply{}, err
		}
		if err := remove(ctx, by, id, call.Header.Get("If-Match")); err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusNoContent}, nil
	}
}

// withHubOrder reads what is to become of devices at their hubs: hubDevice=disable or remove in the query. Our addition.
func (a *API) withHubOrder(call web.Call, by registration.Caller) (registration.Caller, error) {
	values := call.URL.Query()["hubDevice"]
	if len(values) == 0 {
		return by, nil
	}
	by.HubOrder = registration.HubOrder(values[0])
	if len(values) > 1 || by.HubOrder != registration.HubDisable && by.HubOrder != registration.HubRemove {
		return by, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest,
			"hubDevice must be given once, as disable or remove; leave it out to leave devices at their hubs alone.", nil)
	}
	return by, nil
}

func (a *API) getRegistration(id string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		state, err := a.core.Registration(ctx, by, id)
		if err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusOK, Body: state.Encode()}, nil
	}
}

// Decision is the answer of GET /latchkey/v1/decisions/{trackingId}.
type Decision struct {
	TrackingID string       `json:"trackingId"`
	Time       string       `json:"time"`
	Reason     string       `json:"reason"`
	Meaning    string       `json:"meaning"`
	Request    *DecisionOf  `json:"request,omitempty"` // while the memory of refusals holds it
	Audit      []AuditEntry `json:"audit"`
}

// DecisionOf says who asked and how often the same refusal was given.
type DecisionOf struct {
	RegistrationID string `json:"registrationId,omitempty"`
	Scope          string `json:"scope,omitempty"`
	Address        string `json:"address,omitempty"`
	Note           string `json:"note,omitempty"`
	Count          uint64 `json:"count"`
	First          string `json:"first"`
}

func (a *API) getDecision(trackingID string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		x, err := a.core.Why(ctx, by, trackingID)
		if err != nil {
			return web.Reply{}, err
		}
		body, err := json.Marshal(decisionOf(x))
		return web.Reply{Status: http.StatusOK, Body: body}, err
	}
}

func decisionOf(x registration.Explanation) Decision {
	d := Decision{TrackingID: x.TrackingID, Time: dps.FormatTime(x.At), Reason: x.Reason.String(), Meaning: x.Reason.Explain(), Audit: []AuditEntry{}}
	if e := x.Recent; e != nil {
		d.Request = &DecisionOf{RegistrationID: e.ID, Scope: e.Scope, Address: e.Address, Note: e.Note, Count: e.Count, First: dps.FormatTime(e.First)}
	}
	for _, row := range x.Audit {
		d.Audit = append(d.Audit, auditEntry(row))
	}
	return d
}
