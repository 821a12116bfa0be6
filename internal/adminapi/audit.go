package adminapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// AuditLog is the answer of GET /latchkey/v1/audit: a page of the log, oldest first.
type AuditLog struct {
	Entries      []AuditLogEntry `json:"entries"`
	Continuation string          `json:"continuation,omitempty"` // absent: there was no more
	Next         string          `json:"next"`                   // where to go on once more is written; the continuation if there is one
}

// AuditLogEntry is one durable row and its place in the log.
type AuditLogEntry struct {
	Seq uint64 `json:"seq"`
	AuditEntry
	TrackingID string `json:"trackingId,omitempty"` // of the answer that was given with it
}

// AuditEntry is one durable row.
type AuditEntry struct {
	Time    string          `json:"time"`
	Actor   string          `json:"actor"`
	Address string          `json:"address,omitempty"`
	Action  string          `json:"action"`
	Object  string          `json:"object"`
	Outcome string          `json:"outcome"`
	Reason  string          `json:"reason"`
	Detail  json.RawMessage `json:"detail,omitempty"`
}

func auditEntry(row registration.Audit) AuditEntry {
	e := AuditEntry{Time: dps.FormatTime(row.At), Actor: row.Actor, Address: row.Address, Action: row.Action,
		Object: row.Object, Outcome: row.Outcome, Reason: row.Reason.String(), Detail: json.RawMessage(row.Detail)}
	if row.Detail != "" && !json.Valid(e.Detail) { // one row that is not as it should be does not hide all others
		e.Detail, _ = json.Marshal(row.Detail) // a string always has a form
	}
	return e
}

// auditParameters are what the query of a reading may hold: a misspelt filter must not select everything.
var auditParameters = []string{"object", "action", "since", "size", "continuation", "api-version"}

func (a *API) listAudit(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	refuse := func(detail string, inside error) (web.Reply, error) {
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, detail, inside)
	}
	asked := call.URL.Query()
	filter := registration.AuditFilter{Object: asked.Get("object"), Action: asked.Get("action")}
	if since := asked.Get("since"); since != "" {
		var err error
		if filter.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return refuse("since must be a time such as 2026-03-01T12:00:00Z.", err)
		}
	}
	size, err := pageSize(asked.Get("size"))
	if err != nil {
		return refuse("size must be a whole number, 0 or more.", err)
	}
	page, err := a.core.AuditLog(ctx, by, filter, size, asked.Get("continuation"))
	if err != nil {
		return web.Reply{}, err
	}
	answer := AuditLog{Entries: []AuditLogEntry{}, Continuation: page.Continuation, Next: page.Next}
	for _, line := range page.Lines {
		answer.Entries = append(answer.Entries, AuditLogEntry{line.Seq, auditEntry(line.Audit), line.TrackingID})
	}
	body, err := json.Marshal(answer)
	return web.Reply{Status: http.StatusOK, Body: body}, err
}
