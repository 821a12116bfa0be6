package dps

import (
	"slices"
	"strings"
)

// Expr is a condition on one object: an And, Or, Not, Equal, NotEqual, In or
// StartsWith. Values are as ParseQuery made them: ids folded, booleans "true"
// and "false", integers in decimal.
type Expr interface {
	// Matches judges the object whose fields lookup tells; false means that the
	// object does not have the field. There are two truth values, not three: a
	// field that is not there equals nothing, so = and IN and STARTSWITH are
	// false for it and != is true, and NOT turns each of them around.
	Matches(lookup func(Field) (string, bool)) bool

	appendTo(b []byte) []byte // a spelling that ParseQuery reads
}

// Conditions. And and Or hold two or more, none of their own type.
type (
	And []Expr
	Or  []Expr
	Not struct{ Expr Expr }

	Equal struct {
		Field Field
		Value string
	}
	NotEqual struct {
		Field Field
		Value string
	}
	In struct {
		Field  Field
		Values []string // ascending, at least two, none twice
	}
	StartsWith struct {
		Field  Field // an id
		Prefix string
	}
)

// Matches is as Expr says.
func (a And) Matches(lookup func(Field) (string, bool)) bool {
	for _, e := range a {
		if !e.Matches(lookup) {
			return false
		}
	}
	return true
}

// Matches is as Expr says.
func (o Or) Matches(lookup func(Field) (string, bool)) bool {
	for _, e := range o {
		if e.Matches(lookup) {
			return true
		}
	}
	return false
}

// Matches is as Expr says.
func (n Not) Matches(lookup func(Field) (string, bool)) bool { return !n.Expr.Matches(lookup) }

// Matches is as Expr says.
func (e Equal) Matches(lookup func(Field) (string, bool)) bool {
	v, ok := lookup(e.Field)
	return ok && e.Field.fold(v) == e.Value
}

// Matches is as Expr says.
func (e NotEqual) Matches(lookup func(Field) (string, bool)) bool { return !Equal(e).Matches(lookup) }

// Matches is as Expr says.
func (i In) Matches(lookup func(Field) (string, bool)) bool {
	v, ok := lookup(i.Field)
	return ok && slices.Contains(i.Values, i.Field.fold(v))
}

// Matches is as Expr says.
func (s StartsWith) Matches(lookup func(Field) (string, bool)) bool {
	v, ok := lookup(s.Field)
	return ok && strings.HasPrefix(s.Field.fold(v), s.Prefix)
}

func (a And) appendTo(b []byte) []byte {
	for i, e := range a {
		if i > 0 {
			b = append(b, " AND "...)
		}
		b = appendOperand(b, e)
	}
	return b
}

func (o Or) appendTo(b []byte) []byte {
	for i, e := range o {
		if i > 0 {
			b = append(b, " OR "...)
		}
		b = e.appendTo(b) // AND binds closer
	}
	return b
}

func (n Not) appendTo(b []byte) []byte { return appendOperand(append(b, "NOT "...), n.Expr) }

func (e Equal) appendTo(b []byte) []byte {
	return appendValue(append(append(b, e.Field...), " = "...), e.Field, e.Value)
}

func (e NotEqual) appendTo(b []byte) []byte {
	return appendValue(append(append(b, e.Field...), " != "...), e.Field, e.Value)
}

func (i In) appendTo(b []byte) []byte {
	b = append(append(b, i.Field...), " IN ("...)
	for n, v := range i.Values {
		if n > 0 {
			b = append(b, ", "...)
		}
		b = appendValue(b, i.Field, v)
	}
	return append(b, ')')
}

func (s StartsWith) appendTo(b []byte) []byte {
	b = append(append(append(b, "STARTSWITH("...), s.Field...), ", "...)
	return append(appendValue(b, s.Field, s.Prefix), ')')
}

// appendOperand puts parentheses around what binds less than AND and NOT do.
func appendOperand(b []byte, e Expr) []byte {
	switch e.(type) {
	case And, Or:
		return append(e.appendTo(append(b, '(')), ')')
	}
	return e.appendTo(b)
}

func appendValue(b []byte, f Field, v string) []byte {
	if k := f.kind(); k == kindBool || k == kindInt {
		return append(b, v...)
	}
	b = append(b, '\'')
	b = append(b, strings.ReplaceAll(v, "'", "''")...)
	return append(b, '\'')
}
