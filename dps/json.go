package dps

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

const (
	maxDepth    = 64
	fewMembers  = 16
	maxKeyChars = 4 << 10 // base64 of an endorsement or storage root key
)

// checkObject accepts a message that is one JSON object and that all readers
// understand alike: valid UTF-8, no member named twice in any object, at most
// maxDepth levels. What it accepts can be walked with eachMember.
func checkObject(body []byte) error { return checkObjectWithin(body, MaxMessage) }

// CheckObject is that check for rooms that speak the protocols beside this one:
// body must be one JSON object of at most limit bytes. Errors are *FieldError.
func CheckObject(body []byte, limit int) error { return checkObjectWithin(body, limit) }

// EachMember calls fn for each member of a JSON object that CheckObject has
// accepted, or that is part of one, in their order. The name is without escapes, the value without
// space around it; both may point into object.
func EachMember(object []byte, fn func(name, value []byte) error) error {
	return eachMember(object, fn)
}

// EachElement calls fn for each element of a JSON array that is part of what
// CheckObject has accepted.
func EachElement(array []byte, fn func(value []byte) error) error { return eachElement(array, fn) }

// checkObjectWithin is checkObject with another bound, in bytes.
func checkObjectWithin(body []byte, limit int) error {
	switch {
	case len(body) > limit:
		return refuse("", "the message is longer than %d bytes", limit)
	case !utf8.Valid(body):
		return refuse("", "the message is not valid UTF-8")
	case tooDeep(body): // before the library's own bound, which would call it not valid
		return refuse("", "the message is nested deeper than %d levels", maxDepth)
	case !json.Valid(body):
		return refuse("", "the message is not valid JSON")
	}
	c := cursor{data: body}
	c.space()
	if c.data[c.pos] != '{' {
		return refuse("", "the message must be a JSON object")
	}
	_, err := c.value()
	return err
}

// tooDeep counts the brackets outside texts of what may not be JSON at all.
func tooDeep(body []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case !quoted && (c == '{' || c == '['):
			if depth++; depth > maxDepth {
				return true
			}
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return false
}

// eachMember calls fn for each member of a JSON object that checkObject has
// accepted, or that is part of one. The value is without space around it; both
// slices may point into object.
func eachMember(object []byte, fn func(name, value []byte) error) error {
	c := cursor{data: object}
	c.space()
	return c.object(fn)
}

// eachElement calls fn for each element of a JSON array that is part of what
// checkObject has accepted. The element is without space around it and may
// point into array.
func eachElement(array []byte, fn func(value []byte) error) error {
	c := cursor{data: array}
	return c.array(fn)
}

// cursor walks over text that is known to be valid JSON; it judges only nesting
// and names.
type cursor struct {
	data []byte
	pos  int
}

func (c *cursor) space() {
	for c.pos < len(c.data) && bytes.IndexByte([]byte(" \t\r\n"), c.data[c.pos]) >= 0 {
		c.pos++
	}
}

// value walks over one value and returns its text.
func (c *cursor) value() ([]byte, error) {
	c.space()
	start := c.pos
	var err error
	switch c.data[c.pos] {
	case '{':
		err = c.object(nil)
	case '[':
		err = c.array(nil)
	case '"':
		c.quoted()
	default:
		for c.pos < len(c.data) && bytes.IndexByte([]byte(",]} \t\r\n"), c.data[c.pos]) < 0 {
			c.pos++
		}
	}
	return c.data[start:c.pos], err
}

func (c *cursor) quoted() []byte {
	start := c.pos
	for c.pos++; c.data[c.pos] != '"'; c.pos++ {
		if c.data[c.pos] == '\\' {
			c.pos++
		}
	}
	c.pos++
	return c.data[start:c.pos]
}

func (c *cursor) array(fn func(value []byte) error) error {
	c.pos++
	for c.space(); c.data[c.pos] != ']'; c.space() {
		if c.data[c.pos] == ',' {
			c.pos++
		}
		value, err := c.value()
		if err != nil {
			return err
		}
		if fn != nil {
			if err := fn(value); err != nil {
				return err
			}
		}
	}
	c.pos++
	return nil
}

func (c *cursor) object(fn func(name, value []byte) error) error {
	var names nameSet
	c.pos++
	for c.space(); c.data[c.pos] != '}'; c.space() {
		if c.data[c.pos] == ',' {
			c.pos++
			c.space()
		}
		name := unquote(c.quoted())
		if !names.add(name) {
			return refuse("", "the message names a member twice in one object")
		}
		c.space()
		c.pos++ // the colon
		value, err := c.value()
		if err != nil {
			return err
		}
		if fn != nil {
			if err := fn(name, value); err != nil {
				return err
			}
		}
	}
	c.pos++
	return nil
}

// nameSet finds repeated names without allocating for the usual small object
// and without quadratic time for a hostile large one.
type nameSet struct {
	few  [fewMembers][]byte
	n    int
	many map[string]struct{}
}

func (s *nameSet) add(name []byte) bool {
	if s.many != nil {
		before := len(s.many)
		s.many[string(name)] = struct{}{}
		return len(s.many) > before
	}
	for _, known := range s.few[:s.n] {
		if bytes.Equal(known, name) {
			return false
		}
	}
	if s.n < fewMembers {
		s.few[s.n] = name
		s.n++
		return true
	}
	s.many = make(map[string]struct{}, 2*fewMembers)
	for _, known := range s.few {
		s.many[string(known)] = struct{}{}
	}
	s.many[string(name)] = struct{}{}
	return true
}

// unquote resolves the escapes of a JSON string. Half a surrogate pair becomes
// U+FFFD.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		panic("dps: a string that was valid JSON is not: " + err.Error()) // checkObject saw it
	}
	return []byte(s)
}

func isNull(value []byte) bool { return string(value) == "null" }

// misspelt refuses a name that differs from a known one in letter case only.
// Taken as an unknown member it would be ignored in silence, and "TPM" or
// "ProvisioningStatus" is never meant to be.
func misspelt(parent string, name []byte, known ...string) error {
	for _, k := range known {
		if equalFold(string(name), k) {
			return refuse(parent+k, "must be spelled in exactly these letters")
		}
	}
	return nil
}

// appendString appends s as json.Marshal would write it.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return appendHardString(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendHardString(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic("dps: a string has no JSON: " + err.Error()) // there is no such string
	}
	return append(b, quoted...)
}

// appendMember appends a comma, a name that needs no escapes and a string.
func appendMember(b []byte, name, value string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendString(b, value)
}
