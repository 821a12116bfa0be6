package adminapi

import (
	"context"
	"encoding/csv"
	"net/http"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

var exportParameters = []string{"format", "api-version"}

// exportEnrollments sends every enrollment, a page in memory at a time. An export that breaks is cut off in its framing, so that no client
// takes it for the whole.
func (a *API) exportEnrollments(_ context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	asked := call.URL.Query() // judged before
	reply := web.Reply{Status: http.StatusOK, Header: map[string]string{"X-Content-Type-Options": "nosniff"}}
	switch asked.Get("format") {
	case "", "ndjson":
		reply.Header["Content-Type"] = linesType
		reply.Stream = func(ctx context.Context, stream *web.Stream) error { return a.exportLines(ctx, by, stream) }
	case "csv":
		reply.Header["Content-Type"], reply.Header["Content-Disposition"] = "text/csv; charset=utf-8; header=present", `attachment; filename="enrollments.csv"`
		reply.Stream = func(ctx context.Context, stream *web.Stream) error { return a.exportTable(ctx, by, stream) }
	default:
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "format must be ndjson or csv.", nil)
	}
	return reply, nil
}

func (a *API) exportLines(ctx context.Context, by registration.Caller, stream *web.Stream) error {
	return a.core.Export(ctx, by, func(e dps.IndividualEnrollment) error {
		line, err := e.EncodeExported()
		if err != nil {
			return err
		}
		_, err = stream.Write(append(line, '\n'))
		return err
	})
}

func (a *API) exportTable(ctx context.Context, by registration.Caller, stream *web.Stream) error {
	out := csv.NewWriter(stream)
	if err := out.Write(dps.ImportColumns); err != nil {
		return err
	}
	err := a.core.Export(ctx, by, func(e dps.IndividualEnrollment) error { return writeRecord(out, e) })
	out.Flush()
	if err != nil {
		return err
	}
	return out.Error()
}
