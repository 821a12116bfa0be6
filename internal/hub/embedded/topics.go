package embedded

import (
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"latchkey.example/latchkey/internal/iothub"
)

const (
	twinAnswers    = "$iothub/twin/res/#"
	desiredChanges = "$iothub/twin/PATCH/properties/desired/#"
	methodCalls    = "$iothub/methods/POST/#"
	twinGet        = "$iothub/twin/GET/"
	twinReport     = "$iothub/twin/PATCH/properties/reported/"
	methodAnswer   = "$iothub/methods/res/"

	maxProperties = 256
	maxRequestID  = 128
)

// isEvents reports whether topic is where the device sends telemetry: devices/{id}/messages/events/{properties}.
func isEvents(topic, deviceID string) bool {
	_, ok := eventBag(topic, deviceID)
	return ok
}

func eventBag(topic, deviceID string) (bag string, ok bool) {
	_, rest, ok := cutDevice(topic, deviceID)
	if !ok {
		return "", false
	}
	rest, ok = strings.CutPrefix(rest, "/messages/events")
	if !ok || rest == "" {
		return "", ok
	}
	return rest[1:], rest[0] == '/'
}

// cutDevice splits a topic or filter after devices/{id}. Most clients write the device id as it is, the Python SDK percent-encoded; other spellings
// are another device's.
func cutDevice(topic, deviceID string) (spelled, rest string, ok bool) {
	rest, ok = strings.CutPrefix(topic, "devices/")
	if !ok {
		return "", "", false
	}
	for _, spelled := range []string{deviceID, iothub.EscapeText(deviceID)} {
		if after, ok := strings.CutPrefix(rest, spelled); ok && strings.HasPrefix(after, "/") {
			return spelled, after, true
		}
	}
	return "", "", false
}

// isTwinRequest reports whether topic asks something of the device's twin.
func isTwinRequest(topic string) bool {
	path, _, _ := strings.Cut(topic, "?")
	return path == twinGet || path == twinReport
}

// isMethodAnswer reports whether topic is where the device answers direct methods: $iothub/methods/res/{status}/?$rid={request id}.
func isMethodAnswer(topic string) bool { return strings.HasPrefix(topic, methodAnswer) }

// reportVersion is the version that reported properties must have to be changed: one client sends it. 0 is any.
func reportVersion(topic string) (uint64, bool) {
	_, query, _ := strings.Cut(topic, "?")
	for field := range strings.SplitSeq(query, "&") {
		if version, ok := strings.CutPrefix(field, "$version="); ok && version != "*" {
			n, err := strconv.ParseInt(version, 10, 64)
			return uint64(max(n, 0)), err == nil // a client that names none writes 0
		}
	}
	return 0, true
}

// requestID finds the $rid of a twin request; the answer carries it back.
func requestID(topic string) (string, bool) {
	_, query, _ := strings.Cut(topic, "?")
	for field := range strings.SplitSeq(query, "&") {
		if rid, ok := strings.CutPrefix(field, "$rid="); ok {
			return rid, rid != "" && len(rid) <= maxRequestID && !strings.Contains(rid, "/")
		}
	}
	return "", false
}

// maySubscribe knows the four topic filters that there are for a device; that they are exact bounds what a session can hold.
func maySubscribe(filter, deviceID string) bool { return hears(filter, deviceID, 0) != 0 }

// properties of a message, split as the imitated hub does: names that begin with "$." are the system's.
type properties struct {
	application, system map[string]string
}

// systemNames spells out the short names of the wire.
var systemNames = map[string]string{
	"$.mid": "messageId", "$.cid": "correlationId", "$.uid": "userId", "$.to": "to", "$.ct": "contentType", "$.ce": "contentEncoding",
	"$.exp": "expiryTimeUtc", "$.ctime": "creationTimeUtc", "$.on": "outputName", "$.ifid": "interfaceId", "$.sub": "componentName",
}

// eventProperties reads the property bag of a telemetry topic: a=b&c=d, each side percent-encoded, a plus sign being itself. A
// name without "=" has an empty value; of a name given twice the last value counts. Not ok if the topic is another, an escape is
// broken, text is not UTF-8 or there are too many.
func eventProperties(topic, deviceID string) (properties, bool) {
	p := properties{application: map[string]string{}, system: map[string]string{}}
	bag, ok := eventBag(topic, deviceID)
	if !ok {
		return p, false
	}
	bag = strings.TrimPrefix(strings.TrimSuffix(bag, "/"), "?")
	if bag == "" {
		return p, true
	}
	if strings.Count(bag, "&") >= maxProperties {
		return p, false
	}
	for field := range strings.SplitSeq(bag, "&") {
		if !p.add(field) {
			return p, false
		}
	}
	return p, true
}

func (p *properties) add(field string) bool {
	rawName, rawValue, _ := strings.Cut(field, "=")
	name, errName := url.PathUnescape(rawName)
	value, errValue := url.PathUnescape(rawValue)
	if errName != nil || errValue != nil || name == "" || !utf8.ValidString(name) || !utf8.ValidString(value) {
		return false
	}
	switch spelled, known := systemNames[name]; {
	case known:
		p.system[spelled] = value
	case strings.HasPrefix(name, "$."):
		p.system[name] = value
	default:
		p.application[name] = value
	}
	return true
}
