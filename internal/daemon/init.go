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
	"latchkey.example/latchkey/internal/store/postgres"
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

// InitPlan says what Init makes.
type InitPlan struct {
	Dir   string   // the data directory
	Hosts []string // DNS names of the service; the first is also the hub's name
	Store string   // as config.Config.Store
}

// Init makes an installation: key ring, database with one scope, private CA and server certificate for the names, and a configuration
// file that says what there is. It refuses a directory or a shared database that holds one already. If it fails, what it made in the directory is
// removed again; a shared database is left with an empty schema at most, which the next Init takes.
func Init(ctx context.Context, plan InitPlan) (Installation, error) {
	if err := checkNames(plan.Hosts); err != nil {
		return Installation{}, err
	}
	dir, err := filepath.Abs(plan.Dir)
	if err != nil {
		return Installation{}, err
	}
	cfg, err := config.Load(dir, "", func(string) string { return "" }, map[string]string{"store": plan.Store})
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
	installation, err := install(ctx, dir, cfg, ring, plan.Hosts, now)
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
	file := filepath.Join(dir, config.FileName)
	if err := os.WriteFile(file, []byte(configFor(cfg)), 0o640); err != nil {
		return Installation{}, err
	}
	if err := createStore(ctx, cfg, scope); err != nil { // last, as nothing takes it back
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

func createStore(ctx context.Context, cfg config.Config, scope registration.Scope) error {
	var err error
	if cfg.Store != "" {
		_, _, err = postgres.Migrate(ctx, cfg.Store)
	} else {
		err = sqlite.Create(ctx, cfg.Database, sqlite.Options{})
	}
	if err != nil {
		return err
	}
	store, err := openBackend(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(createHome(ctx, cfg, store, scope), store.Close())
}

// createHome writes the first scope.
func createHome(ctx context.Context, cfg config.Config, store backend, scope registration.Scope) error {
	verdict, err := store.CreateScope(ctx, scope, registration.Audit{At: scope.Created, Actor: registration.ActorLocal, Action: registration.ActionScopeCreate,
		Object: scope.ID, Outcome: registration.OutcomeOK, Reason: registration.ReasonChanged})
	if err != nil || verdict == registration.Applied {
		return err
	}
	return fmt.Errorf("%s holds an installation already. A further node of it needs no init, but copies of the first one's %s, %s and %s",
		storeName(cfg), filepath.Base(cfg.MasterKey), TLSFolder, config.FileName)
}

// configFor is the configuration file of a new installation.
func configFor(cfg config.Config) string {
	if cfg.Store == "" {
		return configText
	}
	return fmt.Sprintf("%s\nstore: %q\n", configText, cfg.Store)
}

// configText is the configuration file of a new installation: everything at its default, so that it says what there is without fixing it.
const configText = `# Latchkey. Every key may be left out; docs/configuration.md has them all. Environment variables (LATCHKEY_HTTPS, …) and
# flags of 'latchkey serve' come on top. Relative paths count from this directory.

# provision: true       # false is the hub alone, as 'latchkey hub serve' runs it
# https: ":443"
# mqtt: ":8883"
# metrics: "127.0.0.1:9464"
# store: ""             # postgres:// address for many nodes; empty is the embedded store
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
