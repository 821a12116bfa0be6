package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOutputsAreRead(t *testing.T) {
	dir := write(t, `hub:
  outputs:
  - {name: copy, kind: file, path: copy.ndjson, hub: Hub.Example.NET, scope: 0ne00000001}
  - {name: hook, kind: webhook, url: "https://ingest.example.net/t", secretFile: /etc/hook, format: array}
  - {name: bridge, kind: mqtt, url: "mqtts://broker.example.net:8883", topic: "t/{deviceId}", username: u, passwordFile: secrets/bridge}
  - {name: js, kind: nats, url: "tls://nats.example.net:4222", subject: "t.{deviceId}", stream: T, payload: body, credentialsFile: /n.creds}
`)
	want := []Output{
		{Name: "copy", Kind: "file", Path: filepath.Join(dir, "copy.ndjson"), Hub: "hub.example.net", Scope: "0ne00000001"},
		{Name: "hook", Kind: "webhook", URL: "https://ingest.example.net/t", SecretFile: "/etc/hook", Format: "array"},
		{Name: "bridge", Kind: "mqtt", URL: "mqtts://broker.example.net:8883", Topic: "t/{deviceId}", Username: "u", PasswordFile: filepath.Join(dir, "secrets/bridge")},
		{Name: "js", Kind: "nats", URL: "tls://nats.example.net:4222", Subject: "t.{deviceId}", Stream: "T", Payload: "body", CredentialsFile: "/n.creds"},
	}
	c := load(t, dir, nil, nil)
	if diff := cmp.Diff(want, c.Hub.Outputs); diff != "" {
		t.Error(diff)
	}
	other := c
	other.Hub.Outputs = c.Hub.Outputs[:3]
	if diff := cmp.Diff([]string{"hub.outputs"}, NeedRestart(c, other)); diff != "" {
		t.Error(diff)
	}
}

func TestAWrongOutputIsRefusedWithItsPlace(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"no name":              {"{kind: file, path: a}", `number 1 (""): name must be 1 to 64 letters`},
		"a name with a slash":  {"{name: ../a, kind: file, path: a}", "name must be 1 to 64 letters"},
		"no kind":              {"{name: a}", `kind is "": use file, webhook, mqtt or nats`},
		"another kind":         {"{name: a, kind: kafka}", `kind is "kafka": use file, webhook, mqtt or nats`},
		"what it needs":        {"{name: a, kind: mqtt, url: mqtt://b}", "a mqtt output needs topic"},
		"what another has":     {"{name: a, kind: webhook, url: 'https://h', topic: t}", "a webhook output has no topic; it may have name, kind, scope, hub, url, format, secretFile"},
		"a key that is not":    {"{name: a, kind: file, path: a, password: x}", `there is no key "password"`},
		"a value that is not":  {"{name: a, kind: webhook, url: 'https://h', format: xml}", `format is "xml": use ndjson or array`},
		"the same name":        {"{name: a, kind: file, path: a}\n  - {name: a, kind: file, path: b}", `number 2: the name "a" is taken`},
		"the name of ours":     {"{name: telemetry-file, kind: file, path: a}", `the name "telemetry-file" is taken`},
		"the same file":        {"{name: a, kind: file, path: a}\n  - {name: b, kind: file, path: ./a}", "is written already"},
		"the telemetry file":   {"{name: a, kind: file, path: telemetry/hub.ndjson}", "is written already"},
		"not a list's element": {"webhook", "keys are expected here"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "hub:\n  outputs:\n  - "+c.yaml+"\n")
			if _, err := Load(dir, "", noenv, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	for name, c := range map[string]struct{ yaml, want string }{
		"nowhere":       {"telemetry: ''", "telemetry would go nowhere"},
		"a tiny spool":  {"spoolMegabytes: 1", "must be at least 32"},
		"no such place": {"spool: ''", "hub.spool must name a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "hub:\n  "+c.yaml+"\n")
			if _, err := Load(dir, "", noenv, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func noenv(string) string { return "" }
