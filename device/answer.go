package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxAnswer     = 1 << 20 // bytes of an answer's body
	maxRetryAfter = time.Hour
	maxShown      = 500 // bytes of a service's text that an error repeats
)

// ErrAnswer says that the service answered something that this protocol does
// not know: no JSON, a part missing, or more than 1 MB. Trying again is not
// likely to help.
var ErrAnswer = errors.New("unexpected answer of the service")

// APIError is a refusal by the service.
type APIError struct {
	Step       string // which request was refused: StepChallenge, StepProve, StepPoll or StepLookup
	Status     int    // of HTTP
	Code       int    // errorCode of the body, such as 404201; 0 if there was none
	TrackingID string // by which the operator finds the reason; may be empty
	Message    string // the service's sentence; may be empty
	RetryAfter time.Duration
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
	return fmt.Sprintf("%s (operation %s)", text, e.OperationID)
}

// answer is what is kept of an HTTP response.
type answer struct {
	status     int
	body       []byte
	retryAfter time.Duration // 0: not said
	date       time.Time     // the service's clock; zero: not said
}

// readAnswer reads a response to its end, or to the limit.
func readAnswer(r *http.Response) (*answer, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrAnswer, maxAnswer)
	}
	date, _ := http.ParseTime(r.Header.Get("Date"))
	return &answer{status: r.StatusCode, body: body, retryAfter: parseRetryAfter(r.Header), date: date}, nil
}

// parseRetryAfter reads whole seconds, which is all that this protocol uses.
// Something else counts as absent.
func parseRetryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(strings.TrimSpace(h.Get("Retry-After")), 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

// refusal turns an answer into an APIError. It makes do without a body, or with
// one that some proxy wrote.
func (a *answer) refusal(step string) error {
	var body struct {
		ErrorCode  json.RawMessage `json:"errorCode"`
		TrackingID json.RawMessage `json:"trackingId"`
		Message    json.RawMessage `json:"message"`
	}
	failure := &APIError{Step: step, Status: a.status, RetryAfter: a.retryAfter}
	if json.Unmarshal(a.body, &body) != nil {
		return failure
	}
	json.Unmarshal(body.ErrorCode, &failure.Code) // of another type: left out
	failure.TrackingID = shown(body.TrackingID)
	failure.Message = shown(body.Message)
	return failure
}

// shown makes a service's text fit for an error and a terminal.
func shown(raw json.RawMessage) string {
	var text string
	json.Unmarshal(raw, &text)
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}

// Challenge is the service's answer to a first contact.
type Challenge struct {
	Blob    []byte // the activation blob with the key that signs the proof
	KeyName string // goes into the SAS token as skn; "registration"

	// ServerTime is the service's clock, zero if it did not say. Devices
	// without a clock of their own reckon the SAS token's expiry by it.
	ServerTime time.Time
}

func (a *answer) challenge() (*Challenge, error) {
	var body struct {
		AuthenticationKey []byte `json:"authenticationKey"`
		KeyName           string `json:"keyName"`
	}
	if a.status != http.StatusUnauthorized {
		if a.status < 300 {
			return nil, fmt.Errorf("%w: it accepted a first contact without proof", ErrAnswer)
		}
		return nil, a.refusal(StepChallenge)
	}
	if err := json.Unmarshal(a.body, &body); err != nil || len(body.AuthenticationKey) == 0 {
		return nil, a.refusal(StepChallenge)
	}
	return &Challenge{Blob: body.AuthenticationKey, KeyName: body.KeyName, ServerTime: a.date}, nil
}

// Operation is one attempt to register, as the service reports it.
type Operation struct {
	ID         string
	Status     string        // "unassigned", "assigning", "assigned", "failed" or "disabled"
	RetryAfter time.Duration // when to ask again; 0: not said
	State      *State        // nil if the answer has none
}

// State is the service's record of a registration.
type State struct {
	RegistrationID string
	Status         string
	Substatus      string
	AssignedHub    string
	DeviceID       string
	HubKey         []byte // activation blob with the hub key; nil if the answer has none
	Payload        json.RawMessage
	ErrorCode      int
	ErrorMessage   string
}

// stateBody and operationBody name the members that are used; all others are
// ignored, since services add some.
type stateBody struct {
	RegistrationID string          `json:"registrationId"`
	Status         string          `json:"status"`
	Substatus      string          `json:"substatus"`
	AssignedHub    string          `json:"assignedHub"`
	DeviceID       string          `json:"deviceId"`
	Payload        json.RawMessage `json:"payload"`
	ErrorCode      json.RawMessage `json:"errorCode"`
	ErrorMessage   json.RawMessage `json:"errorMessage"`
	TPM            *struct {
		AuthenticationKey []byte `json:"authenticationKey"`
	} `json:"tpm"`
}

type operationBody struct {
	OperationID       string     `json:"operationId"`
	Status            string     `json:"status"`
	RegistrationState *stateBody `json:"registrationState"`
}

func (b *stateBody) state() *State {
	if b == nil {
		return nil
	}
	s := &State{RegistrationID: b.RegistrationID, Status: strings.ToLower(b.Status), Substatus: b.Substatus,
		AssignedHub: b.AssignedHub, DeviceID: b.DeviceID, Payload: b.Payload, ErrorMessage: shown(b.ErrorMessage)}
	json.Unmarshal(b.ErrorCode, &s.ErrorCode)
	if b.TPM != nil {
		s.HubKey = b.TPM.AuthenticationKey
	}
	return s
}

func (a *answer) operation(step string) (*Operation, error) {
	if a.status >= 300 {
		return nil, a.refusal(step)
	}
	var body operationBody
	if err := json.Unmarshal(a.body, &body); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrAnswer, step, err)
	}
	if body.OperationID == "" && step == StepProve {
		return nil, fmt.Errorf("%w: %s: no operationId", ErrAnswer, step)
	}
	return &Operation{ID: body.OperationID, Status: strings.ToLower(body.Status),
		RetryAfter: a.retryAfter, State: body.RegistrationState.state()}, nil
}

func (a *answer) lookup() (*State, error) {
	if a.status >= 300 {
		return nil, a.refusal(StepLookup)
	}
	var body stateBody
	if err := json.Unmarshal(a.body, &body); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrAnswer, StepLookup, err)
	}
	return body.state(), nil
}
