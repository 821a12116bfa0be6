package dps_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
)

// condition is the test's own tree and evaluator: a value and what it means,
// and no trick in common with the package's.
type condition struct {
	op     string // and, or, not, =, !=, in, starts
	parts  []condition
	field  dps.Field
	values []string
}

// The value that a field can have, by kind; few, so that they often meet.
var (
	propertyTexts = []string{"", "a", "A", "it's", `say "b"`, "Ärger", "' OR 'a'='a", "a--b"}
	propertyInts  = []string{"0", "7", "-12", "400208"}
	propertyBools = []string{"true", "false"}
)

func valuesOf(f dps.Field) []string {
	switch name := string(f); {
	case strings.HasSuffix(name, "rrorCode"):
		return propertyInts
	case name == "capabilities.iotEdge", strings.HasPrefix(name, "reprovisionPolicy."):
		return propertyBools
	}
	return propertyTexts
}

func isID(f dps.Field) bool {
	return strings.HasSuffix(string(f), "Id")
}

// asciiLower is written anew: FoldID is under test.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 32
		}
		return r
	}, s)
}

func (c condition) holds(object map[dps.Field]string) bool {
	v, there := object[c.field]
	fold := func(s string) string { return s }
	if isID(c.field) {
		fold = asciiLower
	}
	any, all := false, true
	for _, p := range c.parts {
		any, all = any || p.holds(object), all && p.holds(object)
	}
	for _, want := range c.values {
		switch {
		case c.op == "starts":
			any = any || there && strings.HasPrefix(fold(v), fold(want))
		default:
			any = any || there && fold(v) == fold(want)
		}
	}
	switch c.op {
	case "and":
		return all
	case "not", "!=":
		return !any
	}
	return any
}

func drawCondition(t *rapid.T, c dps.Collection, depth int) condition {
	ops := []string{"=", "!=", "in", "starts", "and", "or", "not"}
	if depth == 0 {
		ops = ops[:4]
	}
	op := rapid.SampledFrom(ops).Draw(t, "op")
	switch op {
	case "and", "or", "not":
		n := 1
		if op != "not" {
			n = rapid.IntRange(2, 3).Draw(t, "parts")
		}
		parts := make([]condition, n)
		for i := range parts {
			parts[i] = drawCondition(t, c, depth-1)
		}
		return condition{op: op, parts: parts}
	}
	fields := c.Fields()
	if op == "starts" {
		fields = []dps.Field{fields[0]} // every collection's first is its id
	}
	f := rapid.SampledFrom(fields).Draw(t, "field")
	n := 1
	if op == "in" {
		n = rapid.IntRange(1, 4).Draw(t, "values")
	}
	return condition{op: op, field: f, values: rapid.SliceOfN(rapid.SampledFrom(valuesOf(f)), n, n).Draw(t, "value")}
}

// printer spells one tree in many ways.
type printer struct{ t *rapid.T }

func (p printer) coin(label string) bool { return rapid.Bool().Draw(p.t, label) }

// word is a keyword in some letter case with space around it.
func (p printer) word(w string) string {
	if p.coin("lower") {
		w = strings.ToLower(w)
	}
	return p.space() + w + p.space()
}

func (p printer) space() string {
	return rapid.SampledFrom([]string{" ", "\n", "\t "}).Draw(p.t, "space")
}

func (p printer) value(f dps.Field, v string) string {
	switch n, err := strconv.Atoi(v); {
	case len(valuesOf(f)) == len(propertyBools):
		return p.word(strings.ToUpper(v))
	case err == nil && len(valuesOf(f)) == len(propertyInts):
		if n > 0 && p.coin("zero") {
			v = "0" + v
		}
		return v
	}
	if isID(f) && p.coin("other case") {
		v = asciiLower(v)
	}
	q := rapid.SampledFrom([]string{"'", `"`}).Draw(p.t, "quote")
	return q + strings.ReplaceAll(v, q, q+q) + q
}

func (p printer) print(c condition) string {
	s := p.bare(c)
	if len(c.parts) > 0 || p.coin("needless parentheses") {
		s = "(" + s + ")"
	}
	return s
}

func (p printer) bare(c condition) string {
	var list []string
	for _, part := range c.parts {
		list = append(list, p.print(part))
	}
	for _, v := range c.values {
		list = append(list, p.value(c.field, v))
	}
	f := string(c.field)
	switch c.op {
	case "and":
		return strings.Join(list, p.word("AND"))
	case "or":
		return strings.Join(list, p.word("OR"))
	case "not":
		return p.word("NOT") + list[0]
	case "in":
		return f + p.word("IN") + "(" + strings.Join(list, p.space()+",") + ")"
	case "starts":
		return p.word("STARTSWITH") + "(" + f + "," + list[0] + ")"
	case "!=":
		return f + rapid.SampledFrom([]string{"!=", " <> "}).Draw(p.t, "sign") + list[0]
	}
	return f + "=" + list[0]
}

// TestEverySpellingOfAConditionMeansIt: random trees, each spelled twice, have
// one normal form, which is stable, and select what a second evaluator selects.
func TestEverySpellingOfAConditionMeansIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom([]dps.Collection{entries, groups, states}).Draw(t, "collection")
		tree := drawCondition(t, c, rapid.IntRange(0, 3).Draw(t, "depth"))
		p := printer{t}
		q := mustParse(t, "SELECT"+p.space()+"*"+p.word("FROM")+c.String()+p.word("WHERE")+p.print(tree), c)
		second := mustParse(t, "select * where "+p.print(tree), c)
		if q.Canonical() != second.Canonical() {
			t.Fatalf("%q and %q", q.Canonical(), second.Canonical())
		}
		again := mustParse(t, q.Canonical(), c)
		if diff := cmp.Diff(q, again); diff != "" {
			t.Fatalf("%q: %s", q.Canonical(), diff)
		}
		for range 8 {
			object := drawObject(t, c)
			lookup := func(f dps.Field) (string, bool) { v, ok := object[f]; return v, ok }
			if got, want := again.Where.Matches(lookup), tree.holds(object); got != want {
				t.Fatalf("%q on %v: got %v, want %v", q.Canonical(), object, got, want)
			}
		}
	})
}

func mustParse(t *rapid.T, text string, c dps.Collection) dps.Query {
	q, err := dps.ParseQuery(text, c)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return q
}

func drawObject(t *rapid.T, c dps.Collection) map[dps.Field]string {
	object := map[dps.Field]string{}
	for _, f := range c.Fields() {
		if rapid.Bool().Draw(t, "there") {
			object[f] = rapid.SampledFrom(valuesOf(f)).Draw(t, string(f))
		}
	}
	return object
}
