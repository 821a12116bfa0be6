package iothub

import (
	"slices"
	"strings"
)

// next reads a token.
func (p *queryParser) next() {
	for p.pos < len(p.text) && space(p.text[p.pos]) {
		p.pos++
	}
	p.start = p.pos
	rest := p.text[p.pos:]
	switch {
	case rest == "":
		p.kind, p.token = tokenEnd, ""
	case strings.HasPrefix(rest, "[["):
		p.bracketed(rest)
	case rest[0] == '\'' || rest[0] == '"':
		p.quoted(rest)
	case wordByte(rest[0]) && (rest[0] < '0' || rest[0] > '9'):
		p.take(tokenWord, 1+strings.IndexFunc(rest[1:]+" ", func(r rune) bool { return r > '~' || !wordByte(byte(r)) }))
	case rest[0] >= '0' && rest[0] <= '9' || rest[0] == '-':
		p.take(tokenNumber, 1+strings.IndexFunc(rest[1:]+" ", func(r rune) bool { return !strings.ContainsRune("0123456789.eE+-", r) }))
	case len(rest) > 1 && slices.Contains([]string{"!=", "<>", "<=", ">="}, rest[:2]):
		p.take(tokenOperator, 2)
	case strings.IndexByte("=<>()[],.*", rest[0]) >= 0:
		p.take(tokenOperator, 1)
	default:
		p.kind, p.token = tokenWrong, ""
	}
}

func (p *queryParser) take(kind tokenKind, n int) {
	p.kind, p.token = kind, p.text[p.pos:p.pos+n]
	p.pos += n
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// bracketed reads [[a name]].
func (p *queryParser) bracketed(rest string) {
	end := strings.Index(rest, "]]")
	if end < 3 {
		p.kind, p.token = tokenWrong, ""
		return
	}
	p.kind, p.token = tokenWord, rest[2:end]
	p.pos += end + 2
}

// quoted reads 'a text'; a quote in it is doubled, or stands behind a backslash.
func (p *queryParser) quoted(rest string) {
	quote := rest[0]
	var text strings.Builder
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == quote && i+1 < len(rest) && rest[i+1] == quote, rest[i] == '\\' && i+1 < len(rest):
			i++
		case rest[i] == quote:
			p.kind, p.token = tokenText, text.String()
			p.pos += i + 1
			return
		}
		text.WriteByte(rest[i])
	}
	p.kind, p.token = tokenWrong, ""
}

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
