package iothub

import (
	"encoding/json"
	"strconv"
	"time"

	"latchkey.example/latchkey/dps"
)

// How long a direct method may wait, after the imitated hub's bounds.
const (
	DefaultRespond = 30 * time.Second
	minRespond     = 5 // seconds
	maxRespond     = 300
	maxConnect     = 300
)

// Method is a call of a device, as POST /twins/{id}/methods brings it.
type Method struct {
	Name    string
	Payload json.RawMessage // null if there was none
	Connect time.Duration   // how long to wait for the device to come, 0 to 300 s
	Respond time.Duration   // how long to wait for its answer, 5 to 300 s
}

// DecodeMethod reads {"methodName","payload","responseTimeoutInSeconds","connectTimeoutInSeconds"}. Null counts as absent and unknown members are
// passed over. Errors are *dps.FieldError.
func DecodeMethod(body []byte) (Method, error) {
	m := Method{Payload: json.RawMessage("null"), Respond: DefaultRespond}
	if err := dps.CheckObject(body, MaxMethodPayload+4<<10); err != nil {
		return m, err
	}
	err := objectMembers("", trim(body), func(name string, value []byte) (err error) {
		switch name {
		case "methodName":
			m.Name, err = textOf(name, value, MaxMethodName)
		case "payload":
			m.Payload = json.RawMessage(value)
			err = CheckMethodPayload(value)
		case "responseTimeoutInSeconds":
			m.Respond, err = secondsOf(name, value, minRespond, maxRespond)
		case "connectTimeoutInSeconds":
			m.Connect, err = secondsOf(name, value, 0, maxConnect)
		}
		return err
	})
	if err != nil {
		return m, err
	}
	return m, CheckMethodName(m.Name)
}

func secondsOf(member string, value []byte, least, most int) (time.Duration, error) {
	n, err := strconv.Atoi(string(value))
	if err != nil || n < least || n > most {
		return 0, refuse(member, "must be a whole number of seconds from %d to %d", least, most)
	}
	return time.Duration(n) * time.Second, nil
}

// Encode is the body of the request.
func (m Method) Encode() []byte {
	payload := m.Payload
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	return encode(struct {
		Name    string          `json:"methodName"`
		Respond int             `json:"responseTimeoutInSeconds"`
		Connect int             `json:"connectTimeoutInSeconds"`
		Payload json.RawMessage `json:"payload"`
	}{m.Name, int(m.Respond / time.Second), int(m.Connect / time.Second), payload})
}

// MethodAnswer is what the service is told of a device's answer. payload is JSON, or empty for none.
func MethodAnswer(status int, payload json.RawMessage) []byte {
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	return encode(struct {
		Status  int             `json:"status"`
		Payload json.RawMessage `json:"payload"`
	}{status, payload})
}

// trim takes away what JSON allows around an object.
func trim(body []byte) []byte {
	start, end := 0, len(body)
	for start < end && space(body[start]) {
		start++
	}
	for end > start && space(body[end-1]) {
		end--
	}
	return body[start:end]
}

// ParseExpiry reads when a message expires: a time (RFC 3339) or milliseconds of Unix, both of which clients send. The error is a *dps.FieldError.
func ParseExpiry(s string) (time.Time, error) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms > 0 && ms < 1<<50 {
		return time.UnixMilli(ms).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, refuse("expiryTimeUtc", "must be a time such as 2030-01-02T03:04:05Z, or milliseconds since 1970")
}
