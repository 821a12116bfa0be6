package adminapi

import (
	"context"
	_ "embed"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// openAPI describes all of /latchkey/v1, in OpenAPI 3.1.
//
//go:embed openapi.json
var openAPI []byte

// addition is one path of Latchkey's own. Every one of them stands in openapi.json too, with the same methods; a test compares the two.
type addition struct {
	path    string // under /latchkey/v1/; a segment in braces stands for any one, and is the id
	methods func(id string) map[string]endpoint
}

// additions are all paths under /latchkey/v1, but for the description itself.
func (a *API) additions() []addition {
	return slices.Concat(a.policyAdditions(), a.caAdditions(), a.scopeAdditions(), a.hubAdditions(), a.exportAdditions(), a.eventAdditions(), a.transferAdditions(), []addition{
		{"statistics", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"statistics-get", registration.AuditLogRight, bodiless, false, a.statistics}}
		}},
		{"registrations/query", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodPost: {"registration-query-all", registration.RegistrationStatusRead, message, false, a.queryAllRegistrations}}
		}},
		{"decisions/{trackingId}", func(id string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"decision-get", registration.RegistrationStatusRead, bodiless, false, a.getDecision(id)}}
		}},
		{"enrollments/import", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodPost: {"enrollment-import", registration.EnrollmentWrite, streamed, false, a.importEnrollments}}
		}},
		{"enrollments/export", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"enrollment-export", registration.EnrollmentRead, bodiless, false, a.exportEnrollments}}
		}},
		{"audit", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"audit-list", registration.AuditLogRight, bodiless, false, a.listAudit}}
		}},
	})
}

// additionParameters are what the queries of additions may hold, by path, or by method and path where methods differ; of those that are not here, api-version alone. It is taken everywhere,
// since many clients add it to everything, and means nothing.
var additionParameters = map[string][]string{
	"audit":              auditParameters,
	"enrollments/import": importParameters,
	"enrollments/export": exportParameters,
	"export":             wholeExportParameters,
	"hub/events":         eventParameters,
	"GET transfers":      {"api-version", "after"},
	"PUT hubs/{name}":    hubTrialParameters,
	"PATCH hubs/{name}":  hubTrialParameters,
	"DELETE hubs/{name}": hubUnlinkParameters,
}

// additionEndpoints finds the addition of a path below /latchkey/v1.
func (a *API) additionEndpoints(segments []string) (methods map[string]endpoint, id string) {
	for _, addition := range a.additions() {
		if id, ok := addition.matches(segments); ok {
			return a.strict(addition.methods(id), addition.path), id
		}
	}
	return nil, ""
}

// parametersOf are what the query of a method of a path may hold.
func parametersOf(method, path string) []string {
	for _, key := range []string{method + " " + path, path} {
		if names := additionParameters[key]; names != nil {
			return names
		}
	}
	return []string{"api-version"}
}

// strict lets handlers run only for queries that hold nothing but what parametersOf says: a misspelt member must not be passed over.
func (a *API) strict(methods map[string]endpoint, path string) map[string]endpoint {
	for method, e := range methods {
		handle, names := e.handle, parametersOf(method, path)
		e.handle = func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
			if err := a.judgeParameters(call, by, names); err != nil {
				return web.Reply{}, err
			}
			return handle(ctx, call, by)
		}
		methods[method] = e
	}
	return methods
}

// judgeParameters refuses a query that does not hold each of some names at most once, and nothing else.
func (a *API) judgeParameters(call web.Call, by registration.Caller, names []string) error {
	asked, err := url.ParseQuery(call.URL.RawQuery)
	if err != nil {
		return a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "The query is not well formed.", err)
	}
	for name, values := range asked {
		if !slices.Contains(names, name) || len(values) > 1 {
			return a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "The query may hold, once each: "+strings.Join(names, ", ")+".", nil)
		}
	}
	return nil
}

func (x addition) matches(segments []string) (id string, ok bool) {
	parts := strings.Split(x.path, "/")
	if len(parts) != len(segments) {
		return "", false
	}
	for i, part := range parts {
		switch {
		case strings.HasPrefix(part, "{"):
			id = segments[i]
		case part != segments[i]:
			return "", false
		}
	}
	return id, true
}

// describes says whether a path is the description's. It needs no token: it tells what every copy of Latchkey tells, and nothing of this one.
func describes(segments []string) bool {
	return len(segments) == 3 && strings.EqualFold(segments[0], "latchkey") && segments[1] == "v1" && segments[2] == "openapi.json"
}

func (a *API) describe(scope, method string) web.Route {
	if method != http.MethodGet {
		return a.server.MethodNotAllowed(scope)
	}
	return web.Route{Operation: "openapi-get", Scope: scope, Handle: func(context.Context, web.Call) (web.Reply, error) {
		return web.Reply{Status: http.StatusOK, Body: openAPI, TrackingID: a.core.Track(scope, registration.ReasonManaged), Reason: registration.ReasonManaged}, nil
	}}
}
