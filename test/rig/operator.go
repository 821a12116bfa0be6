package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Latchkey runs an operator's command as from another machine: over HTTPS with
// the connection string of the access policy that has all rights.
func (s *Service) Latchkey(ctx context.Context, arguments ...string) (Result, error) {
	return Run(ctx, Command{Path: s.config.Programs.Service, Args: arguments, Env: []string{
		"LATCHKEY_CONNECTION_STRING=" + s.ConnectionString,
		"LATCHKEY_CONNECT=" + s.HTTPS,
		"LATCHKEY_CA_FILE=" + s.CAFile,
	}})
}

// Enroll adds an individual enrollment with `latchkey enroll add`. The EK is
// the base64 of a TPM2B_PUBLIC, as `latchkey-device ek` shows it.
func (s *Service) Enroll(ctx context.Context, registrationID, endorsementKey string) error {
	_, err := s.Latchkey(ctx, "enroll", "add", "--registration-id", registrationID, "--endorsement-key", endorsementKey)
	return err
}

// Telemetry reads what the embedded hub has written of its devices' messages:
// the lines of all NDJSON files in the data directory's telemetry folder, by
// file name, then in order. A last line without its end is left out.
func (s *Service) Telemetry() ([]json.RawMessage, error) {
	files, err := filepath.Glob(filepath.Join(s.DataDir, "telemetry", "*.ndjson"))
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	slices.Sort(files)
	var lines []json.RawMessage
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("rig: %w", err)
		}
		whole := content[:bytes.LastIndexByte(content, '\n')+1]
		for line := range bytes.Lines(whole) {
			lines = append(lines, json.RawMessage(bytes.TrimSpace(line)))
		}
	}
	return lines, nil
}
