package iothub

import (
	"bytes"
	"encoding/json"

	"latchkey.example/latchkey/dps"
)

// BulkEntry is one line of a bulk: an identity and what to do with it.
type BulkEntry struct {
	Device Device
	ETag   string // without quotes; empty if there is none
	Mode   string // importMode as it was sent; empty if there is none
	Module string // moduleId, if the line is about a module

	// Twin is what the line says of the twin; parts that are absent or empty objects are nil. It is not judged yet.
	Twin     TwinUpdate
	TwinETag string // without quotes; empty if there is none
}

// MaxBulk bounds the text of a bulk, in bytes.
const MaxBulk = 512 << 10

// DecodeBulk reads the body of POST /devices: an array of at most most lines, at least one. Null counts as absent and unknown members are passed over.
// Errors are *dps.FieldError.
func DecodeBulk(body []byte, most int) ([]BulkEntry, error) {
	wrapped := append(append([]byte(`{"devices":`), body...), '}') // the one check there is reads objects
	if err := dps.CheckObject(wrapped, MaxBulk); err != nil {
		return nil, err
	}
	var entries []BulkEntry
	err := dps.EachMember(wrapped, func(name, value []byte) error {
		value = bytes.TrimSpace(value)
		if string(name) != "devices" || len(value) == 0 || value[0] != '[' {
			return refuse("", "the message must be a JSON array")
		}
		return dps.EachElement(value, func(value []byte) error {
			if len(entries) == most {
				return refuse("", "the array has more than %d elements", most)
			}
			e, err := decodeBulkEntry(value)
			entries = append(entries, e)
			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case len(entries) == 0:
		return nil, refuse("", "the array is empty")
	}
	return entries, nil
}

func decodeBulkEntry(value []byte) (BulkEntry, error) {
	e := BulkEntry{Device: Device{Status: Enabled, ConnectionState: Disconnected, Authentication: Authentication{Type: SAS}}}
	if value[0] != '{' || len(value) > MaxIdentity+MaxTwinBody {
		return e, refuse("", "an element is not a device")
	}
	if err := objectMembers("", value, e.member); err != nil {
		return e, err
	}
	if e.Device.DeviceID == "" {
		return e, refuse("id", "is missing")
	}
	return e, nil
}

func (e *BulkEntry) member(name string, value []byte) (err error) {
	switch name {
	case "id":
		err = e.Device.member("deviceId", value)
	case "eTag", "etag": // both are written by clients
		e.ETag, err = etagOf(name, value)
	case "importMode":
		e.Mode, err = textOf(name, value, 64)
	case "moduleId":
		e.Module, err = textOf(name, value, 128)
	case "twinETag":
		e.TwinETag, err = etagOf(name, value)
	case "tags":
		e.Twin.Tags, err = partOf(name, value)
	case "properties":
		err = objectMembers(name, value, func(part string, value []byte) (err error) {
			if part == "desired" { // reported ones are the device's
				e.Twin.Desired, err = partOf("properties.desired", value)
			}
			return err
		})
	default:
		err = e.Device.member(name, value)
	}
	return err
}

// partOf keeps a part of a twin, unless it is empty: clients write empty objects for what they do not set.
func partOf(member string, value []byte) (json.RawMessage, error) {
	if value[0] != '{' {
		return nil, refuse(member, "must be an object")
	}
	if len(trim(value[1:len(value)-1])) == 0 {
		return nil, nil
	}
	return json.RawMessage(value), nil
}
