package outflow

import (
	"encoding/json"
	"errors"

	"latchkey.example/latchkey/internal/spool"
)

// message is a record on its way.
type message struct {
	seq  uint64
	line []byte // one JSON object and a line feed
	facts
}

// facts are the members of a record that outputs look at.
type facts struct {
	ID         string          `json:"id"`
	Time       string          `json:"time"`
	Scope      string          `json:"scope"`
	Hub        string          `json:"hub"`
	DeviceID   string          `json:"deviceId"`
	Body       json.RawMessage `json:"body"`
	BodyBase64 []byte          `json:"bodyBase64"`
}

func readMessage(r spool.Record) (message, error) {
	m := message{seq: r.Seq, line: r.Content}
	err := json.Unmarshal(r.Content, &m.facts)
	if err == nil && (m.ID == "" || m.Scope == "" || m.Hub == "" || m.DeviceID == "") {
		err = errors.New("the record lacks a member")
	}
	return m, err
}

// record is the line without its end.
func (m message) record() []byte {
	line := m.line
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	return line
}

// body is what the device sent; JSON without blanks between its parts.
func (m message) body() []byte {
	if m.Body != nil {
		return m.Body
	}
	return m.BodyBase64
}

// Payload says what brokers get as a message.
type Payload string

// The record is all that is known of a message, as JSON; the body is what the device sent.
const (
	PayloadRecord Payload = "record"
	PayloadBody   Payload = "body"
)

func (p Payload) of(m message) []byte {
	if p == PayloadBody {
		return m.body()
	}
	return m.record()
}
