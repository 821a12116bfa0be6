package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/outbound"
	"latchkey.example/latchkey/internal/outflow"
	"latchkey.example/latchkey/internal/spool"
)

// sink is where the embedded hub's telemetry becomes durable before it is acknowledged.
type sink interface {
	io.Writer
	// Reload follows a rotation, and reads secrets anew.
	Reload() error
	// Trouble is a sentence for each thing that keeps telemetry from where it belongs.
	Trouble() []string
	// Close ends it after the hub.
	Close() error
}

// spoolCallTime is how long a webhook may take for a batch.
const spoolCallTime = 20 * time.Second

// openTelemetry opens the one file, or the spool where there are outputs. What a spool holds that was used before goes to the file first.
func (s *service) openTelemetry(ctx context.Context) (sink, error) {
	c := s.config
	old, err := filepath.Glob(filepath.Join(c.Hub.Spool, "*.log"))
	if err != nil {
		return nil, err
	}
	if len(old) == 0 && len(c.Hub.Outputs) == 0 {
		return openTelemetryFile(c)
	}
	flow, err := s.openFlow(c)
	if err != nil {
		return nil, err
	}
	if len(c.Hub.Outputs) > 0 {
		return flow, nil
	}
	s.log.Info("telemetry: there are no outputs any more, what the spool holds goes to the file", "spool", c.Hub.Spool, "file", c.Hub.Telemetry)
	err = flow.Drained(ctx)
	if err = errors.Join(err, flow.Close()); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(c.Hub.Spool); err != nil {
		return nil, err
	}
	return openTelemetryFile(c)
}

// openFlow opens the spool with its outputs, of which the telemetry file is one.
func (s *service) openFlow(c config.Config) (*flowSink, error) {
	calls, err := webhookConfig(c)
	if err != nil {
		return nil, err
	}
	calls.Timeout = spoolCallTime
	if err := (spool.Disk{}).MakeFolder(c.Hub.Spool); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(c.Hub.Spool, "lock"))
	if err != nil {
		return nil, fmt.Errorf("another latchkey uses the telemetry spool %s; stop it first", c.Hub.Spool)
	}
	flow := outflow.Config{Folder: c.Hub.Spool, Limit: int64(c.Hub.SpoolMegabytes) << 20, Outputs: outputs(c), Webhooks: outbound.New(calls), Logger: s.log}
	if len(c.Hub.Outputs) > 0 { // else it is open for a moment only
		flow.Metrics = s.metrics
	}
	f, err := outflow.Open(flow)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &flowSink{f, lock}, nil
}

// flowSink is a spool that no other process uses.
type flowSink struct {
	*outflow.Flow
	lock *os.File
}

func (f *flowSink) Close() error { return errors.Join(f.Flow.Close(), f.lock.Close()) }

// outputs are those of the configuration.
func outputs(c config.Config) (all []outflow.Output) {
	if c.Hub.Telemetry != "" {
		all = append(all, outflow.Output{Name: config.TelemetryFile, To: outflow.ToFile{Path: c.Hub.Telemetry}})
	}
	for _, o := range c.Hub.Outputs {
		all = append(all, outflow.Output{Name: o.Name, Scope: o.Scope, Hub: o.Hub, To: outputTo(o)})
	}
	return all
}

func outputTo(o config.Output) outflow.To {
	trust := outflow.Trust{CAFile: o.CAFile, CertificateFile: o.CertificateFile, KeyFile: o.KeyFile}
	payload := outflow.PayloadRecord
	if o.Payload != "" {
		payload = outflow.Payload(o.Payload)
	}
	switch o.Kind {
	case "file":
		return outflow.ToFile{Path: o.Path}
	case "webhook":
		format := outflow.Lines
		if o.Format != "" {
			format = outflow.Format(o.Format)
		}
		return outflow.ToWebhook{URL: o.URL, Format: format, KeyFile: o.SecretFile}
	case "mqtt":
		id := o.ClientID
		if id == "" {
			id = "latchkey-" + o.Name
		}
		return outflow.ToMQTT{URL: o.URL, ClientID: id, Topic: o.Topic, Payload: payload, Username: o.Username, PasswordFile: o.PasswordFile, Trust: trust}
	}
	return outflow.ToNATS{URL: o.URL, Subject: o.Subject, Stream: o.Stream, Payload: payload, CredentialsFile: o.CredentialsFile, TokenFile: o.TokenFile,
		Username: o.Username, PasswordFile: o.PasswordFile, Trust: trust}
}

// fileSink is the telemetry file alone.
type fileSink struct {
	file  *spool.LineFile
	group *spool.Group
}

func openTelemetryFile(c config.Config) (sink, error) {
	disk := spool.Disk{}
	if err := disk.MakeFolder(filepath.Dir(c.Hub.Telemetry)); err != nil {
		return nil, err
	}
	file, err := spool.OpenLineFile(disk, c.Hub.Telemetry)
	if err != nil {
		return nil, err
	}
	return &fileSink{file, spool.NewGroup(file.Append)}, nil
}

func (t *fileSink) Write(line []byte) (int, error) { return t.group.Write(line) }
func (t *fileSink) Reload() error                  { return t.file.Reopen() }
func (t *fileSink) Trouble() []string              { return nil }

func (t *fileSink) Close() error {
	t.group.Close()
	return t.file.Close()
}
