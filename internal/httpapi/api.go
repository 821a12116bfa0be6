// Package httpapi is the device API over HTTPS: register, poll, status lookup.
//
// It decodes, calls the core and encodes; every decision is the core's. Routes are matched on the escaped path by our own few lines, as
// the standard mux cleans paths and knows no case-insensitive segments. Device ids, scopes and tokens are hostile input.
package httpapi

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// API is the http.Handler of the device API.
type API struct {
	core   *registration.Core
	server *web.Server
}

// New makes the device API on top of a core.
func New(core *registration.Core, server *web.Server) *API { return &API{core, server} }

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.server.Serve(w, r, a.route(r)) }

// route matches
//
//	PUT  /{scope}/registrations/{id}/register
//	PUT  /{scope}/registrations/{id}/close
//	POST /{scope}/registrations/{id}
//	GET  /{scope}/registrations/{id}/operations/{operationId}
func (a *API) route(r *http.Request) web.Route {
	segments, ok := web.Segments(r.URL)
	if !ok || len(segments) < 3 || !strings.EqualFold(segments[1], "registrations") {
		return a.server.NotFound("", "")
	}
	scope, id := segments[0], segments[2]
	method := func(want string, route web.Route) web.Route {
		if r.Method != want {
			return a.server.MethodNotAllowed(scope)
		}
		route.Scope, route.ID = scope, id
		return route
	}
	switch {
	case len(segments) == 3:
		return method(http.MethodPost, web.Route{Operation: "lookup", WantsBody: true, Handle: a.message(scope, id, a.core.Lookup)})
	case len(segments) == 4 && strings.EqualFold(segments[3], "register"):
		return method(http.MethodPut, web.Route{Operation: "register", WantsBody: true, Handle: a.message(scope, id, a.core.Register)})
	case len(segments) == 4 && strings.EqualFold(segments[3], "close"):
		return method(http.MethodPut, web.Route{Operation: "close", WantsBody: true, Handle: a.close(scope, id)})
	case len(segments) == 5 && strings.EqualFold(segments[3], "operations"):
		return method(http.MethodGet, web.Route{Operation: "poll", Handle: a.poll(scope, id, segments[4])})
	}
	return a.server.NotFound(scope, "")
}

type handler = func(context.Context, web.Call) (web.Reply, error)

// message handles register and lookup, which carry the same body.
func (a *API) message(scope, id string, ask func(context.Context, registration.Request) (registration.Answer, error)) handler {
	return func(ctx context.Context, call web.Call) (web.Reply, error) {
		if err := a.server.APIVersion(scope, call.Request); err != nil {
			return web.Reply{}, err
		}
		body, err := dps.DecodeRegister(call.Body)
		if err != nil {
			return web.Reply{}, a.core.Fault(scope, dps.CodeBadRequest, registration.ReasonBadRequest, publicText(err), err)
		}
		answer, err := ask(ctx, request(scope, id, call, body))
		if err != nil {
			return web.Reply{}, err
		}
		return a.reply(call, answer), nil
	}
}

func (a *API) poll(scope, id, operationID string) handler {
	return func(ctx context.Context, call web.Call) (web.Reply, error) {
		if err := a.server.APIVersion(scope, call.Request); err != nil {
			return web.Reply{}, err
		}
		answer, err := a.core.Poll(ctx, request(scope, id, call, dps.RegisterRequest{}), operationID)
		if err != nil {
			return web.Reply{}, err
		}
		return a.reply(call, answer), nil
	}
}

func request(scope, id string, call web.Call, body dps.RegisterRequest) registration.Request {
	return registration.Request{Scope: scope, ID: id, Authorization: call.Header.Get("Authorization"), Address: call.Address, Arrived: call.Arrived, Body: body,
		APIVersion:   call.Request.URL.Query().Get("api-version"),
		Certificates: certificates(call.Request)}
}

// certificates are what the client showed in the handshake. A connection that was resumed shows them again, and they are judged again.
func certificates(r *http.Request) []*x509.Certificate {
	if r.TLS == nil {
		return nil
	}
	return r.TLS.PeerCertificates
}

// publicText is what a decoding error may say outside: only places and sentences of our own.
func publicText(err error) string {
	var field *dps.FieldError
	if errors.As(err, &field) {
		return field.Error()
	}
	return ""
}

func (a *API) reply(call web.Call, answer registration.Answer) web.Reply {
	reply := web.Reply{RetryAfter: answer.RetryAfter, TrackingID: answer.TrackingID, Reason: answer.Reason}
	switch {
	case answer.Challenge != nil:
		reply.Status, reply.Body = http.StatusUnauthorized, dps.EncodeChallenge(answer.TrackingID, answer.Challenge, call.Arrived)
	case answer.Status.OperationID == "": // a lookup shows the state alone
		reply.Status, reply.Body = http.StatusOK, answer.Status.RegistrationState.Encode()
	case answer.Status.Status == string(registration.Assigning):
		reply.Status, reply.Body = http.StatusAccepted, answer.Status.Encode()
	default:
		reply.Status, reply.Body = http.StatusOK, answer.Status.Encode()
	}
	return reply
}
