package iothub

import (
	"cmp"
	"slices"
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
