package adminapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// refuseBody is the answer to a message that could not be read.
func (a *API) refuseBody(by registration.Caller, err error) error {
	return a.refuseEntry(by, registration.ReasonBadRequest, err)
}

// refuseEntry is refuseBody with a reason of its own; only places and sentences of our own leave.
func (a *API) refuseEntry(by registration.Caller, reason registration.Reason, err error) error {
	var field *dps.FieldError
	detail := ""
	if errors.As(err, &field) {
		detail = field.Error()
	}
	return a.core.Fault(by.Scope, dps.CodeBadRequest, reason, detail, err)
}

// queryEnrollments answers a page of individual enrollments.
func (a *API) queryEnrollments(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	return answerQuery(ctx, a, call, by, dps.CollectionEnrollments, "Enrollment", a.core.QueryEnrollments, dps.EncodeEnrollments)
}

func (a *API) queryGroups(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	return answerQuery(ctx, a, call, by, dps.CollectionEnrollmentGroups, "EnrollmentGroup", a.core.QueryGroups, dps.EncodeGroups)
}

// queryRegistrations answers a page of the registrations of a group's devices.
func (a *API) queryRegistrations(group string) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, group); err != nil {
			return web.Reply{}, err
		}
		page := func(ctx context.Context, by registration.Caller, q dps.Query, size int, continuation string) (registration.Page[dps.RegistrationState], error) {
			return a.core.QueryRegistrations(ctx, by, group, q, size, continuation)
		}
		return answerQuery(ctx, a, call, by, dps.CollectionRegistrations, "DeviceRegistration", page, dps.EncodeRegistrations)
	}
}

// queryAllRegistrations is Latchkey's own: the imitated service lists registrations by group only.
func (a *API) queryAllRegistrations(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	page := func(ctx context.Context, by registration.Caller, q dps.Query, size int, continuation string) (registration.Page[dps.RegistrationState], error) {
		return a.core.QueryRegistrations(ctx, by, "", q, size, continuation)
	}
	return answerQuery(ctx, a, call, by, dps.CollectionRegistrations, "DeviceRegistration", page, dps.EncodeRegistrations)
}

// answerQuery answers a page. The continuation must be absent, not empty, on the last one: all SDKs stop on its absence.
func answerQuery[Item any](ctx context.Context, a *API, call web.Call, by registration.Caller, over dps.Collection, itemType string,
	ask func(context.Context, registration.Caller, dps.Query, int, string) (registration.Page[Item], error), encode func([]Item) []byte,
) (web.Reply, error) {
	query, err := dps.DecodeQuery(call.Body, over)
	if err != nil {
		return web.Reply{}, a.refuseBody(by, err)
	}
	size, err := pageSize(call.Header.Get("x-ms-max-item-count"))
	if err != nil {
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "x-ms-max-item-count must be a whole number, 0 or more.", err)
	}
	page, err := ask(ctx, by, query, size, call.Header.Get("x-ms-continuation"))
	if err != nil {
		return web.Reply{}, err
	}
	header := map[string]string{"x-ms-item-type": itemType, "X-Content-Type-Options": "nosniff"}
	if page.Continuation != "" {
		header["x-ms-continuation"] = page.Continuation
	}
	return web.Reply{Status: http.StatusOK, Header: header, Body: encode(page.Items)}, nil
}

// pageSize reads x-ms-max-item-count; absent is 0, and a number too large for an int is as good as any other above the limit.
func pageSize(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	size, err := strconv.ParseUint(text, 10, 31)
	if errors.Is(err, strconv.ErrRange) && strings.Trim(text, "0123456789") == "" { // ParseUint stops where the range ends
		return registration.MaxPage, nil
	}
	return int(size), err
}

func (a *API) bulkEnrollments(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	bulk, err := dps.DecodeBulkEnrollments(call.Body)
	if err != nil {
		return web.Reply{}, a.refuseBody(by, err)
	}
	return web.Reply{Status: http.StatusOK, Body: a.core.Bulk(ctx, by, bulk).Encode()}, nil
}

func (a *API) bulkGroups(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	bulk, err := dps.DecodeBulkGroups(call.Body)
	if err != nil {
		return web.Reply{}, a.refuseBody(by, err)
	}
	return web.Reply{Status: http.StatusOK, Body: a.core.BulkGroups(ctx, by, bulk).EncodeGroups()}, nil
}

// attestation shows how the devices of an entry prove themselves, keys and all.
func (a *API) attestation(id string, read func(context.Context, registration.Caller, string) (dps.Attestation, error)) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		attestation, err := read(ctx, by, id)
		if err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusOK, Header: unkept, Body: attestation.EncodeShowing(dps.ShowKeys)}, nil
	}
}
