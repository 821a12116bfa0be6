package hubapi

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// API is the http.Handler of the hub's service side.
type API struct {
	core   *registration.Core
	hub    Hub
	server *web.Server
	now    func() time.Time
	shown  reveals
	walks  walks
}

// New makes the service side of the embedded hub.
func New(core *registration.Core, hub Hub, server *web.Server, now func() time.Time) *API {
	server.Candid()
	server.Refusing(refusal)
	return &API{core: core, hub: hub, server: server, now: now}
}

// Serves reports whether a first path segment belongs to this API.
func Serves(segment string) bool {
	switch strings.ToLower(segment) {
	case "devices", "twins", "statistics", "messages", "jobs", "configurations", "digitaltwins":
		return true
	}
	return false
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.server.Serve(w, r, a.route(r)) }

// call is a request that was let in.
type call struct {
	web.Call
	by  registration.Caller
	hub string // that of the caller's scope
}

type handler = func(context.Context, call) (web.Reply, error)

// carries is what a method's body is.
type carries int

const (
	bodiless carries = iota
	message          // JSON
	raw              // whatever a device is sent
)

// endpoint is one method of one path. Any of the rights lets in.
type endpoint struct {
	operation string
	rights    []registration.Right
	body      carries
	most      int64 // bytes of the body; 0: as everywhere
	handle    handler
}

// What lets in, as an IoT Hub's documents say; reading twins and queries with either, since they do not agree there.
var (
	registryRead   = []registration.Right{registration.RegistryRead}
	registryWrite  = []registration.Right{registration.RegistryWrite}
	serviceConnect = []registration.Right{registration.ServiceConnect}
	eitherRead     = []registration.Right{registration.ServiceConnect, registration.RegistryRead}
	anyOfHub       = []registration.Right{registration.RegistryRead, registration.RegistryWrite, registration.ServiceConnect}
)

// Bounds of bodies, in bytes.
const (
	maxMethodBody = 128<<10 + 4<<10 // payload and what is around it
	maxDevices    = 100             // in one bulk
	maxQuery      = 16 << 10
)

const served = "The service side of this hub has /devices, /twins and /statistics/devices; docs/hubs/service-api.md lists what it offers."

// route finds the endpoint of a path and method. `query` is a legal device id: POST /devices/query is the query, GET and PUT are the device of that name.
func (a *API) route(r *http.Request) web.Route {
	scope := a.core.HostScope(host(r)) // whose operator may ask why
	if scope == "" {
		scope, _ = a.core.HubScope(host(r))
	}
	segments, ok := web.Segments(r.URL)
	if !ok || len(segments) == 0 {
		return a.server.NotFound(scope, served)
	}
	methods, id := a.endpoints(segments)
	if methods == nil {
		return a.server.NotFound(scope, served)
	}
	found, ok := methods[r.Method]
	if every, is := methods["*"]; is {
		found, ok = every, true
	}
	if !ok {
		return a.server.MethodNotAllowed(scope)
	}
	return web.Route{Operation: found.operation, Scope: scope, ID: id, WantsBody: found.body != bodiless, AnyType: found.body == raw, MaxBody: found.most, Handle: a.guarded(found)}
}

// endpoints lists the methods of a path, and the device id in it. What the path of a device names has no case, as clients spell it deviceBound and devicebound.
func (a *API) endpoints(segments []string) (methods map[string]endpoint, id string) {
	first, n := strings.ToLower(segments[0]), len(segments)
	if n > 1 {
		id = segments[1]
	}
	rest := strings.ToLower(strings.Join(segments[min(n, 2):], "/"))
	switch {
	case first == "devices" && n == 1:
		return map[string]endpoint{
			http.MethodGet:  {"device-list", registryRead, bodiless, 0, a.walking(a.listDevices)},
			http.MethodPost: {"device-bulk", registryWrite, message, iothub.MaxBulk, a.bulk},
		}, ""
	case first == "devices" && n == 2:
		return a.deviceEndpoints(id), id
	case first == "devices" && rest == "messages/devicebound":
		return map[string]endpoint{http.MethodPost: {"message-send", serviceConnect, raw, 0, a.sendTo(id)}}, id
	case first == "devices" && rest == "commands":
		return map[string]endpoint{http.MethodDelete: {"message-purge", serviceConnect, bodiless, 0, a.purge(id)}}, id
	case first == "messages" && n == 2 && strings.EqualFold(segments[1], "devicebound"):
		return map[string]endpoint{http.MethodPost: {"message-send", serviceConnect, raw, 0, a.send}}, ""
	case first == "twins" && n == 2:
		return map[string]endpoint{
			http.MethodGet:   {"twin-get", eitherRead, bodiless, 0, a.getTwin(id)},
			http.MethodPatch: {"twin-patch", serviceConnect, message, iothub.MaxTwinBody, a.changeTwin(id, false)},
			http.MethodPut:   {"twin-put", serviceConnect, message, iothub.MaxTwinBody, a.changeTwin(id, true)},
		}, id
	case first == "twins" && rest == "methods":
		return map[string]endpoint{http.MethodPost: {"method-invoke", serviceConnect, message, maxMethodBody, a.invoke(id)}}, id
	case first == "statistics" && n == 2 && strings.EqualFold(segments[1], "devices"):
		return map[string]endpoint{http.MethodGet: {"device-statistics", registryRead, bodiless, 0, a.walking(a.statistics)}}, ""
	case first == "statistics" && n == 2 && strings.EqualFold(segments[1], "service"):
		return map[string]endpoint{http.MethodGet: {"service-statistics", registryRead, bodiless, 0, a.walking(a.serviceStatistics)}}, ""
	}
	return a.unoffered(first, segments)
}

func (a *API) deviceEndpoints(id string) map[string]endpoint {
	methods := map[string]endpoint{
		http.MethodGet:    {"device-get", registryRead, bodiless, 0, a.getDevice(id)},
		http.MethodPut:    {"device-put", registryWrite, message, iothub.MaxIdentity, a.putDevice(id)},
		http.MethodDelete: {"device-delete", registryWrite, bodiless, 0, a.deleteDevice(id)},
	}
	if strings.EqualFold(id, "query") {
		methods[http.MethodPost] = endpoint{"device-query", eitherRead, message, maxQuery, a.walking(a.query)}
	}
	return methods
}

// unoffered are paths that an IoT Hub has and this hub has not: who may use the service side is told so.
func (a *API) unoffered(first string, segments []string) (methods map[string]endpoint, id string) {
	part := ""
	switch {
	case first == "jobs":
		part = "Jobs"
	case first == "configurations":
		part = "Configurations"
	case first == "digitaltwins":
		part = "Digital twin models"
	case (first == "devices" || first == "twins") && len(segments) > 2 && strings.EqualFold(segments[2], "modules"):
		part, id = "Modules", segments[1]
	case first == "devices" && len(segments) > 2 && strings.EqualFold(segments[2], "files"):
		part, id = "File upload", segments[1]
	case first == "devices" && len(segments) > 2 && strings.EqualFold(segments[2], "messages"):
		part, id = "HTTPS for devices", segments[1]
	case first == "messages":
		part = "Feedback and file notifications over HTTPS"
	default:
		return nil, ""
	}
	return map[string]endpoint{"*": {"not-offered", anyOfHub, bodiless, 0, func(_ context.Context, c call) (web.Reply, error) {
		return web.Reply{}, a.fault(c.by, notImplemented, registration.ReasonNoModules, part+": this hub does not offer it. docs/hubs/service-api.md lists what it does.")
	}}}, id
}

// guarded lets a handler run only for a token that may.
func (a *API) guarded(e endpoint) func(context.Context, web.Call) (web.Reply, error) {
	return func(ctx context.Context, request web.Call) (web.Reply, error) {
		by, err := a.core.AuthorizeHub(ctx, host(request.Request), request.URL.Path, request.Header.Get("Authorization"), request.Address, request.Arrived, e.rights...)
		if err != nil {
			return web.Reply{}, err
		}
		if versions := request.URL.Query()["api-version"]; len(versions) != 1 || !iothub.ValidAPIVersion(versions[0]) {
			return web.Reply{}, a.fault(by, iothub.InvalidProtocolVersion, registration.ReasonAPIVersion, "The query needs one api-version, such as api-version="+iothub.APIVersion+".")
		}
		reply, err := e.handle(ctx, call{request, by, a.core.HubAt(by.Scope, host(request.Request))})
		if reply.Wait != nil {
			later := reply.Wait.For
			reply.Wait.For = func(ctx context.Context) (web.Reply, error) {
				reply, err := later(ctx)
				return managed(reply, by), err
			}
		}
		return managed(reply, by), err
	}
}

func managed(reply web.Reply, by registration.Caller) web.Reply {
	reply.TrackingID, reply.Reason = by.TrackingID, registration.ReasonManaged
	if reply.Header == nil {
		reply.Header = map[string]string{}
	}
	reply.Header[iothub.ExtensionHeader] = iothub.ReportedByService
	return reply
}

// host is the name that the client called, without its port.
func host(r *http.Request) string {
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	return strings.ToLower(name)
}

// device refuses what can be no device id before anything is looked for.
func (a *API) deviceID(by registration.Caller, id string) error {
	if dps.ValidDeviceID(id) {
		return nil
	}
	return a.fault(by, iothub.ArgumentInvalid, registration.ReasonBadDevice, "The device id must be 1 to 128 letters, digits and - . % _ * ? ! ( ) , : = @ $ ' and not only one or two dots.")
}
