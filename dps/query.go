package dps

import (
	"bytes"
	"slices"
)

// MaxQuery is the longest text of a query in bytes. Nesting is bounded by 32
// levels of parentheses and NOT, and values by 100.
const MaxQuery = 4 << 10

const (
	maxQueryDepth  = 32
	maxQueryValues = 100
)

// Collection is what a query ranges over.
type Collection int

// The collections of the service.
const (
	CollectionEnrollments Collection = iota + 1
	CollectionEnrollmentGroups
	CollectionRegistrations
)

// String is the name of the collection after FROM, where it is read in any
// letter case.
func (c Collection) String() string {
	switch c {
	case CollectionEnrollments:
		return "enrollments"
	case CollectionEnrollmentGroups:
		return "enrollmentGroups"
	case CollectionRegistrations:
		return "deviceRegistrations"
	}
	return "unknown"
}

// Query selects objects of a collection.
type Query struct {
	Collection Collection
	Where      Expr // nil: everything
}

// ParseQuery reads a query over c:
//
//	query  = "*" | SELECT "*" [FROM collection] [WHERE either]
//	either = both {OR both}
//	both   = one {AND one}
//	one    = NOT one | "(" either ")" | test
//	test   = field ("=" | "!=" | "<>") value
//	       | field IN "(" value {"," value} ")"
//	       | STARTSWITH "(" field "," text ")"      only fields that are ids
//	value  = text | TRUE | FALSE | integer          of the field's own kind
//	text   = between ' or between "; that quote twice stands for itself
//
// Keywords and the collection, which must be c, are read in any letter case;
// fields must be spelled as the messages spell them. Errors are *FieldError
// with the member "query" and name the place as the position of a character,
// the first being 1.
func ParseQuery(text string, c Collection) (Query, error) {
	p := parser{collection: c}
	if err := p.scanner.start(text); err != nil {
		return Query{}, err
	}
	where, err := p.query()
	if err != nil {
		return Query{}, err
	}
	return Query{Collection: c, Where: where}, nil
}

// DecodeQuery reads the body of a query request, {"query":"…"}. Some clients
// send no body, or none of a query, when they ask for registrations; they get
// everything. Errors are *FieldError.
func DecodeQuery(body []byte, c Collection) (Query, error) {
	if c == CollectionRegistrations && len(body) <= MaxMessage && len(bytes.TrimSpace(body)) == 0 {
		return Query{Collection: c}, nil
	}
	if err := checkObject(body); err != nil {
		return Query{}, err
	}
	var text string
	there := false
	err := eachMember(body, func(name, value []byte) (err error) {
		switch {
		case string(name) != "query":
			return misspelt("", name, "query")
		case isNull(value):
			return nil
		}
		there = true
		text, err = stringValue("query", value)
		return err
	})
	switch {
	case err != nil:
		return Query{}, err
	case !there && c == CollectionRegistrations:
		return Query{Collection: c}, nil
	case !there:
		return Query{}, refuse("query", "is missing")
	}
	return ParseQuery(text, c)
}

// Canonical is the query in one spelling: texts that differ in letter case of
// keywords and ids, in spaces, quotes or needless parentheses, in order or
// repetition inside IN, or in the way they say "not equal" have the same. It
// names the collection, and is itself a query unless that makes it longer than
// MaxQuery.
func (q Query) Canonical() string {
	b := append(make([]byte, 0, 256), "SELECT * FROM "...)
	b = append(b, q.Collection.String()...)
	if q.Where != nil {
		b = q.Where.appendTo(append(b, " WHERE "...))
	}
	return string(b)
}

// negate is NOT e.
func negate(e Expr) Expr {
	switch e := e.(type) {
	case Not:
		return e.Expr
	case Equal:
		return NotEqual(e)
	case NotEqual:
		return Equal(e)
	}
	return Not{e}
}

// oneOf is field IN (values), in one order and without repetition.
func oneOf(f Field, values []string) Expr {
	slices.Sort(values)
	values = slices.Compact(values)
	if len(values) == 1 {
		return Equal{f, values[0]}
	}
	return In{f, values}
}
