package platforms

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

const (
	// mostBytes is what a device must have room for.
	mostBytes = 15 << 20

	version = "v0.0.0-of-the-test"
)

// machines are those that the agent is promised for.
var machines = []struct {
	file, os, arch string
	setting        string // what must be among the build's settings besides
}{
	{"linux_amd64", "linux", "amd64", ""},
	{"linux_arm64", "linux", "arm64", ""},
	{"linux_armv7", "linux", "arm", "GOARM=7"},
	{"linux_riscv64", "linux", "riscv64", ""},
	{"windows_amd64.exe", "windows", "amd64", ""},
}

func TestAgentIsBuiltForEveryMachine(t *testing.T) {
	dir := t.TempDir()
	release(t, source(t), dir)
	for _, machine := range machines {
		t.Run(machine.file, func(t *testing.T) {
			path := filepath.Join(dir, "device", "latchkey-device_"+version+"_"+machine.file)
			program, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(program) >= mostBytes {
				t.Errorf("%d bytes, want fewer than %d", len(program), mostBytes)
			}
			if !bytes.Contains(program, []byte(version)) {
				t.Errorf("the linker has not put in the version")
			}
			wantSettings(t, path, "GOOS="+machine.os, "GOARCH="+machine.arch, "CGO_ENABLED=0", "-trimpath=true", machine.setting)
			wantLine(t, filepath.Join(dir, "device", "SHA256SUMS"), fmt.Sprintf("%x  %s", sha256.Sum256(program), filepath.Base(path)))
		})
	}
	native := filepath.Join(dir, "device", "latchkey-device_"+version+"_linux_"+runtime.GOARCH)
	if said := run(t, dir, nil, native, "--version"); said != "latchkey-device version "+version+"\n" {
		t.Errorf("it says %q", said)
	}
}

// An operator who builds the sources elsewhere must get the bytes of the release.
func TestReleaseDoesNotDependOnWhereItIsBuilt(t *testing.T) {
	here := source(t)
	elsewhere := filepath.Join(t.TempDir(), "a path of another length")
	if err := copySources(here, elsewhere); err != nil {
		t.Fatal(err)
	}
	var sums []string
	for _, from := range []string{here, elsewhere} {
		dir := t.TempDir()
		release(t, from, dir, "DEVICES=linux/"+runtime.GOARCH)
		sum, err := os.ReadFile(filepath.Join(dir, "device", "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(sum))
	}
	if sums[0] != sums[1] {
		t.Errorf("built here and elsewhere:\n%s%s", sums[0], sums[1])
	}
}

// vet reads the code that only another machine compiles.
func TestVetOfEveryMachine(t *testing.T) {
	for _, machine := range machines {
		env := []string{"CGO_ENABLED=0", "GOOS=" + machine.os, "GOARCH=" + machine.arch, "GOARM=7"}
		run(t, source(t), env, "go", "vet", "-trimpath", "./cmd/latchkey-device", "./device/...")
	}
}

// release has make build into a directory.
func release(t *testing.T, source, dir string, arguments ...string) {
	t.Helper()
	make := []string{"make", "-s", "release-device", "PACKAGES=" + dir, "VERSION=" + version}
	run(t, source, nil, append(make, arguments...)...)
}

func wantSettings(t *testing.T, path string, want ...string) {
	t.Helper()
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range want {
		if setting != "" && !has(info.Settings, setting) {
			t.Errorf("not built with %s but with %v", setting, info.Settings)
		}
	}
}

func has(settings []debug.BuildSetting, want string) bool {
	for _, s := range settings {
		if s.Key+"="+s.Value == want {
			return true
		}
	}
	return false
}

func wantLine(t *testing.T, path, line string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(content), line+"\n") {
		t.Errorf("%s has no line %q (error %v)", path, line, err)
	}
}

func source(t *testing.T) string {
	t.Helper()
	dir, err := rig.Source()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a program that must succeed and gives what it said.
func run(t *testing.T, dir string, env []string, command ...string) string {
	t.Helper()
	result, err := rig.Run(t.Context(), rig.Command{Path: command[0], Args: command[1:], Dir: dir, Env: env})
	if err != nil {
		t.Fatalf("%v\n%s", err, result.Stdout)
	}
	return result.Stdout
}

// copySources copies what the agent is built from.
func copySources(from, to string) error {
	for _, dir := range []string{"attest", "dps", "device", "cmd/latchkey-device"} {
		if err := os.CopyFS(filepath.Join(to, dir), os.DirFS(filepath.Join(from, dir))); err != nil {
			return err
		}
	}
	for _, file := range []string{"go.mod", "go.sum", "Makefile"} {
		content, err := os.ReadFile(filepath.Join(from, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, file), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
