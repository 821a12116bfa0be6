package daemon

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/config"
)

// backedUp is a backup of the installation, made under its configuration.
func backedUp(t *testing.T, plan BackupPlan) (BackupManifest, []byte) {
	t.Helper()
	var out bytes.Buffer
	manifest, err := Backup(t.Context(), configured(t, plan), plan, &out)
	must(t, err)
	return manifest, out.Bytes()
}

func configured(t *testing.T, plan BackupPlan) config.Config {
	t.Helper()
	cfg, err := config.Load(plan.Dir, plan.ConfigFile, func(string) string { return "" }, nil)
	must(t, err)
	return cfg
}

// unpacked reads a tar, by name.
func unpacked(t *testing.T, backup []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for archive := tar.NewReader(bytes.NewReader(backup)); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return files
		}
		must(t, err)
		files[header.Name], err = io.ReadAll(archive)
		must(t, err)
	}
}

func TestABackupWithoutTheMasterKeyHoldsNoPrivateKey(t *testing.T) {
	h := installed(t)
	folder := filepath.Join(h.dir, TLSFolder)
	key, err := os.ReadFile(filepath.Join(folder, "ca.key"))
	must(t, err)
	chain, err := os.ReadFile(filepath.Join(folder, "server.crt"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, "both.crt"), slices.Concat(chain, key), 0o600))
	must(t, os.WriteFile(filepath.Join(folder, "hidden.crt"), slices.Concat(chain, []byte("# "), bytes.TrimSpace(key)[:60]), 0o600))
	must(t, os.WriteFile(filepath.Join(folder, "bag.crt"), slices.Concat(chain, []byte("-----BEGIN PKCS12-----\nAAAA\n-----END PKCS12-----\n")), 0o600))
	must(t, os.WriteFile(filepath.Join(folder, "key.der"), []byte{0x30, 0x03, 1, 2, 3}, 0o600))
	must(t, os.Mkdir(filepath.Join(folder, "old"), 0o700))
	must(t, os.WriteFile(filepath.Join(folder, ".new-1"), key, 0o600))
	must(t, os.Symlink("ca.crt", filepath.Join(folder, "link.crt")))
	manifest, plain := backedUp(t, BackupPlan{Dir: h.dir})
	files := unpacked(t, plain)
	if bytes.Contains(plain, []byte("PRIVATE KEY")) || files["tls/key.der"] != nil {
		t.Error("a private key is in the backup")
	}
	want := []string{"tls/bag.crt", "tls/both.crt", "tls/ca.key", "tls/hidden.crt", "tls/key.der", "tls/old", "tls/server.key"}
	if !slices.Equal(manifest.LeftOut, want) {
		t.Errorf("left out, as told: %v, want %v", manifest.LeftOut, want)
	}
	ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	must(t, err)
	if !bytes.Equal(files["tls/server.crt"], chain) || !bytes.Equal(files["tls/link.crt"], ca) {
		t.Error("the certificates are not in the backup")
	}
	manifest, whole := backedUp(t, BackupPlan{Dir: h.dir, MasterKey: true})
	if !bytes.Equal(unpacked(t, whole)["tls/ca.key"], key) || !slices.Equal(manifest.LeftOut, []string{"tls/old"}) {
		t.Errorf("with the master key the CA's is not there, or told: %v", manifest.LeftOut)
	}
}

func TestACertificateFromElsewhereIsToldAsLeftOut(t *testing.T) {
	h := installed(t)
	elsewhere := filepath.Join(t.TempDir(), "site.crt")
	must(t, os.WriteFile(filepath.Join(h.dir, config.FileName), []byte("certificate: "+elsewhere+"\nprivateKey: own/site.key\n"), 0o600))
	manifest, _ := backedUp(t, BackupPlan{Dir: h.dir, MasterKey: true})
	if want := []string{elsewhere, "own/site.key"}; !slices.Equal(manifest.LeftOut, want) {
		t.Errorf("left out, as told: %v, want %v", manifest.LeftOut, want)
	}
}

func TestABackupThatCouldNotBeRestoredIsNotMade(t *testing.T) {
	large := strings.Repeat("#", maxSmallFile+1)
	for _, c := range []struct {
		story, file, text, want string
	}{
		{"the database elsewhere", config.FileName, "database: other.db\n", "other places for database or masterKey"},
		{"the master key elsewhere", config.FileName, "masterKey: other.key\n", "other places for database or masterKey"},
		{"a configuration too large", config.FileName, large, "too large for a configuration"},
		{"a certificate too large", "tls/site.crt", large, "too large for a configuration or certificate"},
	} {
		t.Run(c.story, func(t *testing.T) {
			h := installed(t)
			plan := BackupPlan{Dir: h.dir, MasterKey: true}
			must(t, os.WriteFile(filepath.Join(h.dir, c.file), []byte(c.text), 0o600))
			cfg := configured(t, plan)
			before := contents(t, h.dir)
			var out bytes.Buffer
			if _, err := Backup(t.Context(), cfg, plan, &out); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("refused with %v, want %q", err, c.want)
			}
			if after := contents(t, h.dir); out.Len() > 0 || len(after) != len(before) {
				t.Errorf("%d bytes were written, %d files are left of %d", out.Len(), len(after), len(before))
			}
		})
	}
}

// meddler changes the installation as soon as the first bytes of its backup are written.
type meddler struct {
	bytes.Buffer
	meddle func()
}

func (m *meddler) Write(p []byte) (int, error) {
	if m.Len() == 0 {
		m.meddle()
	}
	return m.Buffer.Write(p)
}

func TestAChangeWhileABackupIsWrittenDoesNotDamageIt(t *testing.T) {
	h := installed(t)
	plan := BackupPlan{Dir: h.dir, MasterKey: true}
	out := &meddler{meddle: func() {
		for _, name := range []string{config.FileName, "tls/server.crt", "tls/ca.key", "master.key"} {
			must(t, os.WriteFile(filepath.Join(h.dir, filepath.FromSlash(name)), []byte("# changed\n"), 0o600))
		}
	}}
	before := contents(t, h.dir)
	_, err := Backup(t.Context(), configured(t, plan), plan, out)
	must(t, err)
	back := filepath.Join(t.TempDir(), "back")
	_, err = Restore(t.Context(), &out.Buffer, back, "")
	must(t, err)
	for name, text := range contents(t, back) {
		if name != backupDatabase && text != before[name] {
			t.Errorf("%s came back as %q", name, text)
		}
	}
}
