package iothub

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// ErrorHeader names the error in the header of an answer, beside its body.
const ErrorHeader = "iothub-errorcode"

// Code is an error of the hub: its number is the HTTP status times 1000 and a detail, its name is what answers carry.
type Code int

// Codes of the service side that a caller can meet. Sources: the REST reference's table of common error codes, ErrorCode of the C# service SDK.
const (
	InvalidProtocolVersion          Code = 400001
	ArgumentInvalid                 Code = 400004
	ArgumentNull                    Code = 400005
	IotHubFormatError               Code = 400006
	InvalidOperation                Code = 400003
	IotHubUnauthorizedAccess        Code = 401002
	IotHubUnauthorized              Code = 401003
	IotHubQuotaExceeded             Code = 403002
	DeviceMaximumQueueDepthExceeded Code = 403004
	OperationNotAvailableInTier     Code = 403010
	DeviceNotFound                  Code = 404001
	DeviceNotOnline                 Code = 404103
	DeviceAlreadyExists             Code = 409001
	PreconditionFailed              Code = 412001
	DeviceMessageLockLost           Code = 412002
	MessageTooLarge                 Code = 413001
	ThrottlingException             Code = 429001
	ThrottleBacklogLimitExceeded    Code = 429002
	ThrottlingBacklogTimeout        Code = 429003
	ServerError                     Code = 500001
	ServiceUnavailable              Code = 503001
	GatewayTimeout                  Code = 504101
)

var codeNames = map[Code]string{
	InvalidProtocolVersion: "InvalidProtocolVersion", ArgumentInvalid: "ArgumentInvalid", ArgumentNull: "ArgumentNull",
	IotHubFormatError: "IotHubFormatError", InvalidOperation: "InvalidOperation",
	IotHubUnauthorizedAccess: "IotHubUnauthorizedAccess", IotHubUnauthorized: "IotHubUnauthorized",
	IotHubQuotaExceeded: "IotHubQuotaExceeded", DeviceMaximumQueueDepthExceeded: "DeviceMaximumQueueDepthExceeded",
	OperationNotAvailableInTier: "OperationNotAvailableInCurrentTier",
	DeviceNotFound:              "DeviceNotFound", DeviceNotOnline: "DeviceNotOnline", DeviceAlreadyExists: "DeviceAlreadyExists",
	PreconditionFailed: "PreconditionFailed", DeviceMessageLockLost: "DeviceMessageLockLost", MessageTooLarge: "MessageTooLarge",
	ThrottlingException: "ThrottlingException", ThrottleBacklogLimitExceeded: "ThrottleBacklogLimitExceeded", ThrottlingBacklogTimeout: "ThrottlingBacklogTimeout",
	ServerError: "ServerError", ServiceUnavailable: "ServiceUnavailable", GatewayTimeout: "GatewayTimeout",
}

// String is the name in answers.
func (c Code) String() string {
	if name := codeNames[c]; name != "" {
		return name
	}
	return strconv.Itoa(int(c))
}

// Status is the HTTP status.
func (c Code) Status() int { return int(c) / 1000 }

// codeOf finds a code by its name or number; 0 if it is none of those above.
func codeOf(name string) Code {
	for code, known := range codeNames {
		if strings.EqualFold(name, known) {
			return code
		}
	}
	if number, err := strconv.Atoi(name); err == nil && codeNames[Code(number)] != "" {
		return Code(number)
	}
	return 0
}

// ErrorBody is the body of an error answer, as the hub's service side writes it. message may be shown to whoever asked.
func ErrorBody(code Code, message, trackingID string, at time.Time) []byte {
	return ErrorBodyNamed(code.String(), message, trackingID, at)
}

// ErrorBodyNamed is ErrorBody for a name that is none of the codes here.
func ErrorBodyNamed(name, message, trackingID string, at time.Time) []byte {
	return encode(struct {
		Message          string
		ExceptionMessage string
	}{
		fmt.Sprintf("ErrorCode:%s;%s", name, message),
		fmt.Sprintf("Tracking ID:%s-G:0-TimeStamp:%s", trackingID, at.UTC().Format("01/02/2006 15:04:05")),
	})
}

// Bounds of an error answer.
const (
	MaxErrorBody = 16 << 10 // bytes that are read of one
	maxSentence  = 300      // bytes that are kept of its text
	maxTracking  = 120
	maxAdvice    = time.Hour
)

// Error is a hub's refusal as a client keeps it. Its texts are the hub's own, cut to a line of printable characters.
type Error struct {
	Status     int    // of HTTP
	Code       Code   // 0 if it is none that is known here
	Name       string // of the code as the hub gave it, perhaps empty
	Message    string
	TrackingID string        // by which the hub's owner finds the request
	RetryAfter time.Duration // what the text advises ("Wait 10 seconds"), else 0; a Retry-After header is the caller's to read
}

// Words are the status and the name of the code, if it is a known one: nothing that the hub has put in words of its own.
func (e *Error) Words() string {
	if e.Code == 0 {
		return strconv.Itoa(e.Status)
	}
	return fmt.Sprintf("%d %s", e.Status, e.Code)
}

func (e *Error) Error() string {
	s := fmt.Sprintf("the hub answered %d", e.Status)
	if e.Name != "" {
		s += " " + e.Name
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.TrackingID != "" {
		s += " (its tracking id " + e.TrackingID + ")"
	}
	return s
}

// DecodeError reads an error answer and never fails: a body that is no error of a hub (a proxy's page, garbage, nothing) leaves the status alone.
// header is the value of ErrorHeader, perhaps empty.
func DecodeError(status int, header string, body []byte) *Error {
	e := &Error{Status: status}
	if len(body) > MaxErrorBody {
		body = body[:MaxErrorBody] // no longer JSON, as nothing of that length is an error of a hub
	}
	e.decode(body, true)
	if name := printable(header, 64); e.Name == "" && word(name) {
		e.Name, e.Code = name, codeOf(name)
	}
	if e.Code != 0 && e.Code.Status() != status {
		e.Code = 0 // the status is what HTTP saw; a body that says another one is not believed
	}
	return e
}

// decode reads the two shapes of hubs: {"Message","ExceptionMessage"} and {"errorCode","message","trackingId"}. The second may lie as text in
// the first.
func (e *Error) decode(body []byte, outer bool) {
	if dps.CheckObject(body, MaxErrorBody) != nil {
		return
	}
	var w struct {
		Message, ExceptionMessage, TrackingID string
		ErrorCode                             json.Number
	}
	if json.Unmarshal(body, &w) != nil {
		return
	}
	if outer && strings.HasPrefix(strings.TrimSpace(w.Message), "{") {
		e.decode([]byte(w.Message), false)
		return
	}
	message := w.Message
	if rest, found := strings.CutPrefix(message, "ErrorCode:"); found {
		e.Name, message, _ = strings.Cut(rest, ";")
		e.Name = strings.TrimSpace(e.Name)
	} else if w.ErrorCode != "" {
		e.Name = w.ErrorCode.String()
	}
	e.Code = codeOf(e.Name)
	if e.Name = printable(e.Name, 64); e.Code != 0 {
		e.Name = e.Code.String()
	}
	message, tracking, _ := strings.Cut(message, "\nTracking I")
	if w.ExceptionMessage != "" {
		tracking = w.ExceptionMessage
	}
	e.Message, e.RetryAfter = printable(message, maxSentence), advice(message)
	if e.TrackingID = printable(w.TrackingID, maxTracking); e.TrackingID == "" {
		e.TrackingID = trackingOf(tracking)
	}
}

// trackingOf takes the id out of "Tracking ID:…-G:0-TimeStamp:…"; without a time it is the whole.
func trackingOf(s string) string {
	if _, rest, found := strings.Cut(s, ":"); found {
		s = rest
	}
	s, _, _ = strings.Cut(s, "-TimeStamp:")
	return printable(s, maxTracking)
}

// advice finds the waiting time in a throttling text: "Wait 10 seconds and try again."
func advice(message string) time.Duration {
	_, rest, found := strings.Cut(message, "Wait ")
	digits, rest, _ := strings.Cut(rest, " ")
	seconds, err := strconv.Atoi(digits)
	if !found || err != nil || seconds < 0 || !strings.HasPrefix(rest, "second") {
		return 0
	}
	return min(time.Duration(min(seconds, 3600))*time.Second, maxAdvice)
}

// printable keeps one line of printable ASCII of foreign text: it goes to logs and terminals.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(s) {
		if b.Len() >= limit {
			break
		}
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteByte(' ')
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		default:
			b.WriteByte('?')
		}
	}
	return strings.TrimSpace(b.String())
}

func word(s string) bool {
	return s != "" && url.PathEscape(s) == s
}
