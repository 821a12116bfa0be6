// Package config reads the settings of the service: defaults, then a strict YAML file, then LATCHKEY_ environment variables, then
// flags. Unknown keys are errors that name the key; every key may be left out.
//
// Secrets are not settings: the file points at the files that hold them.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// FileName is the configuration's name in a data directory.
const FileName = "latchkey.yaml"

// Config is all settings. Relative paths count from the data directory.
type Config struct {
	// Provision says whether devices are provisioned here and enrollments are managed. Without it the process is a hub alone: MQTT, the hub's service
	// side, access policies, audit log, probes and metrics.
	Provision bool `yaml:"provision"`
	// HTTPS is the address of the one HTTPS listener: device API, management API, /healthz and /readyz. Port 0 takes a free one.
	HTTPS string `yaml:"https"`
	// MQTT is the address of the one MQTT listener (TLS).
	MQTT string `yaml:"mqtt"`
	// ProxyFrom is the load balancers in front of the HTTPS and MQTT listeners: IP addresses and CIDRs, with commas between. Their connections
	// must begin with a PROXY protocol v2 header, which names the peer; those of others must not. Empty: there is none.
	ProxyFrom string `yaml:"proxyFrom"`
	// Metrics is the address of /metrics, plain HTTP; it must be a loopback address. Empty: no metrics listener.
	Metrics string `yaml:"metrics"`
	// Store is the postgres:// address of the PostgreSQL database that the nodes share, without password. Empty: the embedded store in Database.
	Store string `yaml:"store"`
	// Database is the file of the embedded store.
	Database string `yaml:"database"`
	// MasterKey is the file of the master key ring, mode 0600.
	MasterKey string `yaml:"masterKey"`
	// Certificate is the PEM file of the server's certificate chain. Reloaded on SIGHUP.
	Certificate string `yaml:"certificate"`
	// PrivateKey is the PEM file of the certificate's key. Reloaded on SIGHUP.
	PrivateKey string `yaml:"privateKey"`
	// LogLevel is debug, info, warn or error. Reloaded on SIGHUP.
	LogLevel string `yaml:"logLevel"`
	// LogFormat is text or json.
	LogFormat string `yaml:"logFormat"`
	// Limits bound what strangers can make the service do.
	Limits Limits `yaml:"limits"`
	// Audit is the audit log.
	Audit Audit `yaml:"audit"`
	// Hub is the embedded hub.
	Hub Hub `yaml:"hub"`
	// Webhooks are URLs of operators that the service calls.
	Webhooks Webhooks `yaml:"webhooks"`
}

// Webhooks settings.
type Webhooks struct {
	// Private is the private networks that webhooks may be called in: IP addresses and CIDRs, with commas between. Empty: none, only public addresses.
	Private string `yaml:"private"`
	// CA is a PEM file of certificate authorities that webhooks may have their certificates from, beside the system's. Empty: the system's alone.
	CA string `yaml:"ca"`
}

// Audit settings.
type Audit struct {
	// Retention is how long audit rows are kept, at least 24 h; 0 is for ever. Reloaded on SIGHUP.
	Retention time.Duration `yaml:"retention"`
}

// Limits of the HTTPS listener.
type Limits struct {
	// Concurrent is the number of requests at work at one time. Reloaded on SIGHUP.
	Concurrent int `yaml:"concurrent"`
	// Parked is the number of requests that may wait for a place; more are refused with 429. Reloaded on SIGHUP.
	Parked int `yaml:"parked"`
	// Wait is how long a request waits for a place before it is refused. Reloaded on SIGHUP.
	Wait time.Duration `yaml:"wait"`
	// BodyTime is how long a request's body may take to arrive. Reloaded on SIGHUP.
	BodyTime time.Duration `yaml:"bodyTime"`
	// HandlerTime is how long the work on one request may take. Reloaded on SIGHUP.
	HandlerTime time.Duration `yaml:"handlerTime"`
	// Connections is the number of open HTTPS connections; further ones wait to be accepted.
	Connections int `yaml:"connections"`
}

// Hub settings.
type Hub struct {
	// Serve says that this node serves the embedded hub: it has the MQTT listener and the devices' sessions. Of nodes that share a store one may.
	Serve bool `yaml:"serve"`
	// MaxTokenLife is the furthest expiry of a SAS token that the embedded hub accepts.
	MaxTokenLife time.Duration `yaml:"maxTokenLife"`
	// Telemetry is the NDJSON file that telemetry is appended to. SIGHUP opens the same path anew, for log rotation. Empty: none, for which there must be
	// outputs.
	Telemetry string `yaml:"telemetry"`
	// Outputs are further places that telemetry is forwarded to.
	Outputs []Output `yaml:"outputs"`
	// Spool is the folder where telemetry is kept until all outputs have it. Not used without outputs.
	Spool string `yaml:"spool"`
	// SpoolMegabytes bounds the spool. When it is full telemetry is not acknowledged.
	SpoolMegabytes int `yaml:"spoolMegabytes"`
	// Connections is the number of MQTT connections at one time.
	Connections int `yaml:"connections"`
}

// Default is the configuration without any file.
func Default() Config {
	return Config{
		Provision: true,
		HTTPS:     ":443", MQTT: ":8883", Metrics: "127.0.0.1:9464",
		Database: "latchkey.db", MasterKey: "master.key", Certificate: "tls/server.crt", PrivateKey: "tls/server.key",
		LogLevel: "info", LogFormat: "text",
		Limits: Limits{Concurrent: 128, Parked: 256, Wait: 5 * time.Second, BodyTime: 10 * time.Second, HandlerTime: 20 * time.Second, Connections: 10000},
		Hub:    Hub{Serve: true, MaxTokenLife: 24 * time.Hour, Telemetry: "telemetry/hub.ndjson", Spool: "telemetry/spool", SpoolMegabytes: 1024, Connections: 10000},
	}
}

// Setting is one key that can also be given by environment or flag.
type Setting struct {
	Name     string // of the flag; the variable is LATCHKEY_ and the name in upper case with _ for -
	Help     string
	Set      func(string) error
	Get      func() string
	Reloaded bool // a change takes effect on SIGHUP; the others need a restart
}

// Variable is the setting's environment variable.
func (s Setting) Variable() string {
	return "LATCHKEY_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Settings lists the keys of c that can be given by environment or flag.
func (c *Config) Settings() []Setting {
	return []Setting{
		yes("provision", "whether devices are provisioned here; false: the hub alone", &c.Provision),
		text("https", "address of the HTTPS listener", &c.HTTPS),
		text("mqtt", "address of the MQTT listener", &c.MQTT),
		text("proxy-from", "addresses and CIDRs of load balancers that send a PROXY v2 header", &c.ProxyFrom),
		text("metrics", "loopback address of /metrics, empty for none", &c.Metrics),
		text("store", "postgres:// address of a shared database, empty for the embedded store", &c.Store),
		text("database", "file of the embedded store", &c.Database),
		text("master-key", "file of the master key ring", &c.MasterKey),
		reloaded(text("certificate", "PEM file of the server's certificate chain", &c.Certificate)),
		reloaded(text("private-key", "PEM file of the server's private key", &c.PrivateKey)),
		reloaded(text("log-level", "debug, info, warn or error", &c.LogLevel)),
		text("log-format", "text or json", &c.LogFormat),
		reloaded(number("limits-concurrent", "requests at work at one time", &c.Limits.Concurrent)),
		reloaded(number("limits-parked", "requests that may wait for a place", &c.Limits.Parked)),
		reloaded(span("limits-wait", "how long a request waits for a place", &c.Limits.Wait)),
		reloaded(span("limits-body-time", "how long a body may take to arrive", &c.Limits.BodyTime)),
		reloaded(span("limits-handler-time", "how long the work on one request may take", &c.Limits.HandlerTime)),
		number("limits-connections", "open HTTPS connections", &c.Limits.Connections),
		reloaded(span("audit-retention", "how long audit rows are kept, 0 for ever", &c.Audit.Retention)),
		yes("hub-serve", "whether this node serves the embedded hub, true or false", &c.Hub.Serve),
		span("hub-max-token-life", "furthest expiry of a SAS token at the embedded hub", &c.Hub.MaxTokenLife),
		text("hub-telemetry", "NDJSON file of the embedded hub's telemetry", &c.Hub.Telemetry),
		text("hub-spool", "folder where telemetry waits for its outputs", &c.Hub.Spool),
		number("hub-spool-megabytes", "how much may wait there", &c.Hub.SpoolMegabytes),
		number("hub-connections", "MQTT connections at one time", &c.Hub.Connections),
		text("webhooks-private", "private addresses and CIDRs that webhooks may be called at", &c.Webhooks.Private),
		text("webhooks-ca", "PEM file of certificate authorities of webhooks, beside the system's", &c.Webhooks.CA),
	}
}

// NeedRestart names the settings that differ between two configurations and of which the new value is not taken on SIGHUP.
func NeedRestart(before, after Config) (names []string) {
	old, now := before.Settings(), after.Settings()
	for i, s := range old {
		if !s.Reloaded && s.Get() != now[i].Get() {
			names = append(names, s.Name)
		}
	}
	if !slices.Equal(before.Hub.Outputs, after.Hub.Outputs) {
		names = append(names, "hub.outputs")
	}
	return names
}

func reloaded(s Setting) Setting {
	s.Reloaded = true
	return s
}

func text(name, help string, p *string) Setting {
	return Setting{Name: name, Help: help, Set: func(v string) error { *p = v; return nil }, Get: func() string { return *p }}
}

func number(name, help string, p *int) Setting {
	return Setting{Name: name, Help: help, Set: func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", v)
		}
		*p = n
		return nil
	}, Get: func() string { return strconv.Itoa(*p) }}
}

func yes(name, help string, p *bool) Setting {
	return Setting{Name: name, Help: help, Set: func(v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		*p = b
		return nil
	}, Get: func() string { return strconv.FormatBool(*p) }}
}

func span(name, help string, p *time.Duration) Setting {
	return Setting{Name: name, Help: help, Set: func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 5s or 24h", v)
		}
		*p = d
		return nil
	}, Get: func() string { return p.String() }}
}

// Load reads the configuration of a data directory: file (may be missing only if it is the default one), environment, then overrides by
// setting name, which are flags that were given.
func Load(dataDir, file string, getenv func(string) string, overrides map[string]string) (Config, error) {
	c := Default()
	if err := c.readFile(dataDir, file); err != nil {
		return Config{}, err
	}
	for _, s := range c.Settings() {
		if v := getenv(s.Variable()); v != "" {
			if err := s.Set(v); err != nil {
				return Config{}, fmt.Errorf("%s: %w", s.Variable(), err)
			}
		}
		if v, given := overrides[s.Name]; given {
			if err := s.Set(v); err != nil {
				return Config{}, fmt.Errorf("--%s: %w", s.Name, err)
			}
		}
	}
	for _, p := range []*string{&c.Database, &c.MasterKey, &c.Certificate, &c.PrivateKey} {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(dataDir, *p)
		}
	}
	for _, p := range []*string{&c.Webhooks.CA, &c.Hub.Telemetry, &c.Hub.Spool} { // empty: none
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dataDir, *p)
		}
	}
	for i := range c.Hub.Outputs {
		c.Hub.Outputs[i].settle(dataDir)
	}
	return c, c.validate()
}

func (c *Config) readFile(dataDir, file string) error {
	optional := file == ""
	if optional {
		file = filepath.Join(dataDir, FileName)
	}
	data, err := os.ReadFile(file)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if err := c.decode(data); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func (c *Config) decode(data []byte) error {
	var tree yaml.Node
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return plainer(err)
	}
	if err := refuseFractions(&tree); err != nil {
		return err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return plainer(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("it must hold one YAML document; what follows the line --- would be ignored")
	}
	return nil
}

func (c *Config) validate() error {
	if _, err := c.Level(); err != nil {
		return err
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("logFormat is %q: use text or json", c.LogFormat)
	}
	for name, addr := range map[string]string{"https": c.HTTPS, "mqtt": c.MQTT} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("%s is %q: use an address such as :443 or 192.0.2.1:443", name, addr)
		}
	}
	if _, err := c.Balancers(); err != nil {
		return err
	}
	if _, err := c.PrivateWebhooks(); err != nil {
		return err
	}
	for name, n := range map[string]int64{
		"limits.concurrent": int64(c.Limits.Concurrent), "limits.wait": int64(c.Limits.Wait),
		"limits.bodyTime": int64(c.Limits.BodyTime), "limits.handlerTime": int64(c.Limits.HandlerTime), "limits.connections": int64(c.Limits.Connections),
		"hub.maxTokenLife": int64(c.Hub.MaxTokenLife), "hub.connections": int64(c.Hub.Connections),
	} {
		if n <= 0 {
			return fmt.Errorf("%s must be greater than zero", name)
		}
	}
	if !c.Provision && !c.Hub.Serve {
		return errors.New("provision and hub.serve are both false: the process would have nothing to do")
	}
	if c.Limits.Parked < 0 {
		return errors.New("limits.parked must not be negative")
	}
	if r := c.Audit.Retention; r != 0 && r < 24*time.Hour {
		return errors.New("audit.retention must be 0 (for ever) or at least 24h")
	}
	if err := c.Hub.checkOutputs(); err != nil {
		return err
	}
	if err := CheckStore(c.Store); err != nil {
		return err
	}
	return loopback(c.Metrics)
}

// CheckStore refuses what is no address of a database, and a password in it: process lists and copies of the configuration would show it. The
// address is not repeated, as it may hold one.
func CheckStore(address string) error {
	if address == "" {
		return nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New("store must be an address such as postgres://latchkey@db.example.net/latchkey?sslmode=verify-full, or empty for the embedded store")
	}
	if _, given := u.User.Password(); given || u.Query().Has("password") || u.Query().Has("sslpassword") {
		return errors.New("store holds a password: put it into a password file of mode 0600 (passfile=/path in the address, or ~/.pgpass) or into PGPASSWORD")
	}
	return nil
}

func loopback(addr string) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("metrics is %q: metrics are served in plain text, so the address must be a loopback one such as 127.0.0.1:9464", addr)
	}
	return nil
}

// Level is LogLevel as slog knows it.
func (c *Config) Level() (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil || strings.ContainsAny(c.LogLevel, "+-") {
		return 0, fmt.Errorf("logLevel is %q: use debug, info, warn or error", c.LogLevel)
	}
	return level, nil
}
