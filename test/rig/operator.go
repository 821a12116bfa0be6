package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// Latchkey runs an operator's command as from another machine: over HTTPS with
// the connection string of the access policy that has all rights.
func (s *Access) Latchkey(ctx context.Context, arguments ...string) (Result, error) {
	return s.LatchkeyReading(ctx, nil, arguments...)
}

// LatchkeyReading is Latchkey with something on the command's standard input.
func (s *Access) LatchkeyReading(ctx context.Context, in io.Reader, arguments ...string) (Result, error) {
	return Run(ctx, Command{Path: s.programs.Service, Args: arguments, In: in, Env: s.OperatorEnv()})
}

// OperatorEnv is the environment, NAME=value, of commands that run at another
// machine. It holds the connection string.
func (s *Access) OperatorEnv() []string {
	return []string{
		"LATCHKEY_CONNECTION_STRING=" + s.ConnectionString,
		"LATCHKEY_CONNECT=" + s.HTTPS,
		"LATCHKEY_CA_FILE=" + s.CAFile,
	}
}

// Enroll adds an individual enrollment with `latchkey enroll add`. The EK is
// the base64 of a TPM2B_PUBLIC, as `latchkey-device ek` shows it.
func (s *Access) Enroll(ctx context.Context, registrationID, endorsementKey string) error {
	_, err := s.Latchkey(ctx, "enroll", "add", "--registration-id", registrationID, "--endorsement-key", endorsementKey)
	return err
}

// Put is Call with PUT, whose answer tells nothing new.
func (s *Access) Put(ctx context.Context, path, body string) error {
	_, err := s.Call(ctx, http.MethodPut, path, body)
	return err
}

// Call sends a request to the management API, with a token that lasts a minute, and returns the body of an answer 200.
func (s *Access) Call(ctx context.Context, method, path, body string) ([]byte, error) {
	connection, err := dps.ParseConnectionString(s.ConnectionString)
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	token, err := dps.NewToken(connection.Signer(), connection.HostName, time.Now().Add(time.Minute), connection.SharedAccessKeyName)
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, s.URL(path+"?api-version=2021-10-01"), strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	request.Header.Set("Authorization", token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := s.Client().Do(request)
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return text, err
}

// Message is a line of the embedded hub's telemetry file: one message of a
// device, as the hub took it.
type Message struct {
	Time             time.Time         `json:"time"`
	Scope            string            `json:"scope"`
	Hub              string            `json:"hub"`
	DeviceID         string            `json:"deviceId"`
	Properties       map[string]string `json:"properties"`
	SystemProperties map[string]string `json:"systemProperties"`
	Body             json.RawMessage   `json:"body"`       // if the payload was JSON
	BodyBase64       []byte            `json:"bodyBase64"` // if it was not
}

// Telemetry reads what the embedded hub has written of its devices' messages
// to the file telemetry/hub.ndjson of the data directory. A last line without
// its end is left out.
func (s *Service) Telemetry() ([]Message, error) {
	content, err := os.ReadFile(filepath.Join(s.DataDir, "telemetry", "hub.ndjson"))
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	var messages []Message
	for line := range bytes.Lines(content[:bytes.LastIndexByte(content, '\n')+1]) {
		var m Message
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, fmt.Errorf("rig: telemetry line %d: %w", len(messages)+1, err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}
