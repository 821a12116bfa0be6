package embedded

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// event is one telemetry message as it came.
type event struct {
	topic   string
	payload []byte
	retain  bool
	qos     byte
	will    bool
}

// record is one line of telemetry.
type record struct {
	ID               string            `json:"id"`   // another one each time that the device sends a message
	Time             string            `json:"time"` // when the hub took it, RFC 3339, UTC
	Scope            string            `json:"scope"`
	Hub              string            `json:"hub"`
	DeviceID         string            `json:"deviceId"`
	Properties       map[string]string `json:"properties"`
	SystemProperties map[string]string `json:"systemProperties"`
	Body             json.RawMessage   `json:"body,omitempty"`       // the payload, if it is JSON
	BodyBase64       *[]byte           `json:"bodyBase64,omitempty"` // the payload, if it is not
}

// takeEvent writes the message's record; it counts as taken when that is done. The library acknowledges it after that.
func (h *Hub) takeEvent(l *login, e event) cause {
	p, ok := eventProperties(e.topic, l.deviceID)
	if !ok {
		return causeProps
	}
	now := h.config.Now()
	line, err := encodeRecord(l, p, e, now)
	if err == nil {
		_, err = h.config.Telemetry.Write(line)
	}
	if err != nil {
		h.metrics.sinkErrors.Inc()
		if missed, ok := h.sinkFails.take(h.config.Now()); ok {
			h.log.Error("hub: telemetry cannot be written and is not acknowledged, so that devices send it again: make room, or look after the file's disk; it goes on by itself",
				"scope", l.scope, "hub", l.hub, "device", l.deviceID, "error", err, "missed", missed)
		}
		return causeSink
	}
	h.watching.show(seen{scope: l.scope, deviceID: l.deviceID, at: now, line: line})
	h.metrics.messages.Inc()
	h.metrics.bytes.Add(float64(len(e.payload)))
	h.log.Info("telemetry", "scope", l.scope, "hub", l.hub, "device", l.deviceID, "bytes", len(e.payload), "qos", e.qos, "will", e.will)
	return ""
}

func encodeRecord(l *login, p properties, e event, now time.Time) ([]byte, error) {
	// Marked as the imitated hub marks them. Nothing is retained.
	if e.retain {
		p.application["mqtt-retain"] = "true"
	}
	if e.will {
		p.application["iothub-MessageType"] = "Will"
	}
	r := record{
		ID: rand.Text(), Time: now.UTC().Format(time.RFC3339Nano), Scope: l.scope, Hub: l.hub, DeviceID: l.deviceID,
		Properties: p.application, SystemProperties: p.system,
	}
	if json.Valid(e.payload) && utf8.Valid(e.payload) {
		r.Body = e.payload
	} else {
		r.BodyBase64 = &e.payload
	}
	var line bytes.Buffer
	encoder := json.NewEncoder(&line) // compacts the body too, and ends the line
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(r)
	return line.Bytes(), err
}
