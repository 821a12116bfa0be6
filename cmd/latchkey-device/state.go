package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	stateVersion = 1
	stateFile    = "hub.json"
	maxState     = 64 << 10
)

// state is what the agent remembers of a registration. HubKey is TPM2B_PUBLIC ‖
// TPM2B_PRIVATE: without this TPM it is of no use.
type state struct {
	Version        int    `json:"version"`
	Endpoint       string `json:"endpoint"`
	IDScope        string `json:"idScope"`
	RegistrationID string `json:"registrationId"`
	AssignedHub    string `json:"assignedHub"`
	DeviceID       string `json:"deviceId"`
	HubKey         []byte `json:"hubKey"`
}

// prepareState makes the directory and tries to write to it.
func prepareState(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// saveState replaces the state file as a whole: after a crash or a power cut at
// any point there is the old one or the new one, never half of one.
func saveState(dir string, s state) (path string, err error) {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, stateFile)
	if err := replaceFile(dir, path, append(content, '\n')); err != nil {
		return "", fmt.Errorf("save state: %w", err)
	}
	return path, nil
}

func replaceFile(dir, path string, content []byte) error {
	temp, err := os.CreateTemp(dir, ".hub-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return syncDirectory(dir)
}

// syncDirectory makes the new name durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func loadState(dir string) (s state, err error) {
	path := filepath.Join(dir, stateFile)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("this device is not registered yet: run `latchkey-device register --state-dir %s` first (%w)", dir, err)
	}
	if err != nil {
		return s, fmt.Errorf("state: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxState))
	if err != nil {
		return s, fmt.Errorf("state: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("state file %s is damaged, register again: %w", path, err)
	}
	if s.Version != stateVersion || s.AssignedHub == "" || s.DeviceID == "" || len(s.HubKey) == 0 {
		return s, fmt.Errorf("state file %s is incomplete or of another version, register again", path)
	}
	return s, nil
}

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
