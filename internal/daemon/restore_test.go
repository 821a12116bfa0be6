package daemon

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// entry is a file of a tar made by hand.
type entry struct {
	name string
	text []byte
	kind byte
}

// forged is a backup made by hand: unlike Backup it lists and holds whatever it is told to, with sums that are right.
type forged struct {
	sums    map[string]string
	entries []entry
}

// forge begins with the good backup of an installation.
func forge(t *testing.T, files map[string][]byte) *forged {
	t.Helper()
	f := &forged{sums: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != backupManifest {
			f.add(name, files[name], tar.TypeReg)
		}
	}
	return f
}

func (f *forged) add(name string, text []byte, kind byte) {
	sum := sha256.Sum256(text)
	f.sums[name] = hex.EncodeToString(sum[:])
	f.entries = append(f.entries, entry{name, bytes.Clone(text), kind})
}

func (f *forged) find(name string) *entry {
	return &f.entries[slices.IndexFunc(f.entries, func(e entry) bool { return e.name == name })]
}

func (f *forged) drop(name string) {
	f.entries = slices.DeleteFunc(f.entries, func(e entry) bool { return e.name == name })
}

func (f *forged) tar(t *testing.T) *bytes.Buffer {
	t.Helper()
	text, err := json.Marshal(BackupManifest{Format: backupFormat, Created: time.Unix(1, 0), MasterKey: true, SHA256: f.sums})
	must(t, err)
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, e := range slices.Concat([]entry{{backupManifest, text, tar.TypeReg}}, f.entries) {
		header := tar.Header{Name: e.name, Mode: 0o600, Size: int64(len(e.text)), Typeflag: e.kind}
		if e.kind == tar.TypeSymlink {
			header.Linkname = "/etc/hostname"
		}
		must(t, archive.WriteHeader(&header))
		_, err := archive.Write(e.text)
		must(t, err)
	}
	must(t, archive.Close())
	return &out
}

func TestRestoreRefusesABackupThatIsNotWhatWasWritten(t *testing.T) {
	h := installed(t)
	_, backup := backedUp(t, BackupPlan{Dir: h.dir, MasterKey: true})
	files := unpacked(t, backup)
	text := []byte("x")
	alien, damaged, cut := "which does not belong there", "the backup is damaged", "files are missing"
	for _, c := range []struct {
		story string
		alter func(f *forged)
		want  string // in the refusal; empty if it is to succeed
	}{
		{"as it was written", func(*forged) {}, ""},
		{"with a certificate more", func(f *forged) { f.add("tls/more.crt", text, tar.TypeReg) }, ""},
		{"a name beside the directory", func(f *forged) { f.add("../x", text, tar.TypeReg) }, alien},
		{"a name out of tls", func(f *forged) { f.add("tls/../x", text, tar.TypeReg) }, alien},
		{"a name out of everything", func(f *forged) { f.add("tls/../../x", text, tar.TypeReg) }, alien},
		{"an absolute name", func(f *forged) { f.add("/x", text, tar.TypeReg) }, alien},
		{"a name with backslashes", func(f *forged) { f.add(`tls/x\..\..\..\x`, text, tar.TypeReg) }, alien},
		{"a name with a colon", func(f *forged) { f.add("tls/x:y", text, tar.TypeReg) }, alien},
		{"a name below tls", func(f *forged) { f.add("tls/below/x", text, tar.TypeReg) }, alien},
		{"a hidden name", func(f *forged) { f.add("tls/.x", text, tar.TypeReg) }, alien},
		{"a name of nothing", func(f *forged) { f.add("x", text, tar.TypeReg) }, alien},
		{"a name that is not listed", func(f *forged) { f.add("tls/x", text, tar.TypeReg); delete(f.sums, "tls/x") }, alien},
		{"a symbolic link", func(f *forged) { f.add("tls/x", nil, tar.TypeSymlink) }, alien},
		{"a folder", func(f *forged) { f.add("tls/x", nil, tar.TypeDir) }, alien},
		{"a byte flipped in a certificate", func(f *forged) { flip(f.find("tls/server.crt")) }, damaged},
		{"a byte flipped in the database", func(f *forged) { flip(f.find(backupDatabase)) }, damaged},
		{"a file missing", func(f *forged) { f.drop("tls/server.crt") }, cut},
		{"all files missing", func(f *forged) { f.entries = nil }, cut},
		{"a file twice", func(f *forged) { f.entries = append(f.entries, *f.find("tls/server.crt")) }, "file exists"},
		{"a file twice in the place of another", func(f *forged) { *f.find("tls/ca.crt") = *f.find("tls/server.crt") }, "file exists"},
		{"no database in it or its list", func(f *forged) { f.drop(backupDatabase); delete(f.sums, backupDatabase) }, backupDatabase},
		{"no master key in it or its list", func(f *forged) { f.drop(backupRing); delete(f.sums, backupRing) }, backupRing},
	} {
		t.Run(c.story, func(t *testing.T) {
			f := forge(t, files)
			c.alter(f)
			parent := t.TempDir()
			_, err := Restore(t.Context(), f.tar(t), filepath.Join(parent, "back"), "")
			left, listing := os.ReadDir(parent)
			must(t, listing)
			switch {
			case c.want == "" && (err != nil || len(left) != 1):
				t.Errorf("refused with %v; %v is there", err, left)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("refused with %v, want %q", err, c.want)
			case c.want != "" && len(left) != 0:
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func flip(e *entry) { e.text[len(e.text)/2] ^= 1 }

func TestRestoreReplacesAnEmptyDirectoryOnly(t *testing.T) {
	h := installed(t)
	_, backup := backedUp(t, BackupPlan{Dir: h.dir, MasterKey: true})
	parent := t.TempDir()
	empty, full := filepath.Join(parent, "empty"), filepath.Join(parent, "full")
	must(t, os.Mkdir(empty, 0o711))
	must(t, os.Mkdir(full, 0o700))
	must(t, os.WriteFile(filepath.Join(full, "note"), nil, 0o600))
	if _, err := Restore(t.Context(), bytes.NewReader(backup), full, ""); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("into a directory that is not empty: %v", err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(backup[:len(backup)/2]), empty, ""); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("of half a backup: %v", err)
	}
	if info, err := os.Stat(empty); err != nil || info.Mode().Perm() != 0o711 || len(contents(t, empty)) > 0 {
		t.Errorf("what failed did not leave the empty directory as it was: %v, %v", info, err)
	}
	_, err := Restore(t.Context(), bytes.NewReader(backup), empty, "")
	must(t, err)
	got, want := contents(t, empty), unpacked(t, backup)
	for name, text := range want {
		if name != backupManifest && got[name] != string(text) {
			t.Errorf("%s came back otherwise", name)
		}
	}
}
