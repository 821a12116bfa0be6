package house

import (
	"debug/buildinfo"
	"debug/elf"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// static is how the shipped binaries are built (Makefile, target build), for the one system whose file format is read here.
var static = []string{"CGO_ENABLED=0", "GOOS=linux"}

// linked names all packages, of this module and others, that a command is built from.
func linked(t *testing.T, command string, settings ...string) []string {
	t.Helper()
	return strings.Fields(string(goCommand(t, settings, "list", "-deps", "./cmd/"+command)))
}

// dynamic says why an ELF file needs a loader at run time; "" when it needs none.
func dynamic(t *testing.T, path string) string {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, prog := range file.Progs {
		if prog.Type == elf.PT_INTERP {
			return "it names an interpreter"
		}
	}
	if libraries, err := file.ImportedLibraries(); err == nil && len(libraries) > 0 {
		return "it needs " + strings.Join(libraries, ", ")
	}
	return ""
}

func TestTheShippedBinariesLinkNoSimulatorAndNeedNoLibrary(t *testing.T) {
	for _, command := range []string{"latchkey", "latchkey-device"} {
		t.Run(command, func(t *testing.T) {
			for _, dep := range linked(t, command, static...) {
				if simulator(dep) {
					t.Errorf("linked: %s", dep)
				}
			}
			binary := filepath.Join(t.TempDir(), command)
			goCommand(t, static, "build", "-trimpath", "-o", binary, "./cmd/"+command)
			if why := dynamic(t, binary); why != "" {
				t.Errorf("the binary is not static: %s", why)
			}
			info, err := buildinfo.ReadFile(binary)
			if err != nil {
				t.Fatal(err)
			}
			for _, dep := range info.Deps {
				if simulator(dep.Path) {
					t.Errorf("the binary was built with %s", dep.Path)
				}
			}
		})
	}
}

func TestTheServiceLinksNoTPMLibrary(t *testing.T) {
	if deps := linked(t, "latchkey", static...); slices.ContainsFunc(deps, tpmLibrary) {
		t.Error("cmd/latchkey links go-tpm; the service never talks to a TPM")
	}
}

func TestTheAgentLinksNoServer(t *testing.T) {
	for _, dep := range linked(t, "latchkey-device", static...) {
		if fits("internal/...", local(dep)) && strings.HasPrefix(dep, module) {
			t.Errorf("linked: %s", dep)
		}
	}
}

// TestTheChecksAreNotBlind shows each check something that it must refuse: the demo links a simulator and go-tpm, and
// this machine's shell needs a loader.
func TestTheChecksAreNotBlind(t *testing.T) {
	deps := linked(t, "latchkey-demo", "CGO_ENABLED=1")
	if !slices.ContainsFunc(deps, simulator) {
		t.Error("no simulator is seen in cmd/latchkey-demo")
	}
	if !slices.ContainsFunc(deps, tpmLibrary) {
		t.Error("no go-tpm is seen in cmd/latchkey-demo")
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if dynamic(t, shell) == "" {
		t.Errorf("%s passes for static", shell)
	}
}
