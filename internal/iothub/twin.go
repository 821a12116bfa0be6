package iothub

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"time"
)

// Part is a section of properties as it is stored. The zero value is that of a device whose twin nobody has written.
type Part struct {
	Values   []byte // a JSON object, empty for none
	Metadata []byte // in a form of this package's own
	Version  uint64 // 0 counts as 1, which a twin begins with
}

// maxMetadata bounds what is kept of when members were written, in bytes. Only sections of nothing but short names, one in the other, come near.
const maxMetadata = 900 << 10

func (p Part) version() uint64 { return max(p.Version, 1) }

// opened is a part that is worked on.
type opened struct {
	section Section
	values  map[string]any
	root    *node
	version uint64
}

func (p Part) open(s Section) (opened, error) {
	values, err := stored(p.Values)
	if err != nil {
		return opened{}, err
	}
	root, err := decodeNode(p.Metadata)
	return opened{s, values, root, p.version()}, err
}

func (o opened) close() (Part, error) {
	if err := o.section.judgeSize(o.values); err != nil {
		return Part{}, err
	}
	keep := 0
	if o.section == Desired {
		keep = maxDead
	}
	o.root.forget(keep)
	p := Part{Values: encode(o.values), Metadata: encode(o.root), Version: o.version}
	if len(p.Metadata) > maxMetadata {
		return Part{}, o.section.refuse(nil, "it has too many members within members")
	}
	return p, nil
}

// Patch merges a JSON object into the part: members that are null are removed, objects are merged, all else is replaced (RFC 7386). The version
// rises by one, except for a patch without members, which changes nothing. The error is a *TwinError if the patch is to blame.
func (p Part) Patch(s Section, patch []byte, at time.Time) (Part, error) {
	changes, err := s.object(patch)
	if err != nil {
		return p, err
	}
	o, err := p.open(s)
	if err != nil {
		return p, err
	}
	if len(changes) == 0 {
		p.Version = o.version
		return p, nil
	}
	o.version++
	o.root.merge(o.values, changes, stamp{at.UnixMilli(), o.version})
	return o.close()
}

// Replace puts a JSON object in the place of all that the part holds; members that are null count as not there. The version rises by one.
func (p Part) Replace(s Section, whole []byte, at time.Time) (Part, error) {
	values, err := s.object(whole)
	if err != nil {
		return p, err
	}
	o, err := p.open(s)
	if err != nil {
		return p, err
	}
	o.version++
	o.values = withoutNulls(values).(map[string]any)
	o.root.replace(o.values, stamp{at.UnixMilli(), o.version})
	return o.close()
}

// Since is the patch that makes of the part, as it was at a version, what it is now, with $version: what a device is sent. It is the whole part if
// what has gone since is not known any more, which a device sees by nothing; it happens after more than a hundred removals.
func (p Part) Since(version uint64) ([]byte, error) {
	o, err := p.open(Desired)
	if err != nil {
		return nil, err
	}
	patch := o.values
	if version >= 1 && version >= o.root.Floor && o.root.Version > 0 {
		patch = o.root.since(o.values, version)
	}
	patch["$version"] = o.version
	return encode(patch), nil
}

// ForDevice is the part as its device reads it: with $version, without metadata.
func (p Part) ForDevice() (json.RawMessage, error) {
	values, err := stored(p.Values)
	if err != nil {
		return nil, err
	}
	values["$version"] = p.version()
	return encode(values), nil
}

// ForService is the part as services read it: with $metadata and $version.
func (p Part) ForService(s Section) (json.RawMessage, error) {
	o, err := p.open(s)
	if err != nil {
		return nil, err
	}
	metadata := o.root.metadata(o.values, s == Desired)
	o.values["$metadata"], o.values["$version"] = metadata, o.version
	return encode(o.values), nil
}

// DeviceTwin is the answer to a device that asks for its twin: both parts, no tags.
func DeviceTwin(desired, reported Part) ([]byte, error) {
	d, err := desired.ForDevice()
	if err != nil {
		return nil, err
	}
	r, err := reported.ForDevice()
	if err != nil {
		return nil, err
	}
	return encode(struct {
		Desired  json.RawMessage `json:"desired"`
		Reported json.RawMessage `json:"reported"`
	}{d, r}), nil
}

// PatchTags merges a JSON object into tags, as Part.Patch does.
func PatchTags(tags, patch []byte) ([]byte, error) {
	p, err := Part{Values: tags}.Patch(Tags, patch, time.Time{})
	return p.Values, err
}

// ReplaceTags judges what is put in the place of all tags.
func ReplaceTags(whole []byte) ([]byte, error) {
	p, err := Part{}.Replace(Tags, whole, time.Time{})
	return p.Values, err
}

// TwinUpdate is what a service wants to change of a twin. An empty part stays as it is.
type TwinUpdate struct {
	Tags, Desired json.RawMessage
	Reported      json.RawMessage // counts only under the extension ReportedByService: they are the device's
}

// DecodeTwinUpdate reads {"tags":{…},"properties":{"desired":{…},"reported":{…}}}. All else that a twin has in its answers is passed over, so that what was read may be sent
// back: the rest is the hub's. The error is a *TwinError.
func DecodeTwinUpdate(body []byte) (TwinUpdate, error) {
	const whole Section = "twin"
	if len(body) > MaxTwinBody {
		return TwinUpdate{}, whole.refuse(nil, "it has more than %d bytes", MaxTwinBody)
	}
	top, err := members(whole, body)
	if err != nil {
		return TwinUpdate{}, err
	}
	update := TwinUpdate{Tags: top["tags"]}
	if properties := top["properties"]; properties != nil {
		within, err := members("properties", properties)
		if err != nil {
			return TwinUpdate{}, err
		}
		update.Desired, update.Reported = within["desired"], within["reported"]
	}
	return update, nil
}

// members splits an object one level deep; of a member that is null it is as if it were not there.
func members(s Section, text []byte) (map[string]json.RawMessage, error) {
	in := json.NewDecoder(bytes.NewReader(text))
	if token, err := in.Token(); err != nil || token != json.Delim('{') || !json.Valid(text) {
		return nil, s.refuse(nil, "it is not a JSON object")
	}
	object := map[string]json.RawMessage{}
	for in.More() {
		token, err := in.Token()
		key, _ := token.(string)
		if err != nil {
			return nil, s.refuse(nil, "it is not a JSON object")
		}
		if _, twice := object[key]; twice {
			return nil, s.refuse([]string{key}, "the key stands there twice")
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return nil, s.refuse([]string{key}, "it is not JSON")
		}
		object[key] = value
	}
	maps.DeleteFunc(object, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
	return object, nil
}

// TwinETag is the entity tag of a twin of that version, without quotes.
func TwinETag(version uint64) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, version))
}

// DeviceError is the body of a refusal that a device is sent over MQTT, after the status in the topic.
func DeviceError(code Code, message string) []byte {
	return encode(struct {
		ErrorCode int    `json:"errorCode"`
		Message   string `json:"message"`
	}{int(code), message})
}
