package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// field is one key of the file, with the comment on its field.
type field struct{ key, comment string }

// fields reads config.go: every key, sections opened.
func fields(t *testing.T) []field {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]*ast.StructType{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			if s, ok := spec.Type.(*ast.StructType); ok {
				structs[spec.Name.Name] = s
			}
		}
		return true
	})
	return fieldsOf(t, structs, "Config", "")
}

func fieldsOf(t *testing.T, structs map[string]*ast.StructType, name, prefix string) (all []field) {
	t.Helper()
	for _, f := range structs[name].Fields.List {
		key := prefix + reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml")
		if section, ok := f.Type.(*ast.Ident); ok && structs[section.Name] != nil {
			all = append(all, fieldsOf(t, structs, section.Name, key+".")...)
			continue
		}
		if _, list := f.Type.(*ast.ArrayType); list {
			continue // no flag and no variable could hold one
		}
		all = append(all, field{key, strings.TrimSpace(f.Doc.Text())})
		if len(f.Names) != 1 || !strings.HasPrefix(f.Doc.Text(), f.Names[0].Name+" ") {
			t.Errorf("%s has no comment of its own that begins with its name", key)
		}
	}
	return all
}

func TestEveryKeyIsASettingAndSaysWhenAChangeCounts(t *testing.T) {
	all := fields(t)
	def := Default()
	settings := map[string]Setting{}
	for _, s := range def.Settings() {
		settings[keyOf(s.Name)] = s
	}
	if len(all) != len(settings) {
		t.Errorf("%d keys, %d settings", len(all), len(settings))
	}
	for _, f := range all {
		s, ok := settings[f.key]
		if !ok {
			t.Errorf("%s is not among the settings", f.key)
		}
		if says := strings.Contains(f.comment, "Reloaded on SIGHUP."); says != s.Reloaded {
			t.Errorf("%s: reloaded is %v, its comment says %q", f.key, s.Reloaded, f.comment)
		}
	}
}

// docs/configuration.md has one row for each key, in the order of the fields:
// key, default, flag, variable, when a change counts, meaning.
func TestThePageListsEveryKey(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(strings.TrimSpace(line), "|"); len(cells) == 8 && strings.HasPrefix(cells[1], " `") {
			for i, cell := range cells {
				cells[i] = strings.TrimSpace(cell)
			}
			rows = append(rows, cells[1:7])
		}
	}
	def := Default()
	settings := def.Settings()
	if len(rows) != len(settings) {
		t.Errorf("%d rows, %d settings", len(rows), len(settings))
	}
	for i, s := range settings[:min(len(rows), len(settings))] {
		when := "restart"
		if s.Reloaded {
			when = "SIGHUP"
		}
		byDefault := strings.TrimSuffix(s.Get(), "0m0s") // 24h0m0s is written 24h
		want := []string{"`" + keyOf(s.Name) + "`", "`" + byDefault + "`", "`--" + s.Name + "`", "`" + s.Variable() + "`", when}
		for j, cell := range want {
			if rows[i][j] != cell {
				t.Errorf("row %d, cell %d is %s, want %s", i+1, j+1, rows[i][j], cell)
			}
		}
		if len(rows[i][5]) < 20 {
			t.Errorf("row %d does not say what %s means", i+1, s.Name)
		}
	}
}

// The table of hub.outputs has one row for each member: key, the kinds that have it, meaning.
func TestThePageListsEveryMemberOfAnOutput(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(strings.TrimSpace(line), "|"); len(cells) == 5 && strings.HasPrefix(cells[1], " `") {
			rows[strings.Trim(cells[1], " `")] = strings.TrimSpace(cells[2])
		}
	}
	of := reflect.TypeFor[Output]()
	for i := range of.NumField() {
		key := of.Field(i).Tag.Get("yaml")
		var kinds []string
		for _, kind := range []string{"file", "webhook", "mqtt", "nats"} {
			k := outputKinds[kind]
			switch {
			case slices.Contains(k.needs, key):
				kinds = append(kinds, kind+" (needed)")
			case slices.Contains(k.may, key):
				kinds = append(kinds, kind)
			}
		}
		want := strings.Join(kinds, ", ")
		if want == "" {
			want = map[string]string{"name": "all (needed)", "kind": "all (needed)"}[key]
		}
		if want == "" {
			want = "all"
		}
		if rows[key] != want {
			t.Errorf("%s is said to be for %q, it is for %q", key, rows[key], want)
		}
	}
}
