package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
)

// forbidden are the names that a pure room may not use although it may import their package: the clock, and of slog all
// that logs. What remains of slog is its value types, for redaction.
var forbidden = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
	"log/slog": {
		"Default", "SetDefault", "New", "With", "NewLogLogger", "NewTextHandler", "NewJSONHandler", "Logger", "Handler",
		"Debug", "Info", "Warn", "Error", "Log", "LogAttrs", "DebugContext", "InfoContext", "WarnContext", "ErrorContext",
	},
}

// uses reports each forbidden name in a Go file of a pure room, at its position. src is as go/parser takes it: nil to
// read the file. A dot import would hide the names, so it is reported too.
func uses(filename string, src any) ([]error, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, filename, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []error
	watched := map[string]string{} // local name: import path
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		if _, ok := forbidden[path]; !ok {
			continue
		}
		name := nameOf(spec, path)
		if name == "." {
			found = append(found, fmt.Errorf("%s: dot import of %s", files.Position(spec.Pos()), path))
		}
		watched[name] = path
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if base, ok := sel.X.(*ast.Ident); ok && slices.Contains(forbidden[watched[base.Name]], sel.Sel.Name) {
			found = append(found, fmt.Errorf("%s: %s.%s", files.Position(sel.Pos()), watched[base.Name], sel.Sel.Name))
		}
		return true
	})
	return found, nil
}

// nameOf is what the file calls an import.
func nameOf(spec *ast.ImportSpec, path string) string {
	if spec.Name != nil {
		return spec.Name.Name
	}
	if path == "log/slog" {
		return "slog"
	}
	return path
}
