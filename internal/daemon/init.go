package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/authority"
	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
)

// TLSFolder holds the private CA and the server's certificate, below the data directory.
const TLSFolder = "tls"

// Installation is what Init made.
type Installation struct {
	IDScope    string
	Connection dps.ConnectionString // of OwnerPolicy; a secret
	CAFile     string
	CASum      string // SHA-256 of the CA certificate
	ConfigFile string
}

// Init makes an installation in dir: key ring, database with one scope, private CA and server certificate for the names, and a configuration
// file that says what there is. It refuses a directory that holds one already. If it fails, what it made is removed again.
func Init(ctx context.Context, dir string, names []string) (Installation, error) {
	if err := checkNames(names); err != nil {
		return Installation{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Installation{}, err
	}
	cfg, err := config.Load(dir, "", func(string) string { return "" }, nil)
	if err != nil {
		return Installation{}, err
	}
	made := []string{cfg.MasterKey, cfg.Database, filepath.Join(dir, TLSFolder), filepath.Join(dir, config.FileName)}
	for _, path := range made {
		if _, err := os.Lstat(path); err == nil {
			return Installation{}, fmt.Errorf("%s holds an installation already (%s); choose an empty directory", dir, filepath.Base(path))
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Installation{}, err
	}
	// The key ring comes first and is made only where none is: of two runs at once the second ends here, and only what is known to be this
	// run's own is ever removed.
	now := time.Now()
	ring, err := keyring.Create(cfg.MasterKey, now)
	if err != nil {
		return Installation{}, err
	}
	installation, err := install(ctx, dir, cfg, ring, names, now)
	if err != nil {
		for _, path := range append(made, cfg.Database+"-wal", cfg.Database+"-shm", cfg.Database+".volatile") {
			os.RemoveAll(path)
		}
		return Installation{}, err
	}
	return installation, nil
}

func checkNames(names []string) error {
	if len(names) == 0 {
		return errors.New("name the host, such as --host dps.example.net")
	}
	for i, name := range names {
		if err := authority.CheckName(name); err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("%s is named twice", name)
		}
	}
	return nil
}

func install(ctx context.Context, dir string, cfg config.Config, ring *keyring.Ring, names []string, now time.Time) (Installation, error) {
	folder := filepath.Join(dir, TLSFolder)
	if err := authority.Create(folder, names, now); err != nil {
		return Installation{}, fmt.Errorf("making the private CA: %w", err)
	}
	sum, err := authority.Fingerprint(folder)
	if err != nil {
		return Installation{}, err
	}
	scope, connection, err := firstScope(ring, names, now)
	if err != nil {
		return Installation{}, err
	}
	if err := createStore(ctx, cfg.Database, scope); err != nil {
		return Installation{}, err
	}
	file := filepath.Join(dir, config.FileName)
	if err := os.WriteFile(file, []byte(configText), 0o640); err != nil {
		return Installation{}, err
	}
	return Installation{IDScope: scope.ID, Connection: connection, CAFile: filepath.Join(folder, authority.CAFile), CASum: sum, ConfigFile: file}, nil
}

// firstScope makes the home scope.
func firstScope(ring *keyring.Ring, names []string, now time.Time) (registration.Scope, dps.ConnectionString, error) {
	scope, primary, err := registration.NewScope(ring, rand.Reader, names, now)
	if err != nil {
		return registration.Scope{}, dps.ConnectionString{}, err
	}
	scope.Home = true
	return scope, dps.ConnectionString{HostName: names[0], SharedAccessKeyName: registration.OwnerPolicy, SharedAccessKey: primary}, nil
}

func createStore(ctx context.Context, path string, scope registration.Scope) error {
	if err := sqlite.Create(ctx, path, sqlite.Options{}); err != nil {
		return err
	}
	store, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return err
	}
	verdict, err := store.CreateScope(ctx, scope, registration.Audit{At: scope.Created, Actor: registration.ActorLocal, Action: registration.ActionScopeCreate,
		Object: scope.ID, Outcome: registration.OutcomeOK, Reason: registration.ReasonChanged})
	if err == nil && verdict != registration.Applied {
		err = errors.New("the scope exists already")
	}
	return errors.Join(err, store.Close())
}

// configText is the configuration file of a new installation: everything at its default, so that it says what there is without fixing it.
const configText = `# Latchkey. Every key may be left out; docs/configuration.md has them all. Environment variables (LATCHKEY_HTTPS, …) and
# flags of 'latchkey serve' come on top. Relative paths count from this directory.

# https: ":443"
# mqtt: ":8883"
# metrics: "127.0.0.1:9464"
# logLevel: info        # reloaded on SIGHUP
# logFormat: text
# limits:               # reloaded on SIGHUP
#   concurrent: 128
#   parked: 256
#   wait: 5s
# audit:                # reloaded on SIGHUP
#   retention: 0s       # how long rows are kept; 0s is for ever
# hub:
#   maxTokenLife: 24h
#   telemetry: telemetry/hub.ndjson
`
