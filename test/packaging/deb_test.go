package packaging

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

var background = context.Background()

// only is the one file that a pattern names.
func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s names %d files", pattern, len(found))
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// Another umask, time zone, language and working directory change no byte.
func TestThePackageIsTheSameWhoeverBuildsIt(t *testing.T) {
	first, dir := deb(t), t.TempDir()
	version := strings.TrimSpace(run(t, "git", "-C", source(t), "describe", "--tags", "--always", "--dirty"))
	script := `umask 077; cd / && "$1/packaging/deb.sh" "$2" "$(go env GOARCH)" "$1/bin/$(go env GOARCH)/latchkey" "$3"`
	_, err := rig.Run(t.Context(), rig.Command{Path: "sh", Args: []string{"-c", script, "sh", source(t), version, dir},
		Env: []string{"TZ=Pacific/Auckland", "LC_ALL=C.UTF-8", "GOFLAGS=-p=1"}})
	must(t, err)
	second, err := only(filepath.Join(dir, "*.deb"))
	must(t, err)
	if filepath.Base(first) != filepath.Base(second) {
		t.Errorf("the packages are called %s and %s", filepath.Base(first), filepath.Base(second))
	}
	a, err := os.ReadFile(first)
	must(t, err)
	b, err := os.ReadFile(second)
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Error("the same sources gave two packages")
	}
}

// What is built for another machine must say so, and be what it says.
func TestAPackageForAnotherMachineIsNamedAfterIt(t *testing.T) {
	said := run(t, "make", "-n", "-C", source(t), "deb", "GOARCH=arm64")
	for _, want := range []string{" GOARCH=arm64 go build ", " -o bin/arm64/ ", " arm64 bin/arm64/latchkey "} {
		if !strings.Contains(said, want) {
			t.Errorf("make deb GOARCH=arm64 does not do %q:\n%s", want, said)
		}
	}
}

func TestVersionsOfCommitsSortAsTheyWereMade(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1795478400")
	text, err := os.ReadFile(filepath.Join(source(t), "packaging/deb.sh"))
	must(t, err)
	function := regexp.MustCompile(`(?s)\nversion\(\) \{.*?\n\}`).Find(text)
	var before string
	for _, c := range []struct{ described, want string }{
		{"d1ac0d5", "0~20261124.d1ac0d5"},
		{"d1ac0d5-dirty", "0~20261124.d1ac0d5+dirty"},
		{"v0.1.0", "0.1.0"},
		{"v0.1.0-2-gd1ac0d5", "0.1.0+2.d1ac0d5"},
		{"v0.1.0-10-gd1ac0d5-dirty", "0.1.0+10.d1ac0d5+dirty"},
		{"v0.1.1", "0.1.1"},
	} {
		got := strings.TrimSpace(run(t, "sh", "-c", string(function)+"\nversion "+c.described))
		if got != c.want {
			t.Errorf("%s became %s, want %s", c.described, got, c.want)
		}
		if before != "" {
			run(t, "dpkg", "--compare-versions", before, "lt", got)
		}
		before = got
	}
}

func TestThePackageHoldsWhatAServerNeedsAndNoMore(t *testing.T) {
	have := map[string]string{}
	for _, line := range lines(run(t, "dpkg-deb", "-c", deb(t))) {
		f := strings.Fields(line)
		if f[1] != "root/root" {
			t.Errorf("owned by %s: %s", f[1], line)
		}
		have[strings.TrimPrefix(f[5], ".")] = f[0]
	}
	for path, mode := range map[string]string{
		"/usr/bin/latchkey":                                  "-rwxr-xr-x",
		"/etc/latchkey/latchkey.env":                         "-rw-r-----", // operators may put a password into it
		"/usr/lib/systemd/system/latchkey.service":           "-rw-r--r--",
		"/usr/lib/sysusers.d/latchkey.conf":                  "-rw-r--r--",
		"/usr/lib/tmpfiles.d/latchkey.conf":                  "-rw-r--r--",
		"/usr/share/man/man1/latchkey.1.gz":                  "-rw-r--r--",
		"/usr/share/bash-completion/completions/latchkey":    "-rw-r--r--",
		"/usr/share/zsh/vendor-completions/_latchkey":        "-rw-r--r--",
		"/usr/share/fish/vendor_completions.d/latchkey.fish": "-rw-r--r--",
		"/usr/share/doc/latchkey/copyright":                  "-rw-r--r--",
		"/usr/share/doc/latchkey/changelog.gz":               "-rw-r--r--",
		"/usr/share/doc/latchkey/operations.md":              "-rw-r--r--",
		"/usr/share/doc/latchkey/third-party-licenses.gz":    "-rw-r--r--",
	} {
		if have[path] != mode {
			t.Errorf("%s has mode %q, want %q", path, have[path], mode)
		}
	}
	for path := range have {
		if strings.HasPrefix(path, "/var") {
			t.Errorf("%s would be removed with the package", path)
		}
	}
	if got := run(t, "dpkg-deb", "-I", deb(t), "conffiles"); got != "/etc/latchkey/latchkey.env\n" {
		t.Errorf("conffiles: %q", got)
	}
}

// unpacked is the package's files and, under DEBIAN, its scripts.
func unpacked(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "dpkg-deb", "-R", deb(t), dir)
	return dir
}

// A page that is installed leads to nothing that is not.
func TestTheInstalledPagesLeadToInstalledPages(t *testing.T) {
	dir := filepath.Join(unpacked(t), "usr/share/doc/latchkey")
	pages, err := filepath.Glob(filepath.Join(dir, "*.md"))
	must(t, err)
	links := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		must(t, err)
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(text), -1) {
			links++
			if _, err := os.Stat(filepath.Join(dir, link[1])); err != nil {
				t.Errorf("%s leads to %s, which is not in the package", filepath.Base(page), link[1])
			}
		}
	}
	if links == 0 {
		t.Error("no links were found")
	}
}

func TestThePackagedProgramNeedsNoLibrary(t *testing.T) {
	program, err := elf.Open(filepath.Join(unpacked(t), "usr/bin/latchkey"))
	must(t, err)
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program wants a dynamic linker")
		}
	}
}

func TestTheLicenceOfEveryLinkedModuleIsInThePackage(t *testing.T) {
	dir := unpacked(t)
	licences := gunzip(t, filepath.Join(dir, "usr/share/doc/latchkey/third-party-licenses.gz"))
	info, err := buildinfo.ReadFile(filepath.Join(dir, "usr/bin/latchkey"))
	must(t, err)
	if len(info.Deps) < 10 {
		t.Fatalf("the program names only %d modules", len(info.Deps))
	}
	for _, module := range info.Deps {
		if !strings.Contains(licences, "==== "+module.Path+" "+module.Version+": ") {
			t.Errorf("there is no licence of %s %s", module.Path, module.Version)
		}
	}
}

func TestTheManualPageNamesEveryCommand(t *testing.T) {
	dir := unpacked(t)
	page := strings.ReplaceAll(gunzip(t, filepath.Join(dir, "usr/share/man/man1/latchkey.1.gz")), `\-`, "-")
	help := run(t, filepath.Join(dir, "usr/bin/latchkey"), "--help")
	_, commands, _ := strings.Cut(help, "Available Commands:\n")
	commands, _, _ = strings.Cut(commands, "\n\n")
	if len(lines(commands)) < 10 {
		t.Fatalf("no list of commands in:\n%s", help)
	}
	for _, line := range lines(commands) {
		name := strings.Fields(line)[0]
		if name != "completion" && !regexp.MustCompile(`(?m)^\.BR? .*\b`+name+`\b`).MatchString(page) {
			t.Errorf("latchkey.1 says nothing of %s", name)
		}
	}
}

func gunzip(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	text, err := io.ReadAll(z)
	must(t, err)
	return string(text)
}
