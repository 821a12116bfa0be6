package simtpm

import (
	"encoding/binary"
	"fmt"
	"io"
)

// TPM commands and responses start with tag (2 bytes), total size (4 bytes)
// and code (4 bytes): TPM 2.0 Part 1, 18.
const (
	headerSize = 10
	maxFrame   = 4096 // MAX_COMMAND_SIZE and MAX_RESPONSE_SIZE of both TPMs
)

// readFrame reads one command or response whose length stands in its header.
func readFrame(r io.Reader) ([]byte, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[2:])
	if size < headerSize || size > maxFrame {
		return nil, fmt.Errorf("simtpm: frame of %d bytes", size)
	}
	frame := make([]byte, size)
	copy(frame, header)
	_, err := io.ReadFull(r, frame[headerSize:])
	return frame, err
}
