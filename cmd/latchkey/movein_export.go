package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"latchkey.example/latchkey/dps"
)

// exportMark is how an export of Latchkey's own begins.
var exportMark = []byte(`{"latchkeyExport":`)

// exportSource reads an export. It is verified to its end before the first entry is given, so that nothing of a changed or cut file is written.
type exportSource struct {
	in     io.Reader
	report *moveReport
}

func (s exportSource) each(do func(sourceEntry) error) error {
	header, err := s.read(ignoredObject)
	if err != nil {
		return err
	}
	s.report.note(fmt.Sprintf("the export of the scope %s is whole and signed with the key %s; `latchkey export key` at the source says whether that is its key", header.IDScope, base64.StdEncoding.EncodeToString(header.PublicKey)))
	_, err = s.read(func(kind string, value json.RawMessage) error {
		switch kind {
		case dps.ExportCA:
			return s.authority(value)
		case dps.ExportRegistration:
			return s.registration(value)
		}
		return do(ofExport(header, value))
	})
	return err
}

func ignoredObject(string, json.RawMessage) error { return nil }

func (s exportSource) read(each func(string, json.RawMessage) error) (dps.ExportHeader, error) {
	if !rewind(s.in) {
		return dps.ExportHeader{}, errors.New("an export is read twice, so that it is verified before anything is written: name a file, not a pipe")
	}
	header, err := readExport(s.in, each)
	if err != nil {
		return header, fmt.Errorf("reading the export: %w", err)
	}
	return header, nil
}

// rewind goes back to the beginning, if that can be done.
func rewind(in io.Reader) bool {
	file, ok := in.(io.Seeker)
	if !ok {
		return false
	}
	_, err := file.Seek(0, io.SeekStart)
	return err == nil
}

// ofExport is an enrollment or a group. A target would make new keys for an entry without keys, with which no device could register.
func ofExport(header dps.ExportHeader, value json.RawMessage) sourceEntry {
	e, mechanism := identify(bytes.Clone(value))
	if e.err == nil && mechanism == dps.AttestationSymmetricKey && !header.Secrets {
		e.err = errors.New("the export holds no keys: make it with --secrets")
	}
	return e
}

func (s exportSource) authority(value json.RawMessage) error {
	var ca struct{ Name string }
	if err := json.Unmarshal(value, &ca); err != nil {
		return err
	}
	s.report.note(fmt.Sprintf("the CA certificate %s does not move: add and verify it here (latchkey ca add, latchkey ca verify)", ca.Name))
	return nil
}

// registration counts what the devices of groups make anew.
func (s exportSource) registration(value json.RawMessage) error {
	var state struct {
		SymmetricKey, X509 struct{ EnrollmentGroupID string }
	}
	if err := json.Unmarshal(value, &state); err != nil {
		return err
	}
	if group := state.SymmetricKey.EnrollmentGroupID + state.X509.EnrollmentGroupID; group != "" {
		s.report.mu.Lock()
		s.report.Groups[group]++
		s.report.mu.Unlock()
	}
	return nil
}
