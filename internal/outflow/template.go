package outflow

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// template is a topic or subject with {scope}, {hub} and {deviceId} in it.
type template string

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// fill puts a message's names in their places. Bytes that would mean something there, and %, are written %XX.
func (t template) fill(m message, special string) string {
	return placeholder.ReplaceAllStringFunc(string(t), func(name string) string {
		switch name {
		case "{scope}":
			return escape(m.Scope, special)
		case "{hub}":
			return escape(m.Hub, special)
		}
		return escape(m.DeviceID, special)
	})
}

func escape(text, special string) string {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if c <= ' ' || c == 0x7f || c == '%' || c == '$' && i == 0 || strings.IndexByte(special, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// check refuses what can be no topic or subject, and placeholders that there are not.
func (t template) check(special string) error {
	for _, name := range placeholder.FindAllString(string(t), -1) {
		if name != "{scope}" && name != "{hub}" && name != "{deviceId}" {
			return fmt.Errorf("it has %s; there are {scope}, {hub} and {deviceId}", name)
		}
	}
	rest := placeholder.ReplaceAllString(string(t), "x")
	switch {
	case rest == "":
		return errors.New("it is empty")
	case len(rest) > 256:
		return errors.New("it is longer than 256 bytes")
	case strings.ContainsAny(rest, special+" \t\r\n\x00{}") || rest[0] == '$':
		return fmt.Errorf("it must not hold blanks, braces alone or any of %s, nor begin with $", special)
	}
	return nil
}
