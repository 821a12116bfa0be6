package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// target is one fuzz function and the folder of its package.
type target struct{ dir, name string }

// fuzzAll runs every fuzz target under root, one after the other, each for the given time on all cores.
func fuzzAll(out io.Writer, total *tally, root string, each time.Duration) int {
	targets, err := fuzzTargets(root)
	if err != nil {
		fmt.Fprintln(out, err)
		total.failed++
		return 1
	}
	code := 0
	for _, t := range targets {
		code = first(code, fuzzOne(out, total, root, t, each))
	}
	return code
}

// fuzzOne gives the target its time. What go test prints is shown only when it failed: the failing input is in it,
// and in testdata/fuzz, where it stays as a regression test.
func fuzzOne(out io.Writer, total *tally, root string, t target, each time.Duration) int {
	start := time.Now()
	cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$",
		"-fuzztime", each.String(), "-fuzzminimizetime", "2s", "./"+filepath.ToSlash(t.dir))
	cmd.Dir = root
	output, err := cmd.CombinedOutput()
	if err != nil && !onlyRanOut(output) {
		total.failed++
		fmt.Fprintf(out, "%s--- FAIL: %s in %s\n", output, t.name, t.dir)
		return exitCode(out, err)
	}
	total.passed++
	fmt.Fprintf(out, "ok  \tfuzz %s %s\t%.1fs\n", t.dir, t.name, time.Since(start).Seconds())
	return 0
}

// onlyRanOut recognises the fuzzing engine losing a race with its own -fuzztime: it then reports the deadline as a
// failure although no input failed. A real finding always names the input that it wrote.
func onlyRanOut(output []byte) bool {
	return bytes.Contains(output, []byte("    context deadline exceeded\n")) &&
		!bytes.Contains(output, []byte("Failing input written"))
}

// fuzzTargets finds the fuzz functions by reading the test files, which costs no build.
func fuzzTargets(root string) ([]target, error) {
	var found []target
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && ignored(entry.Name()) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		names, err := fuzzFuncs(path)
		for _, name := range names {
			dir, _ := filepath.Rel(root, filepath.Dir(path))
			found = append(found, target{dir, name})
		}
		return err
	})
	sort.Slice(found, func(i, j int) bool {
		return found[i].dir+" "+found[i].name < found[j].dir+" "+found[j].name
	})
	return found, err
}

// ignored are the folders that the go command does not look into, and npm's.
func ignored(dir string) bool {
	return strings.HasPrefix(dir, ".") || strings.HasPrefix(dir, "_") || dir == "testdata" || dir == "node_modules"
}

func fuzzFuncs(path string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") && takesF(f) {
			names = append(names, f.Name.Name)
		}
	}
	return names, nil
}

// takesF: the only parameter is *testing.F.
func takesF(f *ast.FuncDecl) bool {
	if f.Type.Params.NumFields() != 1 {
		return false
	}
	star, ok := f.Type.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	sel, ok := star.X.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "F"
}
