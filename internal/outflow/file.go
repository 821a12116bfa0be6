package outflow

import (
	"context"
	"path/filepath"

	"latchkey.example/latchkey/internal/spool"
)

// ToFile appends records to an NDJSON file.
type ToFile struct{ Path string }

func (t ToFile) open(Config) (sender, error) {
	if err := (spool.Disk{}).MakeFolder(filepath.Dir(t.Path)); err != nil {
		return nil, err
	}
	file, err := spool.OpenLineFile(spool.Disk{}, t.Path)
	return fileSender{file}, err
}

type fileSender struct{ file *spool.LineFile }

func (f fileSender) send(_ context.Context, messages []message) (int, error) {
	lines := make([][]byte, len(messages))
	for i, m := range messages {
		lines[i] = m.line
	}
	if err := f.file.Append(lines); err != nil {
		return 0, err
	}
	return len(messages), nil
}

func (f fileSender) reload() error { return f.file.Reopen() }
func (f fileSender) close() error  { return f.file.Close() }
