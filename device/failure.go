package device

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrAnswer says that the service answered something that this protocol does
// not know: no JSON, a part missing, or more than 1 MB. The *AnswerError around
// it says what.
var ErrAnswer = errors.New("unexpected answer of the service")

// NetworkError is a request without an answer: no name, no connection, no trust
// in the certificate, or an answer that broke off.
type NetworkError struct {
	Step string // which request it was, such as StepProve
	Err  error
}

// Error names the step and what happened.
func (e *NetworkError) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap gives Err.
func (e *NetworkError) Unwrap() error { return e.Err }

// AnswerError is an answer that makes no sense here. It is an ErrAnswer.
type AnswerError struct {
	Step   string // of which request
	Status int    // of HTTP
	Reason string // a few plain words

	// Foreign says that it is no answer of this protocol at all, such as the page
	// of a portal, a proxy or a load balancer. Another one may come later.
	Foreign bool

	// Err is what a decoder said; may be nil.
	Err error
}

// Error says what was wrong with the answer, not what was in it.
func (e *AnswerError) Error() string {
	text := fmt.Sprintf("%v: %s: HTTP %d: %s", ErrAnswer, e.Step, e.Status, e.Reason)
	if e.Err != nil {
		text += ": " + printableText(e.Err.Error())
	}
	return text
}

// Unwrap gives ErrAnswer and Err.
func (e *AnswerError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrAnswer}
	}
	return []error{ErrAnswer, e.Err}
}

// APIError is a refusal by the service.
type APIError struct {
	Step       string // which request was refused: StepChallenge, StepProve, StepPoll or StepLookup
	Status     int    // of HTTP
	Code       int    // errorCode of the body, such as 404201; 0 if there was none
	TrackingID string // by which the operator finds the reason; may be empty
	Message    string // the service's sentence; may be empty
	RetryAfter time.Duration

	// Foreign says that the body was not one of this protocol: somebody in
	// between may have answered, such as a portal, a proxy or a load balancer.
	Foreign bool
}

// Error gives status, code, message and tracking id.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: the service answered %d", e.Step, e.Status)
	if e.Code != 0 {
		fmt.Fprintf(&b, ", errorCode %d", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.TrackingID != "" {
		fmt.Fprintf(&b, " (tracking id %s)", e.TrackingID)
	}
	if e.Foreign {
		b.WriteString(", or a portal, proxy or load balancer before it")
	}
	return b.String()
}

// RegistrationError is the end of an operation that did not assign the device.
type RegistrationError struct {
	Status      string // "failed" or "disabled"
	OperationID string
	Code        int    // errorCode of the registration state; may be 0
	Message     string // errorMessage; may be empty
}

// Error gives the status and what the service said about it.
func (e *RegistrationError) Error() string {
	text := fmt.Sprintf("registration %s", e.Status)
	if e.Code != 0 {
		text += fmt.Sprintf(", errorCode %d", e.Code)
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return fmt.Sprintf("%s (operation %s)", text, printableText(e.OperationID))
}
