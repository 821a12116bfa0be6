// Package brokerapi answers what linked MQTT brokers ask over HTTP: may this client log in, may it publish to this topic or subscribe to that filter?
//
//	GET or POST /latchkey/v1/broker/{hub}/{question}
//	GET or POST /latchkey/v1/broker/{hub}/{secret}/{question}
//
// Each product asks in its own words, which are decoded here and nothing else: every decision is made behind Hubs. The broker shows the shared secret of
// the linked hub, in an Authorization header (Basic, as password; or Bearer) where it can send one, else as a segment of the path. It trusts
// nothing in a question: what a device has chosen (user name, client id, password, topic) is hostile, and so is its length.
//
// It guarantees that whatever goes wrong is a no: products that read an error status as "ask somebody else" get their own form of no with status 200.
package brokerapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// Hubs are the linked brokers. The reason of Login is ReasonBrokerLogin, of Topic and Standing ReasonBrokerTopic, if the answer is yes; with an error
// nothing is known.
type Hubs interface {
	// Caller says of which scope and product a hub is whose shared secret this is. It takes the same time for every secret.
	Caller(hub, secret string) (scope, product string, ok bool)
	// Login answers for an MQTT CONNECT. Certificate is what the broker says the client has shown, in PEM; expires is when the connection is to end.
	Login(ctx context.Context, hub, user, client, password, certificate string) (deviceID string, expires time.Time, why registration.Reason, err error)
	// Topic answers for a topic to publish to, or a filter to subscribe to; client is empty if the broker does not say.
	Topic(ctx context.Context, hub, user, client, topic string, subscribe bool) (deviceID string, why registration.Reason, err error)
	// Standing answers whether a client that is logged in may stay so, and names the virtual host that it must be in.
	Standing(ctx context.Context, hub, user, client string) (deviceID, host string, why registration.Reason, err error)
}

// API is the http.Handler of brokers' questions.
type API struct {
	core   *registration.Core
	server *web.Server
	hubs   Hubs
}

// New makes the API.
func New(core *registration.Core, server *web.Server, hubs Hubs) *API {
	return &API{core, server, hubs}
}

// Prefix is where all paths of this API begin.
const Prefix = "/latchkey/v1/broker/"

// Serves reports whether a path belongs to this API.
func Serves(path string) bool { return strings.HasPrefix(path, Prefix) }

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.server.Serve(w, r, a.route(r)) }

// route finds out who asks, and which question it is.
func (a *API) route(r *http.Request) web.Route {
	segments, ok := web.Segments(r.URL)
	if !ok || len(segments) != 5 && len(segments) != 6 {
		return a.server.NotFound("", "")
	}
	hub, asked := strings.ToLower(segments[3]), segments[len(segments)-1]
	secret := shown(r)
	if len(segments) == 6 {
		secret = segments[4]
	}
	scope, product, ok := a.hubs.Caller(hub, secret)
	if !ok {
		return a.stranger(hub)
	}
	q := &question{api: a, scope: scope, hub: hub}
	dialect := dialects[product]
	ask, ok := dialect.questions[asked]
	if !ok {
		return a.server.NotFound(scope, "")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return a.server.MethodNotAllowed(scope)
	}
	return web.Route{Operation: "broker-" + asked, Scope: scope, ID: hub, WantsBody: r.Method == http.MethodPost, AnyType: true,
		Handle: func(ctx context.Context, call web.Call) (web.Reply, error) {
			err := ask(ctx, q, call)
			if err != nil {
				return web.Reply{}, err
			}
			reply := dialect.yes(q)
			reply.Reason, reply.ID = q.reason, q.device
			return reply, nil
		},
		Refuse: func(fault *registration.Fault) web.Reply {
			reply := dialect.no(fault)
			reply.ID = q.device
			return reply
		}}
}

// stranger is the route of whoever does not show a hub's secret: that there is such a hub is not told apart.
func (a *API) stranger(hub string) web.Route {
	return web.Route{Operation: "broker-none", ID: hub, Handle: func(context.Context, web.Call) (web.Reply, error) {
		return web.Reply{}, a.core.Fault("", dps.CodeUnauthorized, registration.ReasonBrokerSecret, "", nil)
	}}
}

// shown is the secret in the Authorization header, if one is.
func shown(r *http.Request) string {
	scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	rest = strings.TrimSpace(rest)
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return rest
	case !strings.EqualFold(scheme, "Basic"):
		return ""
	}
	decoded, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return ""
	}
	_, password, _ := strings.Cut(string(decoded), ":")
	return password
}

// question is one question while it is answered.
type question struct {
	api        *API
	scope, hub string
	device     string // as far as it is known
	reason     registration.Reason
	expires    time.Time
}

// ask answers one kind of question: nil is yes.
type ask = func(ctx context.Context, q *question, call web.Call) error

// fault is a no, or a failure.
func (q *question) fault(code dps.Code, why registration.Reason, inside error) error {
	return q.api.core.Fault(q.scope, code, why, "", inside)
}

// malformed is a question that no broker of the product asks.
func (q *question) malformed(err error) error {
	return q.fault(dps.CodeBadRequest, registration.ReasonBadRequest, err)
}

// decided turns what Hubs says into an answer.
func (q *question) decided(device string, yes, why registration.Reason, err error) error {
	q.device, q.reason = device, why
	switch {
	case err != nil && why == registration.ReasonStoreDown:
		return q.fault(dps.CodeUnavailable, why, err)
	case err != nil:
		return q.fault(dps.CodeInternal, registration.ReasonInternal, err)
	case why != yes:
		return q.fault(dps.CodeUnauthorized, why, nil)
	}
	return nil
}

func (q *question) login(ctx context.Context, user, client, password, certificate string) error {
	device, expires, why, err := q.api.hubs.Login(ctx, q.hub, user, client, password, certificate)
	q.expires = expires
	return q.decided(device, registration.ReasonBrokerLogin, why, err)
}

func (q *question) topic(ctx context.Context, user, client, topic string, subscribe bool) error {
	device, why, err := q.api.hubs.Topic(ctx, q.hub, user, client, topic, subscribe)
	return q.decided(device, registration.ReasonBrokerTopic, why, err)
}

// standing also returns the device id and the virtual host.
func (q *question) standing(ctx context.Context, user, client string) (device, host string, err error) {
	device, host, why, err := q.api.hubs.Standing(ctx, q.hub, user, client)
	return device, host, q.decided(device, registration.ReasonBrokerTopic, why, err)
}

var errWords = errors.New("the question is not one that this product asks")
