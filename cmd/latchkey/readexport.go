package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"latchkey.example/latchkey/dps"
)

// maxExportLine bounds a line of an export. The largest object that a service takes, with certificates and keys, is far below.
const maxExportLine = 1 << 20

// exportReader reads an export and keeps count of what its end line must say.
type exportReader struct {
	in     *bufio.Scanner
	digest hash.Hash
	lines  uint64 // read before the one under way
	header dps.ExportHeader
}

// readExport reads a whole export, gives each of its objects in their order, and says at the end whether it is what was signed: whole, in order,
// unchanged. Until it returns nil the objects are what a file says, not what a scope exported; so who acts on them reads the file to its
// end first. The signature is judged with the key in the header: whether that is the right one is for the caller to say. The value
// that each is given is good until it returns. A line is at most maxExportLine, and one is in memory at once.
func readExport(in io.Reader, each func(kind string, value json.RawMessage) error) (dps.ExportHeader, error) {
	r := &exportReader{in: bufio.NewScanner(in), digest: sha256.New()}
	r.in.Buffer(nil, maxExportLine)
	r.in.Split(wholeLines)
	line, err := r.line()
	if err != nil {
		return dps.ExportHeader{}, err
	}
	if r.header, err = dps.ParseExportHeader(line); err != nil {
		return dps.ExportHeader{}, err
	}
	r.take(line)
	var before dps.ExportObject
	for {
		line, err := r.line()
		if err != nil {
			return r.header, err
		}
		if end, ok, err := dps.ParseExportEnd(line); err != nil {
			return r.header, err
		} else if ok {
			return r.header, r.end(end)
		}
		object, err := dps.ParseExportLine(line[:len(line)-1])
		switch {
		case err != nil:
			return r.header, fmt.Errorf("line %d: %w; the file was changed", r.lines+1, err)
		case r.lines > 1 && !object.After(before):
			return r.header, fmt.Errorf("line %d is not in its order, or there twice; the file was changed", r.lines+1)
		}
		r.take(line)
		before = dps.ExportObject{Place: object.Place, ID: object.ID}
		if err := each(object.Kind, object.Value); err != nil {
			return r.header, err
		}
	}
}

// wholeLines gives lines with their ends, and not what follows the last of them.
func wholeLines(data []byte, atEOF bool) (advance int, line []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// line reads a line with its end; it is good until the next is read.
func (r *exportReader) line() ([]byte, error) {
	if r.in.Scan() {
		return r.in.Bytes(), nil
	}
	err := r.in.Err()
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line %d is longer than the %d bytes that a line of an export can have", r.lines+1, maxExportLine)
	case err == nil && r.lines == 0:
		return nil, errors.New("it is empty")
	case err == nil || errors.Is(err, io.ErrUnexpectedEOF): // of an answer too that was cut off in its framing
		return nil, fmt.Errorf("it is not whole: it was cut off after %d lines, before its end line", r.lines)
	}
	return nil, fmt.Errorf("reading the export: %w", err)
}

func (r *exportReader) take(line []byte) {
	r.digest.Write(line)
	r.lines++
}

// end judges the end line, each way to be wrong with a sentence of its own.
func (r *exportReader) end(end dps.ExportEnd) error {
	digest := [sha256.Size]byte(r.digest.Sum(nil))
	if err := r.nothingMore(); err != nil {
		return err
	}
	switch {
	case end.Lines != r.lines:
		return fmt.Errorf("it has %d lines before its end line, which says %d: lines were taken out or put in", r.lines, end.Lines)
	case end.SHA256 != hex.EncodeToString(digest[:]):
		return errors.New("its bytes are not those that were signed: something in it was changed")
	case !ed25519.Verify(r.header.PublicKey, dps.ExportMessage(digest), end.Signature):
		return errors.New("its signature is not good: the end line was changed, or somebody forged it")
	}
	return nil
}

func (r *exportReader) nothingMore() error {
	more := r.in.Scan()
	switch err := r.in.Err(); {
	case more || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, bufio.ErrTooLong):
		return errors.New("something follows its end line; the file was changed")
	case err != nil:
		return fmt.Errorf("reading the export: %w", err)
	}
	return nil
}
