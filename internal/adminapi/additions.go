package adminapi

import (
	"context"
	_ "embed"
	"net/http"
	"slices"
	"strings"

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
	return slices.Concat(a.policyAdditions(), a.caAdditions(), a.scopeAdditions(), a.exportAdditions(), []addition{
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

// additionEndpoints finds the addition of a path below /latchkey/v1.
func (a *API) additionEndpoints(segments []string) (methods map[string]endpoint, id string) {
	for _, addition := range a.additions() {
		if id, ok := addition.matches(segments); ok {
			return addition.methods(id), id
		}
	}
	return nil, ""
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
