package device

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"latchkey.example/latchkey/dps"
)

const (
	maxAnswer     = 1 << 20          // bytes of an answer's body
	maxRetryAfter = 15 * time.Minute // of what a service asks for; one may ask for years
	maxShown      = 500              // bytes of a service's text that an error repeats
)

// answer is what is kept of an HTTP response.
type answer struct {
	step       string
	status     int
	body       []byte
	retryAfter time.Duration // 0: not said
	date       time.Time     // the service's clock; zero: not said
}

// readAnswer reads a response to its end, or to the limit.
func readAnswer(step string, r *http.Response) (*answer, error) {
	a := &answer{step: step, status: r.StatusCode}
	a.date, _ = http.ParseTime(r.Header.Get("Date"))
	a.retryAfter = parseRetryAfter(r.Header)
	content, err := plain(r)
	if err == nil {
		a.body, err = io.ReadAll(io.LimitReader(content, maxAnswer+1))
	}
	if err != nil {
		return nil, &NetworkError{Step: step, Err: fmt.Errorf("read answer: %w", err)}
	}
	if len(a.body) > maxAnswer {
		return nil, a.foreign(fmt.Sprintf("more than %d bytes", maxAnswer), nil)
	}
	return a, nil
}

// plain undoes a compression that nobody asked for; net/http undoes the one
// that it asked for itself.
func plain(r *http.Response) (io.Reader, error) {
	if !strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		return r.Body, nil
	}
	return gzip.NewReader(r.Body)
}

// parseRetryAfter reads both forms of RFC 9110, 10.2.3: seconds, and a date,
// which is reckoned from the answer's own Date so that the device's clock does
// not matter. Something else, and what has passed already, count as absent.
func parseRetryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if value != "" && strings.Trim(value, "0123456789") == "" { // more digits than a number can have
		return maxRetryAfter
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	from, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(0, until.Sub(from)), maxRetryAfter)
}

// foreign is an AnswerError about a body that is not of this protocol.
func (a *answer) foreign(reason string, err error) error {
	if a.isPage() {
		reason, err = "a page instead of JSON; is there a portal or proxy in between, or another program at this address?", nil
	}
	return &AnswerError{Step: a.step, Status: a.status, Reason: reason, Foreign: true, Err: err}
}

// wrong is an AnswerError about the content of a body.
func (a *answer) wrong(reason string) error {
	return &AnswerError{Step: a.step, Status: a.status, Reason: reason}
}

func (a *answer) isPage() bool { return bytes.HasPrefix(bytes.TrimSpace(a.body), []byte("<")) }

// refusal turns an answer into an APIError. It makes do without a body, or with
// one that some proxy wrote.
func (a *answer) refusal() error {
	var body struct {
		ErrorCode  json.RawMessage `json:"errorCode"`
		TrackingID json.RawMessage `json:"trackingId"`
		Message    json.RawMessage `json:"message"`
	}
	failure := &APIError{Step: a.step, Status: a.status, RetryAfter: a.retryAfter}
	if json.Unmarshal(a.body, &body) != nil {
		failure.Foreign = true
		return failure
	}
	failure.Code = number(body.ErrorCode)
	failure.TrackingID = shown(body.TrackingID)
	failure.Message = shown(body.Message)
	failure.Foreign = body.ErrorCode == nil && body.TrackingID == nil && body.Message == nil
	return failure
}

// number reads an error code; one of another type is 0.
func number(raw json.RawMessage) (n int) {
	json.Unmarshal(raw, &n)
	return n
}

// shown makes a service's text fit for an error and a terminal.
func shown(raw json.RawMessage) string {
	var text string
	json.Unmarshal(raw, &text)
	return printableText(text)
}

func printableText(text string) string {
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
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
			return nil, a.unasked()
		}
		return nil, a.refusal()
	}
	if err := json.Unmarshal(a.body, &body); err != nil || len(body.AuthenticationKey) == 0 {
		return nil, a.refusal()
	}
	return &Challenge{Blob: body.AuthenticationKey, KeyName: body.KeyName, ServerTime: a.date}, nil
}

// unasked is about a first contact that was accepted without proof: a service
// that lets anybody in, or a portal, which says 200 to everything.
func (a *answer) unasked() error {
	if !json.Valid(a.body) {
		return a.foreign("no JSON", nil)
	}
	return a.wrong("it accepted a first contact without proof")
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
		AssignedHub: b.AssignedHub, DeviceID: b.DeviceID, Payload: b.Payload,
		ErrorCode: number(b.ErrorCode), ErrorMessage: shown(b.ErrorMessage)}
	if b.TPM != nil {
		s.HubKey = b.TPM.AuthenticationKey
	}
	return s
}

func (a *answer) operation() (*Operation, error) {
	if a.status >= 300 {
		return nil, a.refusal()
	}
	var body operationBody
	if err := json.Unmarshal(a.body, &body); err != nil {
		return nil, a.foreign("no answer of this protocol", err)
	}
	op := &Operation{ID: body.OperationID, Status: strings.ToLower(body.Status),
		RetryAfter: a.retryAfter, State: body.RegistrationState.state()}
	if op.ID == "" && a.step == StepProve && !op.ended() { // one that ended at once needs none
		return nil, a.wrong("no operationId")
	}
	return op, nil
}

// ended tells whether there is nothing left to poll for. A status that is not
// known is none of the ends.
func (op *Operation) ended() bool {
	switch op.Status {
	case dps.StatusAssigned, dps.StatusFailed, dps.StatusDisabled:
		return true
	}
	return false
}

func (a *answer) lookup() (*State, error) {
	if a.status >= 300 {
		return nil, a.refusal()
	}
	var body stateBody
	if err := json.Unmarshal(a.body, &body); err != nil {
		return nil, a.foreign("no answer of this protocol", err)
	}
	return body.state(), nil
}
