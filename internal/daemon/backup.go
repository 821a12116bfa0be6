package daemon

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
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
// the master key and the private keys of the certificates. Telemetry is not in it. Names in it are these; a backup with any other is refused.
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
	// LeftOut are the files of the installation that have to be kept apart and put back, besides the master key: with / and from the data directory
	// on if they are below it, else as absolute paths.
	LeftOut []string `json:"leftOut,omitempty"`
}

// BackupPlan says what a backup is made of.
type BackupPlan struct {
	Dir        string // the data directory
	ConfigFile string // the configuration that the service is started with; empty: the one in Dir, if there is one
	MasterKey  bool   // with the master key and the private keys of certificates
}

// Backup writes a backup of an installation, beside a service that runs on it. What it writes was opened once: every secret in it opens with the
// master key. Without plan.MasterKey nothing in it is secret in clear.
func Backup(ctx context.Context, cfg config.Config, plan BackupPlan, out io.Writer) (BackupManifest, error) {
	if cfg.Store != "" {
		return BackupManifest{}, fmt.Errorf("the store is %s, and backup knows the embedded one only: back up PostgreSQL by its own means (pg_dump, or a base backup with its WAL archive), and keep %s and the folder %s apart from it",
			storeName(cfg), cfg.MasterKey, TLSFolder)
	}
	work, err := os.MkdirTemp(filepath.Dir(cfg.Database), ".backup-*")
	if err != nil {
		return BackupManifest{}, err
	}
	defer os.RemoveAll(work)
	names, left, err := copySmall(cfg, plan, work)
	if err != nil {
		return BackupManifest{}, err
	}
	if _, err := restoredConfig(work); err != nil {
		return BackupManifest{}, err
	}
	if err := copySealed(ctx, cfg, work); err != nil {
		return BackupManifest{}, err
	}
	names = append(names, backupDatabase)
	if plan.MasterKey {
		names = append(names, backupRing)
	}
	manifest := BackupManifest{Format: backupFormat, Created: time.Now().UTC(), MasterKey: plan.MasterKey, SHA256: map[string]string{}, LeftOut: left}
	for _, name := range names {
		if manifest.SHA256[name], err = sumOf(filepath.Join(work, filepath.FromSlash(name))); err != nil {
			return BackupManifest{}, err
		}
	}
	return manifest, writeBackup(out, manifest, names, work)
}

// copySealed copies the database and the key ring into work, and opens all that is sealed.
func copySealed(ctx context.Context, cfg config.Config, work string) error {
	copied, kept := filepath.Join(work, backupDatabase), filepath.Join(work, backupRing)
	if err := sqlite.Backup(ctx, cfg.Database, copied); err != nil {
		return err
	}
	ring, err := os.ReadFile(cfg.MasterKey) // after the copy: keys are added to the ring before they seal anything
	if err != nil {
		return fmt.Errorf("the master key: %w", err)
	}
	if err := os.WriteFile(kept, ring, 0o600); err != nil {
		return err
	}
	if err := opensAll(ctx, copied, kept); err != nil {
		return fmt.Errorf("the copy cannot be read with the master key; was it just rotated? Try again: %w", err)
	}
	return nil
}

// copySmall copies the configuration and the certificates into work, so that they cannot change while they are hashed and written. It names what
// it copied, and what the installation needs besides.
func copySmall(cfg config.Config, plan BackupPlan, work string) (names, left []string, err error) {
	if names, err = copyConfig(plan, work); err != nil {
		return nil, nil, err
	}
	if err := os.Mkdir(filepath.Join(work, TLSFolder), 0o700); err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(filepath.Join(plan.Dir, TLSFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, entry := range entries {
		name := TLSFolder + "/" + entry.Name()
		switch copied, err := copyTLS(plan, work, name); {
		case entry.Name()[0] == '.', errors.Is(err, fs.ErrNotExist): // what a renewal is just writing
		case err != nil:
			return nil, nil, err
		case copied:
			names = append(names, name)
		default:
			left = append(left, name)
		}
	}
	for _, path := range []string{cfg.Certificate, cfg.PrivateKey} {
		if name := nameBelow(plan.Dir, path); !slices.Contains(names, name) && !slices.Contains(left, name) {
			left = append(left, name)
		}
	}
	return names, left, nil
}

// copyConfig copies the configuration to the name under which a restored installation finds it.
func copyConfig(plan BackupPlan, work string) (names []string, err error) {
	text, err := readSmall(cmp.Or(plan.ConfigFile, filepath.Join(plan.Dir, config.FileName)))
	if plan.ConfigFile == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []string{config.FileName}, os.WriteFile(filepath.Join(work, config.FileName), text, 0o600)
}

// copyTLS copies a file of the folder of certificates, if a backup may hold it.
func copyTLS(plan BackupPlan, work, name string) (copied bool, err error) {
	path := filepath.Join(plan.Dir, filepath.FromSlash(name))
	if info, err := os.Stat(path); err != nil {
		return false, err
	} else if !info.Mode().IsRegular() || !allowedName(name) {
		return false, nil
	}
	data, err := readSmall(path)
	if err != nil || !plan.MasterKey && !onlyCertificates(data) {
		return false, err
	}
	return true, os.WriteFile(filepath.Join(work, filepath.FromSlash(name)), data, 0o600)
}

// onlyCertificates says whether a file is public: not what looks secret is kept out, but all that is not plainly a certificate.
func onlyCertificates(data []byte) bool {
	blocks := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return false
		}
		blocks++
	}
	return blocks > 0 && !bytes.Contains(data, []byte("PRIVATE KEY"))
}

func readSmall(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSmallFile+1))
	if err == nil && len(data) > maxSmallFile {
		err = fmt.Errorf("%s is larger than %d bytes, too large for a configuration or certificate: a backup does not take it", path, maxSmallFile)
	}
	return data, err
}

// nameBelow is a path as the manifest tells it.
func nameBelow(dir, path string) string {
	dir, errDir := filepath.Abs(dir)
	whole, err := filepath.Abs(path)
	if errors.Join(errDir, err) != nil {
		return path
	}
	if below, err := filepath.Rel(dir, whole); err == nil && filepath.IsLocal(below) {
		return filepath.ToSlash(below)
	}
	return whole
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

func writeBackup(out io.Writer, manifest BackupManifest, names []string, work string) error {
	archive := tar.NewWriter(out)
	text, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := addFile(archive, backupManifest, int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	for _, name := range names {
		file, err := os.Open(filepath.Join(work, filepath.FromSlash(name)))
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
	return eachSealed(ctx, config.Config{Database: database}, func(_ backend, values []registration.SealedValue) error {
		for _, v := range values {
			if _, err := ring.Open(v.Context(), v.Sealed); err != nil {
				return fmt.Errorf("a %s of scope %s: %w", v.Kind, v.Scope, err)
			}
		}
		return nil
	})
}
