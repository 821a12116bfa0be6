package iothub

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"latchkey.example/latchkey/dps"
)

// Query is a question about devices: SELECT * FROM devices, perhaps with a condition. It is a part of the imitated hub's language; what is not in it
// is refused and not guessed.
type Query struct {
	where term
	text  string
}

// Bounds of a query. Its cost for one device grows with these alone.
const (
	maxQueryText  = 4 << 10
	maxQueryDepth = 16
	maxQueryTerms = 100
)

// ParseQuery reads
//
//	SELECT * FROM devices [WHERE condition]
//
// A condition compares members of the twin's answer (deviceId, status, tags.place.floor, properties.reported.level, capabilities.iotEdge, …; a name that is no
// word stands in double brackets: tags.[[my tag]]) with texts in single quotes, numbers, true, false and null, by =, !=, <>, <, <=, >, >=, IN [a, b] and NIN [a, b]; it
// knows is_defined(member), startswith(member, 'text'), endswith and contains, NOT, AND, OR and parentheses. Words have no case, members have. Errors are
// *dps.FieldError and name the position.
func ParseQuery(text string) (Query, error) {
	if len(text) > maxQueryText {
		return Query{}, refuse("query", "is longer than %d bytes", maxQueryText)
	}
	p := queryParser{text: text}
	p.next()
	if err := p.head(); err != nil {
		return Query{}, err
	}
	q := Query{text: text}
	if p.word("where") {
		where, err := p.or(0)
		if err != nil {
			return Query{}, err
		}
		q.where = where
	}
	if p.kind != tokenEnd {
		return Query{}, p.refuse("the query goes on where it should end")
	}
	return q, nil
}

// Text is the query as it was written.
func (q Query) Text() string { return q.text }

// Matches judges a twin, decoded: objects are map[string]any, numbers float64 or json.Number. There are two truth values: a member that is not
// there equals nothing and is neither less nor more than anything, so = and < and IN are false for it, != and NIN true, and NOT turns each of them around.
func (q Query) Matches(twin map[string]any) bool { return q.where == nil || q.where.matches(twin) }

// term is a condition.
type term interface {
	matches(twin map[string]any) bool
}

type (
	allOf   []term
	anyOf   []term
	notThis struct{ node term }

	comparison struct {
		path     []string
		operator string
		values   []any // string, float64, bool or nil; one, but for in and nin
	}
)

func (a allOf) matches(twin map[string]any) bool {
	return !slices.ContainsFunc(a, func(n term) bool { return !n.matches(twin) })
}

func (a anyOf) matches(twin map[string]any) bool {
	return slices.ContainsFunc(a, func(n term) bool { return n.matches(twin) })
}

func (n notThis) matches(twin map[string]any) bool { return !n.node.matches(twin) }

func (c comparison) matches(twin map[string]any) bool {
	value, there := lookup(twin, c.path)
	switch c.operator {
	case "is_defined":
		return there
	case "=", "in":
		return there && slices.ContainsFunc(c.values, func(v any) bool { return equal(value, v) })
	case "!=", "nin":
		return !there || !slices.ContainsFunc(c.values, func(v any) bool { return equal(value, v) })
	case "<", "<=", ">", ">=":
		order, ok := ordered(value, c.values[0])
		return there && ok && holds(c.operator, order)
	}
	text, isText := value.(string)
	part := c.values[0].(string) // the parser saw it
	switch {
	case !there || !isText:
		return false
	case c.operator == "startswith":
		return strings.HasPrefix(text, part)
	case c.operator == "endswith":
		return strings.HasSuffix(text, part)
	}
	return strings.Contains(text, part)
}

func lookup(twin map[string]any, path []string) (any, bool) {
	var value any = twin
	for _, name := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if value, ok = object[name]; !ok {
			return nil, false
		}
	}
	return value, true
}

// numberOf reads a number, however it was decoded.
func numberOf(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case interface{ Float64() (float64, error) }:
		f, err := n.Float64()
		return f, err == nil
	}
	return 0, false
}

func equal(a, b any) bool {
	if x, ok := numberOf(a); ok {
		y, ok := numberOf(b)
		return ok && x == y
	}
	switch a.(type) {
	case string, bool, nil:
		return a == b
	}
	return false // objects and arrays equal nothing
}

// ordered compares two numbers, or two texts byte by byte, as times in the hub's form are in order.
func ordered(a, b any) (int, bool) {
	if x, ok := numberOf(a); ok {
		y, ok := numberOf(b)
		return cmp.Compare(x, y), ok
	}
	x, okX := a.(string)
	y, okY := b.(string)
	return strings.Compare(x, y), okX && okY
}

func holds(operator string, order int) bool {
	switch operator {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

// queryParser reads a query from left to right, one token ahead.
type queryParser struct {
	text  string
	pos   int // after the token
	start int // of the token
	kind  tokenKind
	token string // a word as written, a text without quotes, an operator
	terms int
}

type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenText
	tokenNumber
	tokenOperator
	tokenWrong
)

func (p *queryParser) refuse(what string) error {
	return &dps.FieldError{Member: "query", Problem: "position " + strconv.Itoa(p.start+1) + ": " + what}
}

// head reads SELECT * FROM devices.
func (p *queryParser) head() error {
	switch {
	case !p.word("select"):
		return p.refuse("a query begins with SELECT")
	case !p.operator("*"):
		return p.refuse("this hub selects whole devices only: SELECT *")
	case !p.word("from"):
		return p.refuse("FROM is missing")
	case !p.word("devices"):
		return p.refuse("this hub knows FROM devices only")
	}
	return nil
}

func (p *queryParser) word(w string) bool {
	if p.kind != tokenWord || !strings.EqualFold(p.token, w) {
		return false
	}
	p.next()
	return true
}

func (p *queryParser) operator(o string) bool {
	if p.kind != tokenOperator || p.token != o {
		return false
	}
	p.next()
	return true
}

func (p *queryParser) or(depth int) (term, error) {
	var list anyOf
	for {
		n, err := p.and(depth)
		if err != nil {
			return nil, err
		}
		if list = append(list, n); !p.word("or") {
			return list, nil
		}
	}
}

func (p *queryParser) and(depth int) (term, error) {
	var list allOf
	for {
		n, err := p.oneTerm(depth)
		if err != nil {
			return nil, err
		}
		if list = append(list, n); !p.word("and") {
			return list, nil
		}
	}
}

func (p *queryParser) oneTerm(depth int) (term, error) {
	if p.terms++; p.terms > maxQueryTerms || depth > maxQueryDepth {
		return nil, p.refuse("the condition is too long or nested too deep")
	}
	switch {
	case p.word("not"):
		n, err := p.oneTerm(depth + 1)
		return notThis{n}, err
	case p.operator("("):
		n, err := p.or(depth + 1)
		if err == nil && !p.operator(")") {
			err = p.refuse(") is missing")
		}
		return n, err
	case p.kind == tokenWord && slices.Contains(functions, strings.ToLower(p.token)) && p.follows("("):
		return p.function()
	}
	return p.comparison()
}

var functions = []string{"is_defined", "startswith", "endswith", "contains"}

// follows looks past the token.
func (p *queryParser) follows(s string) bool {
	return strings.HasPrefix(strings.TrimLeft(p.text[p.pos:], " \t\r\n"), s)
}

func (p *queryParser) function() (term, error) {
	c := comparison{operator: strings.ToLower(p.token)}
	p.next()
	p.operator("(")
	var err error
	if c.path, err = p.path(); err != nil {
		return nil, err
	}
	if c.operator != "is_defined" {
		if !p.operator(",") || p.kind != tokenText {
			return nil, p.refuse("the function needs a text in single quotes")
		}
		c.values = []any{p.token}
		p.next()
	}
	if !p.operator(")") {
		return nil, p.refuse(") is missing")
	}
	return c, nil
}

// path reads names with dots between them, or double brackets around them.
func (p *queryParser) path() ([]string, error) {
	if p.kind != tokenWord {
		return nil, p.refuse("a member is missing, such as deviceId or tags.place")
	}
	path := []string{p.token}
	for p.next(); p.operator("."); p.next() {
		if p.kind != tokenWord {
			return nil, p.refuse("a name is missing after the dot")
		}
		if path = append(path, p.token); len(path) > maxQueryDepth {
			return nil, p.refuse("the member lies too deep")
		}
	}
	if path[0] == "devices" && len(path) > 1 { // the collection's name may stand before
		path = path[1:]
	}
	return path, nil
}

func (p *queryParser) comparison() (term, error) {
	path, err := p.path()
	if err != nil {
		return nil, err
	}
	c := comparison{path: path}
	switch {
	case p.word("in"):
		c.operator = "in"
		c.values, err = p.list()
		return c, err
	case p.word("nin"):
		c.operator = "nin"
		c.values, err = p.list()
		return c, err
	case p.kind != tokenOperator || !slices.Contains([]string{"=", "!=", "<>", "<", "<=", ">", ">="}, p.token):
		return nil, p.refuse("a comparison is missing: =, !=, <, <=, >, >=, IN or NIN")
	}
	if c.operator = p.token; c.operator == "<>" {
		c.operator = "!="
	}
	p.next()
	value, err := p.value()
	c.values = []any{value}
	return c, err
}

func (p *queryParser) list() (values []any, err error) {
	closing := "]"
	if !p.operator("[") {
		if closing = ")"; !p.operator("(") {
			return nil, p.refuse("a list is missing, such as ['a', 'b']")
		}
	}
	for {
		value, err := p.value()
		if err != nil {
			return nil, err
		}
		if values = append(values, value); len(values) > maxQueryTerms {
			return nil, p.refuse("the list is too long")
		}
		if !p.operator(",") {
			break
		}
	}
	if !p.operator(closing) {
		return nil, p.refuse(closing + " is missing")
	}
	return values, nil
}

func (p *queryParser) value() (value any, err error) {
	switch {
	case p.kind == tokenText:
		value = p.token
	case p.kind == tokenNumber:
		if value, err = strconv.ParseFloat(p.token, 64); err != nil {
			return nil, p.refuse("a number that is none")
		}
	case p.kind == tokenWord && strings.EqualFold(p.token, "true"):
		value = true
	case p.kind == tokenWord && strings.EqualFold(p.token, "false"):
		value = false
	case p.kind == tokenWord && strings.EqualFold(p.token, "null"):
	default:
		return nil, p.refuse("a value is missing: a text in single quotes, a number, true, false or null")
	}
	p.next()
	return value, nil
}

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

// DecodeQuery reads {"query":"…"}.
func DecodeQuery(body []byte) (string, error) {
	if err := dps.CheckObject(body, 4*maxQueryText); err != nil {
		return "", err
	}
	text := ""
	err := objectMembers("", trim(body), func(name string, value []byte) (err error) {
		if name == "query" {
			text, err = textOf(name, value, maxQueryText)
		}
		return err
	})
	if err == nil && text == "" {
		err = refuse("query", "is missing")
	}
	return text, err
}
