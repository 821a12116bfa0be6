package hubapi

import (
	"errors"
	"fmt"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// notImplemented is for what an IoT Hub has and this hub has not: the status is HTTP's word for it, the name our own.
const notImplemented iothub.Code = 501000

// names are those of the codes that an IoT Hub has no name for.
var names = map[dps.Code]string{
	dps.Code(notImplemented):     "NotImplemented",
	dps.CodeNotFound:             "ResourceNotFound",
	dps.CodeMethodNotAllowed:     "InvalidOperation",
	dps.CodeTimeout:              "RequestTimeout",
	dps.CodeUnsupportedMediaType: "UnsupportedMediaType",
}

// refusal is the form in which an IoT Hub refuses.
func refusal(fault *registration.Fault, sentence string, at time.Time) (map[string]string, []byte) {
	code, name := iothub.Code(fault.Code), names[fault.Code]
	if name == "" {
		name = code.String()
	}
	switch {
	case sentence != "":
	case fault.Code == dps.CodeTooLarge: // the catalogue's names a size that is not that of every message here
		sentence = "The message is larger than it may be."
	default:
		sentence = fault.Code.Message()
	}
	return map[string]string{iothub.ErrorHeader: name, iothub.ExtensionHeader: iothub.ReportedByService}, iothub.ErrorBodyNamed(name, sentence, fault.TrackingID, at)
}

// fault refuses with a code of an IoT Hub. The sentence is public.
func (a *API) fault(by registration.Caller, code iothub.Code, reason registration.Reason, sentence string) error {
	fault := a.core.Fault(by.Scope, dps.Code(code), reason, sentence, nil)
	if code == notImplemented {
		fault.RetryAfter = 0 // it will not be there later
	}
	return fault
}

// refuse is the answer to an error of the hub.
func (a *API) refuse(by registration.Caller, doing string, err error) error {
	var twin *iothub.TwinError
	var field *dps.FieldError
	switch {
	case errors.Is(err, registration.ErrNotFound):
		return a.fault(by, iothub.DeviceNotFound, registration.ReasonDeviceMissing, "The hub has no device of this id.")
	case errors.Is(err, registration.ErrChanged):
		return a.fault(by, iothub.PreconditionFailed, registration.ReasonEtag, "The etag is not the current one; read the device again.")
	case errors.Is(err, registration.ErrFull):
		return a.fault(by, iothub.DeviceMaximumQueueDepthExceeded, registration.ReasonQueueFull, fmt.Sprintf("%d messages wait for the device, and more may not: it must take some first, or an application removes them (DELETE /devices/{id}/commands).", iothub.MaxWaitingMessages))
	case errors.Is(err, registration.ErrElsewhere):
		return a.core.Fault(by.Scope, dps.CodeUnavailable, registration.ReasonHubElsewhere, "Another node serves the hub, and this one could not do it. Wait as long as Retry-After says, or ask that node.", err)
	case errors.As(err, &twin):
		return a.fault(by, iothub.ArgumentInvalid, registration.ReasonBadDevice, twin.Error())
	case errors.As(err, &field):
		return a.bad(by, err)
	}
	return a.core.HubFault(by, doing, err)
}

// bad refuses what the caller sent.
func (a *API) bad(by registration.Caller, err error) error {
	sentence := "The message is not valid."
	var field *dps.FieldError
	if errors.As(err, &field) {
		sentence = field.Error()
	}
	return a.fault(by, iothub.ArgumentInvalid, registration.ReasonBadDevice, sentence)
}
