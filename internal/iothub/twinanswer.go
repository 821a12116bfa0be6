package iothub

import (
	"bytes"
	"encoding/json"
	"strings"

	"latchkey.example/latchkey/dps"
)

// Bounds of a twin in an answer, in bytes: its parts are limited at the hub, but by what they say and not by how it is written, and metadata may be several
// times as long.
const (
	MaxTwinAnswer = 1 << 20
	maxTwinPart   = 4 * MaxProperties
)

// TwinAnswer is a twin as a client reads it of a hub. Its parts are JSON objects without what the hub has written into them ($metadata, $version); nil if the hub
// shows none.
type TwinAnswer struct {
	DeviceID, ETag          string
	Tags, Desired, Reported json.RawMessage
	IoTEdge                 bool
}

// DecodeTwinAnswer reads the answer to GET, PUT or PATCH of a twin. Null counts as absent, other members are passed over. Errors are *dps.FieldError.
func DecodeTwinAnswer(body []byte) (t TwinAnswer, err error) {
	if err := dps.CheckObject(body, MaxTwinAnswer); err != nil {
		return t, err
	}
	err = objectMembers("", bytes.TrimSpace(body), func(name string, value []byte) (err error) {
		switch name {
		case "deviceId":
			t.DeviceID, err = textOf(name, value, 128)
		case "etag":
			t.ETag, err = etagOf(name, value)
		case "tags":
			t.Tags, err = plain(name, value)
		case "capabilities":
			t.IoTEdge, err = decodeCapabilities(value)
		case "properties":
			err = t.properties(value)
		}
		return err
	})
	switch {
	case err != nil:
		return TwinAnswer{}, err
	case t.DeviceID == "":
		return TwinAnswer{}, refuse("deviceId", "is missing")
	case t.ETag == "":
		return TwinAnswer{}, refuse("etag", "is missing")
	}
	return t, nil
}

func (t *TwinAnswer) properties(value []byte) error {
	return objectMembers("properties", value, func(name string, value []byte) (err error) {
		switch name {
		case "desired":
			t.Desired, err = plain("properties.desired", value)
		case "reported":
			t.Reported, err = plain("properties.reported", value)
		}
		return err
	})
}

// plain is an object without those of its members that are the hub's own.
func plain(member string, object []byte) (json.RawMessage, error) {
	if object[0] != '{' {
		return nil, refuse(member, "must be an object")
	}
	kept := []byte("{")
	err := dps.EachMember(object, func(name, value []byte) error {
		if strings.HasPrefix(string(name), "$") {
			return nil
		}
		if len(kept) > 1 {
			kept = append(kept, ',')
		}
		kept = append(append(append(kept, encode(string(name))...), ':'), value...)
		if len(kept) > maxTwinPart {
			return refuse(member, "is larger than hubs let it be")
		}
		return nil
	})
	return append(kept, '}'), err
}
