package daemon

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
)

// A backup is a tar of a manifest, the database as it was at one moment, the configuration, the folder of certificates and, if it is asked for,
// the master key. Telemetry is not in it. Names in it are these; a backup with any other is refused.
const (
	backupManifest = "manifest.json"
	backupDatabase = "latchkey.db"
	backupRing     = "master.key"
	backupFormat   = 1
	maxSmallFile   = 1 << 20
)

// BackupManifest is the first file of a backup.
type BackupManifest struct {
	Format    int               `json:"latchkeyBackup"`
	Created   time.Time         `json:"createdUtc"`
	MasterKey bool              `json:"masterKey"`
	SHA256    map[string]string `json:"sha256"` // of each other file, hex
}

// Backup writes a backup of an installation, beside a service that runs on it. What it writes was opened once: every secret in it opens with the
// master key.
func Backup(ctx context.Context, cfg config.Config, dir string, withMasterKey bool, out io.Writer) (BackupManifest, error) {
	work, err := os.MkdirTemp(filepath.Dir(cfg.Database), ".backup-*")
	if err != nil {
		return BackupManifest{}, err
	}
	defer os.RemoveAll(work)
	copied := filepath.Join(work, backupDatabase)
	if err := sqlite.Backup(ctx, cfg.Database, copied); err != nil {
		return BackupManifest{}, err
	}
	files := map[string]string{backupDatabase: copied}
	ring, err := os.ReadFile(cfg.MasterKey) // after the copy: keys are added to the ring before they seal anything
	if err != nil {
		return BackupManifest{}, fmt.Errorf("the master key: %w", err)
	}
	kept := filepath.Join(work, backupRing)
	if err := os.WriteFile(kept, ring, 0o600); err != nil {
		return BackupManifest{}, err
	}
	if err := opensAll(ctx, copied, kept); err != nil {
		return BackupManifest{}, fmt.Errorf("the copy cannot be read with the master key; was it just rotated? Try again: %w", err)
	}
	if withMasterKey {
		files[backupRing] = kept
	}
	if err := addSmall(files, dir); err != nil {
		return BackupManifest{}, err
	}
	manifest := BackupManifest{Format: backupFormat, Created: time.Now().UTC(), MasterKey: withMasterKey, SHA256: map[string]string{}}
	for name, path := range files {
		if manifest.SHA256[name], err = sumOf(path); err != nil {
			return BackupManifest{}, err
		}
	}
	return manifest, writeBackup(out, manifest, files)
}

// addSmall adds the configuration and the certificates of a data directory, where it has them.
func addSmall(files map[string]string, dir string) error {
	names := []string{config.FileName}
	entries, err := os.ReadDir(filepath.Join(dir, TLSFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if entry.Type().IsRegular() {
			names = append(names, TLSFolder+"/"+entry.Name())
		}
	}
	for _, name := range names {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if info, err := os.Stat(path); err == nil && info.Size() <= maxSmallFile && allowedName(name) {
			files[name] = path
		}
	}
	return nil
}

// allowedName says which names a backup may hold: nothing that could lead out of the directory it is restored to.
func allowedName(name string) bool {
	below, inTLS := strings.CutPrefix(name, TLSFolder+"/")
	if inTLS {
		return below != "" && !strings.ContainsAny(below, "/\\:") && below[0] != '.'
	}
	return slices.Contains([]string{backupDatabase, backupRing, config.FileName}, name)
}

func sumOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	return hex.EncodeToString(sum.Sum(nil)), err
}

func writeBackup(out io.Writer, manifest BackupManifest, files map[string]string) error {
	archive := tar.NewWriter(out)
	text, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := addFile(archive, backupManifest, int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	for name := range manifest.SHA256 {
		file, err := os.Open(files[name])
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err == nil {
			err = addFile(archive, name, info.Size(), file)
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return archive.Close()
}

func addFile(archive *tar.Writer, name string, size int64, content io.Reader) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.CopyN(archive, content, size)
	return err
}

// opensAll says whether every sealed value of a database opens with a key ring.
func opensAll(ctx context.Context, database, ringFile string) error {
	ring, err := keyring.Open(ringFile)
	if err != nil {
		return err
	}
	return eachSealed(ctx, config.Config{Database: database}, func(_ *sqlite.Store, values []registration.SealedValue) error {
		for _, v := range values {
			if _, err := ring.Open(v.Context(), v.Sealed); err != nil {
				return fmt.Errorf("a %s of scope %s: %w", v.Kind, v.Scope, err)
			}
		}
		return nil
	})
}

// Restore makes an installation in dir, which must be empty or not be there, of a backup. masterKey is the file of the key ring if the backup does not
// hold it. Nothing is left behind if it fails: it is put together beside dir, checked whole, and moved there at the end.
func Restore(ctx context.Context, in io.Reader, dir, masterKey string) (manifest BackupManifest, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return BackupManifest{}, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return BackupManifest{}, fmt.Errorf("%s is not empty: restore into a new directory", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return BackupManifest{}, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return BackupManifest{}, err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".restore-*")
	if err != nil {
		return BackupManifest{}, err
	}
	defer os.RemoveAll(work)
	if manifest, err = unpack(in, work); err != nil {
		return BackupManifest{}, err
	}
	if err := placeRing(work, manifest, masterKey); err != nil {
		return BackupManifest{}, err
	}
	if err := checkRestored(ctx, work); err != nil {
		return BackupManifest{}, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return BackupManifest{}, err
	}
	return manifest, os.Rename(work, dir)
}

// unpack writes the files of a backup below work, each checked against the manifest.
func unpack(in io.Reader, work string) (manifest BackupManifest, err error) {
	archive := tar.NewReader(in)
	first, err := archive.Next()
	if err != nil || first.Name != backupManifest || first.Size > maxSmallFile {
		return BackupManifest{}, errors.New("it is not a backup of latchkey")
	}
	if err := json.NewDecoder(io.LimitReader(archive, first.Size)).Decode(&manifest); err != nil || manifest.Format != backupFormat {
		return BackupManifest{}, errors.New("it is not a backup that this release can read")
	}
	left := len(manifest.SHA256)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return BackupManifest{}, fmt.Errorf("the backup is cut off or damaged: %w", err)
		}
		want, listed := manifest.SHA256[header.Name]
		if !listed || !allowedName(header.Name) || header.Typeflag != tar.TypeReg {
			return BackupManifest{}, fmt.Errorf("the backup holds %q, which does not belong there", header.Name)
		}
		got, err := place(filepath.Join(work, filepath.FromSlash(header.Name)), archive)
		if err != nil {
			return BackupManifest{}, fmt.Errorf("%s in the backup: %w", header.Name, err)
		}
		if got != want {
			return BackupManifest{}, fmt.Errorf("%s in the backup is not what was written: the backup is damaged", header.Name)
		}
		left--
	}
	if left != 0 {
		return BackupManifest{}, errors.New("the backup is cut off: files are missing")
	}
	return manifest, nil
}

func place(path string, content io.Reader) (sum string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	digest := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, digest), content)
	return hex.EncodeToString(digest.Sum(nil)), errors.Join(err, file.Sync(), file.Close())
}

// placeRing puts the key ring where the service looks for it.
func placeRing(work string, manifest BackupManifest, masterKey string) error {
	switch {
	case manifest.MasterKey && masterKey != "":
		return errors.New("the backup holds the master key: leave --master-key out")
	case manifest.MasterKey:
		return nil
	case masterKey == "":
		return errors.New("the backup does not hold the master key, and without it nothing in the database can be used: give its file with --master-key")
	}
	ring, err := os.Open(masterKey)
	if err != nil {
		return fmt.Errorf("the master key: %w", err)
	}
	defer ring.Close()
	_, err = place(filepath.Join(work, backupRing), io.LimitReader(ring, maxSmallFile))
	return err
}

// checkRestored holds an unpacked installation against its own configuration and its own key.
func checkRestored(ctx context.Context, work string) error {
	cfg, err := config.Load(work, "", func(string) string { return "" }, nil)
	if err != nil {
		return fmt.Errorf("the configuration in the backup: %w", err)
	}
	if cfg.Database != filepath.Join(work, backupDatabase) || cfg.MasterKey != filepath.Join(work, backupRing) {
		return fmt.Errorf("the configuration in the backup (%s) names other places for database or masterKey than %s and %s; a backup is restored to these: take the two settings out of %s before the next backup",
			config.FileName, backupDatabase, backupRing, config.FileName)
	}
	if err := opensAll(ctx, cfg.Database, cfg.MasterKey); err != nil {
		return fmt.Errorf("the master key is not the one of this backup: %w", err)
	}
	return nil
}
