package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// none is an empty environment.
func none(string) string { return "" }

// write makes a data directory with a configuration file.
func write(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func load(t *testing.T, dir string, env, flags map[string]string) Config {
	t.Helper()
	c, err := Load(dir, "", func(name string) string { return env[name] }, flags)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inDir is the default configuration of a data directory, changed.
func inDir(dir string, change func(*Config)) Config {
	c := Default()
	for _, p := range []*string{&c.Database, &c.MasterKey, &c.Certificate, &c.PrivateKey, &c.Hub.Telemetry, &c.Hub.Spool} {
		*p = filepath.Join(dir, *p)
	}
	if change != nil {
		change(&c)
	}
	return c
}

func TestWithoutAFileEverythingIsAtItsDefault(t *testing.T) {
	dir := t.TempDir()
	if diff := cmp.Diff(inDir(dir, nil), load(t, dir, nil, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestAFileThatSaysNothingChangesNothing(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments alone": "# https: nonsense\n", "a document's start alone": "---\n",
		"keys without values": "https:\nlimits:\nhub:\n  telemetry:\n  connections:\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, text)
			if diff := cmp.Diff(inDir(dir, nil), load(t, dir, nil, nil)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEachLayerBeatsTheOneBeforeIt(t *testing.T) {
	dir := write(t, "https: file:1\nmqtt: file:2\nlogLevel: warn\nlimits: {wait: 2s, parked: 7}\nhub: {connections: 5}\n")
	env := map[string]string{"LATCHKEY_MQTT": "env:2", "LATCHKEY_LOG_LEVEL": "error", "LATCHKEY_LIMITS_PARKED": "8"}
	flags := map[string]string{"log-level": "debug", "limits-wait": "3s"}
	want := inDir(dir, func(c *Config) {
		c.HTTPS, c.MQTT, c.LogLevel = "file:1", "env:2", "debug"
		c.Limits.Wait, c.Limits.Parked, c.Hub.Connections = 3*time.Second, 8, 5
	})
	if diff := cmp.Diff(want, load(t, dir, env, flags)); diff != "" {
		t.Error(diff)
	}
}

// Every setting can be given in each of the three ways, and nothing but that setting follows.
func TestEverySettingCanBeGivenInThreeWays(t *testing.T) {
	values := map[string]string{"store": "postgres://db.example.net/x", "metrics": "127.0.0.2:1", "log-level": "warn", "log-format": "json", "audit-retention": "25h0m0s",
		"proxy-from": "192.0.2.7,2001:db8::/32", "hub-serve": "false", "provision": "false", "webhooks-private": "10.0.0.0/8,fd00::1"}
	def := Default()
	for i, s := range def.Settings() {
		value := values[s.Name]
		switch {
		case value != "":
		case strings.Contains(s.Get(), ":"):
			value = "192.0.2.1:77"
		case s.Set("1h17m0s") == nil && s.Set("/a") != nil:
			value = "1h17m0s"
		case s.Set("77") == nil && s.Set("/a") != nil:
			value = "77"
		default:
			value = "/a/file"
		}
		for way, give := range map[string]func() (Config, error){
			"file": func() (Config, error) { return Load(write(t, yamlOf(s.Name, value)), "", none, nil) },
			"environment": func() (Config, error) {
				return Load(t.TempDir(), "", func(name string) string { return map[string]string{s.Variable(): value}[name] }, nil)
			},
			"flag": func() (Config, error) { return Load(t.TempDir(), "", none, map[string]string{s.Name: value}) },
		} {
			t.Run(s.Name+" by "+way, func(t *testing.T) {
				got, err := give()
				if err != nil {
					t.Fatal(err)
				}
				if is := got.Settings()[i].Get(); is != value {
					t.Errorf("is %q, want %q", is, value)
				}
			})
		}
	}
}

// yamlOf writes one setting as the file has it.
func yamlOf(name, value string) string {
	key := keyOf(name)
	if section, below, ok := strings.Cut(key, "."); ok {
		return section + ":\n  " + below + ": " + value + "\n"
	}
	return key + ": " + value + "\n"
}

// keyOf is the key in the file that a flag stands for: limits-body-time is limits.bodyTime.
func keyOf(flag string) string {
	section, rest, ok := strings.Cut(flag, "-")
	if !ok || section != "limits" && section != "hub" && section != "audit" && section != "webhooks" {
		return camel(flag)
	}
	return section + "." + camel(rest)
}

func camel(s string) string {
	words := strings.Split(s, "-")
	for i, w := range words[1:] {
		words[i+1] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

func TestAnEmptyVariableCountsAsNotSet(t *testing.T) {
	dir := write(t, "metrics: 127.0.0.1:1\n")
	if c := load(t, dir, map[string]string{"LATCHKEY_METRICS": ""}, nil); c.Metrics != "127.0.0.1:1" {
		t.Errorf("metrics is %q", c.Metrics)
	}
	if c := load(t, dir, nil, map[string]string{"metrics": ""}); c.Metrics != "" {
		t.Errorf("an empty flag did not switch metrics off: %q", c.Metrics)
	}
}

func TestPathsCountFromTheDataDirectory(t *testing.T) {
	c := load(t, "/data", nil, map[string]string{"database": "db/x.db", "master-key": "/keys/master"})
	if c.Database != "/data/db/x.db" || c.MasterKey != "/keys/master" || c.PrivateKey != "/data/tls/server.key" {
		t.Errorf("%q, %q, %q", c.Database, c.MasterKey, c.PrivateKey)
	}
}

func TestANamedFileMustBeThere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "other.yaml")
	_, err := Load(t.TempDir(), missing, none, nil)
	if err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("error %v", err)
	}
}

// Each refusal is one sentence that names the place, and the words of no Go program.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"unknown key", "htpps: :443\n", `line 1: there is no key "htpps"; docs/configuration.md lists them all`},
		{"unknown key in a section", "limits:\n  wait: 1s\n  parcked: 7\n", `line 3: there is no key "parcked"; docs/configuration.md lists them all`},
		{"key in another letter case", "HTTPS: ':443'\n", `line 1: there is no key "HTTPS"; docs/configuration.md lists them all`},
		{"two unknown keys", "a: 1\nb: 2\n", `line 1: there is no key "a"; docs/configuration.md lists them all; line 2: there is no key "b"; docs/configuration.md lists them all`},
		{"key twice", "mqtt: ':1'\nmqtt: ':2'\n", `line 2: mapping key "mqtt" already defined at line 1`},
		{"text for a number", "limits: {parked: many}\n", `line 1: "many" is not a whole number`},
		{"fraction for a number", "limits: {parked: 1.5}\n", `line 1: "1.5" is not a whole number`},
		{"number for a duration", "limits: {wait: 5}\n", `line 1: "5" is not a duration such as 5s or 24h`},
		{"text for a duration", "limits: {wait: soon}\n", `line 1: "soon" is not a duration such as 5s or 24h`},
		{"text for a choice", "provision: perhaps\n", `line 1: "perhaps" is not true or false`},
		{"number for a choice", "hub: {serve: 1}\n", `line 1: "1" is not true or false`},
		{"list for a text", "https: [a, b]\n", "line 1: the value is not a text"},
		{"text for a section", "limits: 5\n", "line 1: keys are expected here"},
		{"list for the file", "- a\n", "line 1: keys are expected here"},
		{"no YAML", "a: b: c\n", "mapping values are not allowed in this context"},
		{"second document", "https: ':443'\n---\nhtps: x\n", "it must hold one YAML document; what follows the line --- would be ignored"},
		{"log level", "logLevel: loud\n", `logLevel is "loud": use debug, info, warn or error`},
		{"log level with an offset", "logLevel: info+2\n", `logLevel is "info+2": use debug, info, warn or error`},
		{"log format", "logFormat: xml\n", `logFormat is "xml": use text or json`},
		{"no place for requests", "limits: {concurrent: 0}\n", "limits.concurrent must be greater than zero"},
		{"negative queue", "limits: {parked: -1}\n", "limits.parked must not be negative"},
		{"negative wait", "limits: {wait: -1s}\n", "limits.wait must be greater than zero"},
		{"no time for a body", "limits: {bodyTime: 0s}\n", "limits.bodyTime must be greater than zero"},
		{"no time for work", "limits: {handlerTime: 0s}\n", "limits.handlerTime must be greater than zero"},
		{"no connections", "limits: {connections: 0}\n", "limits.connections must be greater than zero"},
		{"a retention that is too short", "audit: {retention: 1h}\n", "audit.retention must be 0 (for ever) or at least 24h"},
		{"no token life", "hub: {maxTokenLife: 0s}\n", "hub.maxTokenLife must be greater than zero"},
		{"no hub connections", "hub: {connections: -3}\n", "hub.connections must be greater than zero"},
		{"no HTTPS address", "https: ''\n", `https is "": use an address such as :443 or 192.0.2.1:443`},
		{"MQTT address without port", "mqtt: 192.0.2.1\n", `mqtt is "192.0.2.1": use an address such as :443 or 192.0.2.1:443`},
		{"metrics for everybody", "metrics: ':9464'\n", `metrics is ":9464": metrics are served in plain text, so the address must be a loopback one such as 127.0.0.1:9464`},
		{"metrics on another address", "metrics: 192.0.2.1:9464\n", "must be a loopback one"},
		{"metrics on all addresses", "metrics: '[::]:9464'\n", "must be a loopback one"},
		{"metrics by a name", "metrics: metrics.example.net:9464\n", "must be a loopback one"},
		{"proxyFrom with a name", "proxyFrom: '192.0.2.1, balancer.example.net'\n", `proxyFrom: "balancer.example.net" is neither an IP address nor a CIDR: write such as 192.0.2.7 or 192.0.2.0/24, with commas between`},
		{"proxyFrom with a port", "proxyFrom: 192.0.2.1:443\n", `proxyFrom: "192.0.2.1:443" is neither`},
		{"proxyFrom with a comma too many", "proxyFrom: '192.0.2.1,'\n", `proxyFrom: "" is neither`},
		{"proxyFrom without commas", "proxyFrom: 192.0.2.1 192.0.2.2\n", `proxyFrom: "192.0.2.1 192.0.2.2" is neither`},
		{"proxyFrom with bits beyond the length", "proxyFrom: 192.0.2.1/24\n", `proxyFrom: "192.0.2.1/24" has bits beyond its length: write 192.0.2.0/24, or the address alone`},
		{"proxyFrom with a length beyond the address", "proxyFrom: 192.0.2.0/33\n", `proxyFrom: "192.0.2.0/33" is neither`},
		{"proxyFrom with a zone", "proxyFrom: fe80::1%eth0\n", `proxyFrom: "fe80::1%eth0" has a zone: write the address without it`},
		{"proxyFrom with IPv4 in IPv6", "proxyFrom: '::ffff:192.0.2.1'\n", `proxyFrom: "::ffff:192.0.2.1" is IPv4 in the form of IPv6: write it as IPv4`},
		{"proxyFrom with a network of IPv4 in IPv6", "proxyFrom: '::ffff:192.0.2.0/120'\n", "is IPv4 in the form of IPv6"},
		{"metrics without port", "metrics: 127.0.0.1\n", "metrics: address 127.0.0.1: missing port in address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, c.file)
			_, err := Load(dir, "", none, nil)
			if err == nil {
				t.Fatal("it was accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("says %q, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "config.") || strings.Contains(err.Error(), "unmarshal") {
				t.Errorf("is not one plain sentence: %q", err)
			}
			if strings.Contains(c.want, "line ") && !strings.HasPrefix(err.Error(), filepath.Join(dir, FileName)+": ") {
				t.Errorf("does not name the file: %q", err)
			}
		})
	}
}

func TestMetricsMayBeAtAnyLoopbackAddress(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "127.9.9.9:1", "[::1]:9464", "localhost:9464", ""} {
		if c := load(t, t.TempDir(), nil, map[string]string{"metrics": addr}); c.Metrics != addr {
			t.Errorf("%q became %q", addr, c.Metrics)
		}
	}
}

func TestABadVariableOrFlagIsNamed(t *testing.T) {
	_, err := Load(t.TempDir(), "", func(name string) string { return map[string]string{"LATCHKEY_LIMITS_WAIT": "soon"}[name] }, nil)
	if want := `LATCHKEY_LIMITS_WAIT: "soon" is not a duration such as 5s or 24h`; err == nil || err.Error() != want {
		t.Errorf("says %v, want %s", err, want)
	}
	_, err = Load(t.TempDir(), "", none, map[string]string{"limits-parked": "x"})
	if want := `--limits-parked: "x" is not a whole number`; err == nil || err.Error() != want {
		t.Errorf("says %v, want %s", err, want)
	}
}

func TestWhatNeedsARestartIsNamed(t *testing.T) {
	before, after := Default(), Default()
	after.HTTPS, after.LogLevel, after.Limits.Parked, after.Limits.Connections, after.Hub.Telemetry = ":444", "debug", 1, 2, "x"
	if diff := cmp.Diff([]string{"https", "limits-connections", "hub-telemetry"}, NeedRestart(before, after)); diff != "" {
		t.Error(diff)
	}
	if names := NeedRestart(before, before); len(names) > 0 {
		t.Errorf("nothing changed, but %v", names)
	}
}
