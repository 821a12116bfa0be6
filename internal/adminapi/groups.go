package adminapi

import (
	"context"
	"net/http"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// groupEndpoints are the methods of an enrollment group. `query` is a legal id of one, as it is of an enrollment.
func (a *API) groupEndpoints(id string) map[string]endpoint {
	methods := map[string]endpoint{
		http.MethodGet:    {"group-get", registration.EnrollmentRead, bodiless, true, a.getGroup(id)},
		http.MethodPut:    {"group-put", registration.EnrollmentWrite, message, true, a.putGroup(id)},
		http.MethodDelete: {"group-delete", registration.EnrollmentWrite, bodiless, true, a.delete(id, a.core.DeleteGroup)},
	}
	if strings.EqualFold(id, "query") {
		methods[http.MethodPost] = endpoint{"group-query", registration.EnrollmentRead, message, true, a.queryGroups}
	}
	return methods
}

func (a *API) getGroup(id string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		group, err := a.core.Group(ctx, by, id)
		if err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusOK, Body: group.Encode()}, nil
	}
}

func (a *API) putGroup(id string) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		wanted, err := dps.DecodeGroup(id, call.Body)
		if err != nil {
			return web.Reply{}, a.refuseEntry(by, registration.ReasonBadGroup, err)
		}
		if by, err = a.withHubOrder(call, by); err != nil {
			return web.Reply{}, err
		}
		stored, err := a.core.PutGroup(ctx, by, wanted, call.Header.Get("If-Match"))
		if err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusOK, Header: unkept, Body: stored.EncodeShowing(dps.ShowKeys)}, nil
	}
}
