package hubapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// bulkResult is the answer of a bulk.
type bulkResult struct {
	IsSuccessful bool        `json:"isSuccessful"`
	Errors       []bulkError `json:"errors"`
	Warnings     []struct{}  `json:"warnings"`
}

type bulkError struct {
	DeviceID    string `json:"deviceId"`
	ErrorCode   string `json:"errorCode"`
	ErrorStatus string `json:"errorStatus"`
}

// bulk does each line for itself, in order: one that fails stops no other. If any failed the status is 400, as the REST description says.
func (a *API) bulk(ctx context.Context, c call) (web.Reply, error) {
	entries, err := iothub.DecodeBulk(c.Body, maxDevices)
	if err != nil {
		return web.Reply{}, a.bad(c.by, err)
	}
	seen := make(map[string]bool, len(entries))
	for _, e := range entries {
		if seen[e.Device.DeviceID] {
			return web.Reply{}, a.fault(c.by, deviceDefinedTwice, registration.ReasonBadDevice, "A device is in the list twice.")
		}
		seen[e.Device.DeviceID] = true
	}
	result := bulkResult{IsSuccessful: true, Errors: []bulkError{}, Warnings: []struct{}{}}
	for _, e := range entries {
		if err := a.bulkEntry(ctx, c, e); err != nil {
			result.IsSuccessful = false
			result.Errors = append(result.Errors, lineError(e.Device.DeviceID, err))
		}
	}
	body, err := json.Marshal(result)
	status := http.StatusOK
	if !result.IsSuccessful {
		status = http.StatusBadRequest
	}
	return web.Reply{Status: status, Body: body}, err
}

const deviceDefinedTwice iothub.Code = 400011

// lineError is what a line is told: what a request of its own would have been told.
func lineError(id string, err error) bulkError {
	var fault *registration.Fault
	if !errors.As(err, &fault) {
		return bulkError{id, iothub.ServerError.String(), "Internal error."}
	}
	name := names[fault.Code]
	if name == "" {
		name = iothub.Code(fault.Code).String()
	}
	sentence := fault.Detail
	if sentence == "" {
		sentence = fault.Code.Message()
	}
	return bulkError{id, name, fmt.Sprintf("%s Tracking id %s.", sentence, fault.TrackingID)}
}

func (a *API) bulkEntry(ctx context.Context, c call, e iothub.BulkEntry) error {
	m, known := modes[strings.ToLower(e.Mode)]
	switch {
	case !known:
		return a.fault(c.by, notImplemented, registration.ReasonNoModules, "importMode: this hub knows create, update, createOrUpdate, delete, updateTwin, and each but create with IfMatchETag after it.")
	case e.Module != "":
		return a.fault(c.by, notImplemented, registration.ReasonNoModules, "moduleId: this hub does not offer modules.")
	case m.tagged && !m.twin && e.ETag == "" && !m.create:
		return a.fault(c.by, iothub.PreconditionFailed, registration.ReasonEtag, "eTag: is missing, and the importMode needs it.")
	case m.tagged && m.twin && e.TwinETag == "":
		return a.fault(c.by, iothub.PreconditionFailed, registration.ReasonEtag, "twinETag: is missing, and the importMode needs it.")
	case m.remove:
		return a.remove(ctx, c, m.condition(e), e.Device.DeviceID)
	}
	change := registration.TwinChange{Tags: e.Twin.Tags, Desired: e.Twin.Desired, Replace: !m.twin}
	if err := judgeTwin(change); err != nil {
		return a.refuse(c.by, "", err)
	}
	if m.twin {
		return a.bulkTwin(ctx, c, e, change, m.tagged)
	}
	_, err := a.write(ctx, c, m.condition(e), e.Device)
	if m.create && !m.fresh && missing(err) {
		_, err = a.write(ctx, c, condition{absent: true}, e.Device)
	}
	if err != nil {
		return err
	}
	return a.bulkTwin(ctx, c, e, change, false)
}

// judgeTwin refuses what no twin can hold, before the identity is written. What is merged may still be too much together with what is there.
func judgeTwin(change registration.TwinChange) error {
	if len(change.Tags) > 0 {
		if _, err := iothub.PatchTags(nil, change.Tags); err != nil {
			return err
		}
	}
	if len(change.Desired) > 0 {
		if _, err := (iothub.Part{}).Patch(iothub.Desired, change.Desired, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// bulkTwin writes what a line says of the twin, if it says anything.
func (a *API) bulkTwin(ctx context.Context, c call, e iothub.BulkEntry, change registration.TwinChange, tagged bool) (err error) {
	if tagged {
		if change.Was, err = a.twinVersion(ctx, c, e.Device.DeviceID, e.TwinETag); err != nil {
			return err
		}
	}
	if len(change.Tags)+len(change.Desired) == 0 {
		return nil
	}
	return a.writeTwin(ctx, c, e.Device.DeviceID, change)
}

// importMode is what a line of a bulk is to do.
type importMode struct {
	create bool // if there is none
	fresh  bool // only then
	tagged bool // only to what has the etag
	remove bool
	twin   bool // the twin alone, merged into what is there
}

// modes by their names in lower case. No mode is createOrUpdate.
var modes = map[string]importMode{
	"":                          {create: true},
	"create":                    {create: true, fresh: true},
	"createorupdate":            {create: true},
	"createorupdateifmatchetag": {create: true, tagged: true},
	"update":                    {},
	"updateifmatchetag":         {tagged: true},
	"delete":                    {remove: true},
	"deleteifmatchetag":         {remove: true, tagged: true},
	"updatetwin":                {twin: true},
	"updatetwinifmatchetag":     {twin: true, tagged: true},
}

// condition is what the mode wants to find. An etag counts only where the mode says so; that of nothing fits nothing.
func (m importMode) condition(e iothub.BulkEntry) condition {
	switch {
	case m.fresh:
		return condition{absent: true}
	case m.tagged && e.ETag != "":
		return condition{etag: e.ETag}
	case m.tagged:
		return condition{etag: "none"}
	}
	return condition{any: true}
}

func missing(err error) bool {
	var fault *registration.Fault
	return errors.As(err, &fault) && fault.Reason == registration.ReasonDeviceMissing
}
