package azure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// readTwin reads what a device takes along.
func (h *Hub) readTwin(ctx context.Context, deviceID string) (data registration.DeviceData, err error) {
	err = h.call(ctx, request{method: "GET", path: iothub.TwinPath(deviceID), most: iothub.MaxTwinAnswer, read: func(body []byte) error { return twinOf(deviceID, body, &data) }})
	if errors.Is(err, errAbsent) {
		return data, registration.ErrNotFound
	}
	if err != nil {
		return registration.DeviceData{}, fmt.Errorf("reading the twin: %w", err)
	}
	return data, nil
}

// writeTwin gives the device its tags and desired properties. A device that is new gets them merged in, so that what an application has written as soon as it saw the device
// stays; one whose data is replaced has nothing else afterwards. Reported properties are for hubs that have said that they take them.
func (h *Hub) writeTwin(ctx context.Context, deviceID string, data registration.DeviceData) error {
	r := request{method: "PATCH", path: iothub.TwinPath(deviceID), ifMatch: "*", most: iothub.MaxTwinAnswer, read: func(body []byte) error { return twinOf(deviceID, body, nil) }}
	if data.Replace {
		r.method = "PUT"
	}
	takes := h.takes.Load()
	if takes {
		r.extension = iothub.ReportedByService
	}
	r.body = encodeTwin(data, takes)
	if err := h.call(ctx, r); err != nil {
		return vanished(fmt.Errorf("writing the twin: %w", err))
	}
	return nil
}

// twinOf reads the twin of a device out of an answer.
func twinOf(deviceID string, body []byte, into *registration.DeviceData) error {
	t, err := iothub.DecodeTwinAnswer(body)
	switch {
	case err != nil:
		return fmt.Errorf("the hub answered with what is no twin: %w", err)
	case t.DeviceID != deviceID:
		return errors.New("the hub answered with the twin of another device")
	}
	if into != nil {
		*into = registration.DeviceData{Tags: t.Tags, Desired: t.Desired, Reported: t.Reported, IoTEdge: t.IoTEdge}
	}
	return nil
}

func emptyTwin(d registration.DeviceData, takes bool) bool {
	return emptyObject(d.Tags) && emptyObject(d.Desired) && (!takes || emptyObject(d.Reported))
}

func emptyObject(object json.RawMessage) bool {
	return len(bytes.Trim(object, " \t\r\n{}")) == 0
}

// encodeTwin is the body of a write: tags and desired properties, and nothing that the hub would have to refuse.
func encodeTwin(d registration.DeviceData, takes bool) []byte {
	orNone := func(object json.RawMessage) json.RawMessage {
		if len(object) == 0 {
			return json.RawMessage("{}")
		}
		return object
	}
	b := append([]byte(`{"tags":`), orNone(d.Tags)...)
	b = append(append(b, `,"properties":{"desired":`...), orNone(d.Desired)...)
	if takes {
		b = append(append(b, `,"reported":`...), orNone(d.Reported)...)
	}
	return append(b, "}}"...)
}
