package daemon

import (
	"archive/tar"
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
	"runtime"
	"syscall"

	"latchkey.example/latchkey/internal/config"
)

// Restore makes an installation in dir, which must be empty or not be there, of a backup. masterKey is the file of the key ring if the backup does not
// hold it. Nothing is left behind if it fails: it is put together beside dir, checked whole, and moved there at the end. The files that the manifest
// names as left out are for the caller to put back.
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
	if err := checkReplaceable(dir, work); err != nil {
		return BackupManifest{}, err
	}
	if manifest, err = unpack(in, work); err != nil {
		return BackupManifest{}, err
	}
	if err := placeRing(work, manifest, masterKey); err != nil {
		return BackupManifest{}, err
	}
	if err := checkRestored(ctx, work); err != nil {
		return BackupManifest{}, err
	}
	return manifest, moveWhole(work, dir)
}

// checkReplaceable finds out before the work what would fail after it: an empty directory that something is mounted on cannot give way.
func checkReplaceable(dir, work string) error {
	aside := filepath.Join(work, "aside")
	err := os.Rename(dir, aside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s cannot be replaced; if something is mounted there, restore into a new directory below it: %w", dir, err)
	}
	return os.Rename(aside, dir)
}

// moveWhole moves what is put together in work to dir. When it returns, that is on disk.
func moveWhole(work, dir string) error {
	for _, folder := range []string{filepath.Join(work, TLSFolder), work} {
		if err := SyncFolder(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(work, dir); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(dir))
}

// SyncFolder makes new names in a folder durable, where the system and the file system can do that.
func SyncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	err = folder.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, folder.Close())
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
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return BackupManifest{}, fmt.Errorf("the backup is cut off or damaged: %s in it is not whole", header.Name)
		}
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
	cfg, err := restoredConfig(work)
	if err != nil {
		return fmt.Errorf("the backup: %w", err)
	}
	if err := opensAll(ctx, cfg.Database, cfg.MasterKey); err != nil {
		return fmt.Errorf("the master key is not the one of this backup: %w", err)
	}
	return nil
}

// restoredConfig is the configuration of an installation that is put together in work, by its file alone. It must find what a backup holds where a
// backup is restored to.
func restoredConfig(work string) (config.Config, error) {
	cfg, err := config.Load(work, "", func(string) string { return "" }, nil)
	if err != nil {
		return config.Config{}, fmt.Errorf("its configuration: %w", err)
	}
	if cfg.Database != filepath.Join(work, backupDatabase) || cfg.MasterKey != filepath.Join(work, backupRing) {
		return config.Config{}, fmt.Errorf("its configuration (%s) names other places for database or masterKey than %s and %s, and a backup is restored to these: take the two settings out of the file before a backup; LATCHKEY_DATABASE and LATCHKEY_MASTER_KEY can take their place",
			config.FileName, backupDatabase, backupRing)
	}
	return cfg, nil
}
