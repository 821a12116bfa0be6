package azure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// maxTwin bounds the answer with a twin: its parts are bounded at the hub, metadata may be several times as long.
const maxTwin = 1 << 20

// readTwin reads what a device takes along.
func (h *Hub) readTwin(ctx context.Context, deviceID string) (data registration.DeviceData, err error) {
	err = h.call(ctx, request{method: "GET", path: iothub.TwinPath(deviceID), most: maxTwin, read: func(body []byte) error { return twinOf(deviceID, body, &data) }})
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
	r := request{method: "PATCH", path: iothub.TwinPath(deviceID), ifMatch: "*", most: maxTwin, read: func(body []byte) error { return twinOf(deviceID, body, nil) }}
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
	data, err := decodeTwin(body, deviceID)
	if err != nil {
		return fmt.Errorf("the hub answered with what is no twin: %w", err)
	}
	if into != nil {
		*into = data
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

// decodeTwin reads tags, properties and capabilities of a twin; of properties what the hub has written of its own ($metadata, $version) is left out.
func decodeTwin(body []byte, deviceID string) (data registration.DeviceData, err error) {
	if err := dps.CheckObject(body, maxTwin); err != nil {
		return data, err
	}
	named, etag := "", ""
	err = objects(bytes.TrimSpace(body), map[string]func(value []byte) error{
		"deviceId": func(value []byte) error { return json.Unmarshal(value, &named) },
		"etag":     func(value []byte) error { return json.Unmarshal(value, &etag) },
		"tags":     func(value []byte) (err error) { data.Tags, err = plain(value); return err },
		"capabilities": func(value []byte) error {
			return objects(value, map[string]func([]byte) error{"iotEdge": func(value []byte) error { data.IoTEdge = string(value) == "true"; return nil }})
		},
		"properties": func(value []byte) error {
			return objects(value, map[string]func([]byte) error{
				"desired":  func(value []byte) (err error) { data.Desired, err = plain(value); return err },
				"reported": func(value []byte) (err error) { data.Reported, err = plain(value); return err },
			})
		},
	})
	switch {
	case err != nil:
		return data, err
	case named != deviceID:
		return data, errors.New("it is of another device")
	case etag == "":
		return data, errors.New("it has no etag")
	}
	return data, nil
}

// objects gives the members of an object that are not null to those who know them.
func objects(object []byte, known map[string]func(value []byte) error) error {
	if object[0] != '{' {
		return errors.New("a part of it is not an object")
	}
	return dps.EachMember(object, func(name, value []byte) error {
		if read := known[string(name)]; read != nil && string(value) != "null" {
			return read(value)
		}
		return nil
	})
}

// plain is an object without those of its members that the hub has written.
func plain(object []byte) (json.RawMessage, error) {
	if object[0] != '{' {
		return nil, errors.New("a part of it is not an object")
	}
	kept := []byte("{")
	err := dps.EachMember(object, func(name, value []byte) error {
		if strings.HasPrefix(string(name), "$") {
			return nil
		}
		if len(kept) > 1 {
			kept = append(kept, ',')
		}
		quoted, err := json.Marshal(string(name))
		kept = append(append(append(kept, quoted...), ':'), value...)
		return err
	})
	return append(kept, '}'), err
}
