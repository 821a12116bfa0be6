package adminapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// LinkedHub is a hub that the scope gives devices to. Its secret is in no answer.
type LinkedHub struct {
	Name        string          `json:"name"`
	Kind        string          `json:"kind"`
	Own         bool            `json:"own"` // the scope's embedded hub, which is always linked
	Weight      int             `json:"weight"`
	Allocate    bool            `json:"allocate"`
	Draining    bool            `json:"draining"`
	Region      string          `json:"region,omitempty"`
	Settings    json.RawMessage `json:"settings,omitempty"`
	SecretSet   bool            `json:"secretSet"`
	ETag        string          `json:"etag"`
	Created     string          `json:"createdDateTimeUtc"`
	LastUpdated string          `json:"lastUpdatedDateTimeUtc"`
	Health      HubHealth       `json:"health"`
	Devices     uint64          `json:"devices"`   // registrations that are at it
	Assigning   uint64          `json:"assigning"` // of these: what is to be done for them is not done yet
}

// HubHealth is how the hub does, as the node sees it that answers.
type HubHealth struct {
	State     string `json:"state"` // unknown, ok, failing or "circuit open"
	Since     string `json:"since,omitempty"`
	LastError string `json:"lastError,omitempty"`
	FailedAt  string `json:"failedAt,omitempty"`
	LatencyMS int64  `json:"latencyMs,omitempty"`
	CheckedAt string `json:"checkedAt,omitempty"`
}

// LinkedHubs is the answer of GET /latchkey/v1/hubs, in order of the names.
type LinkedHubs struct {
	Hubs []LinkedHub `json:"hubs"`
}

// Allocation is how the scope chooses hubs where an enrollment says nothing else.
type Allocation struct {
	DefaultPolicy string                `json:"defaultPolicy"`
	Regions       []registration.Region `json:"regions"`
	WebhookKeySet bool                  `json:"webhookKeySet"`
	ETag          string                `json:"etag"`
	LastUpdated   string                `json:"lastUpdatedDateTimeUtc,omitempty"`
	Warnings      []string              `json:"warnings"`
}

// WebhookKey is the answer of POST /latchkey/v1/allocation/webhookKey: a secret that is not shown again.
type WebhookKey struct {
	WebhookKey string `json:"webhookKey"` // "whsec_" and base64, as the libraries of Standard Webhooks take it
}

// hubAdditions are the paths of linked hubs and of their choice.
func (a *API) hubAdditions() []addition {
	const right = registration.ServiceConfig
	return []addition{
		{"hubs", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"hub-list", right, bodiless, false, a.listHubs}}
		}},
		{"hubs/{name}", func(name string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodGet:    {"hub-get", right, bodiless, false, a.getHub(name)},
				http.MethodPut:    {"hub-put", right, message, false, a.putHub(name, true)},
				http.MethodPatch:  {"hub-patch", right, message, false, a.putHub(name, false)},
				http.MethodDelete: {"hub-delete", right, bodiless, false, a.deleteHub(name)},
			}
		}},
		{"allocation", func(string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodGet:   {"allocation-get", right, bodiless, false, a.getAllocation},
				http.MethodPatch: {"allocation-patch", right, message, false, a.patchAllocation},
			}
		}},
		{"allocation/webhookKey", func(string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodPost:   {"webhook-key-post", right, bodiless, false, a.newWebhookKey},
				http.MethodDelete: {"webhook-key-delete", right, bodiless, false, a.deleteWebhookKey},
			}
		}},
	}
}

// What queries about one hub may hold: check=false links it though nobody has asked it, force=true unlinks it though it is in use.
var (
	hubTrialParameters  = []string{"api-version", "check"}
	hubUnlinkParameters = []string{"api-version", "force"}
)

func linkedHub(h registration.HubShown) LinkedHub {
	return LinkedHub{
		Name: h.Name, Kind: string(h.Kind), Own: h.Own, Weight: h.Weight, Allocate: h.Allocate, Draining: h.Draining, Region: h.Region,
		Settings: h.Settings, SecretSet: h.HasSecret, ETag: h.ETag, Created: dps.FormatTime(h.Created), LastUpdated: dps.FormatTime(h.Updated),
		Health: hubHealth(h.Health), Devices: h.Count.Devices, Assigning: h.Count.Assigning,
	}
}

func hubHealth(h registration.HubHealth) HubHealth {
	shown := HubHealth{State: string(h.State), LastError: h.LastError, LatencyMS: (h.Latency + time.Millisecond - 1).Milliseconds()} // a hub nearby is not one that was never measured
	if !h.Since.IsZero() {
		shown.Since = dps.FormatTime(h.Since)
	}
	if !h.FailedAt.IsZero() {
		shown.FailedAt = dps.FormatTime(h.FailedAt)
	}
	if !h.CheckedAt.IsZero() {
		shown.CheckedAt = dps.FormatTime(h.CheckedAt)
	}
	return shown
}

func (a *API) listHubs(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	list, err := a.core.Hubs(ctx, by)
	answer := LinkedHubs{Hubs: make([]LinkedHub, 0, len(list))}
	for _, h := range list {
		answer.Hubs = append(answer.Hubs, linkedHub(h))
	}
	return jsonReply(answer, err)
}

func (a *API) getHub(name string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		h, err := a.core.Hub(ctx, by, name)
		if err != nil {
			return web.Reply{}, err
		}
		return jsonReply(linkedHub(h), nil)
	}
}

// putHub links a hub, or replaces all that is set of it but the secret; or changes some of that.
func (a *API) putHub(name string, replace bool) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		wish, err := dps.DecodeLinkedHub(call.Body)
		if err != nil {
			return web.Reply{}, a.refuseEntry(by, registration.ReasonBadHub, err)
		}
		check, err := a.yes(call, by, "check", true)
		if err != nil {
			return web.Reply{}, err
		}
		create := false
		switch none := call.Header.Values("If-None-Match"); {
		case len(none) == 1 && none[0] == "*" && replace && call.Header.Get("If-Match") == "":
			create = true
		case len(none) > 0:
			return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "If-None-Match may only be *, with PUT and without If-Match.", nil)
		}
		h, err := a.core.PutHub(ctx, by, name, registration.HubWish{LinkedHub: wish, Replace: replace, Create: create, Untried: !check}, call.Header.Get("If-Match"))
		if err != nil {
			return web.Reply{}, err
		}
		return jsonReply(linkedHub(h), nil)
	}
}

func (a *API) deleteHub(name string) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		force, err := a.yes(call, by, "force", false)
		if err != nil {
			return web.Reply{}, err
		}
		if err := a.core.UnlinkHub(ctx, by, name, call.Header.Get("If-Match"), force); err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusNoContent}, nil
	}
}

// yes reads a member of the query that is true or false.
func (a *API) yes(call web.Call, by registration.Caller, name string, byDefault bool) (bool, error) {
	switch text := call.URL.Query().Get(name); strings.ToLower(text) {
	case "":
		return byDefault, nil
	case "true", "false":
		return strings.EqualFold(text, "true"), nil
	}
	return false, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, name+" must be true or false.", nil)
}

func allocation(s registration.AllocationShown) Allocation {
	shown := Allocation{DefaultPolicy: s.Default, Regions: s.Regions, WebhookKeySet: s.HasWebhookKey, ETag: s.ETag, Warnings: s.Warnings}
	if shown.Regions == nil {
		shown.Regions = []registration.Region{}
	}
	if shown.Warnings == nil {
		shown.Warnings = []string{}
	}
	if !s.Updated.IsZero() {
		shown.LastUpdated = dps.FormatTime(s.Updated)
	}
	return shown
}

func (a *API) getAllocation(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	s, err := a.core.Allocation(ctx, by)
	return jsonReply(allocation(s), err)
}

func (a *API) patchAllocation(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	wish, err := dps.DecodeAllocation(call.Body)
	if err != nil {
		return web.Reply{}, a.refuseEntry(by, registration.ReasonBadAllocation, err)
	}
	s, err := a.core.PutAllocation(ctx, by, wish, call.Header.Get("If-Match"))
	if err != nil {
		return web.Reply{}, err
	}
	return jsonReply(allocation(s), nil)
}

func (a *API) newWebhookKey(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	key, err := a.core.NewWebhookKey(ctx, by)
	return secretReply(WebhookKey{"whsec_" + base64.StdEncoding.EncodeToString(key)}, err)
}

func (a *API) deleteWebhookKey(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	if err := a.core.DeleteWebhookKey(ctx, by); err != nil {
		return web.Reply{}, err
	}
	return web.Reply{Status: http.StatusNoContent}, nil
}
