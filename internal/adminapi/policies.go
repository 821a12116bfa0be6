package adminapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// AccessPolicy is a shared access policy. In the list it has no keys; whatever else answers with one shows both.
type AccessPolicy struct {
	Name         string   `json:"name"`
	Rights       []string `json:"rights"`
	PrimaryKey   string   `json:"primaryKey,omitempty"` // base64; a secret
	SecondaryKey string   `json:"secondaryKey,omitempty"`
}

// AccessPolicies is the answer of GET /latchkey/v1/accessPolicies, in order of the names.
type AccessPolicies struct {
	AccessPolicies []AccessPolicy `json:"accessPolicies"`
}

// policyAdditions are the paths of access policies. All need ServiceConfig: who has it may give itself every other permission.
func (a *API) policyAdditions() []addition {
	const right = registration.ServiceConfig
	return []addition{
		{"accessPolicies", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"access-policy-list", right, bodiless, false, a.listPolicies}}
		}},
		{"accessPolicies/{name}", func(name string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodGet:    {"access-policy-get", right, bodiless, false, a.getPolicy(name)},
				http.MethodPut:    {"access-policy-put", right, message, false, a.putPolicy(name)},
				http.MethodDelete: {"access-policy-delete", right, bodiless, false, a.deletePolicy(name)},
			}
		}},
		{"accessPolicies/{name}/regenerate", func(name string) map[string]endpoint {
			return map[string]endpoint{http.MethodPost: {"access-policy-regenerate", right, message, false, a.regeneratePolicy(name)}}
		}},
	}
}

func accessPolicy(p registration.Policy) AccessPolicy {
	return AccessPolicy{Name: p.Name, Rights: p.Rights.Names(),
		PrimaryKey: base64.StdEncoding.EncodeToString(p.Primary), SecondaryKey: base64.StdEncoding.EncodeToString(p.Secondary)}
}

// unkept is the header of answers that nothing between here and the caller may keep.
var unkept = map[string]string{"Cache-Control": "no-store"}

// secretReply is an answer with a secret in it.
func secretReply(answer any, err error) (web.Reply, error) {
	if err != nil {
		return web.Reply{}, err
	}
	body, err := json.Marshal(answer)
	return web.Reply{Status: http.StatusOK, Header: unkept, Body: body}, err
}

func (a *API) listPolicies(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	list, err := a.core.Policies(ctx, by)
	answer := AccessPolicies{AccessPolicies: make([]AccessPolicy, 0, len(list))}
	for _, p := range list {
		answer.AccessPolicies = append(answer.AccessPolicies, accessPolicy(p))
	}
	return secretReply(answer, err)
}

func (a *API) getPolicy(name string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		p, err := a.core.Policy(ctx, by, name)
		return secretReply(accessPolicy(p), err)
	}
}

func (a *API) putPolicy(name string) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		want, err := a.presence(by, call.Header)
		if err != nil {
			return web.Reply{}, err
		}
		rights, err := a.rights(by, call.Body)
		if err != nil {
			return web.Reply{}, err
		}
		p, err := a.core.PutPolicy(ctx, by, name, rights, want)
		return secretReply(accessPolicy(p), err)
	}
}

func (a *API) regeneratePolicy(name string) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		slot, err := dps.DecodePolicyKey(call.Body)
		if err != nil {
			return web.Reply{}, a.refuseBody(by, err)
		}
		p, err := a.core.RegeneratePolicy(ctx, by, name, registration.KeySlot(slot))
		return secretReply(accessPolicy(p), err)
	}
}

func (a *API) deletePolicy(name string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.core.DeletePolicy(ctx, by, name); err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusNoContent}, nil
	}
}

// presence reads If-None-Match: * and If-Match: *. An access policy has no etag, so nothing else is taken.
func (a *API) presence(by registration.Caller, header http.Header) (registration.Presence, error) {
	match, none := header.Values("If-Match"), header.Values("If-None-Match")
	switch {
	case len(match) == 0 && len(none) == 0:
		return registration.PresentOrAbsent, nil
	case len(match) == 1 && match[0] == "*" && len(none) == 0:
		return registration.Present, nil
	case len(none) == 1 && none[0] == "*" && len(match) == 0:
		return registration.Absent, nil
	}
	return 0, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest,
		"An access policy has no etag: send If-None-Match: * to create one only, If-Match: * to change one only, or neither.", nil)
}

func (a *API) rights(by registration.Caller, body []byte) (set registration.Right, err error) {
	names, err := dps.DecodePolicyRights(body)
	if err != nil {
		return 0, a.refuseBody(by, err)
	}
	for _, name := range names {
		right, ok := registration.RightNamed(name)
		if !ok {
			return 0, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest,
				"rights: the permissions are "+strings.Join(registration.AllRights.Names(), ", ")+".", nil)
		}
		set |= right
	}
	return set, nil
}
