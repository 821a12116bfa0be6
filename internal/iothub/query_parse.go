package iothub

import (
	"slices"
	"strconv"
	"strings"

	"latchkey.example/latchkey/dps"
)

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
