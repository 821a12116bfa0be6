package device

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Remedy is what may help after an error. The set is closed.
type Remedy string

// What may help.
const (
	// RemedyWait: the same call may succeed in a while, with nobody doing
	// anything. See Temporary.
	RemedyWait Remedy = "wait"

	// RemedyNetwork: see to name resolution, the way to the service, its
	// certificate, this device's clock, or the endpoint's name.
	RemedyNetwork Remedy = "network"

	// RemedyOperator: the service's operator has to do something. An *APIError
	// has the tracking id by which the reason is found.
	RemedyOperator Remedy = "operator"

	// RemedyRegister: register again; what was saved belongs to another owner.
	RemedyRegister Remedy = "register"

	// RemedyTPM: see to the TPM, its owner or its authorisation values.
	RemedyTPM Remedy = "tpm"

	// RemedyCaller: the request or the program that made it has to be changed.
	RemedyCaller Remedy = "caller"
)

// RemedyFor says what may help after an error of this package; empty without an
// error.
//
//	error                                          remedy
//	*NetworkError: certificate not trusted         RemedyNetwork
//	*NetworkError, anything else                   RemedyWait
//	*APIError 408, 409, 412, 425, 429, 5xx         RemedyWait
//	*APIError 401                                  RemedyWait (a rival or a clock), RemedyOperator at the first contact
//	*APIError 403, 404                             RemedyOperator
//	*APIError, other 4xx                           RemedyCaller
//	*APIError, *AnswerError that are Foreign       RemedyNetwork
//	*AnswerError, anything else                    RemedyOperator
//	*RegistrationError: a code as of those above   RemedyWait
//	*RegistrationError, anything else              RemedyOperator
//	ErrOtherOwner, ErrNotForThisTPM                RemedyRegister
//	ErrBusy, ErrStalled, lockout, no memory        RemedyWait
//	*TPMError, anything else                       RemedyTPM
//	context.DeadlineExceeded                       RemedyWait
//	anything else                                  RemedyCaller
func RemedyFor(err error) Remedy {
	var network *NetworkError
	var refusal *APIError
	var answer *AnswerError
	var failure *RegistrationError
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrOtherOwner), errors.Is(err, ErrNotForThisTPM):
		return RemedyRegister
	case errors.Is(err, ErrBusy), errors.Is(err, ErrStalled):
		return RemedyWait
	case errors.Is(err, context.Canceled):
		return RemedyCaller
	case errors.As(err, &network):
		if distrusted(err) {
			return RemedyNetwork
		}
		return RemedyWait
	case errors.As(err, &refusal):
		return refusal.remedy()
	case errors.As(err, &failure):
		if failure.Status == "failed" && passingStatus(failure.Code/1000) {
			return RemedyWait
		}
		return RemedyOperator
	case errors.As(err, &answer):
		if answer.Foreign {
			return RemedyNetwork
		}
		return RemedyOperator
	case errors.Is(err, context.DeadlineExceeded):
		return RemedyWait
	}
	return remedyForTPM(err)
}

// Temporary tells whether the same call may succeed in a while, though nobody
// does anything. Of a page in place of an answer it is true too: portals and
// proxies come and go. A program that runs for ever may try after any other
// error as well, far more seldom.
func Temporary(err error) bool {
	var refusal *APIError
	var answer *AnswerError
	foreign := errors.As(err, &refusal) && refusal.Foreign || errors.As(err, &answer) && answer.Foreign
	return foreign || RemedyFor(err) == RemedyWait
}

// RetryAfter is how long the service that refused asks to wait, at most 15
// minutes; 0 if it did not ask, or the error is another.
func RetryAfter(err error) time.Duration {
	var refusal *APIError
	if errors.As(err, &refusal) {
		return refusal.RetryAfter
	}
	return 0
}

func (e *APIError) remedy() Remedy {
	switch {
	case passingStatus(e.Status):
		return RemedyWait
	case e.Foreign:
		return RemedyNetwork
	case e.Status == http.StatusUnauthorized && e.Step != StepChallenge:
		return RemedyWait
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden, e.Status == http.StatusNotFound:
		return RemedyOperator
	case e.Status >= 300 && e.Status < 400:
		return RemedyNetwork
	}
	return RemedyCaller
}

// passingStatus: of these HTTP says, or this protocol means, that the same
// request may be taken later. 409 and 412 are a rival that was first.
func passingStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusPreconditionFailed, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusNetworkAuthenticationRequired:
		return false
	}
	return status >= 500 && status < 600
}

// distrusted: nothing crosses a connection to somebody who cannot show to be
// the service.
func distrusted(err error) bool {
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &certificate)
}

// passingTPM are response codes that tell of the moment: another program's
// objects fill the TPM, or the lockout will end.
var passingTPM = []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCLockout,
	tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionHandles}

func remedyForTPM(err error) Remedy {
	var failure *TPMError
	if !errors.As(err, &failure) {
		return RemedyCaller
	}
	if slices.ContainsFunc(passingTPM, func(code tpm2.TPMRC) bool { return errors.Is(err, code) }) {
		return RemedyWait
	}
	return RemedyTPM
}
