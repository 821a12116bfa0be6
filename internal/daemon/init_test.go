package daemon

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/internal/config"
)

// contents reads every file below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(data)
		return err
	})
	must(t, err)
	return all
}

func TestInitKeepsSecretsFromOtherUsers(t *testing.T) {
	h := installed(t)
	for file, want := range map[string]fs.FileMode{".": 0o700, "master.key": 0o600, "latchkey.db": 0o600, "tls": 0o700,
		"tls/ca.key": 0o600, "tls/server.key": 0o600, "tls/ca.crt": 0o644, config.FileName: 0o640} {
		info, err := os.Stat(filepath.Join(h.dir, file))
		must(t, err)
		if info.Mode().Perm()&^want != 0 {
			t.Errorf("%s has mode %o, want %o", file, info.Mode().Perm(), want)
		}
	}
}

func TestInitWritesNoSecretInTheClear(t *testing.T) {
	h := installed(t)
	for name, text := range contents(t, h.dir) {
		for _, form := range forms(h.made.Connection.SharedAccessKey) {
			if bytes.Contains([]byte(text), form) {
				t.Errorf("%s holds the access policy's key", name)
			}
		}
	}
}

// The file that init writes says what there is and fixes nothing: as it stands
// it changes nothing, and with every line in force neither.
func TestTheConfigurationOfInitTellsTheDefaults(t *testing.T) {
	var inForce strings.Builder
	for line := range strings.Lines(configText) {
		if text, ok := strings.CutPrefix(line, "# "); ok && strings.Contains(text, ":") && !strings.HasPrefix(text, "Latchkey.") {
			inForce.WriteString(text)
		}
	}
	h := house{dir: t.TempDir()}
	plain, err := h.load(nil)
	must(t, err)
	for _, text := range []string{configText, inForce.String()} {
		h.configure(t, text)
		got, err := h.load(nil)
		must(t, err)
		if diff := cmp.Diff(plain, got); diff != "" {
			t.Errorf("%s\nchanges\n%s", text, diff)
		}
	}
	if strings.Count(inForce.String(), "\n") < 10 {
		t.Errorf("only these lines were tried:\n%s", &inForce)
	}
}

func TestInitRefusesNames(t *testing.T) {
	for name, c := range map[string]struct {
		names []string
		want  string
	}{
		"none":           {nil, "name the host, such as --host dps.example.net"},
		"without dot":    {[]string{"localhost"}, `"localhost" is not a host name with a dot, such as dps.example.net`},
		"second one bad": {[]string{host, "x"}, `"x" is not a host name with a dot`},
		"twice":          {[]string{host, host}, host + " is named twice"},
		"empty":          {[]string{""}, `"" is not a host name`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			_, err := Init(t.Context(), InitPlan{Dir: dir, Hosts: c.names})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a directory was made")
			}
		})
	}
}

func TestInitLeavesAnInstallationAsItIs(t *testing.T) {
	h := installed(t)
	before := contents(t, h.dir)
	if _, err := Init(t.Context(), InitPlan{Dir: h.dir, Hosts: []string{"other.example.net"}}); err == nil || !strings.Contains(err.Error(), "holds an installation already (master.key)") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(before, contents(t, h.dir)); diff != "" {
		t.Errorf("files changed:\n%s", diff)
	}
}

// Half an installation, such as a key ring brought back before its database,
// is one too.
func TestInitLeavesPartsOfAnInstallationAsTheyAre(t *testing.T) {
	for _, part := range []string{"master.key", "latchkey.db", "tls/ca.key", config.FileName} {
		t.Run(part, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "tls"), 0o700))
			if !strings.HasPrefix(part, "tls") {
				must(t, os.Remove(filepath.Join(dir, "tls")))
			}
			must(t, os.WriteFile(filepath.Join(dir, part), nil, 0o600))
			if _, err := Init(t.Context(), InitPlan{Dir: dir, Hosts: []string{host}}); err == nil || !strings.Contains(err.Error(), "holds an installation already") {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(map[string]string{part: ""}, contents(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInitTakesBackWhatItMadeIfItFails(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "mine.txt"), []byte("mine"), 0o600))
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := Init(ended, InitPlan{Dir: dir, Hosts: []string{host}}); err == nil {
		t.Fatal("it did not fail: the test proves nothing")
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != "mine.txt" {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := Init(t.Context(), InitPlan{Dir: dir, Hosts: []string{host}}); err != nil {
		t.Errorf("a second try: %v", err)
	}
}

// Of several runs at once one makes the installation, and the others must not
// tidy its files away.
func TestInitsAtOnceMakeOneInstallation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	const runs = 8
	var group sync.WaitGroup
	made := make(chan Installation, runs)
	for range runs {
		group.Go(func() {
			if one, err := Init(t.Context(), InitPlan{Dir: dir, Hosts: []string{host}}); err == nil {
				made <- one
			}
		})
	}
	group.Wait()
	close(made)
	if len(made) != 1 {
		t.Fatalf("%d runs made an installation", len(made))
	}
	h := house{dir: dir, made: <-made}
	have := slices.Sorted(maps.Keys(contents(t, dir)))
	for _, want := range []string{"latchkey.db", config.FileName, "master.key", "tls/ca.crt", "tls/ca.key", "tls/server.crt", "tls/server.key"} {
		if !slices.Contains(have, want) {
			t.Errorf("%s is gone; there are %v", want, have)
		}
	}
	cfg, err := h.load(nil)
	must(t, err)
	if counts, err := CountSealed(t.Context(), cfg); err != nil || counts["k1"] != 3 {
		t.Errorf("sealed values %v, error %v", counts, err)
	}
}
