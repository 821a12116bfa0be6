package adminapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/web"
)

// maxLine bounds one line of an import, without its end: the longest enrollment in CSV, in which each of its quotes may stand twice.
const maxLine = 2 * dps.MaxImportLine

// errLongLine is the error of a line that was passed over.
var errLongLine = fmt.Errorf("the line is longer than %d bytes", maxLine)

// lines reads a streamed body line by line; memory is bounded by one line.
type lines struct {
	stream *web.Stream
	in     *bufio.Reader
	number uint64 // of the line read last, from 1
}

func newLines(stream *web.Stream) *lines {
	return &lines{stream: stream, in: bufio.NewReaderSize(stream, maxLine+2)} // CR LF too
}

// next gives the next line without its end, valid until the next call; errLongLine if it was too long. io.EOF says that all lines were read,
// another error that the body was cut off: what came of a line is not a line.
func (l *lines) next() ([]byte, error) {
	line, err := l.in.ReadSlice('\n')
	if err == nil || len(line) > 0 {
		l.number++
	}
	long := errors.Is(err, bufio.ErrBufferFull)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = l.in.ReadSlice('\n')
	}
	switch {
	case errors.Is(err, io.EOF) && (len(line) > 0 || long): // the last line may lack its end; the next call finds the end
	case err != nil:
		return nil, err
	}
	l.stream.Progress()
	line = trimEnd(line)
	if long || len(line) > maxLine {
		return nil, errLongLine
	}
	return line, nil
}

// trimEnd cuts LF, or CR LF.
func trimEnd(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
	}
	return line
}
