package adminapi

import (
	"context"
	"net/http"
	"slices"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// Scope is an ID scope, a tenant.
type Scope struct {
	IDScope        string   `json:"idScope"`
	Hosts          []string `json:"hosts"`
	Home           bool     `json:"home"`
	Created        string   `json:"createdDateTimeUtc"`
	CertificateEnd string   `json:"certificateEndUtc,omitempty"` // of the scope's own; without one the configured certificate serves
	// ConnectionString of the owner policy, a secret: in the answer that creates the scope and in no other.
	ConnectionString string `json:"connectionString,omitempty"`
}

// Scopes is the answer of GET /latchkey/v1/scopes, in order of the ids.
type Scopes struct {
	Scopes []Scope `json:"scopes"`
}

// scopeAdditions are the paths of scopes, which only the policies of the home scope may use.
func (a *API) scopeAdditions() []addition {
	const right = registration.ServiceConfig
	return []addition{
		{"scopes", func(string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodGet:  {"scope-list", right, bodiless, false, a.listScopes},
				http.MethodPost: {"scope-create", right, message, false, a.createScope},
			}
		}},
		{"scopes/{idScope}", func(id string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodGet:    {"scope-get", right, bodiless, false, a.getScope(id)},
				http.MethodDelete: {"scope-delete", right, bodiless, false, a.deleteScope(id)},
			}
		}},
	}
}

func scopeShown(s registration.ScopeShown) Scope {
	shown := Scope{IDScope: s.ID, Hosts: s.Hosts, Home: s.Home, Created: dps.FormatTime(s.Created)}
	if !s.CertificateEnd.IsZero() {
		shown.CertificateEnd = dps.FormatTime(s.CertificateEnd)
	}
	return shown
}

func (a *API) listScopes(_ context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	list, err := a.core.Scopes(by)
	answer := Scopes{Scopes: make([]Scope, 0, len(list))}
	for _, s := range list {
		answer.Scopes = append(answer.Scopes, scopeShown(s))
	}
	return jsonReply(answer, err)
}

func (a *API) getScope(id string) handler {
	return func(_ context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		s, err := a.core.ScopeNamed(by, id)
		return jsonReply(scopeShown(s), err)
	}
}

func (a *API) createScope(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	if err := a.core.MayManageScopes(by); err != nil {
		return web.Reply{}, err
	}
	hosts, err := dps.DecodeHosts(call.Body)
	if err != nil {
		return web.Reply{}, a.refuseEntry(by, registration.ReasonBadScope, err)
	}
	made, err := a.core.CreateScope(ctx, by, slices.Clone(hosts))
	if err != nil {
		return web.Reply{}, err
	}
	answer := scopeShown(made.ScopeShown)
	answer.ConnectionString = dps.ConnectionString{HostName: made.Hosts[0], SharedAccessKeyName: made.Policy, SharedAccessKey: made.PrimaryKey}.Reveal()
	return secretReply(answer, nil)
}

func (a *API) deleteScope(id string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.core.DeleteScope(ctx, by, id); err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusNoContent}, nil
	}
}
