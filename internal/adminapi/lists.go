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

// refuseBody is the answer to a message that could not be read; only places and sentences of our own leave.
func (a *API) refuseBody(by registration.Caller, err error) error {
	var field *dps.FieldError
	detail := ""
	if errors.As(err, &field) {
		detail = field.Error()
	}
	return a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, detail, err)
}

// queryEnrollments answers a page. The continuation must be absent, not empty, on the last one: all SDKs stop on its absence.
func (a *API) queryEnrollments(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	query, err := dps.DecodeQuery(call.Body, dps.CollectionEnrollments)
	if err != nil {
		return web.Reply{}, a.refuseBody(by, err)
	}
	size, err := pageSize(call.Header.Get("x-ms-max-item-count"))
	if err != nil {
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "x-ms-max-item-count must be a whole number, 0 or more.", err)
	}
	page, err := a.core.QueryEnrollments(ctx, by, query, size, call.Header.Get("x-ms-continuation"))
	if err != nil {
		return web.Reply{}, err
	}
	header := map[string]string{"x-ms-item-type": "Enrollment", "X-Content-Type-Options": "nosniff"}
	if page.Continuation != "" {
		header["x-ms-continuation"] = page.Continuation
	}
	return web.Reply{Status: http.StatusOK, Header: header, Body: dps.EncodeEnrollments(page.Enrollments)}, nil
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

func (a *API) attestation(id string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, id); err != nil {
			return web.Reply{}, err
		}
		enrollment, err := a.core.Enrollment(ctx, by, id)
		if err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusOK, Body: enrollment.Attestation.Encode()}, nil
	}
}
