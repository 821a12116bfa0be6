package broker

import (
	"errors"
	"fmt"
	"strings"
)

// template is a compiled topic template. Its segments are literals, + (one segment), # (all that follow, none too; last only) or the device id.
type template []string

// deviceSegment stands for the device id. It holds a byte that no topic can.
const (
	deviceSegment     = "\x00device"
	devicePlaceholder = "{deviceId}"

	maxTopic = 1024 // bytes of a topic or filter that is looked at; longer ones are refused
)

// compileAll reads templates; list names them in errors.
func compileAll(list string, texts []string, product Product) ([]template, error) {
	if len(texts) > maxTemplates {
		return nil, fmt.Errorf("%s has more than %d templates", list, maxTemplates)
	}
	templates := make([]template, len(texts))
	for i, text := range texts {
		t, err := compile(text, product)
		if err != nil {
			return nil, fmt.Errorf("%s has the template %q: %w", list, clip(text), err)
		}
		templates[i] = t
	}
	return templates, nil
}

func compile(text string, product Product) (template, error) {
	switch {
	case text == "" || len(text) > maxTopic:
		return nil, fmt.Errorf("a template has 1 to %d bytes", maxTopic)
	case strings.ContainsRune(text, 0):
		return nil, errors.New("no topic holds a zero byte")
	}
	t := template(strings.Split(text, "/"))
	for i, segment := range t {
		switch {
		case segment == devicePlaceholder:
			t[i] = deviceSegment
		case strings.ContainsAny(segment, "{}"):
			return nil, fmt.Errorf("%s is the one placeholder, and stands for a whole segment between slashes", devicePlaceholder)
		case segment == "+", segment == "#" && i == len(t)-1:
		case strings.ContainsAny(segment, "+#"):
			return nil, errors.New("+ stands for a whole segment, # for all that follow, at the end alone")
		case product == RabbitMQ && strings.ContainsAny(segment, ".*"):
			return nil, errors.New("RabbitMQ takes a dot in a topic for a slash and a star for a wildcard: use neither")
		}
	}
	return t, nil
}

// allows reports whether topic, or all that the filter of that text would match, lies within one of the templates for the device.
//
// It compares segment by segment. A wildcard in a filter is within a wildcard of the template that is as wide, and within nothing else; in a topic
// to publish to there is none. The device id is compared as a literal, so nothing in it can widen what is allowed. As in MQTT 3.1.1, 4.7.2, what
// begins with $ is never reached by a wildcard in the first place, nor by a device id: brokers keep their own topics and shared subscriptions there.
func allows(templates []template, deviceID, topic string, filter bool) bool {
	if topic == "" || len(topic) > maxTopic || strings.ContainsRune(topic, 0) || !filter && strings.ContainsAny(topic, "+#") || filter && !wellFormed(topic) {
		return false
	}
	for _, t := range templates {
		if t.contains(deviceID, topic) {
			return true
		}
	}
	return false
}

// wellFormed: wildcards are whole segments, and # is the last. Brokers that take others have meanings for them that nobody has written down.
func wellFormed(filter string) bool {
	for rest, more := filter, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		if segment == "#" && more || len(segment) > 1 && strings.ContainsAny(segment, "+#") {
			return false
		}
	}
	return true
}

func (t template) contains(deviceID, topic string) bool {
	if topic[0] == '$' && (t[0] == "+" || t[0] == "#" || t[0] == deviceSegment) {
		return false
	}
	rest, more := topic, true
	for _, want := range t {
		if want == "#" {
			return true // what is left, and nothing at all, is within it
		}
		if !more {
			return false
		}
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		if !segmentWithin(segment, want, deviceID) {
			return false
		}
	}
	return !more
}

func segmentWithin(segment, want, deviceID string) bool {
	switch {
	case segment == "#":
		return false
	case want == "+":
		return true
	case want == deviceSegment:
		return segment == deviceID
	}
	return segment == want
}
