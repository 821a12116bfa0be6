package dps

import (
	"strconv"
	"strings"
)

// parser reads the grammar at ParseQuery by recursive descent, one token ahead.
type parser struct {
	scanner    scanner
	collection Collection
	ahead      token
	values     int // how many were read
}

func (p *parser) query() (Expr, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.ahead.mark("*") {
		return nil, p.end("after *")
	}
	if !p.ahead.keyword("SELECT") {
		return nil, p.expected("SELECT * or *")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if err := p.mark("*", "after SELECT; all members are always answered"); err != nil {
		return nil, err
	}
	if err := p.from(); err != nil {
		return nil, err
	}
	return p.where()
}

func (p *parser) from() error {
	if !p.ahead.keyword("FROM") {
		return nil
	}
	if err := p.advance(); err != nil {
		return err
	}
	if !p.ahead.keyword(p.collection.String()) {
		return p.expected(p.collection.String() + " after FROM at this path")
	}
	return p.advance()
}

func (p *parser) where() (Expr, error) {
	switch {
	case p.ahead.kind == tokenEnd:
		return nil, nil
	case !p.ahead.keyword("WHERE"):
		return nil, p.expected("FROM, WHERE or the end")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	e, err := p.either(0)
	if err == nil && p.ahead.kind != tokenEnd {
		err = p.expected("AND, OR or the end")
	}
	return e, err
}

// either reads one or more operands of OR.
func (p *parser) either(depth int) (Expr, error) {
	list, err := p.list("OR", depth, p.both)
	if err != nil || len(list) == 1 {
		return first(list), err
	}
	var all Or
	for _, e := range list {
		if inner, ok := e.(Or); ok {
			all = append(all, inner...)
		} else {
			all = append(all, e)
		}
	}
	return all, nil
}

// both reads one or more operands of AND.
func (p *parser) both(depth int) (Expr, error) {
	list, err := p.list("AND", depth, p.one)
	if err != nil || len(list) == 1 {
		return first(list), err
	}
	var all And
	for _, e := range list {
		if inner, ok := e.(And); ok {
			all = append(all, inner...)
		} else {
			all = append(all, e)
		}
	}
	return all, nil
}

func first(list []Expr) Expr {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

func (p *parser) list(separator string, depth int, operand func(int) (Expr, error)) ([]Expr, error) {
	var list []Expr
	for {
		e, err := operand(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
		if !p.ahead.keyword(separator) {
			return list, nil
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
}

func (p *parser) one(depth int) (Expr, error) {
	switch {
	case !p.ahead.keyword("NOT") && !p.ahead.mark("("):
		return p.test()
	case depth == maxQueryDepth:
		return nil, p.scanner.refuse(p.ahead.at, "nested deeper than %d levels", maxQueryDepth)
	case p.ahead.keyword("NOT"):
		if err := p.advance(); err != nil {
			return nil, err
		}
		e, err := p.one(depth + 1)
		if err != nil {
			return nil, err
		}
		return negate(e), nil
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	e, err := p.either(depth + 1)
	if err != nil {
		return nil, err
	}
	return e, p.mark(")", "or AND or OR")
}

func (p *parser) test() (Expr, error) {
	if p.ahead.keyword("STARTSWITH") {
		return p.startsWith()
	}
	f, err := p.field()
	if err != nil {
		return nil, err
	}
	op := p.ahead
	switch {
	case op.mark("="), op.mark("!="), op.keyword("IN"):
	default:
		return nil, p.expected("=, !=, <> or IN after the field")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if op.kind == tokenWord {
		return p.in(f)
	}
	v, err := p.value(f)
	switch {
	case err != nil:
		return nil, err
	case op.value == "=":
		return Equal{f, v}, nil
	}
	return NotEqual{f, v}, nil
}

func (p *parser) in(f Field) (Expr, error) {
	if err := p.mark("(", "after IN"); err != nil {
		return nil, err
	}
	var values []string
	for {
		v, err := p.value(f)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		if !p.ahead.mark(",") {
			break
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	return oneOf(f, values), p.mark(")", "or a comma")
}

func (p *parser) startsWith() (Expr, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	if err := p.mark("(", "after STARTSWITH"); err != nil {
		return nil, err
	}
	at := p.ahead.at
	f, err := p.field()
	switch {
	case err != nil:
		return nil, err
	case f.kind() != kindID:
		return nil, p.scanner.refuse(at, "STARTSWITH takes only fields that are ids")
	}
	if err := p.mark(",", "after the field"); err != nil {
		return nil, err
	}
	prefix, err := p.value(f)
	if err != nil {
		return nil, err
	}
	return StartsWith{f, prefix}, p.mark(")", "after the text")
}

func (p *parser) field() (Field, error) {
	fields := p.collection.fields()
	if p.ahead.kind != tokenWord {
		return "", p.expected("a field")
	}
	for _, f := range fields {
		switch {
		case p.ahead.value == string(f):
			return f, p.advance()
		case p.ahead.keyword(string(f)):
			return "", p.expected(string(f) + " in exactly these letters")
		}
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = string(f)
	}
	return "", p.expected("a field, one of: " + strings.Join(names, ", "))
}

// value reads a value of the field's kind in the form in which it is compared.
func (p *parser) value(f Field) (string, error) {
	v, err := p.literal(f)
	if err != nil {
		return "", err
	}
	if p.values++; p.values > maxQueryValues {
		return "", p.scanner.refuse(p.ahead.at, "more than %d values", maxQueryValues)
	}
	return v, p.advance()
}

func (p *parser) literal(f Field) (string, error) {
	t := p.ahead
	switch f.kind() {
	case kindBool:
		for _, word := range []string{"true", "false"} {
			if t.keyword(word) {
				return word, nil
			}
		}
		return "", p.expected("true or false, as the field is a boolean")
	case kindInt:
		n, err := strconv.ParseInt(t.value, 10, 64)
		if t.kind != tokenInteger || err != nil {
			return "", p.expected("an integer of at most 64 bits, as the field is a number")
		}
		return strconv.FormatInt(n, 10), nil
	}
	if t.kind != tokenText {
		return "", p.expected("a text in quotes, as the field is a text")
	}
	return f.fold(t.value), nil
}

// mark steps over the mark m.
func (p *parser) mark(m, where string) error {
	if !p.ahead.mark(m) {
		return p.expected(m + " " + where)
	}
	return p.advance()
}

func (p *parser) end(where string) error {
	if err := p.advance(); err != nil {
		return err
	}
	if p.ahead.kind != tokenEnd {
		return p.expected("the end " + where)
	}
	return nil
}

func (p *parser) advance() (err error) {
	p.ahead, err = p.scanner.next()
	return err
}

func (p *parser) expected(what string) error {
	return p.scanner.refuse(p.ahead.at, "expected %s", what)
}
