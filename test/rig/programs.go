package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// BinVariable names the environment variable that points at a directory with
// programs built before; without it the rig builds them.
const BinVariable = "LATCHKEY_BIN"

const module = "latchkey.example/latchkey"

// buildLimit allows for an empty build cache on a small machine.
const buildLimit = 10 * time.Minute

// Programs are the paths of the built programs.
type Programs struct {
	Service string // latchkey
	Agent   string // latchkey-device
}

var built struct {
	once     sync.Once
	scratch  string // ours, removed by Cleanup
	programs Programs
	err      error
}

// Build gives the programs that this process works with. The first call builds
// them without cgo, as a release is built, or takes those of LATCHKEY_BIN; all
// later calls answer the same. Call Cleanup (or Main) at the end.
func Build() (Programs, error) {
	built.once.Do(func() { built.programs, built.err = locate() })
	return built.programs, built.err
}

// Cleanup removes what Build made. Nothing may be built or started after it.
func Cleanup() error {
	if built.scratch == "" {
		return nil
	}
	return os.RemoveAll(built.scratch)
}

func locate() (Programs, error) {
	if dir := os.Getenv(BinVariable); dir != "" {
		return ProgramsIn(dir)
	}
	scratch, err := os.MkdirTemp("", "latchkey-bin")
	if err != nil {
		return Programs{}, fmt.Errorf("rig: %w", err)
	}
	built.scratch = scratch
	if err := compile(scratch); err != nil {
		return Programs{}, err
	}
	return ProgramsIn(scratch)
}

// ProgramsIn are the programs built into a directory, both of them.
func ProgramsIn(dir string) (Programs, error) {
	dir, err := filepath.Abs(dir) // processes may be started elsewhere
	if err != nil {
		return Programs{}, fmt.Errorf("rig: %w", err)
	}
	p := Programs{Service: filepath.Join(dir, "latchkey"), Agent: filepath.Join(dir, "latchkey-device")}
	for _, path := range []string{p.Service, p.Agent} {
		if _, err := os.Stat(path); err != nil {
			return Programs{}, fmt.Errorf("rig: no built program: %w", err)
		}
	}
	return p, nil
}

func compile(dir string) error {
	return Compile(dir, Compilation{Packages: []string{"./cmd/latchkey", "./cmd/latchkey-device"}})
}

// Compilation says what to build of this module.
type Compilation struct {
	Packages []string // relative to the module, as "./cmd/latchkey"
	Cgo      bool     // a release's programs are built without
	Overlay  string   // file for go build -overlay; empty: none
}

// Compile builds programs into a directory.
func Compile(dir string, c Compilation) error {
	source, err := Source()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	arguments := []string{"build", "-o", dir + string(filepath.Separator)}
	if c.Overlay != "" {
		arguments = append(arguments, "-overlay", c.Overlay)
	}
	cgo := "CGO_ENABLED=0"
	if c.Cgo {
		cgo = "CGO_ENABLED=1"
	}
	_, err = Run(ctx, Command{Path: "go", Args: append(arguments, c.Packages...), Dir: source, Env: []string{cgo}})
	return errors.Join(err, dependOn(source))
}

// Source is the directory of this module.
func Source() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	root, err := Run(ctx, Command{Path: "go", Args: []string{"list", "-m", "-f", "{{.Dir}}", module}})
	return strings.TrimSpace(root.Stdout), err
}

// dependOn looks at all directories that the programs may be built from. go
// test notes what a test looks at inside the module, and runs it again when that
// has changed; else it would answer "cached" for a service that is another one
// by now, since no test imports it.
func dependOn(source string) error {
	return filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		apart := entry != nil && entry.IsDir() && (entry.Name() == "test" || entry.Name() == "bin" || strings.HasPrefix(entry.Name(), "."))
		if err == nil && apart && path != source {
			return fs.SkipDir
		}
		return err
	})
}
