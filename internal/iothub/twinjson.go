package iothub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Section is a part of a device twin.
type Section string

// Sections. The service writes tags and desired properties, the device reported properties; it never sees tags.
const (
	Tags     Section = "tags"
	Desired  Section = "properties.desired"
	Reported Section = "properties.reported"
)

// Limits of a section, after the imitated hub's "tags and properties format" and "device twin size". Sizes are counted as size does.
const (
	MaxTags       = 8 << 10
	MaxProperties = 32 << 10
	MaxDepth      = 10      // of objects, and of arrays, below the section
	MaxKey        = 1 << 10 // bytes
	MaxString     = 4 << 10 // bytes

	MaxInteger = 4503599627370495
	MinInteger = -4503599627370496

	// MaxTwinBody bounds the JSON text of an update: a section of the largest size has no longer one unless its author wants it so.
	MaxTwinBody = 256 << 10
)

// TwinError says what of a twin is not as it must be, in a sentence for who sent it.
type TwinError struct {
	Section Section
	Path    string // of the member within the section, empty for the section itself
	Reason  string
}

func (e *TwinError) Error() string {
	at := string(e.Section)
	if e.Path != "" {
		at += "." + e.Path
	}
	return at + ": " + e.Reason
}

func (s Section) refuse(path []string, reason string, args ...any) error {
	const shown = 100 // the path is what a stranger sent
	where := strings.ToValidUTF8(clip(strings.Join(path, "."), shown), "")
	return &TwinError{Section: s, Path: where, Reason: fmt.Sprintf(reason, args...)}
}

func clip(s string, most int) string { return s[:min(len(s), most)] }

func (s Section) limit() int {
	if s == Tags {
		return MaxTags
	}
	return MaxProperties
}

// object decodes a section: an object of nil, bool, json.Number, string, []any and map[string]any, judged by all rules but that of its size. What the
// hub adds to it ($metadata, $version, $etag) is left out, so that what was read can be sent back.
func (s Section) object(text []byte) (map[string]any, error) {
	if len(text) > MaxTwinBody {
		return nil, s.refuse(nil, "it has more than %d bytes", MaxTwinBody)
	}
	if !utf8.Valid(text) {
		return nil, s.refuse(nil, "it is not UTF-8")
	}
	if !json.Valid(text) {
		return nil, s.refuse(nil, "it is not JSON")
	}
	r := reader{section: s, in: json.NewDecoder(bytes.NewReader(text))}
	r.in.UseNumber()
	token, err := r.in.Token()
	if err != nil {
		return nil, s.refuse(nil, "it is not JSON")
	}
	if token != json.Delim('{') {
		return nil, s.refuse(nil, "it is not a JSON object")
	}
	object, err := r.object(0)
	if err != nil {
		return nil, err
	}
	if _, err := r.in.Token(); err != io.EOF {
		return nil, s.refuse(nil, "something follows the JSON object")
	}
	return object, nil
}

// reader reads one section; path is where it is.
type reader struct {
	section Section
	in      *json.Decoder
	path    []string
}

func (r *reader) refuse(reason string, args ...any) error {
	return r.section.refuse(r.path, reason, args...)
}

// object reads what follows an opening brace. depth is 0 for the section itself.
func (r *reader) object(depth int) (map[string]any, error) {
	object := map[string]any{}
	for r.in.More() {
		token, err := r.in.Token()
		key, isKey := token.(string)
		if err != nil || !isKey {
			return nil, r.refuse("it is not JSON")
		}
		if depth == 0 && ownedByHub(key) {
			if err := r.skip(); err != nil {
				return nil, err
			}
			continue
		}
		r.path = append(r.path, key)
		if reason := judgeKey(key); reason != "" {
			return nil, r.refuse("%s", reason)
		}
		if _, twice := object[key]; twice {
			return nil, r.refuse("the key stands there twice")
		}
		if object[key], err = r.value(depth); err != nil {
			return nil, err
		}
		r.path = r.path[:len(r.path)-1]
	}
	if _, err := r.in.Token(); err != nil {
		return nil, r.refuse("it is not JSON")
	}
	return object, nil
}

// ownedByHub names members of a section that only the hub writes.
func ownedByHub(key string) bool { return key == "$metadata" || key == "$version" || key == "$etag" }

// skip passes over one value, of whatever depth, without building it.
func (r *reader) skip() error {
	for open := 0; ; {
		token, err := r.in.Token()
		if err != nil {
			return r.refuse("it is not JSON")
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			open++
		case json.Delim('}'), json.Delim(']'):
			open--
		}
		if open == 0 {
			return nil
		}
	}
}

func judgeKey(key string) string {
	switch {
	case key == "":
		return "a key is empty"
	case len(key) > MaxKey:
		return fmt.Sprintf("a key has more than %d bytes", MaxKey)
	}
	for _, c := range key {
		if c < 0x20 || 0x7f <= c && c <= 0x9f {
			return "a key has a control character"
		}
		if c == '.' || c == '$' || c == ' ' {
			return fmt.Sprintf("a key has the character %q, which none may have", c)
		}
	}
	return ""
}

func (r *reader) value(depth int) (any, error) {
	token, err := r.in.Token()
	if err != nil {
		return nil, r.refuse("it is not JSON")
	}
	switch v := token.(type) {
	case json.Delim:
		if depth == MaxDepth {
			return nil, r.refuse("it lies deeper than %d levels", MaxDepth)
		}
		if v == '[' {
			return r.array(depth + 1)
		}
		return r.object(depth + 1)
	case string:
		if len(v) > MaxString {
			return nil, r.refuse("the text has more than %d bytes", MaxString)
		}
	case json.Number:
		return r.number(v)
	}
	return token, nil
}

func (r *reader) array(depth int) (any, error) {
	array := []any{}
	for r.in.More() {
		v, err := r.value(depth)
		if err != nil {
			return nil, err
		}
		array = append(array, v)
	}
	if _, err := r.in.Token(); err != nil {
		return nil, r.refuse("it is not JSON")
	}
	return array, nil
}

// number keeps a number as it was written, unless that is longer than any has to be.
func (r *reader) number(n json.Number) (any, error) {
	const longest = 32
	if !strings.ContainsAny(string(n), ".eE") {
		if i, err := strconv.ParseInt(string(n), 10, 64); err != nil || i < MinInteger || i > MaxInteger {
			return nil, r.refuse("an integer is not between %d and %d", int64(MinInteger), int64(MaxInteger))
		}
		return n, nil
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil {
		return nil, r.refuse("a number is larger than a 64-bit float can be")
	}
	if len(n) > longest {
		return json.Number(strconv.FormatFloat(f, 'e', -1, 64)), nil
	}
	return n, nil
}

// size is that of a section's members: keys and strings count their UTF-8 bytes, numbers 8, booleans 4. Other than at the imitated hub control
// characters count too, and what is empty counts as a boolean: otherwise a twin could hold without bound what counts nothing.
func size(v any) int {
	switch v := v.(type) {
	case map[string]any:
		total := 0
		for key, member := range v {
			total += len(key) + size(member)
		}
		return max(total, 4)
	case []any:
		total := 0
		for _, element := range v {
			total += max(size(element), 1)
		}
		return max(total, 4)
	case string:
		return len(v)
	case json.Number:
		return 8
	}
	return 4
}

func (s Section) judgeSize(object map[string]any) error {
	if n := size(object); n > s.limit() {
		return s.refuse(nil, "it would have %d bytes, %d more than it may", n, n-s.limit())
	}
	return nil
}

// stored decodes what was judged before it was stored.
func stored(text []byte) (map[string]any, error) {
	object := map[string]any{}
	if len(text) == 0 {
		return object, nil
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	err := in.Decode(&object)
	if err == nil && object == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		return nil, fmt.Errorf("iothub: a stored part of a twin is no JSON object: %w", err)
	}
	return object, nil
}
