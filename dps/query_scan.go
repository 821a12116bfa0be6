package dps

import (
	"strings"
	"unicode/utf8"
)

type tokenKind int

const (
	tokenEnd     tokenKind = iota
	tokenWord              // letters, digits and dots, beginning with a letter
	tokenText              // a quoted text
	tokenInteger           // digits, perhaps with a minus
	tokenMark              // one of * ( ) , = != <>
)

// token is one piece of a query. The value of a text is without its quotes;
// that of "<>" is "!=".
type token struct {
	kind  tokenKind
	value string
	at    int // byte where it begins
}

// keyword reports whether t is the word w in any letter case.
func (t token) keyword(w string) bool { return t.kind == tokenWord && equalFold(t.value, w) }

func (t token) mark(m string) bool { return t.kind == tokenMark && t.value == m }

// scanner cuts a query into tokens.
type scanner struct {
	text string
	pos  int
}

func (s *scanner) start(text string) error {
	switch {
	case len(text) > MaxQuery:
		return refuse("query", "is longer than %d bytes", MaxQuery)
	case !utf8.ValidString(text):
		return refuse("query", "is not valid UTF-8")
	}
	s.text = text
	return nil
}

// refuse points at the byte at as a position in characters.
func (s *scanner) refuse(at int, format string, args ...any) error {
	position := utf8.RuneCountInString(s.text[:at]) + 1
	return refuse("query", "position %d: "+format, append([]any{position}, args...)...)
}

func (s *scanner) next() (token, error) {
	for s.pos < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.pos]) >= 0 {
		s.pos++
	}
	if s.pos == len(s.text) {
		return token{at: s.pos}, nil
	}
	switch c := s.text[s.pos]; {
	case c == '\'' || c == '"':
		return s.quoted(c)
	case letter(c):
		return s.run(tokenWord, func(c byte) bool { return alphanumeric(c) || c == '.' || c == '_' }), nil
	case digit(c), c == '-':
		return s.integer()
	}
	for _, m := range []string{"*", "(", ")", ",", "=", "!=", "<>"} {
		if strings.HasPrefix(s.text[s.pos:], m) {
			return s.take(m), nil
		}
	}
	return token{}, s.refuse(s.pos, "this character has no meaning here")
}

func (s *scanner) take(mark string) token {
	t := token{tokenMark, mark, s.pos}
	s.pos += len(mark)
	if mark == "<>" {
		t.value = "!="
	}
	return t
}

func (s *scanner) run(kind tokenKind, belongs func(byte) bool) token {
	start := s.pos
	for s.pos++; s.pos < len(s.text) && belongs(s.text[s.pos]); s.pos++ {
	}
	return token{kind, s.text[start:s.pos], start}
}

// integer takes letters and dots along, so that 5x is one wrong number and not
// a number and a word.
func (s *scanner) integer() (token, error) {
	t := s.run(tokenInteger, func(c byte) bool { return alphanumeric(c) || c == '.' || c == '_' })
	for i := range len(t.value) {
		if !digit(t.value[i]) && (i > 0 || len(t.value) == 1) {
			return token{}, s.refuse(t.at, "this is not an integer")
		}
	}
	return t, nil
}

func (s *scanner) quoted(quote byte) (token, error) {
	t := token{kind: tokenText, at: s.pos}
	var b strings.Builder
	for s.pos++; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c < ' ' || c == 0x7f:
			return token{}, s.refuse(s.pos, "a text must not hold control characters")
		case c != quote:
			b.WriteByte(c)
		case s.pos+1 < len(s.text) && s.text[s.pos+1] == quote:
			b.WriteByte(c)
			s.pos++
		default:
			s.pos++
			t.value = b.String()
			return t, nil
		}
	}
	return token{}, s.refuse(t.at, "the text that begins here has no closing quote")
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func letter(c byte) bool { return alphanumeric(c) && !digit(c) }
