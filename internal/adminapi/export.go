package adminapi

import (
	"context"
	"encoding/csv"
	"net/http"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

var exportParameters = []string{"format", "api-version"}

// judgedLines is how many lines of an export are written between two looks at the caller's rights.
const judgedLines = 100

// judgeTime bounds a look at the caller's rights.
const judgeTime = 10 * time.Second

// again judges the caller of a stream as when the request came, but for what was changed since: an access policy, its keys, the scope. That the client
// is gone does not hinder it: lines that came whole are still written.
func (a *API) again(call web.Call, right registration.Right) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(call.Context()), judgeTime)
		defer cancel()
		_, err := a.core.Authorize(ctx, host(call.Request), call.URL.Path, call.Header.Get("Authorization"), call.Address, right, call.Arrived)
		return err
	}
}

// exportEnrollments sends every enrollment, a page in memory at a time. An export that breaks is cut off in its framing, so that no client
// takes it for the whole.
func (a *API) exportEnrollments(_ context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	asked := call.URL.Query() // judged before
	again := a.again(call, registration.EnrollmentRead)
	reply := web.Reply{Status: http.StatusOK, Header: map[string]string{"X-Content-Type-Options": "nosniff"}}
	switch asked.Get("format") {
	case "", "ndjson":
		reply.Header["Content-Type"] = linesType
		reply.Stream = func(ctx context.Context, stream *web.Stream) error { return a.exportLines(ctx, by, again, stream) }
	case "csv":
		reply.Header["Content-Type"], reply.Header["Content-Disposition"] = "text/csv; charset=utf-8; header=present", `attachment; filename="enrollments.csv"`
		reply.Stream = func(ctx context.Context, stream *web.Stream) error { return a.exportTable(ctx, by, again, stream) }
	default:
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "format must be ndjson or csv.", nil)
	}
	return reply, nil
}

// exportEach gives every enrollment for as long as the caller may read them.
func (a *API) exportEach(ctx context.Context, by registration.Caller, again func() error, each func(dps.IndividualEnrollment) error) error {
	lines := 0
	return a.core.Export(ctx, by, func(e dps.IndividualEnrollment) error {
		if lines++; lines%judgedLines == 0 {
			if err := again(); err != nil {
				return err
			}
		}
		return each(e)
	})
}

func (a *API) exportLines(ctx context.Context, by registration.Caller, again func() error, stream *web.Stream) error {
	return a.exportEach(ctx, by, again, func(e dps.IndividualEnrollment) error {
		line, err := e.EncodeExported()
		if err != nil {
			return err
		}
		_, err = stream.Write(append(line, '\n'))
		return err
	})
}

func (a *API) exportTable(ctx context.Context, by registration.Caller, again func() error, stream *web.Stream) error {
	out := csv.NewWriter(stream)
	if err := out.Write(dps.ImportColumns); err != nil {
		return err
	}
	err := a.exportEach(ctx, by, again, func(e dps.IndividualEnrollment) error { return writeRecord(out, e) })
	out.Flush()
	if err != nil {
		return err
	}
	return out.Error()
}
