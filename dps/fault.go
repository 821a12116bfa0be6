package dps

import (
	"slices"
	"strconv"
	"time"
)

// Code is the errorCode of an error answer: HTTP status times 1000, plus a
// detail. The set is closed; where a code was seen on the imitated service it
// is that one. C# takes the status of an AMQP refusal from it, so the status
// must be exactly code/1000.
type Code int

// Codes of error answers.
const (
	CodeBadRequest           Code = 400004
	CodeUnauthorized         Code = 401002
	CodeDisabled             Code = 403001
	CodeRefusedOwner         Code = 403002
	CodeNotFound             Code = 404000
	CodeNotEnrolled          Code = 404201
	CodeRegistrationNotFound Code = 404202
	CodeOperationNotFound    Code = 404203
	CodeCANotFound           Code = 404204
	CodeScopeNotFound        Code = 404205
	CodeMethodNotAllowed     Code = 405000
	CodeTimeout              Code = 408001
	CodeEnrollmentExists     Code = 409201
	CodeGroupExists          Code = 409202
	CodeCAExists             Code = 409204
	CodeCAInUse              Code = 409205
	CodeScopeExists          Code = 409206
	CodeConflict             Code = 409203
	CodePreconditionFailed   Code = 412001
	CodeTooLarge             Code = 413001
	CodeUnsupportedMediaType Code = 415000
	CodeTooManyRequests      Code = 429001
	CodeInternal             Code = 500001
	CodeUnavailable          Code = 503001
)

// CodeGroupNotFound is also that of a registration: the imitated service has one
// second kind of not-found. Say which in the sentence.
const CodeGroupNotFound = CodeRegistrationNotFound

// Codes of failed registrations. They travel in RegistrationState.ErrorCode of
// an answer whose HTTP status is 200, never as an error answer.
const (
	CodeAllocationFailed Code = 400207
	CodeNoHub            Code = 400208 // the C client has a result of its own for it
	CodeHubRefused       Code = 400209 // likewise
)

// messages are the public sentences: what happened and, where it helps, what
// to do. They are constant, so they cannot leak. Sentences for refusals that
// must look alike to a stranger (unknown id and other EK) are one sentence.
var messages = map[Code]string{
	CodeBadRequest:           "The request is not valid.",
	CodeUnauthorized:         "Unauthorized.",
	CodeDisabled:             "The enrollment is disabled. Ask the operator to enable it.",
	CodeRefusedOwner:         "The TPM has a new owner and the policy refuses it. Ask the operator to approve the new storage root key.",
	CodeNotFound:             "Nothing is at this path.",
	CodeNotEnrolled:          "Enrollment not found.",
	CodeRegistrationNotFound: "Registration not found.",
	CodeScopeNotFound:        "Scope not found.",
	CodeScopeExists:          "A host name of it belongs to another scope already.",
	CodeCANotFound:           "CA certificate not found.",
	CodeOperationNotFound:    "Operation not found. Register again.",
	CodeMethodNotAllowed:     "The path does not have this method.",
	CodeTimeout:              "The request did not arrive in time. Send it again.",
	CodeEnrollmentExists:     "Enrollment already exists. To replace it, send its etag in If-Match.",
	CodeGroupExists:          "EnrollmentGroup already exists. To replace it, send its etag in If-Match.",
	CodeCAExists:             "CA certificate already exists. To replace it, delete it first.",
	CodeCAInUse:              "An enrollment group refers to the CA certificate. Change or delete the group first.",
	CodeConflict:             "Precondition failed. The record changed at the same time; send the request again.",
	CodePreconditionFailed:   "Precondition failed. The etag is not the current one; read the resource again.",
	CodeTooLarge:             "The message is too large. The limit is 96 KB.",
	CodeUnsupportedMediaType: "The content type must be application/json.",
	CodeTooManyRequests:      "Too many requests. Wait as long as Retry-After says.",
	CodeInternal:             "Internal error. Give the tracking id to the operator.",
	CodeUnavailable:          "The service cannot answer now. Wait as long as Retry-After says.",

	CodeAllocationFailed: "Custom allocation failed.",
	CodeNoHub:            "No hub could be chosen. Ask the operator which hubs the enrollment allows.",
	CodeHubRefused:       "The hub refused the device. Ask the operator to check the hub's credentials.",
}

// Status is the HTTP status of the code, 400 to 599.
func (c Code) Status() int { return int(c) / 1000 }

// Message is the public sentence of the code; it never depends on the request.
func (c Code) Message() string {
	if m, ok := messages[c]; ok {
		return m
	}
	return messages[CodeInternal]
}

// FailedRegistration reports whether the code belongs into the state of a
// failed registration and not into an error answer.
func (c Code) FailedRegistration() bool {
	return c == CodeAllocationFailed || c == CodeNoHub || c == CodeHubRefused
}

// Codes lists the whole catalogue in ascending order.
func Codes() []Code {
	all := make([]Code, 0, len(messages))
	for c := range messages {
		all = append(all, c)
	}
	slices.Sort(all)
	return all
}

// ErrorBody is the JSON body of an error answer, for those who read one.
type ErrorBody struct {
	ErrorCode    int               `json:"errorCode"`
	TrackingID   string            `json:"trackingId"`
	Message      string            `json:"message"`
	Info         map[string]string `json:"info,omitempty"`
	TimestampUTC string            `json:"timestampUtc"`
}

// EncodeError makes the body of an error answer. A non-empty detail replaces
// the code's sentence: it is for answers with status 400 that point at the
// place, such as the text of a FieldError, and must be fit for the public.
// Rust's client needs an integer code and a string message in every such body.
func EncodeError(code Code, detail, trackingID string, at time.Time) []byte {
	message := detail
	if message == "" {
		message = code.Message()
	}
	b := make([]byte, 0, 160+len(message)+len(trackingID))
	b = append(b, `{"errorCode":`...)
	b = strconv.AppendInt(b, int64(code), 10)
	b = appendMember(b, "trackingId", trackingID)
	b = appendMember(b, "message", message)
	b = append(b, `,"timestampUtc":"`...)
	b = at.UTC().AppendFormat(b, errorTime)
	return append(b, `"}`...)
}
