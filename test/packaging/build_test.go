package packaging

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

var built struct {
	once   sync.Once
	source string // of the module
	dir    string // where what was built lies
	deb    string
	image  string // archive
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// source is the directory of this module.
func source(t *testing.T) string {
	t.Helper()
	build()
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.source
}

// deb is the package that make builds, once for all tests.
func deb(t *testing.T) string {
	t.Helper()
	source(t)
	return built.deb
}

func build() {
	built.once.Do(func() {
		if built.source, built.err = rig.Source(); built.err != nil {
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "latchkey-deb"); built.err != nil {
			return
		}
		if _, built.err = rig.Run(background, rig.Command{Path: "make", Args: []string{"-s", "deb", "image", "PACKAGES=" + built.dir}, Dir: built.source}); built.err != nil {
			return
		}
		var err error
		built.deb, built.err = only(filepath.Join(built.dir, "*.deb"))
		built.image, err = only(filepath.Join(built.dir, "*.oci.tar"))
		built.err = errors.Join(built.err, err)
	})
}

// run runs a program that must succeed and gives what it said.
func run(t *testing.T, command ...string) string {
	t.Helper()
	result, err := rig.Run(t.Context(), rig.Command{Path: command[0], Args: command[1:]})
	if err != nil {
		t.Fatal(err)
	}
	return result.Stdout
}

func lines(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
