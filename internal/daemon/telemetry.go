package daemon

import (
	"path/filepath"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/spool"
)

// telemetrySink is where the embedded hub's telemetry becomes durable before it is acknowledged.
type telemetrySink struct {
	file  *spool.LineFile
	group *spool.Group
}

func openTelemetry(c config.Config) (*telemetrySink, error) {
	disk := spool.Disk{}
	if err := disk.MakeFolder(filepath.Dir(c.Hub.Telemetry)); err != nil {
		return nil, err
	}
	file, err := spool.OpenLineFile(disk, c.Hub.Telemetry)
	if err != nil {
		return nil, err
	}
	return &telemetrySink{file, spool.NewGroup(file.Append)}, nil
}

// Write returns when the line is durable.
func (t *telemetrySink) Write(line []byte) (int, error) { return t.group.Write(line) }

// Reopen follows a rotation.
func (t *telemetrySink) Reopen() error { return t.file.Reopen() }

// Close ends it after the hub.
func (t *telemetrySink) Close() error {
	t.group.Close()
	return t.file.Close()
}
