package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// TelemetryFile is the name of the output that writes the file of hub.telemetry where there are others too.
const TelemetryFile = "telemetry-file"

// Output is one place that telemetry is forwarded to. Which members it may have hangs on its kind.
type Output struct {
	// Name of letters, digits, - and _. The place in the spool hangs on it.
	Name string `yaml:"name"`
	// Kind is file, webhook, mqtt or nats.
	Kind string `yaml:"kind"`
	// Scope is the ID scope whose telemetry it is for. Empty: all.
	Scope string `yaml:"scope"`
	// Hub is the host name of the hub whose telemetry it is for. Empty: all.
	Hub string `yaml:"hub"`

	// Path of the file.
	Path string `yaml:"path"`
	// URL of the webhook (https), the broker (mqtts, mqtt) or the NATS server (tls, nats).
	URL string `yaml:"url"`
	// Format of a webhook's body: ndjson (default) or array.
	Format string `yaml:"format"`
	// SecretFile holds the key that a webhook's calls are signed with: whsec_ and base64.
	SecretFile string `yaml:"secretFile"`
	// ClientID at the MQTT broker. Empty: latchkey- and the name.
	ClientID string `yaml:"clientId"`
	// Topic at the MQTT broker, with {scope}, {hub} and {deviceId}.
	Topic string `yaml:"topic"`
	// Subject at NATS, with {scope}, {hub} and {deviceId}.
	Subject string `yaml:"subject"`
	// Stream of JetStream that must take it. Empty: any.
	Stream string `yaml:"stream"`
	// Payload at MQTT and NATS: record (default), all that is known, or body, what the device sent.
	Payload string `yaml:"payload"`
	// Username at the broker.
	Username string `yaml:"username"`
	// PasswordFile holds the password at the broker.
	PasswordFile string `yaml:"passwordFile"`
	// TokenFile holds the token at NATS.
	TokenFile string `yaml:"tokenFile"`
	// CredentialsFile holds a NATS user's credentials.
	CredentialsFile string `yaml:"credentialsFile"`
	// CAFile holds, as PEM, the authorities that the broker may have its certificate from. Empty: the system's.
	CAFile string `yaml:"caFile"`
	// CertificateFile holds the certificate that is shown to the broker, as PEM.
	CertificateFile string `yaml:"certificateFile"`
	// KeyFile holds its key.
	KeyFile string `yaml:"keyFile"`
}

// outputKinds says which members a kind needs, and which it may have besides name, kind, scope and hub.
var outputKinds = map[string]struct{ needs, may []string }{
	"file":    {[]string{"path"}, nil},
	"webhook": {[]string{"url"}, []string{"format", "secretFile"}},
	"mqtt":    {[]string{"url", "topic"}, []string{"clientId", "payload", "username", "passwordFile", "caFile", "certificateFile", "keyFile"}},
	"nats": {[]string{"url", "subject"}, []string{"stream", "payload", "username", "passwordFile", "tokenFile", "credentialsFile", "caFile", "certificateFile",
		"keyFile"}},
}

// values are the members of an output that are given, by key.
func (o *Output) values() map[string]string {
	given := map[string]string{}
	v := reflect.ValueOf(*o)
	for i := range v.NumField() {
		if text := v.Field(i).String(); text != "" {
			given[v.Type().Field(i).Tag.Get("yaml")] = text
		}
	}
	return given
}

// checkOutputs refuses what cannot work, with the place in the list and the name.
func (h *Hub) checkOutputs() error {
	seen := map[string]bool{TelemetryFile: true}
	for i := range h.Outputs {
		o := &h.Outputs[i]
		if err := o.check(); err != nil {
			return fmt.Errorf("hub.outputs, number %d (%q): %w", i+1, o.Name, err)
		}
		if seen[o.Name] {
			return fmt.Errorf("hub.outputs, number %d: the name %q is taken", i+1, o.Name)
		}
		seen[o.Name] = true
	}
	for i, o := range h.Outputs {
		if o.Kind == "file" && (o.Path == h.Telemetry || slices.ContainsFunc(h.Outputs[:i], func(p Output) bool { return p.Path == o.Path })) {
			return fmt.Errorf("hub.outputs, number %d (%q): the file %s is written already", i+1, o.Name, o.Path)
		}
	}
	switch {
	case h.Telemetry == "" && len(h.Outputs) == 0:
		return errors.New("hub.telemetry is empty and there are no hub.outputs: telemetry would go nowhere")
	case h.Spool == "":
		return errors.New("hub.spool must name a folder")
	case h.SpoolMegabytes < 32:
		return errors.New("hub.spoolMegabytes must be at least 32")
	}
	return nil
}

func (o *Output) check() error {
	if strings.Trim(o.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || o.Name == "" || len(o.Name) > 64 {
		return errors.New("name must be 1 to 64 letters, digits, - or _")
	}
	kind, ok := outputKinds[o.Kind]
	if !ok {
		return fmt.Errorf("kind is %q: use file, webhook, mqtt or nats", o.Kind)
	}
	given := o.values()
	for _, key := range kind.needs {
		if given[key] == "" {
			return fmt.Errorf("a %s output needs %s", o.Kind, key)
		}
	}
	common := []string{"name", "kind", "scope", "hub"}
	for key := range given {
		if !slices.Contains(slices.Concat(common, kind.needs, kind.may), key) {
			return fmt.Errorf("a %s output has no %s; it may have %s", o.Kind, key, strings.Join(slices.Concat(common, kind.needs, kind.may), ", "))
		}
	}
	return oneOf(map[string][]string{"format": {"ndjson", "array"}, "payload": {"record", "body"}}, given)
}

func oneOf(choices map[string][]string, given map[string]string) error {
	for key, may := range choices {
		if v := given[key]; v != "" && !slices.Contains(may, v) {
			return fmt.Errorf("%s is %q: use %s", key, v, strings.Join(may, " or "))
		}
	}
	return nil
}

// settle fills in defaults, and has relative paths count from the data directory.
func (o *Output) settle(dataDir string) {
	for _, p := range []*string{&o.Path, &o.SecretFile, &o.PasswordFile, &o.TokenFile, &o.CredentialsFile, &o.CAFile, &o.CertificateFile, &o.KeyFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dataDir, *p)
		}
	}
	o.Hub = strings.ToLower(o.Hub)
}
