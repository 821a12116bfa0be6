package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pkg is what the tests read of `go list -json`.
type pkg struct {
	Dir, ImportPath   string
	Imports           []string
	GoFiles, CgoFiles []string
}

// goList runs `go list -json` in the module's root.
func goList(t *testing.T, args ...string) []pkg {
	t.Helper()
	out := goCommand(t, nil, append([]string{"list", "-json=Dir,ImportPath,Imports,GoFiles,CgoFiles"}, args...)...)
	var pkgs []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

var root = filepath.Join("..", "..")

// goCommand runs the go command in the module's root with the settings added to the environment.
func goCommand(t *testing.T, settings []string, args ...string) []byte {
	t.Helper()
	watchSources(t)
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), settings...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, &stderr)
	}
	return out
}

// watchSources looks at every Go file of the module. go test caches a result until a file that the test itself looked at
// changes, and it cannot see what the go command reads for us: without this a broken rule could hide behind "(cached)".
func watchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "bin") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") || entry.Name() == "go.mod" {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a test elsewhere may be tidying up
		t.Fatal(err)
	}
}

func TestEveryImportObeysTheRule(t *testing.T) {
	pkgs := goList(t, "./...")
	for _, room := range []string{"attest", "dps", "internal/registration", "cmd/latchkey"} {
		if !slices.ContainsFunc(pkgs, func(p pkg) bool { return local(p.ImportPath) == room }) {
			t.Errorf("%s was not listed: the test looks in the wrong place", room)
		}
	}
	for _, p := range pkgs {
		if err := known(p.ImportPath); err != nil {
			t.Error(err)
			continue
		}
		for _, to := range p.Imports {
			if err := judge(p.ImportPath, to); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestThePureRoomsReadNoClockAndLogNothing(t *testing.T) {
	for _, p := range goList(t, "./attest/...", "./dps/...") {
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			found, err := uses(filepath.Join(p.Dir, name), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, use := range found {
				t.Error(use)
			}
		}
	}
}
